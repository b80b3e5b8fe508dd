"""Ufuncs and functions of single elements that are compositions of the rows of ``ops.elementwise``."""

import math
from typing import Any

import numpy as np

from tinygrad_scratch.ops import elementwise
from tinygrad_scratch.ops.composed import copy
from tinygrad_scratch.ops.functions.moving import array, floating
from tinygrad_scratch.registry import implements

_LN2 = math.log(2.0)
_DEGREE = math.pi / 180


@implements(np.conjugate, np.real, np.real_if_close)
def conjugate(x: Any, tol: float = 100) -> Any:
    """A real array is its own conjugate and real part."""
    return copy(array(x))


@implements(np.imag, constant="zero")
def imag(val: Any) -> Any:
    """np.imag of real numbers: zeros."""
    return np.zeros_like(val)


@implements(np.angle, constant="zero")
def angle(z: Any, deg: bool = False) -> Any:
    """np.angle of real numbers: 0, or half a turn for negative ones."""
    z = floating(array(z))
    return np.where(np.isnan(z), z.dtype.type(np.nan), np.signbit(z) * z.dtype.type(180 if deg else math.pi))


@implements(np.degrees, np.rad2deg)
def degrees(x: Any) -> Any:
    """np.degrees."""
    return floating(array(x)) * (1 / _DEGREE)


@implements(np.radians, np.deg2rad)
def radians(x: Any) -> Any:
    """np.radians."""
    return floating(array(x)) * _DEGREE


@implements(np.fabs)
def fabs(x: Any) -> Any:
    """np.fabs: the absolute value in floating point."""
    return np.abs(floating(array(x)))


@implements(np.float_power)
def float_power(x1: Any, x2: Any) -> Any:
    """np.float_power: np.power in float64."""
    return np.power(*(np.astype(array(x), np.dtype(np.float64)) for x in (x1, x2)))


@implements(np.divmod)
def divmod_(x1: Any, x2: Any) -> tuple[Any, Any]:
    """np.divmod: (x1 // x2, x1 % x2)."""
    return np.floor_divide(x1, x2), np.remainder(x1, x2)


@implements(np.modf)
def modf(x: Any) -> tuple[Any, Any]:
    """np.modf: (fractional part, whole part)."""
    x = floating(array(x))
    whole = np.trunc(x)
    return np.where(np.isinf(x), 0, x - np.where(np.isinf(x), 0, whole)), whole


@implements(np.frexp)
def frexp(x: Any) -> tuple[Any, Any]:
    """np.frexp: (mantissa, exponent); the exponent is a power of 2, an integer."""
    x = floating(array(x))
    power = elementwise.exponent(x)
    return np.ldexp(x, -power), power


@implements(np.heaviside)
def heaviside(x1: Any, x2: Any) -> Any:
    """np.heaviside: 0, x2 or 1 as x1 is negative, 0 or positive; the derivative for x1 is 0."""
    x1 = floating(array(x1))
    return np.where(np.equal(x1, 0), x2, np.sign(x1) * 0.5 + 0.5)


@implements(np.fmax)
def fmax(x1: Any, x2: Any) -> Any:
    """np.fmax: np.maximum, where one is NaN the other."""
    return np.maximum(np.where(np.isnan(x1), x2, x1), np.where(np.isnan(x2), x1, x2))


@implements(np.fmin)
def fmin(x1: Any, x2: Any) -> Any:
    """np.fmin: np.minimum, where one is NaN the other."""
    return np.minimum(np.where(np.isnan(x1), x2, x1), np.where(np.isnan(x2), x1, x2))


@implements(np.logaddexp2)
def logaddexp2(x1: Any, x2: Any) -> Any:
    """np.logaddexp2: log2(2**x1 + 2**x2)."""
    x1, x2 = ((x if isinstance(x, (int, float)) else array(x)) * _LN2 for x in (x1, x2))
    return np.logaddexp(x1, x2) * (1 / _LN2)


@implements(np.vdot)
def vdot(a: Any, b: Any) -> Any:
    """np.vdot: both flattened."""
    return np.dot(np.ravel(array(a)), np.ravel(array(b)))


@implements(np.matvec)
def matvec(x1: Any, x2: Any) -> Any:
    """np.matvec: (..., m, n) with (..., n)."""
    return np.matmul(x1, array(x2)[..., None])[..., 0]


