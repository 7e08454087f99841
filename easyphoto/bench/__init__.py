"""Benchmarks that come with the project: PortraitBench."""
