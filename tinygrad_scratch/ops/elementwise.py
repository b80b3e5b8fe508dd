"""Rows whose output element depends on one element of each input.

g: cotangent   y: answer   x or a, b: inputs. Rules are the textbook derivatives (Abramowitz & Stegun, chapter 4), written in
the form that keeps its accuracy. At kinks: abs, sign and hypot 0, a tie of maximum or minimum is split evenly, clip at a bound 1.
"""

import math
from typing import Any

import numpy as np

from tinygrad_scratch.domains import (
    Booleans,
    Domain,
    Grid,
    Integers,
    Interval,
    inputs,
    interval,
    nonzero,
    positive,
    unit,
)
from tinygrad_scratch.registry import elementwise, linear

_LN2, _LN10 = math.log(2.0), math.log(10.0)


def _flat(g: Any, y: Any, *_: Any) -> Any:
    """The rule of piecewise constant functions: zero wherever they have a derivative."""
    return np.zeros_like(y)


def _power_base(g: Any, y: Any, a: Any, b: Any) -> Any:
    """d(a**b)/da = b a**(b-1), which is 0 (not 0 * inf) where b is 0."""
    if isinstance(b, (int, float)):  # a constant of the program, so an `if` freezes nothing
        return g * (b * a ** (b - 1)) if b else np.zeros_like(a)
    return g * (b * a ** np.where(np.equal(b, 0), 1, b - 1))


def _power_exponent(g: Any, y: Any, a: Any, b: Any) -> Any:
    """d(a**b)/db = y log(a), which is 0 (not 0 * -inf) where a is 0."""
    if isinstance(a, (int, float)):
        return g * y * (math.log(a) if a > 0 else 0.0 if a == 0 else math.nan)
    return g * y * np.log(np.where(np.equal(a, 0), 1, a))


def _share(g: Any, mine: Any, other: Any) -> Any:
    """The cotangent of the larger of two: whole where `mine` is larger, half at a tie (bools keep g's dtype)."""
    return (g * (mine > other) + g * (mine >= other)) * 0.5


def _part(y: Any, mine: Any, other: Any) -> Any:
    """exp(mine) / exp(y) with y = logaddexp(mine, other), from the difference of the two: a large y has lost its last places."""
    d = np.where(np.equal(y, -np.inf), -np.inf, mine - other)
    return np.exp(np.minimum(d, 0) - np.log1p(np.exp(-np.absolute(d))))


def _by_square(x: Any, a: Any, b: Any) -> Any:
    """x / (a**2 + b**2), whose squares may overflow where it does not."""
    length = np.hypot(a, b)
    return x / length / length


def share_of(x: Any, y: Any) -> Any:
    """exp(x) / exp(y), where y is the logarithm of a sum that exp(x) is part of: 0 where all parts are 0 (y = -inf)."""
    return np.exp(x - np.where(np.equal(y, -np.inf), 0, y))


def _unit(x: Any, length: Any) -> Any:
    """x / length: 0 for the zero vector, where any vector no longer than 1 is a subgradient."""
    return x / np.where(np.equal(length, 0), 1, length)


def _astype(x: Any, dtype: Any = None) -> Any:
    return np.asarray(x).astype(dtype)


def _clip(x: Any, low: Any = None, high: Any = None) -> Any:
    return np.clip(x, low, high)


def _clip_below(x: Any, low: Any) -> Any:
    """x, but no lower than `low`, which broadcasts. At the bound the derivative is x's."""
    return np.maximum(x, low)


def _clip_above(x: Any, high: Any) -> Any:
    """x, but no higher than `high`, which broadcasts. At the bound the derivative is x's."""
    return np.minimum(x, high)


def _bessel_i(x: Any, order: int = 0) -> Any:
    """The derivatives of the modified Bessel function I0: mean of cos(t)**order exp(x cos(t)) over half a turn, of which
    the even or the odd part of exp is all that is left, and does not cancel.

    The integral (Abramowitz & Stegun 9.6.16) by the midpoint rule, which is exact to rounding for smooth periodic
    integrands (Trefethen & Weideman 2014) once there are more points than the square root of 74 x.
    """
    x = np.asarray(x)
    if not order:
        return np.asarray(np.i0(x)).astype(x.dtype)
    turn = np.cos(np.pi * (np.arange(256) + 0.5) / 256).astype(x.dtype)
    part = np.sinh if order % 2 else np.cosh
    return np.mean(turn**order * part(x[..., None] * turn), axis=-1, dtype=x.dtype)