@implements(np.vecmat)
def vecmat(x1: Any, x2: Any) -> Any:
    """np.vecmat: (..., m) with (..., m, n)."""
    return np.matmul(array(x1)[..., None, :], x2)[..., 0, :]


@implements(np.i0)
def i0(x: Any) -> Any:
    """np.i0."""
    return elementwise.bessel_i(floating(array(x)))


@implements(np.sinc)
def sinc(x: Any) -> Any:
    """np.sinc: sin(pi x) / (pi x); near 0 its Taylor series, which is exact to any order of derivatives."""
    x = floating(array(x))
    near = np.less(np.abs(x), 0.5)
    square = np.square(np.where(near, x, 0) * math.pi)
    series = x.dtype.type(1)
    for n in range(12, 0, -1):
        series = 1 - series * square * (1 / ((2 * n) * (2 * n + 1)))
    far = np.where(near, 1, x) * math.pi
    return np.where(near, series, np.sin(far) / far)


@implements(np.nan_to_num)
def nan_to_num(x: Any, copy: bool = True, nan: Any = 0.0, posinf: Any = None, neginf: Any = None) -> Any:
    """np.nan_to_num: a new Tensor; replaced elements have derivative 0."""
    x = array(x)
    if x.dtype.kind != "f":
        return x
    limits = np.finfo(x.dtype)
    answer = np.where(np.isnan(x), nan, x)
    answer = np.where(np.equal(x, np.inf), float(limits.max) if posinf is None else posinf, answer)
    return np.where(np.equal(x, -np.inf), float(limits.min) if neginf is None else neginf, answer)


@implements(np.round, np.around, constant="zero")
def round_(a: Any, decimals: int = 0) -> Any:
    """np.round: piecewise constant."""
    a = array(a)
    if a.dtype.kind != "f":
        return a if decimals >= 0 else np.rint(a * 10.0**decimals).astype(a.dtype) * 10**-decimals
    scale = 10.0 ** abs(decimals)
    if not decimals:
        return np.rint(a)
    return np.rint(a * scale) / scale if decimals > 0 else np.rint(a / scale) * scale


@implements(np.fix, constant="zero")
def fix(x: Any) -> Any:
    """np.fix: towards zero; piecewise constant."""
    return np.trunc(x)


@implements(np.unwrap)
def unwrap(p: Any, discont: Any = None, axis: int = -1, *, period: float = 2 * math.pi) -> Any:
    """np.unwrap: jumps of more than half a period are taken out; what is added is piecewise constant."""
    p = floating(array(p))
    jumps, half = np.diff(p, axis=axis), period / 2
    short = np.remainder(jumps + half, period) - half
    short = np.where(np.logical_and(np.equal(short, -half), jumps > 0), half, short)
    taken_out = np.where(np.abs(jumps) < (half if discont is None else discont), 0, short - jumps)
    return np.concatenate([p[_first(p, axis)], p[_later(p, axis)] + np.cumsum(taken_out, axis=axis)], axis=axis)


def _first(x: Any, axis: int) -> tuple[slice, ...]:
    return (*(slice(None),) * (axis % x.ndim), slice(None, 1))


def _later(x: Any, axis: int) -> tuple[slice, ...]:
    return (*(slice(None),) * (axis % x.ndim), slice(1, None))


@implements(np.isposinf, constant="none")
def isposinf(x: Any) -> Any:
    """np.isposinf."""
    return np.equal(x, np.inf)


@implements(np.isneginf, constant="none")
def isneginf(x: Any) -> Any:
    """np.isneginf."""
    return np.equal(x, -np.inf)


@implements(np.full_like)
def full_like(a: Any, fill_value: Any, dtype: Any = None, shape: Any = None) -> Any:
    """np.full_like: the fill value may be a Tensor, and is differentiated; `a` gives shape and dtype alone."""
    filled = np.broadcast_to(
        np.astype(array(fill_value), np.dtype(dtype or a.dtype)), a.shape if shape is None else shape
    )
    return (
        copy(filled)
        if hasattr(filled, "requires_grad")
        else np.zeros_like(a, dtype=filled.dtype, shape=filled.shape) + filled
    )
