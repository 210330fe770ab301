"""Decisions: typed questions about a text or a JSON value, answered with probabilities."""
