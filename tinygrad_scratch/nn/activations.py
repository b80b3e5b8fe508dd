"""Activations as functions that are compositions of rows; the others are rows themselves (``tg.relu``)."""

from math import pi, sqrt
from typing import Any

import numpy as np

from tinygrad_scratch.ops.fused import sigmoid
from tinygrad_scratch.ops.special import erf


def elu(x: Any, alpha: float = 1.0) -> Any:
    """x where x > 0, alpha (exp(x) - 1) elsewhere; the derivative at 0 is alpha."""
    x = x if hasattr(x, "dtype") else np.asarray(x)
    return np.where(np.greater(x, 0), x, alpha * np.expm1(np.clip(x, None, 0)))


def gelu(x: Any, approximate: str = "none") -> Any:
    """x Phi(x) = x (1 + erf(x / sqrt(2))) / 2; with "tanh", x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x**3))) / 2.

    >>> gelu(np.array([-1.0, 0.0, 1.0])).round(4).tolist()
    [-0.1587, 0.0, 0.8413]
    """
    x = x if hasattr(x, "dtype") else np.asarray(x)
    if approximate == "none":
        return x * (erf(x * sqrt(0.5)) + 1) * 0.5
    if approximate != "tanh":
        raise ValueError(f"approximate is {approximate!r}: it must be 'none' or 'tanh'")
    return x * (np.tanh((x * x * 0.044715 + 1) * x * sqrt(2 / pi)) + 1) * 0.5


def silu(x: Any) -> Any:
    """x sigmoid(x)."""
    return x * sigmoid(x)
