"""The names of types that every module shares."""

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
"""A NumPy array of any shape and any real dtype."""

Shape = tuple[int, ...]

Rule = Callable[..., Any]
"""A derivative rule: (cotangent, answer, *inputs, **keywords) -> contribution to one input's cotangent.

Typed ``Any`` because it is fed arrays (for gradients) or Tensors (for gradients of gradients, and capture).
"""
