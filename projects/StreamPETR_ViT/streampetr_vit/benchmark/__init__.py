"""Measuring speed and memory: what tools/benchmark.py calls. Nothing here changes a result."""
