"""Sorting, order statistics and sets: the order has no derivative, so the elements are gathered in the order found.

Equal elements keep their order: each gets the cotangent of the place where it comes to lie.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_scratch.errors import NotDifferentiableError
from tinygrad_scratch.ops.composed import ravel
from tinygrad_scratch.ops.functions.moving import array, axes_last, floating, values
from tinygrad_scratch.registry import implements

_MEDIAN = 0.5


@implements(np.sort)
def sort(a: Any, axis: int | None = -1, kind: Any = None, *, stable: bool | None = None) -> Any:
    """np.sort (stable, whatever `kind` says: the values are the same)."""
    a, axis = (ravel(array(a)), -1) if axis is None else (array(a), axis)
    return np.take_along_axis(a, np.argsort(a, axis=axis, stable=True), axis=axis)


@implements(np.partition)
def partition(a: Any, kth: Any, axis: int | None = -1, kind: str = "introselect") -> Any:
    """np.partition: sorted, which is partitioned at every kth. ValueError if kth is out of bounds."""
    a = array(a)
    np.partition(np.zeros(a.size if axis is None else a.shape[axis]), kth)  # NumPy's own errors
    return sort(a, axis)


# -- quantiles ---------------------------------------------------------------------------------------------------------


@implements(np.median)
def median(a: Any, axis: Any = None, overwrite_input: bool = False, keepdims: bool = False) -> Any:
    """np.median: of an even number of values, the mean of the two in the middle."""
    return quantile(a, _MEDIAN, axis, keepdims=keepdims)


@implements(np.nanmedian)
def nanmedian(a: Any, axis: Any = None, overwrite_input: bool = False, keepdims: bool = False) -> Any:
    """np.nanmedian."""
    return nanquantile(a, _MEDIAN, axis, keepdims=keepdims)


@implements(np.percentile)
def percentile(
    a: Any,
    q: Any,
    axis: Any = None,
    overwrite_input: bool = False,
    method: str = "linear",
    keepdims: bool = False,
    *,
    weights: Any = None,
) -> Any:
    """np.percentile by every method. Differentiable in `a`."""
    return quantile(a, _fixed(q) / 100, axis, method=method, keepdims=keepdims, weights=weights)


@implements(np.nanpercentile)
def nanpercentile(
    a: Any, q: Any, axis: Any = None, overwrite_input: bool = False, method: str = "linear", keepdims: bool = False
) -> Any:
    """np.nanpercentile by every method. Differentiable in `a`."""
    return nanquantile(a, _fixed(q) / 100, axis, method=method, keepdims=keepdims)


@implements(np.quantile)
def quantile(
    a: Any,
    q: Any,
    axis: Any = None,
    overwrite_input: bool = False,
    method: str = "linear",
    keepdims: bool = False,
    *,
    weights: Any = None,
) -> Any:
    """np.quantile by every method (weights with "inverted_cdf"). Differentiable in `a`."""
    q = _fixed(q)
    rows, restore = axes_last(floating(array(a)), axis, keepdims)
    ordered = np.sort(_with_something(rows), axis=-1)
    if weights is None:
        places = np.arange(float(ordered.shape[-1]))
        place = np.quantile(places, q.reshape(-1), method=method)  # type: ignore[call-overload]
        place = place.reshape((1,) * (rows.ndim - 1) + (-1,))
    else:
        place = _weighted_place(rows, q, _weight_rows(a, weights, axis), method)
    return restore(np.where(np.isnan(ordered[..., -1:]), np.nan, _between(ordered, place)), q.shape)


@implements(np.nanquantile)
def nanquantile(
    a: Any, q: Any, axis: Any = None, overwrite_input: bool = False, method: str = "linear", keepdims: bool = False
) -> Any:
    """np.nanquantile by every method. Differentiable in `a`."""
    q = _fixed(q)
    rows, restore = axes_last(floating(array(a)), axis, keepdims)
    counts = np.count_nonzero(~np.isnan(values(rows)), axis=-1)
    place = np.zeros((*counts.shape, q.size))
    for n in np.unique(counts[counts > 0]):
        place[counts == n] = np.quantile(np.arange(float(n)), q.reshape(-1), method=method)  # type: ignore[call-overload]
    return restore(_between(np.sort(_with_something(rows), axis=-1), place), q.shape)


def _with_something(rows: Any) -> Any:
    """Rows without elements have NaN for their median."""
    return rows if rows.shape[-1] else np.full((*rows.shape[:-1], 1), np.nan, rows.dtype)


def _fixed(q: Any) -> Any:
    if getattr(q, "requires_grad", False):
        raise NotDifferentiableError("np.quantile: q has no gradient here; use q.detach()")
    return np.asarray(values(q))


def _between(ordered: Any, place: Any) -> Any:
    """Along the last axis of sorted rows, what lies at a place between two elements."""
    low = np.floor(place).astype(np.intp)
    share = (place - low).astype(ordered.dtype)
    below = np.take_along_axis(ordered, low, axis=-1)
    above = np.take_along_axis(ordered, low + (share > 0), axis=-1)
    width = above - below
    found = np.where(share < 0.5, below + width * share, above - width * (1 - share))  # exact at both, as NumPy does it
    return np.where(share > 0, found, below)  # of infinities no difference


def _weight_rows(a: Any, weights: Any, axis: Any) -> Any:
    weights = _fixed(weights)
    if weights.shape != a.shape:
        if not isinstance(axis, int) or weights.shape != (a.shape[axis],):
            raise ValueError(
                f"np.quantile: weights of shape {weights.shape} for an array of shape {a.shape} along {axis}"
            )
        weights = np.broadcast_to(np.moveaxis(weights.reshape((-1,) + (1,) * (a.ndim - 1)), 0, axis), a.shape)
    return axes_last(weights, axis, False)[0]


def _weighted_place(rows: Any, q: Any, weights: Any, method: str) -> Any:
    """The quantile of the ranks is the rank of the quantile."""
    order = np.argsort(values(rows), axis=-1, stable=True)
    ranks = np.argsort(order, axis=-1).astype(np.float64)
    place = np.quantile(ranks, q.reshape(-1), axis=-1, method=method, weights=weights)  # type: ignore[call-overload]
    return np.moveaxis(place, 0, -1)


# -- sets --------------------------------------------------------------------------------------------------------------


@implements(np.unique)
def unique(
    ar: Any,
    return_index: bool = False,
    return_inverse: bool = False,
    return_counts: bool = False,
    axis: int | None = None,
    *,
    equal_nan: bool = True,
    sorted: bool = True,
) -> Any:
    """np.unique, always sorted; of equal elements the first gets the cotangent."""
    ar = array(ar)
    wanted = (return_inverse, return_counts)
    _, index, *more = np.unique(values(ar), True, *wanted, axis, equal_nan=equal_nan)  # type: ignore[call-overload]
    found = ravel(ar)[index] if axis is None else np.take(ar, index, axis=axis)
    parts = [found, *([index] if return_index else []), *more]
    return tuple(parts) if len(parts) > 1 else found


def _array_api(function: Callable[..., Any]) -> None:
    def named(x: Any) -> Any:
        found, first = function(values(x)), np.unique(values(x), True, equal_nan=False)[1]
        elements = ravel(array(x))[first]
        return found._replace(values=elements) if hasattr(found, "_replace") else elements

    named.__name__, named.__doc__ = function.__name__, f"np.{function.__name__}, sorted; the first of equals is taken."
    implements(function)(named)


for _function in (np.unique_all, np.unique_counts, np.unique_inverse, np.unique_values):
    _array_api(_function)


@implements(np.union1d)
def union1d(ar1: Any, ar2: Any) -> Any:
    """np.union1d; an element of both gets its cotangent in the first."""
    return unique(np.concatenate([array(ar1), array(ar2)], axis=None))


@implements(np.setdiff1d)
def setdiff1d(ar1: Any, ar2: Any, assume_unique: bool = False) -> Any:
    """np.setdiff1d."""
    ar1 = ravel(array(ar1)) if assume_unique else unique(ar1)
    return ar1[~np.isin(values(ar1), values(ar2))]


@implements(np.setxor1d)
def setxor1d(ar1: Any, ar2: Any, assume_unique: bool = False) -> Any:
    """np.setxor1d."""
    ar1, ar2 = (ravel(array(ar)) if assume_unique else unique(ar) for ar in (ar1, ar2))
    joined = np.concatenate([ar1, ar2])
    _, first, counts = np.unique(values(joined), return_index=True, return_counts=True)
    return joined[first[counts == 1]]
