"""Training data and evaluation of `mini`."""
