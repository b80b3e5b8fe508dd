"""Random numbers that a captured step draws anew in every call. The generator is the caller's, always."""

from typing import Any

import numpy as np

from tinygrad_scratch._typing import Array, Shape
from tinygrad_scratch.context import state
from tinygrad_scratch.domains import Domain
from tinygrad_scratch.registry import Op
from tinygrad_scratch.tensor import Tensor, wrap


def _random(*, rng: np.random.Generator, shape: Shape, dtype: Any) -> Array:
    return rng.random(shape, dtype)


RANDOM = Op(_random, (), "general", Domain(), name="random")
"""Not in the table of rows: it has no inputs, and no derivative."""


def uniform(shape: Shape, rng: np.random.Generator, dtype: Any = np.float32) -> Array | Tensor:
    """Numbers from U[0, 1), of float32 or float64: an array, or, while a step is recorded, a Tensor of the step, which
    draws from `rng` anew in each of its calls.

    >>> uniform((2, 3), np.random.default_rng(0)).shape
    (2, 3)
    """
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy Generator, np.random.default_rng(seed), not {type(rng).__name__}")
    mode = state.mode
    tell = getattr(mode, "drawing", None)  # a checkpoint, which will have to draw the same again
    if tell is not None:
        tell(rng)
    drawn = _random(rng=rng, shape=shape, dtype=dtype)
    if mode is not True and mode is not False:
        return wrap(mode.record(RANDOM, (), {"rng": rng, "shape": shape, "dtype": np.dtype(dtype)}, drawn, ()))
    return drawn
