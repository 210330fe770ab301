"""Checks and speed of the models on GPUs."""
