"""Throughput, latency and scaling."""
