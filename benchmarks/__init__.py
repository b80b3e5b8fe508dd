"""Measurements of tinygrad_scratch beside hand-derived NumPy and beside other libraries: ``python -m benchmarks``."""
