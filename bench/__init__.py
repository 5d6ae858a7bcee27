"""Benchmarks: what Ullage adds to what it stands on. Never part of a verdict."""
