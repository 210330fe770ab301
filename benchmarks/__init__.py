"""Benchmarks; `gliclass-rerank bench NAME` runs one."""
