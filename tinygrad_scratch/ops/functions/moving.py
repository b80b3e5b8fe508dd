"""Functions that only move elements, or leave some out: NumPy's own function, run on the elements' positions.

All options are therefore NumPy's own, and so are the errors. An element that is taken several times collects what comes
back from all of its copies.
"""

from collections.abc import Callable
from itertools import accumulate, pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from tinygrad_scratch.ops import shaping
from tinygrad_scratch.ops.composed import ravel, reshape
from tinygrad_scratch.registry import implements


def array(x: Any) -> Any:
    """Lists and numbers as arrays (lists that hold a Tensor as a Tensor); arrays and Tensors as they are."""
    if hasattr(x, "ndim"):
        return x
    if isinstance(x, (list, tuple)) and holds_tensor(x):
        return np.stack([array(part) for part in x])
    return np.asarray(x)


def holds_tensor(x: Any) -> bool:
    """Whether a Tensor lies in `x`, however deep in lists and tuples."""
    return any(map(holds_tensor, x)) if isinstance(x, (list, tuple)) else hasattr(x, "requires_grad")


def values(x: Any) -> Any:
    """The values of an operand that decides which elements are taken, as an array (a captured step refuses)."""
    return np.asarray(
        [values(part) for part in x] if isinstance(x, (list, tuple)) else getattr(x, "numpy", lambda: x)()
    )


def rearranged(arrange: Callable[..., Any], *arrays: Any) -> Any:
    """What `arrange` gives of `arrays`, if it only moves elements: it is run on their positions, counted through."""
    arrays = tuple(map(array, arrays))
    edges = [0, *accumulate(a.size for a in arrays)]
    places = [np.arange(low, high).reshape(a.shape) for a, (low, high) in zip(arrays, pairwise(edges), strict=True)]
    pool = shaping.concatenate(*map(ravel, arrays)) if len(arrays) > 1 else ravel(arrays[0])
    return _taken(pool, arrange(*places))


def among_zeros(arrange: Callable[..., Any], x: Any) -> Any:
    """As rearranged, where `arrange` also fills places with zeros."""
    x = array(x)
    pool = shaping.concatenate(np.zeros(1, x.dtype), ravel(x))
    return _taken(pool, arrange(np.arange(1, x.size + 1).reshape(x.shape)))


def _taken(pool: Any, places: Any) -> Any:
    return [pool[p] for p in places] if isinstance(places, (list, tuple)) else pool[places]


# -- one array ---------------------------------------------------------------------------------------------------------


def _moves(function: Callable[..., Any], arrange: Any = rearranged) -> None:
    """`function` takes an array first, and only moves its elements (among zeros)."""

    def move(x: Any, *args: Any, **options: Any) -> Any:
        answer = arrange(lambda places: function(places, *args, **options), x)
        return tuple(answer) if isinstance(answer, list) and function is np.unstack else answer

    move.__name__, move.__doc__ = function.__name__, f"np.{function.__name__}, on the positions of the elements."
    implements(function)(move)


_ALONE: Any = (
    np.fft.fftshift,
    np.fft.ifftshift,
    np.rot90,
    np.rollaxis,
    np.unstack,
    np.resize,
    np.lib.stride_tricks.sliding_window_view,
)
_AMONG_ZEROS: Any = (np.diag, np.diagflat)
for _function in _ALONE:
    _moves(_function)
for _function in _AMONG_ZEROS:
    _moves(_function, among_zeros)


@implements(np.fliplr)
def fliplr(m: Any) -> Any:
    """np.fliplr."""
    if m.ndim < 2:
        raise ValueError("Input must be >= 2-d.")
    return np.flip(m, axis=1)


@implements(np.flipud)
def flipud(m: Any) -> Any:
    """np.flipud."""
    if m.ndim < 1:
        raise ValueError("Input must be >= 1-d.")
    return np.flip(m, axis=0)


@implements(np.tril)
def tril(m: Any, k: int = 0) -> Any:
    """np.tril: zeros above the k-th diagonal."""
    return _triangle(m, k, np.tril)


@implements(np.triu)
def triu(m: Any, k: int = 0) -> Any:
    """np.triu: zeros below the k-th diagonal."""
    return _triangle(m, k, np.triu)


