"""A local AWS with customers that are set up by the guide, for the demo and the tests."""