def _exponent(x: Any) -> Any:
    """The power of 2 that np.frexp takes out."""
    return np.frexp(x)[1]


def _bessel_rule(g: Any, y: Any, x: Any, order: int = 0) -> Any:
    return g * bessel_i(x, order=order + 1)


_bases = inputs(Interval(0.3, 2.0), Interval())
_moduli = inputs(Interval(5.0, 5.2), Interval(1.1, 1.2))
_chosen = inputs(Booleans(), Interval(), Interval())
_between = interval(-2.0, 2.0, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2)
_clipped = Domain(
    (Interval(-2.0, 2.0, (-1.0, 1.0)),), ((((2, 3),), {"low": -1.0, "high": 1.0}), (((4,),), {"low": -1.0}))
)
_untied = inputs(Grid(), Grid(phase=0.25))
_bits = inputs(Integers(-4, 5))
_small = inputs(Integers(0, 4))
_shifted = inputs(Interval(), Integers(-3, 4))
_orders = Domain(cases=((((2, 3),), {}), (((4,),), {"order": 1})))
_cast = Domain(cases=((((2, 3),), {"dtype": np.dtype(np.float64)}),))

# fmt: off
add        = elementwise(np.add,        lambda g, y, a, b: g,               lambda g, y, a, b: g)
subtract   = elementwise(np.subtract,   lambda g, y, a, b: g,               lambda g, y, a, b: -g)
multiply   = elementwise(np.multiply,   lambda g, y, a, b: g * b,           lambda g, y, a, b: g * a)
divide     = elementwise(np.divide,     lambda g, y, a, b: g / b,           lambda g, y, a, b: -g * y / b, domain=nonzero)
power      = elementwise(np.power,      _power_base,                        _power_exponent, domain=_bases)
floor_divide = elementwise(np.floor_divide, _flat, _flat, domain=_moduli)
remainder  = elementwise(np.remainder,  lambda g, y, a, b: g,               lambda g, y, a, b: -g * np.floor(a / b), domain=_moduli)
fmod       = elementwise(np.fmod,       lambda g, y, a, b: g,               lambda g, y, a, b: -g * np.trunc(a / b), domain=_moduli)
maximum    = elementwise(np.maximum,    lambda g, y, a, b: _share(g, a, b), lambda g, y, a, b: _share(g, b, a), domain=_untied)
minimum    = elementwise(np.minimum,    lambda g, y, a, b: _share(g, b, a), lambda g, y, a, b: _share(g, a, b), domain=_untied)
logaddexp  = elementwise(np.logaddexp,  lambda g, y, a, b: g * _part(y, a, b), lambda g, y, a, b: g * _part(y, b, a))
hypot      = elementwise(np.hypot,      lambda g, y, a, b: g * _unit(a, y), lambda g, y, a, b: g * _unit(b, y), domain=nonzero)
arctan2    = elementwise(np.arctan2,    lambda g, y, a, b: _by_square(g * b, a, b), lambda g, y, a, b: -_by_square(g * a, a, b), domain=nonzero)
copysign   = elementwise(np.copysign,   lambda g, y, a, b: g * (np.sign(a) * np.sign(y)), _flat, domain=nonzero)
ldexp      = elementwise(np.ldexp,      lambda g, y, x, n: np.ldexp(g, n), None, domain=_shifted)
nextafter  = elementwise(np.nextafter,  lambda g, y, a, b: g,               _flat)
where      = elementwise(np.where, None, lambda g, y, c, a, b: np.where(c, g, 0), lambda g, y, c, a, b: np.where(c, 0, g), domain=_chosen)
clip       = elementwise(_clip,         lambda g, y, x, low=None, high=None: g * np.equal(x, y), domain=_clipped)
clip_below = elementwise(_clip_below,   lambda g, y, x, low: g * np.equal(x, y), lambda g, y, x, low: g * np.less(x, low), domain=_untied)
clip_above = elementwise(_clip_above,   lambda g, y, x, high: g * np.equal(x, y), lambda g, y, x, high: g * np.greater(x, high), domain=_untied)
negative   = elementwise(np.negative,   lambda g, y, x: -g)
absolute   = elementwise(np.absolute,   lambda g, y, x: g * np.sign(x), domain=nonzero)
square     = elementwise(np.square,     lambda g, y, x: g * (2 * x))
sqrt       = elementwise(np.sqrt,       lambda g, y, x: g / (2 * y), domain=positive)
cbrt       = elementwise(np.cbrt,       lambda g, y, x: g / (3 * y * y), domain=nonzero)
reciprocal = elementwise(np.reciprocal, lambda g, y, x: -g * y * y, domain=nonzero)
exp        = elementwise(np.exp,        lambda g, y, x: g * y)
exp2       = elementwise(np.exp2,       lambda g, y, x: g * y * _LN2)
expm1      = elementwise(np.expm1,      lambda g, y, x: g * np.exp(x))
log        = elementwise(np.log,        lambda g, y, x: g / x, domain=positive)
log2       = elementwise(np.log2,       lambda g, y, x: g / (x * _LN2), domain=positive)
log10      = elementwise(np.log10,      lambda g, y, x: g / (x * _LN10), domain=positive)
log1p      = elementwise(np.log1p,      lambda g, y, x: g / (1 + x), domain=unit)
sin        = elementwise(np.sin,        lambda g, y, x: g * np.cos(x))
cos        = elementwise(np.cos,        lambda g, y, x: -g * np.sin(x))
tan        = elementwise(np.tan,        lambda g, y, x: g * (1 + y * y), domain=interval(-1.2, 1.2))
arcsin     = elementwise(np.arcsin,     lambda g, y, x: g / np.sqrt((1 - x) * (1 + x)), domain=unit)
arccos     = elementwise(np.arccos,     lambda g, y, x: -g / np.sqrt((1 - x) * (1 + x)), domain=unit)
arctan     = elementwise(np.arctan,     lambda g, y, x: g / (1 + x * x))
sinh       = elementwise(np.sinh,       lambda g, y, x: g * np.cosh(x))
cosh       = elementwise(np.cosh,       lambda g, y, x: g * np.sinh(x))
tanh       = elementwise(np.tanh,       lambda g, y, x: g * (1 - y * y))
arcsinh    = elementwise(np.arcsinh,    lambda g, y, x: g / np.hypot(x, 1))
arccosh    = elementwise(np.arccosh,    lambda g, y, x: g / (np.sqrt(x - 1) * np.sqrt(x + 1)), domain=interval(1.2, 3.0))
arctanh    = elementwise(np.arctanh,    lambda g, y, x: g / ((1 - x) * (1 + x)), domain=unit)
sign       = elementwise(np.sign,       _flat, domain=nonzero)
floor      = elementwise(np.floor,      _flat, domain=_between)
ceil       = elementwise(np.ceil,       _flat, domain=_between)
rint       = elementwise(np.rint,       _flat, domain=_between)
trunc      = elementwise(np.trunc,      _flat, domain=_between)
spacing    = elementwise(np.spacing,    _flat, domain=positive)
bessel_i   = elementwise(_bessel_i,     _bessel_rule, domain=_orders)
astype     = linear(_astype,            lambda g, y, x, dtype=None: g, answers=np.astype, domain=_cast)

