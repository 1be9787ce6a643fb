"""A local AWS whose customers are set up by the guide, for the demo and the tests."""
