"""Differences, integrals, interpolation, convolution: the calculus on samples. Also grids between two numbers."""

from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from tinygrad_scratch.ops import linalg
from tinygrad_scratch.ops.composed import take
from tinygrad_scratch.ops.functions.moving import array, floating
from tinygrad_scratch.registry import implements

_NO_VALUE: Any = np._NoValue


@implements(np.diff)
def diff(a: Any, n: int = 1, axis: int = -1, prepend: Any = _NO_VALUE, append: Any = _NO_VALUE) -> Any:
    """np.diff: each element less the one before, n times."""
    if n < 0:
        raise ValueError(f"np.diff: the order is {n}; it must not be negative")
    a = array(a)
    if not a.ndim:
        raise ValueError("np.diff: the input must have at least one axis")
    axis = normalize_axis_index(axis, a.ndim)
    parts = [_edge(prepend, a, axis), a, _edge(append, a, axis)]
    a = np.concatenate([part for part in parts if part is not None], axis=axis) if n else a
    before = (slice(None),) * axis
    for _ in range(n):
        subtract = np.not_equal if a.dtype == np.bool_ else np.subtract
        a = subtract(a[(*before, slice(1, None))], a[(*before, slice(None, -1))])
    return a


def _edge(value: Any, a: Any, axis: int) -> Any:
    if value is _NO_VALUE:
        return None
    value = array(value)
    return value if value.ndim else np.broadcast_to(value, [1 if i == axis else n for i, n in enumerate(a.shape)])


@implements(np.ediff1d)
def ediff1d(ary: Any, to_end: Any = None, to_begin: Any = None) -> Any:
    """np.ediff1d: the differences of neighbours, between what is given."""
    ary = np.ravel(array(ary))
    for end in (to_begin, to_end):
        if end is not None and not np.can_cast(array(end).dtype, ary.dtype, "same_kind"):
            raise TypeError(f"np.ediff1d: an end of dtype {array(end).dtype} does not fit differences of {ary.dtype}")
    ends = [None if end is None else np.astype(np.ravel(array(end)), ary.dtype) for end in (to_begin, to_end)]
    parts = [ends[0], ary[1:] - ary[:-1], ends[1]]
    return np.concatenate([part for part in parts if part is not None])


@implements(np.trapezoid)
def trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Any:
    """np.trapezoid: the trapezoidal rule; differentiable in the places x (or their distance dx) too."""
    y = array(y)
    axis = normalize_axis_index(axis, y.ndim)
    if x is not None:
        x = array(x)
        dx = diff(x) if x.ndim == 1 else diff(x, axis=axis)
        if x.ndim == 1:
            dx = dx.reshape([-1 if i == axis else 1 for i in range(y.ndim)])
    before = (slice(None),) * axis
    pairs = (y[(*before, slice(1, None))] + y[(*before, slice(None, -1))]) / 2.0
    return np.sum(np.multiply(dx, pairs), axis=axis)


@implements(np.gradient)
def gradient(f: Any, *varargs: Any, axis: Any = None, edge_order: int = 1) -> Any:
    """np.gradient: second-order differences inside; differentiable in the coordinates too."""
    f = floating(array(f))
    axes = tuple(range(f.ndim)) if axis is None else tuple(normalize_axis_index(i, f.ndim) for i in np.atleast_1d(axis))
    if len(varargs) not in (0, 1, len(axes)) or (len(varargs) == 1 != len(axes) and np.ndim(varargs[0])):
        raise TypeError(
            f"np.gradient: {len(varargs)} spacings for {len(axes)} axes; give none, one number, or one an axis"
        )
    if edge_order not in (1, 2):
        raise ValueError(f"np.gradient: edge_order is {edge_order}; it must be 1 or 2")
    spacings = varargs * len(axes) if len(varargs) == 1 else varargs or (1.0,) * len(axes)
    answers = tuple(_slope(f, h, i, edge_order) for i, h in zip(axes, spacings, strict=True))
    return answers if len(answers) > 1 else answers[0]


def _slope(f: Any, spacing: Any, axis: int, edge_order: int) -> Any:
    """The derivative along one axis, by the formulas of np.gradient's documentation (Fornberg 1988)."""
    n = f.shape[axis]
    if n < edge_order + 1:
        raise ValueError(f"np.gradient: axis {axis} of length {n} needs at least {edge_order + 1} elements")
    spacing = array(spacing)
    if spacing.ndim and spacing.shape != (n,):
        raise ValueError(f"np.gradient: coordinates of shape {spacing.shape} for axis {axis} of length {n}")
    f = np.moveaxis(f, axis, -1)
    h = np.diff(spacing) if spacing.ndim else np.broadcast_to(spacing, (n - 1,))
    step = np.diff(f, axis=-1) / h  # slopes between neighbours
    left, right = h[:-1], h[1:]
    if spacing.ndim:
        inside = (right * step[..., :-1] + left * step[..., 1:]) / (left + right)
    else:  # the element itself takes no part
        inside = (f[..., 2:] - f[..., :-2]) / (2 * spacing)
    first, last = step[..., :1], step[..., -1:]
    if edge_order == 2:
        bend = (step[..., 1:] - step[..., :-1]) / (left + right)
        first, last = first - h[:1] * bend[..., :1], last + h[-1:] * bend[..., -1:]
    return np.astype(np.moveaxis(np.concatenate([first, inside, last], axis=-1), -1, axis), f.dtype)


