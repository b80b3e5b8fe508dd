"""Reductions: the options that their rows do not have (``dtype``, ``initial``, ``where``), NaN left out, scans."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_scratch.ops.composed import ravel
from tinygrad_scratch.ops.functions.moving import array, floating, holds_tensor
from tinygrad_scratch.registry import MORE, implements

_NO_VALUE: Any = np._NoValue


def _cast(a: Any, dtype: Any) -> Any:
    return array(a) if dtype is None else np.astype(array(a), np.dtype(dtype))


def _chosen(a: Any, where: Any, instead: Any) -> Any:
    """`a` where it counts, `instead` elsewhere. ValueError if `where` is larger than `a`."""
    if where is True:
        return a
    chosen = np.where(where, a, instead)
    if chosen.shape != a.shape:
        raise ValueError(f"where of shape {np.shape(where)} does not broadcast to the array's shape {a.shape}")
    return chosen


# -- with all options --------------------------------------------------------------------------------------------------


def sum(
    a: Any, axis: Any = None, dtype: Any = None, keepdims: bool = False, initial: Any = 0, where: Any = True
) -> Any:
    """np.sum with all options."""
    total = np.sum(_chosen(_cast(a, dtype), where, 0), axis=axis, keepdims=keepdims)
    return total if isinstance(initial, int) and initial == 0 else total + _start(initial, total.dtype)


def prod(
    a: Any, axis: Any = None, dtype: Any = None, keepdims: bool = False, initial: Any = 1, where: Any = True
) -> Any:
    """np.prod with all options."""
    product = np.prod(_chosen(_cast(a, dtype), where, 1), axis=axis, keepdims=keepdims)
    return product if isinstance(initial, int) and initial == 1 else product * _start(initial, product.dtype)


def _start(initial: Any, dtype: Any) -> Any:
    """`initial` in the dtype of what it is the start of."""
    return initial if holds_tensor(initial) else np.asarray(initial).astype(dtype)


def _extreme(reduce: Callable[..., Any], pair: Callable[..., Any]) -> Callable[..., Any]:
    def extreme(a: Any, axis: Any = None, keepdims: bool = False, initial: Any = _NO_VALUE, where: Any = True) -> Any:
        if initial is _NO_VALUE:
            if where is not True:
                raise ValueError(f"np.{reduce.__name__} with where= needs initial=: it has no identity")
            return reduce(a, axis=axis, keepdims=keepdims)
        a = array(a)
        initial = _start(initial, a.dtype)
        a = _chosen(a, where, initial)
        size = a.size if axis is None else np.prod([a.shape[i] for i in np.atleast_1d(axis)])
        if not size:
            return np.sum(a, axis=axis, keepdims=keepdims, dtype=a.dtype) + initial
        return pair(reduce(a, axis=axis, keepdims=keepdims), initial)

    extreme.__name__, extreme.__doc__ = reduce.__name__, f"np.{reduce.__name__} with all options."
    return extreme


def mean(a: Any, axis: Any = None, dtype: Any = None, keepdims: bool = False, where: Any = True) -> Any:
    """np.mean with all options."""
    a = floating(_cast(a, dtype))
    return np.divide(sum(a, axis, None, keepdims, 0, where), _count(a, axis, keepdims, where))


def _count(a: Any, axis: Any, keepdims: bool, where: Any) -> Any:
    """How many elements count, in a's dtype."""
    ones = np.ones(a.shape, a.dtype) if where is True else np.where(where, np.ones(a.shape, a.dtype), 0)
    return np.sum(ones, axis=axis, keepdims=keepdims)


def var(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    ddof: float = 0,
    keepdims: bool = False,
    *,
    where: Any = True,
    mean: Any = None,
    correction: Any = None,
) -> Any:
    """np.var with all options; a `mean` that is given is a variable of its own."""
    a = floating(_cast(a, dtype))
    a = _chosen(a, where, 0)
    ddof = ddof if correction is None else correction
    if mean is None:
        mean = np.divide(sum(a, axis, None, True, 0, where), _count(a, axis, True, where))
    squares = _chosen(np.square(a - mean), where, 0)
    count = _count(a, axis, keepdims, where)
    return np.sum(squares, axis=axis, keepdims=keepdims) / np.maximum(count - ddof, 0)


def std(a: Any, axis: Any = None, dtype: Any = None, ddof: float = 0, keepdims: bool = False, **options: Any) -> Any:
    """np.std with all options; of constant values its derivative is 0."""
    squared = var(a, axis, dtype, ddof, keepdims, **options)
    constant = np.equal(squared, 0)
    return np.where(constant, 0, np.sqrt(np.where(constant, 1, squared)))


for _functions, _composition in (
    ((np.sum, np.add.reduce), sum),
    ((np.prod, np.multiply.reduce), prod),
    ((np.max, np.amax, np.maximum.reduce), _extreme(np.max, np.maximum)),
    ((np.min, np.amin, np.minimum.reduce), _extreme(np.min, np.minimum)),
    ((np.mean,), mean),
    ((np.var,), var),
    ((np.std,), std),
):
    for _function in _functions:
        MORE[_function] = _composition


# -- NaN left out ------------------------------------------------------------------------------------------------------


