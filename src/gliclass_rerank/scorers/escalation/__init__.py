"""Escalation: a large scorer answers where a small one is unsure."""
