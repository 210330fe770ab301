"""The scoring core: checkpoints, encoding, batching, and the scorers that run a model."""
