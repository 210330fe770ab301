"""Fact-checking: an answer and evidence in, a verdict per claim out."""
