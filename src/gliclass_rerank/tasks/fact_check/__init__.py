"""Fact-checking: judge each claim of an answer by evidence."""
