"""Rows that reduce axes. Options are NumPy's: ``axis`` (an int, a tuple or None for all) and ``keepdims``.

At kinks: a maximum that is tied shares its cotangent evenly; the standard deviation of constant values has derivative 0.
"""

from typing import Any

import numpy as np

from tinygrad_scratch.domains import Case, Domain, distinct, reals
from tinygrad_scratch.ops.elementwise import astype, share_of
from tinygrad_scratch.ops.shaping import broadcast_to
from tinygrad_scratch.registry import general, linear


def _sum(x: Any, axis: Any = None, keepdims: Any = False) -> Any:
    return np.add.reduce(x, axis=axis, keepdims=keepdims)


def real(x: Any) -> Any:
    """`x` as an array of floating point: differences of unsigned integers would wrap around."""
    x = np.asarray(x)
    return x if x.dtype.kind == "f" else x.astype(np.float64)


def _mean(x: Any, axis: Any = None, keepdims: Any = False) -> Any:
    if x.dtype.kind != "f" or x.dtype.itemsize < 4:  # integers and float16: NumPy's own care for the accumulator
        return np.mean(x, axis=axis, keepdims=keepdims)
    total = np.add.reduce(x, axis=axis, keepdims=keepdims)
    return np.divide(total, x.dtype.type(_count(x, total)), dtype=x.dtype)


def _var(x: Any, axis: Any = None, ddof: float = 0, keepdims: bool = False) -> Any:
    return np.var(x, axis=axis, ddof=ddof, keepdims=keepdims)


def _std(x: Any, axis: Any = None, ddof: float = 0, keepdims: bool = False) -> Any:
    return np.std(x, axis=axis, ddof=ddof, keepdims=keepdims)


def _prod(x: Any, axis: Any = None, keepdims: Any = False) -> Any:
    return np.multiply.reduce(x, axis=axis, keepdims=keepdims)


def _max(x: Any, axis: Any = None, keepdims: Any = False) -> Any:
    return np.maximum.reduce(x, axis=axis, keepdims=keepdims)


def _min(x: Any, axis: Any = None, keepdims: Any = False) -> Any:
    return np.minimum.reduce(x, axis=axis, keepdims=keepdims)


def _cumsum(x: Any, axis: int = 0) -> Any:
    return np.add.accumulate(x, axis=axis)


def _cumsum_rule(g: Any, y: Any, x: Any, axis: int = 0) -> Any:
    """An element counts in every sum from its own place on."""
    return np.flip(cumsum(np.flip(g, axis=axis), axis=axis), axis=axis)


def _logsumexp(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """log(sum(exp(x))) over `axis`, without overflow: the largest value is taken out first."""
    x = real(x)
    top = np.maximum.reduce(x, axis=axis, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0)
    with np.errstate(divide="ignore"):  # the logarithm of an empty or all -inf sum is -inf
        y = np.log(np.add.reduce(np.exp(x - top), axis=axis, keepdims=True)) + top
    return y if keepdims else y.reshape(reduced_shape(x, axis))


def _axes(x: Any, axis: Any) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(x.ndim))
    return tuple(a % x.ndim for a in ((axis,) if isinstance(axis, (int, np.integer)) else axis))


def reduced_shape(x: Any, axis: Any) -> tuple[int, ...]:
    gone = _axes(x, axis)
    return tuple(n for i, n in enumerate(x.shape) if i not in gone)


def _count(x: Any, y: Any) -> int:
    """How many elements went into each element of the answer."""
    return int(x.size) // max(int(y.size), 1)


def _keep(g: Any, x: Any, axis: Any, keepdims: bool) -> Any:
    """`g` (or `y`) with its reduced axes back, of length 1, so that it broadcasts against x."""
    if keepdims or (axis is None and not g.ndim):
        return g
    gone = _axes(x, axis)
    return g.reshape(tuple(1 if i in gone else n for i, n in enumerate(x.shape)))


def _spread(g: Any, x: Any, axis: Any, keepdims: bool) -> Any:
    return broadcast_to(_keep(g, x, axis, keepdims), shape=x.shape)


def _deviations(x: Any, axis: Any, ddof: float) -> Any:
    """(x - mean) / (n - ddof): what the derivatives of var and std have in common."""
    mean = np.mean(x, axis=axis, keepdims=True)
    return (x - mean) / (_count(x, mean) - ddof)


