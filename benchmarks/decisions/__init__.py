"""Benchmarks of decisions: quality on public sets, cost of questions, coherence."""
