"""Checkpoints: what their files say, and how a text becomes token ids."""
