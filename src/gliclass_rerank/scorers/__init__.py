"""Scorers: each runs a model, or calls a server that does."""
