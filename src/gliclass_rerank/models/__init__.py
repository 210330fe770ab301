"""Checkpoints: their configuration, and the encoding of texts as token ids."""
