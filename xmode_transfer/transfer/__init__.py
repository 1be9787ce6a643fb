"""What is done to a destination: plan, send, prove, publish, remove."""
