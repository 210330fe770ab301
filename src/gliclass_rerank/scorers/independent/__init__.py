"""Checkpoints with independent labels: a text is read once, and each label reads the text and itself."""
