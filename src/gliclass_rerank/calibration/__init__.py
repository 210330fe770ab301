"""Calibrated probabilities from logits."""
