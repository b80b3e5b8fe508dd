"""Capture: trace -> rewrite -> plan (memory) -> emit (NumPy source; compiled). See ``capture``."""

from tinygrad_scratch.capture.step import Captured, capture

__all__ = ["Captured", "capture"]
