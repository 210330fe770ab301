"""Scorers: each runs a model or calls a server with one."""
