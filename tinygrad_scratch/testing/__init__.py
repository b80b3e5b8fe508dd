"""Checks that are shipped: gradients against finite differences, and every promise that a row of the table makes.

``check_grad`` and ``check_op`` need NumPy alone; the strategies (``arrays``, ``tensors``, ``op_inputs``,
``indices``, ``subscripts``) need Hypothesis and are imported when they are asked for.

>>> import numpy as np, tinygrad_scratch as tg
>>> check_grad(lambda a, b: np.tanh(a @ b), np.ones((2, 3)), np.ones(3))
>>> cube = tg.elementwise(lambda x: x**3, lambda g, y, x: g * 3 * x**2, name="cube for check_op")
>>> check_op(cube)
"""

from typing import Any

from tinygrad_scratch.testing import forward_properties  # noqa: F401  (its promises join the table)
from tinygrad_scratch.testing.differences import check_grad
from tinygrad_scratch.testing.properties import PROPERTIES, check_op, samples

__all__ = ["PROPERTIES", "arrays", "check_grad", "check_op", "indices", "op_inputs", "samples", "subscripts", "tensors"]

_STRATEGIES = ("arrays", "indices", "op_inputs", "subscripts", "tensors")


def __getattr__(name: str) -> Any:
    if name not in _STRATEGIES:
        raise AttributeError(f"module 'tinygrad_scratch.testing' has no attribute {name!r}")
    try:
        from tinygrad_scratch.testing import strategies
    except ImportError as error:
        raise ImportError(
            f"tinygrad_scratch.testing.{name} needs Hypothesis: pip install tinygrad_scratch[test]"
        ) from error
    return getattr(strategies, name)
