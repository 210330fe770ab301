"""Benchmarks, run by `gliclass-rerank bench NAME`."""
