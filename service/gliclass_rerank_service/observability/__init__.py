"""Metrics, traces, logs, and the middleware that feeds them."""