@implements(np.interp)
def interp(x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None, period: Any = None) -> Any:
    """np.interp, differentiable in x, xp and fp; at a node the slope is that to its right."""
    x, xp, fp = (floating(array(v)) for v in (x, xp, fp))
    if xp.ndim != 1 or xp.shape != fp.shape or not xp.size:
        raise ValueError(f"np.interp: xp and fp have shapes {xp.shape} and {fp.shape}; give two equal ones of one axis")
    if period is not None:
        period = abs(period)
        x, xp, left, right = np.remainder(x, period), np.remainder(xp, period), None, None
        order = np.argsort(xp)
        xp, fp = take(xp, order), take(fp, order)
        xp = np.concatenate([xp[-1:] - period, xp, xp[:1] + period])
        fp = np.concatenate([fp[-1:], fp, fp[:1]])
    n = xp.shape[0]
    if n == 1:
        inside = np.broadcast_to(fp, (*x.shape, 1))[..., 0]
    else:
        i = np.clip(np.searchsorted(xp, x, side="right") - 1, 0, n - 2)
        low, high, left_value, right_value = (take(v, k) for v in (xp, fp) for k in (i, i + 1))
        inside = left_value + (right_value - left_value) / (high - low) * (x - low)
    answer = np.where(x < xp[0], fp[0] if left is None else left, inside)
    answer = np.where(x > xp[-1], fp[-1] if right is None else right, answer)
    return np.where(np.equal(x, xp[-1]), fp[-1], answer)


@implements(np.convolve)
def convolve(a: Any, v: Any, mode: str = "full") -> Any:
    """np.convolve, as one row and a slice of its answer."""
    return _part(a, v, mode, False)


@implements(np.correlate)
def correlate(a: Any, v: Any, mode: str = "valid") -> Any:
    """np.correlate: np.convolve with v reversed."""
    return _part(a, np.flip(array(v)), mode, True)


def _part(a: Any, v: Any, mode: str, correlating: bool) -> Any:
    a, v = (x if x.ndim else x.reshape((1,)) for x in map(array, (a, v)))
    full = linalg.convolve(a, v)
    longer, shorter = max(a.size, v.size), min(a.size, v.size)
    if mode == "full":
        return full
    if mode == "valid":
        return full[shorter - 1 : longer]
    if mode != "same":
        raise ValueError(f"mode is {mode!r}; it must be 'full', 'same' or 'valid'")
    start = shorter // 2 if correlating and v.size > a.size else (shorter - 1) // 2
    return full[start : start + longer]


# -- grids -------------------------------------------------------------------------------------------------------------


@implements(np.linspace)
def linspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, retstep: bool = False, dtype: Any = None, axis: int = 0
) -> Any:
    """np.linspace between numbers or arrays, either a Tensor."""
    kinds = [x.dtype for x in (start, stop) if hasattr(x, "dtype")]
    kind = np.result_type(*kinds) if any(k.kind == "f" for k in kinds) else np.dtype(np.float64)
    start, stop = np.broadcast_arrays(*(np.astype(array(x), kind) for x in (start, stop)))
    gaps = num - 1 if endpoint else num
    step = (stop - start) / gaps if gaps > 0 else (stop - start) * np.nan
    turn = (np.arange(num) / max(gaps, 1)).astype(kind).reshape((-1,) + (1,) * start.ndim)
    points = start * (1 - turn) + stop * turn
    points = np.moveaxis(points if dtype is None else np.astype(points, np.dtype(dtype)), 0, axis)
    return (points, step) if retstep else points


@implements(np.logspace)
def logspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, base: Any = 10.0, dtype: Any = None, axis: int = 0
) -> Any:
    """np.logspace."""
    points = np.power(base, linspace(start, stop, num, endpoint, axis=axis))
    return points if dtype is None else np.astype(points, np.dtype(dtype))


@implements(np.geomspace)
def geomspace(start: Any, stop: Any, num: int = 50, endpoint: bool = True, dtype: Any = None, axis: int = 0) -> Any:
    """np.geomspace between two numbers of one sign."""
    ratio = np.divide(stop, start)  # of two signs: NaN, where NumPy goes through the complex plane
    points = np.multiply(start, np.power(ratio, linspace(np.zeros_like(ratio), 1.0, num, endpoint, axis=axis)))
    return points if dtype is None else np.astype(points, np.dtype(dtype))
