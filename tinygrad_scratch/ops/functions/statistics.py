"""Averages, covariances and counts with weights."""

from typing import Any

import numpy as np

from tinygrad_scratch.errors import NotDifferentiableError
from tinygrad_scratch.ops import indexing
from tinygrad_scratch.ops.composed import ravel
from tinygrad_scratch.ops.functions.moving import array, floating, holds_tensor, values
from tinygrad_scratch.registry import implements


@implements(np.average)
def average(a: Any, axis: Any = None, weights: Any = None, returned: bool = False, *, keepdims: Any = False) -> Any:
    """np.average, differentiable in the weights too. ZeroDivisionError if they are an array and add up to 0."""
    a = array(a)
    if weights is None:
        mean = np.mean(a, axis=axis, keepdims=keepdims)
        scale: Any = np.full(mean.shape, a.size / max(mean.size, 1), mean.dtype)
    else:
        weights = _along(a, array(weights), axis)
        scale = np.sum(weights, axis=axis, keepdims=keepdims)
        if not holds_tensor(scale) and np.any(scale == 0):
            raise ZeroDivisionError("np.average: the weights add up to 0, so they cannot be normalised")
        mean = np.sum(np.multiply(a, weights), axis=axis, keepdims=keepdims) / scale
    return (mean, np.broadcast_to(scale, mean.shape)) if returned else mean


def _along(a: Any, weights: Any, axis: Any) -> Any:
    """The weights with all of a's axes."""
    if weights.shape == a.shape:
        return floating(weights)
    if axis is None:
        raise TypeError(f"np.average: weights of shape {weights.shape} for an array of shape {a.shape} need axis=")
    axes = [i % a.ndim for i in np.atleast_1d(axis)]
    if weights.shape != tuple(a.shape[i] for i in axes):
        raise ValueError(f"np.average: weights of shape {weights.shape} do not fit axis {axis} of shape {a.shape}")
    weights = np.transpose(floating(weights), [int(i) for i in np.argsort(axes)])
    return np.broadcast_to(weights.reshape([n if i in axes else 1 for i, n in enumerate(a.shape)]), a.shape)


@implements(np.cov)
def cov(
    m: Any,
    y: Any = None,
    rowvar: bool = True,
    bias: bool = False,
    ddof: int | None = None,
    fweights: Any = None,
    aweights: Any = None,
    *,
    dtype: Any = None,
) -> Any:
    """np.cov of variables in rows; differentiable in m, y and aweights."""
    rows = _variables(m, rowvar or np.ndim(m) < 2, dtype)
    if y is not None:
        rows = np.concatenate([rows, _variables(y, rowvar or np.ndim(y) < 2 or np.shape(y)[0] == 1, dtype)], axis=0)
    ddof = (0 if bias else 1) if ddof is None else ddof
    weights = None
    for given in (fweights, aweights):
        if given is not None:
            if np.shape(given) != rows.shape[1:]:
                raise ValueError(f"np.cov: weights of shape {np.shape(given)} for {rows.shape[1]} observations")
            weights = floating(array(given)) if weights is None else weights * array(given)
    if weights is None:
        centred, count = rows - np.mean(rows, axis=1, keepdims=True), max(rows.shape[1] - ddof, 0)
        spread = centred
    else:
        total = np.sum(weights)
        centred = rows - np.sum(rows * weights, axis=1, keepdims=True) / total
        spread = centred * weights
        count = total if not ddof else np.maximum(total - ddof * _repeated(weights, aweights) / total, 0)
    product = np.matmul(centred, spread.T)
    return np.squeeze(np.divide(product, count), axis=_single(product))


def _repeated(weights: Any, aweights: Any) -> Any:
    return np.sum(weights) if aweights is None else np.sum(weights * array(aweights))


def _single(product: Any) -> tuple[int, ...]:
    return (0, 1) if product.shape == (1, 1) else ()


def _variables(m: Any, rowvar: bool, dtype: Any) -> Any:
    m = floating(array(m)) if dtype is None else np.astype(array(m), np.dtype(dtype))
    if m.ndim > 2:
        raise ValueError(f"np.cov: {m.ndim} axes; variables and observations are at most two")
    m = m.reshape((1, -1)) if m.ndim < 2 else m
    return m if rowvar else m.T


@implements(np.corrcoef)
def corrcoef(x: Any, y: Any = None, rowvar: bool = True, *, dtype: Any = None) -> Any:
    """np.corrcoef: covariances over the roots of the variances, clipped to [-1, 1] as NumPy does."""
    c = cov(x, y, rowvar, dtype=dtype)
    if not c.ndim:
        return c / c
    deviation = np.sqrt(np.diagonal(c))
    return np.clip(c / deviation[:, None] / deviation[None, :], -1, 1)


@implements(np.bincount)
def bincount(x: Any, weights: Any = None, minlength: int = 0) -> Any:
    """np.bincount: the weights of equal numbers added up; differentiable in the weights."""
    x = values(x)
    counts = np.bincount(x, minlength=minlength)
    if weights is None:
        return np.asarray(counts)
    if np.shape(weights) != x.shape:
        raise ValueError(f"np.bincount: weights of shape {np.shape(weights)} for numbers of shape {x.shape}")
    return indexing.scatter(floating(array(weights)), x, index=(indexing.ARRAY,), shape=counts.shape)


@implements(np.histogram_bin_edges)
def histogram_bin_edges(a: Any, bins: Any = 10, range: Any = None, weights: Any = None) -> Any:
    """np.histogram_bin_edges: evenly spaced from the smallest to the largest element, if so many bins are asked for."""
    a = ravel(floating(array(a)))
    if isinstance(bins, str):
        raise NotDifferentiableError(
            f"np.histogram_bin_edges(bins={bins!r}) of a Tensor: the number of bins depends on the data; "
            "use t.numpy(), or a number of bins"
        )
    edges = np.histogram_bin_edges(values(a), values(bins) if np.ndim(bins) else bins, range)
    if np.ndim(bins) or range is not None or not a.size:
        return edges
    margin = 0 if np.ptp(values(a)) else 0.5
    return np.linspace(np.min(a) - margin, np.max(a) + margin, len(edges))


@implements(np.histogram)
def histogram(
    a: Any,
    bins: Any = 10,
    range: Any = None,
    density: bool | None = None,
    weights: Any = None,
) -> tuple[Any, Any]:
    """np.histogram: counts are piecewise constant in `a`; the edges, and the counts in the weights, are differentiable."""
    edges = histogram_bin_edges(a, bins, range)
    a, fixed = ravel(values(a)), values(edges)
    inside = (a >= fixed[0]) & (a <= fixed[-1])
    place = np.minimum(np.searchsorted(fixed, a[inside], side="right") - 1, len(fixed) - 2)
    chosen = None if weights is None else ravel(array(weights))[inside]
    counts = bincount(place, chosen, minlength=len(fixed) - 1)
    return (counts / np.diff(edges) / np.sum(counts) if density else counts), edges