def _numbers(a: Any, where: Any = True) -> Any:
    """Where `a` counts and is a number."""
    known = np.logical_not(np.isnan(a))
    return known if where is True else np.logical_and(known, where)


def _without_nan(function: Callable[..., Any], whole: Callable[..., Any]) -> None:
    def reduce(a: Any, axis: Any = None, dtype: Any = None, where: Any = True, **options: Any) -> Any:
        a = array(a)
        return whole(a, axis=axis, dtype=dtype, where=_numbers(a, where), **options)

    reduce.__name__, reduce.__doc__ = function.__name__, f"np.{function.__name__}: the reduction where no NaN is."
    implements(function)(reduce)


for _function, _composition in (
    (np.nansum, sum), (np.nanprod, prod), (np.nanmean, mean), (np.nanvar, var), (np.nanstd, std),
):  # fmt: skip
    _without_nan(_function, _composition)


@implements(np.nanmax)
def nanmax(a: Any, axis: Any = None, keepdims: bool = False, initial: Any = _NO_VALUE, where: Any = True) -> Any:
    """np.nanmax: NaN where there is nothing else."""
    return _nan_extreme(np.max, -np.inf, a, axis, keepdims, initial, where)


@implements(np.nanmin)
def nanmin(a: Any, axis: Any = None, keepdims: bool = False, initial: Any = _NO_VALUE, where: Any = True) -> Any:
    """np.nanmin: NaN where there is nothing else."""
    return _nan_extreme(np.min, np.inf, a, axis, keepdims, initial, where)


def _nan_extreme(
    reduce: Callable[..., Any], worst: float, a: Any, axis: Any, keepdims: bool, initial: Any, where: Any
) -> Any:
    if where is not True and initial is _NO_VALUE:
        raise ValueError(f"np.nan{reduce.__name__} with where= needs initial=: it has no identity")
    a = array(a)
    if a.dtype.kind != "f":
        return MORE[reduce](a, axis, keepdims, initial, where)
    known = _numbers(a, where)
    found = MORE[reduce](_chosen(a, known, worst), axis, keepdims, initial)
    if initial is not _NO_VALUE:
        return found
    return np.where(np.any(known, axis=axis, keepdims=keepdims), found, np.nan)


# -- scans -------------------------------------------------------------------------------------------------------------


def cumsum(a: Any, axis: int | None = None, dtype: Any = None) -> Any:
    """np.cumsum in another dtype."""
    return np.cumsum(_cast(a, dtype), axis=axis)


MORE[np.cumsum] = cumsum


@implements(np.cumprod)
def cumprod(a: Any, axis: int | None = None, dtype: Any = None) -> Any:
    """np.cumprod, by doubling: products only, so that zeros are exact to any order."""
    a = _cast(a, dtype)
    if a.dtype.kind != "f":
        a = np.astype(a, np.cumprod(np.zeros(1, a.dtype), dtype=dtype).dtype)  # NumPy's integers to count in
    y = np.swapaxes(ravel(a) if axis is None else a, -1 if axis is None else axis, -1)
    step = 1
    while step < y.shape[-1]:
        y = np.concatenate([y[..., :step], y[..., step:] * y[..., :-step]], axis=-1)
        step *= 2
    return y if axis is None else np.swapaxes(y, axis, -1)


@implements(np.multiply.accumulate)
def multiply_accumulate(array: Any, axis: int = 0, dtype: Any = None) -> Any:
    """np.multiply.accumulate: np.cumprod along an axis."""
    return cumprod(array, axis, dtype)


@implements(np.nancumsum)
def nancumsum(a: Any, axis: int | None = None, dtype: Any = None) -> Any:
    """np.nancumsum: NaN counts as 0."""
    return cumsum(np.where(_numbers(array(a)), a, 0), axis, dtype)


@implements(np.nancumprod)
def nancumprod(a: Any, axis: int | None = None, dtype: Any = None) -> Any:
    """np.nancumprod: NaN counts as 1."""
    return cumprod(np.where(_numbers(array(a)), a, 1), axis, dtype)


def _cumulative(scan: Callable[..., Any], first: Callable[..., Any], x: Any, axis: int | None, initial: bool) -> Any:
    x = array(x)
    if axis is None:
        if x.ndim != 1:
            raise ValueError(f"an array of {x.ndim} axes needs axis=: a cumulative function runs along one")
        axis = 0
    y = scan(x, axis)
    if not initial:
        return y
    shape = [1 if i == axis % x.ndim else n for i, n in enumerate(x.shape)]
    return np.concatenate([first(shape, y.dtype), y], axis=axis)


@implements(np.cumulative_sum)
def cumulative_sum(x: Any, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> Any:
    """np.cumulative_sum."""
    return _cumulative(cumsum, np.zeros, _cast(x, dtype), axis, include_initial)


@implements(np.cumulative_prod)
def cumulative_prod(x: Any, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> Any:
    """np.cumulative_prod."""
    return _cumulative(cumprod, np.ones, _cast(x, dtype), axis, include_initial)


@implements(np.ptp)
def ptp(a: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """np.ptp: the largest less the smallest."""
    return np.max(a, axis=axis, keepdims=keepdims) - np.min(a, axis=axis, keepdims=keepdims)
