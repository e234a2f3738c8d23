"""Benchmarks of the project's speed: `make bench` runs them all."""
