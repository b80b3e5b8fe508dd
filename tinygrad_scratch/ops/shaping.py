"""Rows that move elements without changing them; each rule moves the cotangent back."""

from collections.abc import Callable
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np

from tinygrad_scratch._typing import Shape
from tinygrad_scratch.domains import Domain, reals, shapes
from tinygrad_scratch.registry import linear

_SMALL = 4096  # elements: below it, filling a new array is faster than np.broadcast_to's Python


def _reshape(x: Any, shape: Any = None) -> Any:
    return x.reshape(shape)


def _transpose(x: Any, axes: Any = None) -> Any:
    return x.transpose(axes)


def _broadcast_to(x: Any, shape: Any = None) -> Any:
    if prod(shape) > _SMALL:
        return np.broadcast_to(x, shape)
    y = np.empty(shape, x.dtype)
    y[...] = x
    return y


def _pad_zeros(x: Any, pad_width: Any = ()) -> Any:
    return np.pad(x, pad_width)


def _concatenate(*xs: Any, axis: int = 0) -> Any:
    return np.concatenate(xs, axis=axis)


def _split_back(g: Any, y: Any, *xs: Any, axis: int = 0) -> Callable[[int], Any]:
    edges = [0, *accumulate(x.shape[axis] for x in xs)]
    before = (slice(None),) * (axis % y.ndim)
    return lambda i: g[(*before, slice(edges[i], edges[i + 1]))]


def _inside(pad_width: Any, shape: Shape) -> tuple[slice, ...]:
    return tuple(slice(low, low + n) for (low, _), n in zip(pad_width, shape, strict=True))


def _back(g: Any, y: Any, x: Any, **_: Any) -> Any:
    """The rule of every row that only regroups axes."""
    return g.reshape(x.shape)


_joined = Domain(cases=((((2, 3), (1, 3)), {"axis": 0}), (((2, 1), (2, 3), (2, 2)), {"axis": -1}), (((3,),), {})))
_axes = reals.with_cases(
    (((2, 3, 4),), {"axes": (2, 0, 1)}), (((2, 3),), {}), (((),), {}), (((2, 1, 3),), {"axes": (-1, 1, 0)})
)
_flips = reals.with_cases((((2, 3),), {}), (((2, 3),), {"axis": -1}), (((2, 3, 2),), {"axis": (0, 2)}))

# fmt: off
reshape      = linear(_reshape,      _back, answers=(), domain=reals.with_cases((((2, 6),), {"shape": (3, 4)}), (((2, 6),), {"shape": (-1,)})))
expand_dims  = linear(np.expand_dims, _back, domain=reals.with_cases((((2, 3),), {"axis": 1}), (((3,),), {"axis": (0, -1)})))
squeeze      = linear(np.squeeze,    _back, domain=reals.with_cases((((2, 1, 3),), {}), (((1, 3, 1),), {"axis": -1})))
transpose    = linear(_transpose,    lambda g, y, x, axes=None: g.transpose(_inverse(axes)), answers=np.transpose, domain=_axes)
swapaxes     = linear(np.swapaxes,   lambda g, y, x, axis1, axis2: g.swapaxes(axis1, axis2), domain=shapes((2, 3, 4), axis1=0, axis2=-1))
moveaxis     = linear(np.moveaxis,   lambda g, y, x, source, destination: np.moveaxis(g, destination, source), domain=shapes((2, 3, 4), source=0, destination=-1))
flip         = linear(np.flip,       lambda g, y, x, axis=None: np.flip(g, axis=axis), domain=_flips)
broadcast_to = linear(_broadcast_to, lambda g, y, x, shape=None: g, answers=np.broadcast_to, domain=shapes((3, 1), shape=(2, 3, 4)))
pad_zeros    = linear(_pad_zeros,    lambda g, y, x, pad_width=(): g[_inside(pad_width, x.shape)], domain=shapes((2, 3), pad_width=((1, 0), (0, 2))))
concatenate  = linear(_concatenate,  _split_back, variadic=True, domain=_joined)
# fmt: on


def _inverse(axes: Any) -> Any:
    return None if axes is None else tuple(int(i) for i in np.argsort([axis % len(axes) for axis in axes]))
