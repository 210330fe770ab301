"""The GPU path, checked and measured."""