def _std_rule(g: Any, y: Any, x: Any, axis: Any = None, ddof: float = 0, keepdims: bool = False) -> Any:
    top, bottom = np.max(x, axis=axis, keepdims=keepdims), np.min(x, axis=axis, keepdims=keepdims)
    constant = np.logical_or(
        np.equal(top, bottom), np.equal(y, 0)
    )  # of constant values y may be a rounded 0, 1e-17 say
    scaled = np.where(constant, 0, g) / np.where(constant, 1, y)
    return _keep(scaled, x, axis, keepdims) * _deviations(x, axis, ddof)


def _shared_by_ties(g: Any, y: Any, x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    winners = np.equal(x, _keep(y, x, axis, keepdims))
    count = astype(np.sum(winners, axis=axis, keepdims=True), dtype=x.dtype)
    return _keep(g, x, axis, keepdims) / count * winners


def _products_before(x: Any) -> Any:
    """Along the last axis, the product of all elements before each: a scan by doubling, so that zeros are exact."""
    y = np.concatenate([np.ones_like(x[..., :1]), x[..., :-1]], axis=-1)
    step = 1
    while step < x.shape[-1]:
        y = np.concatenate([y[..., :step], y[..., step:] * y[..., :-step]], axis=-1)
        step *= 2
    return y


def exclusive_products(x: Any) -> Any:
    """Along the last axis, the product of all other elements."""
    return _products_before(x) * np.flip(_products_before(np.flip(x, axis=-1)), axis=-1)


def _prod_rule(g: Any, y: Any, x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The product of all other elements, never y / x: right with any number of zeros, to any order."""
    gone = _axes(x, axis)
    order = [i for i in range(x.ndim) if i not in gone] + list(gone)
    moved = x.transpose(order)
    rows = moved.reshape((*moved.shape[: x.ndim - len(gone)], -1) if x.size else (*reduced_shape(x, axis), 0))
    others = exclusive_products(rows)
    back = tuple(int(i) for i in np.argsort(order))
    return _keep(g, x, axis, keepdims) * others.reshape(moved.shape).transpose(back)


_cases: tuple[Case, ...] = (
    (((2, 3),), {}),
    (((2, 3),), {"axis": 0}),
    (((2, 3, 2),), {"axis": (0, -1)}),
    (((2, 3),), {"axis": -1, "keepdims": True}),
    (((3,),), {"keepdims": True}),
    (((),), {}),
)
_reduced = reals.with_cases(*_cases)
_tied = distinct.with_cases(*_cases)
_spreads = Domain(cases=(*((s, o) for s, o in _cases if s != ((),)), (((4,),), {"ddof": 1})))
_scanned = reals.with_cases((((2, 3),), {"axis": 0}), (((2, 3),), {"axis": -1}), (((3,),), {}))
_indices = distinct.with_cases((((2, 3),), {}), (((2, 3),), {"axis": 0}))

_places = distinct.with_cases((((5,), (2, 3)), {}), (((5,), (4,)), {"side": "right"}))

# fmt: off
sum_      = linear(_sum,        lambda g, y, x, axis=None, keepdims=False: _spread(g, x, axis, keepdims), answers=(np.sum, np.add.reduce), domain=_reduced)
mean      = linear(_mean,       lambda g, y, x, axis=None, keepdims=False: _spread(g / _count(x, y), x, axis, keepdims), answers=np.mean, domain=_reduced)
var       = general(_var,       lambda g, y, x, axis=None, ddof=0, keepdims=False: _keep(g, x, axis, keepdims) * (2 * _deviations(x, axis, ddof)), answers=np.var, domain=_spreads)
std       = general(_std,       _std_rule, answers=np.std, domain=_spreads)
prod      = general(_prod,      _prod_rule, answers=(np.prod, np.multiply.reduce), domain=_reduced)
max_      = general(_max,       _shared_by_ties, answers=(np.max, np.amax, np.maximum.reduce), domain=_tied)
min_      = general(_min,       _shared_by_ties, answers=(np.min, np.amin, np.minimum.reduce), domain=_tied)
logsumexp = general(_logsumexp, lambda g, y, x, axis=None, keepdims=False: _keep(g, x, axis, keepdims) * share_of(x, _keep(y, x, axis, keepdims)), domain=_reduced)
cumsum    = linear(_cumsum,     _cumsum_rule, domain=_scanned)

# Capturable, no gradient: their answers are indices, counts or truth values.
argmax,  argmin = general(np.argmax, None, domain=_indices),  general(np.argmin, None, domain=_indices)
argsort         = general(np.argsort, None, domain=distinct.with_cases((((2, 3),), {}), (((2, 3),), {"axis": 0})))
any_,    all_   = general(np.any, None, domain=_indices),     general(np.all, None, domain=_indices)
searchsorted    = general(np.searchsorted, None, None, domain=_places)
count_nonzero   = general(np.count_nonzero, None, domain=_indices)
# fmt: on