# Capturable, no gradient: their answers are not real numbers, or do not depend on the input's value.
equal,       not_equal     = elementwise(np.equal, None, None),       elementwise(np.not_equal, None, None)
greater,     greater_equal = elementwise(np.greater, None, None),     elementwise(np.greater_equal, None, None)
less,        less_equal    = elementwise(np.less, None, None),        elementwise(np.less_equal, None, None)
logical_and, logical_or    = elementwise(np.logical_and, None, None), elementwise(np.logical_or, None, None)
logical_xor, logical_not   = elementwise(np.logical_xor, None, None), elementwise(np.logical_not, None)
bitwise_and, bitwise_or    = elementwise(np.bitwise_and, None, None, domain=_bits), elementwise(np.bitwise_or, None, None, domain=_bits)
bitwise_xor, invert        = elementwise(np.bitwise_xor, None, None, domain=_bits), elementwise(np.invert, None, domain=_bits)
left_shift, right_shift    = elementwise(np.left_shift, None, None, domain=_small), elementwise(np.right_shift, None, None, domain=_small)
gcd,         lcm           = elementwise(np.gcd, None, None, domain=_bits), elementwise(np.lcm, None, None, domain=_bits)
bitwise_count, signbit     = elementwise(np.bitwise_count, None, domain=_bits), elementwise(np.signbit, None)
exponent                   = elementwise(_exponent, None)
isnan, isinf, isfinite     = elementwise(np.isnan, None), elementwise(np.isinf, None), elementwise(np.isfinite, None)
zeros_like,  ones_like     = elementwise(np.zeros_like, None),        elementwise(np.ones_like, None)
# fmt: on
