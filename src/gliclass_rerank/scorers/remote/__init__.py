"""Scorers over HTTP."""
