"""Metrics of rankings and decisions."""
