"""Demonstration of reranking on a collection that every machine has: Python's own documentation."""
