"""Benchmarks: each prints a table and belongs to a `make bench-...`; none is a test."""
