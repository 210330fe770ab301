"""Dialects: each translates request bodies to library calls, and results to the response of its clients."""
