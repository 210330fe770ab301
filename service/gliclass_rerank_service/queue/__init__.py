"""Batching across callers, in turns of equally many tokens."""