def _triangle(m: Any, k: int, cut: Callable[..., Any]) -> Any:
    kept = cut(np.ones(m.shape[-2:] if m.ndim > 1 else m.shape * 2, bool), k)
    return np.where(kept, m, np.zeros((), m.dtype))


@implements(np.atleast_3d)
def atleast_3d(x: Any) -> Any:
    """np.atleast_3d of one array."""
    x = array(x)
    return x if x.ndim > 2 else reshape(x, ((1, 1, 1), (1, *x.shape, 1), (*x.shape, 1))[x.ndim])


def _splits(function: Callable[..., Any], axis: Callable[[int], int], least: int) -> None:
    def split(ary: Any, indices_or_sections: Any) -> Any:
        if ary.ndim < least:
            raise ValueError(f"{function.__name__} only works on arrays of {least} or more dimensions")
        return np.split(ary, indices_or_sections, axis=axis(ary.ndim))

    split.__name__, split.__doc__ = function.__name__, f"np.{function.__name__}: a list of Tensors."
    implements(function)(split)


_splits(np.vsplit, lambda ndim: 0, 2)
_splits(np.hsplit, lambda ndim: min(1, ndim - 1), 1)
_splits(np.dsplit, lambda ndim: 2, 3)


@implements(np.delete)
def delete(arr: Any, obj: Any, axis: int | None = None) -> Any:
    """np.delete."""
    obj = obj if isinstance(obj, slice) else values(obj)
    return rearranged(lambda places: np.delete(places, obj, axis), arr)


@implements(np.trim_zeros)
def trim_zeros(filt: Any, trim: str = "fb", axis: Any = None) -> Any:
    """np.trim_zeros: which elements stay is decided by the values."""
    filt = array(filt)
    occupied = np.nonzero(values(filt))
    index = [slice(None)] * filt.ndim
    for i in range(filt.ndim) if axis is None else normalize_axis_tuple(axis, filt.ndim):
        low, high = (int(occupied[i].min()), int(occupied[i].max()) + 1) if occupied[i].size else (0, 0)
        index[i] = slice(
            low if "f" in trim.lower() or not high else 0, high if "b" in trim.lower() or not high else None
        )
    return filt[tuple(index)]


@implements(np.broadcast_arrays)
def broadcast_arrays(*args: Any, subok: bool = False) -> tuple[Any, ...]:
    """np.broadcast_arrays: a tuple of Tensors."""
    shape = np.broadcast_shapes(*(np.shape(a) for a in args))
    return tuple(shaping.broadcast_to(array(a), shape=shape) for a in args)


@implements(np.meshgrid)
def meshgrid(*xi: Any, copy: bool = True, sparse: bool = False, indexing: str = "xy") -> tuple[Any, ...]:
    """np.meshgrid: a tuple of Tensors."""
    places = np.meshgrid(*(np.arange(np.size(x)) for x in xi), sparse=sparse, indexing=indexing)  # type: ignore[call-overload]
    return tuple(ravel(array(x))[p] for x, p in zip(xi, places, strict=True))


# -- helpers of the other modules --------------------------------------------------------------------------------------


def floating(x: Any) -> Any:
    """`x` in floating point."""
    return x if x.dtype.kind == "f" else np.astype(x, np.dtype(np.float64))


def axes_last(x: Any, axis: Any, keepdims: bool) -> tuple[Any, Callable[[Any, Any], Any]]:
    """(x with `axis` as one last axis, f(y, front): the last axis of y in front, as `front`, the reduced axes restored)."""
    gone = tuple(range(x.ndim)) if axis is None else normalize_axis_tuple(axis, x.ndim)
    kept = [i for i in range(x.ndim) if i not in gone]
    rows = reshape(np.transpose(x, (*kept, *gone)), (*(x.shape[i] for i in kept), prod(x.shape[i] for i in gone)))
    shape = [1 if i in gone else n for i, n in enumerate(x.shape)] if keepdims else [x.shape[i] for i in kept]
    return rows, lambda y, front: reshape(np.moveaxis(y, -1, 0), (*front, *shape))
