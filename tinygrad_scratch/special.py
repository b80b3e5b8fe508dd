"""SciPy's special functions on Tensors. Needs SciPy, and is imported by the first call of one: ``scipy.special.erf(tensor)``.

Ufuncs are rows: call SciPy's own name, or the one here. SciPy's Python functions (polygamma, logsumexp, softmax,
log_softmax) do not let a Tensor in: call those here. Rules keep their relative accuracy where the value is far from 1
(Abramowitz & Stegun, chapters 6, 7, 9; Johnson 2012 for erfcx), so none subtracts nearly equal numbers, and exp(-x**2) is
taken of a rounded x and of the rest.

>>> import numpy as np, scipy.special, tinygrad_scratch as tg
>>> x = tg.Tensor([0.0, 6.0], requires_grad=True)
>>> scipy.special.erf(x).sum().backward()
>>> x.grad
Tensor([1.12837917e+00, 2.61730124e-16])
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special as scipy_special

from tinygrad_scratch.domains import Integers, Interval, inputs, interval, positive
from tinygrad_scratch.errors import NotDifferentiableError
from tinygrad_scratch.ops import reductions
from tinygrad_scratch.ops.elementwise import astype
from tinygrad_scratch.ops.reductions import real
from tinygrad_scratch.registry import Op, elementwise, implements

_ROOT_PI, _ROOT_2 = math.sqrt(math.pi), math.sqrt(2.0)


def _row(ufunc: Any, *rules: Any, **about: Any) -> Op:
    """A row for a ufunc of SciPy, which has no float16: computed in what it takes instead and given back as float16."""

    def fn(*xs: Any) -> Any:
        y = ufunc(*xs)
        half = any(getattr(x, "dtype", None) == np.float16 for x in xs) and np.result_type(*xs) == np.float16
        return y.astype(np.float16) if half else y

    fn.__doc__ = f"scipy.special.{ufunc.__name__}, elementwise."
    return elementwise(fn, *rules, name=f"special_{ufunc.__name__}", answers=ufunc, **about)


# -- functions of NumPy that the rules need ----------------------------------------------------------------------------


def _gauss(x: Any, scale: float = 1.0) -> Any:
    """exp(-scale x**2): the square of x to 4 binary places is exact, and what is left is small, so nothing is lost."""
    coarse = np.rint(x * 16) / 16
    return np.exp(coarse * coarse * -scale) * np.exp((x - coarse) * (x + coarse) * -scale)


def _erfcx_fall(x: Any) -> Any:
    """-erfcx'(x) = 2 / sqrt(pi) - 2 x erfcx(x); for x above 1.25 as 2 c erfcx(x), with c the rest of the continued fraction
    sqrt(pi) erfcx(x) = 1 / (x + c) (Abramowitz & Stegun 7.1.14), where that difference would cancel."""
    x = real(x)
    y = scipy_special.erfcx(x)
    far = np.maximum(x, 1.25)
    c = np.zeros_like(far)
    for n in range(140, 0, -1):
        c = (n / 2) / (far + c)
    return np.where(x > 1.25, 2 * c * y, 2 / _ROOT_PI - 2 * x * y).astype(x.dtype)


_BERNOULLI = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12)


_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156, -3617 / 122400)


def _digamma_step(a: Any, b: Any) -> Any:
    """digamma(a + b) - digamma(a) for positive a and b, without subtracting them: ten steps of the recurrence, then the
    asymptotic series (Abramowitz & Stegun 6.3.5, 6.3.18), each term's difference in closed form."""
    a, b = np.broadcast_arrays(real(a), real(b))
    total = np.zeros(a.shape, np.result_type(a, b))
    for _ in range(10):
        total += b / (a * (a + b))
        a = a + 1
    c = a + b
    u, v = 1 / (a * a), 1 / (c * c)
    total += np.log1p(b / a) + b / (2 * a * c)
    sums, power = np.ones_like(total), np.ones_like(total)  # (u**k - v**k) / (u - v)
    for coefficient in _BERNOULLI:
        total += coefficient * (b * (a + c)) * u * v * sums
        power = power * v
        sums = sums * u + power
    return total


def _polygamma(x: Any, n: int = 0) -> Any:
    y = scipy_special.polygamma(n, x)
    return y.astype(x.dtype) if x.dtype.kind == "f" else y


def _positive_part(c: Any, x: Any) -> Any:
    """x, and 0 (without a derivative) where c is 0, whatever x is there."""
    return np.where(np.equal(c, 0), 0, x)


def _i1_rule(g: Any, y: Any, x: Any) -> Any:
    """I1' = I0 - I1 / x, which is 1/2 at 0."""
    zero = np.equal(x, 0)
    return g * (i0(x) - np.where(zero, 0.5, y / np.where(zero, 1, x)))


def _gamma_row(ufunc: Any, rule: Any) -> Op:
    """A row for the incomplete gamma functions, whose a of integers takes the dtype of x."""

    def fn(a: Any, x: Any) -> Any:
        y = ufunc(a, x)
        return y if np.asarray(a).dtype.kind == "f" or x.dtype.kind != "f" else y.astype(x.dtype)

    domain = inputs(Integers(1, 5), Interval(0.2, 3.0))
    return elementwise(fn, None, rule, name=f"special_{ufunc.__name__.strip('_')}", domain=domain)


def _gamma_density(a: Any, x: Any) -> Any:
    """x**(a - 1) exp(-x) / gamma(a). For large a by Loader 2000, whose exponent is a sum of small numbers:
    (a / x) exp(-a (u - log(1 + u)) - s(a)) / sqrt(2 pi a), u = x / a - 1, s what Stirling's formula leaves out."""
    direct = np.exp(scipy_special.xlogy(a - 1, x) - x - scipy_special.gammaln(a))
    a = np.maximum(a, 10).astype(np.result_type(a, x))
    x = np.maximum(x, np.finfo(x.dtype).tiny)
    u = (x - a) / a
    v = (x - a) / (x + a)  # log(1 + u) = 2 artanh(v), and u - 2 v = u v
    tail = sum(v ** (2 * n + 1) / (2 * n + 1) for n in range(12, 0, -1))
    excess = np.where(np.abs(v) < 0.1, u * v - 2 * tail, u - np.log(x / a))
    rest = sum(c / a ** (2 * n + 1) for n, c in enumerate(_STIRLING))
    return np.where(a > 10, np.exp(-a * excess - rest) * np.sqrt(a / (2 * np.pi)) / x, direct)


def _bell_moment(x: Any, order: int = 0) -> Any:
    """The mean over half a turn of (1 - cos t)**order exp(-x (1 - cos t)), for x >= 0: exp(-x) I0(x) and its derivatives, by
    the midpoint rule (Abramowitz & Stegun 9.6.19) as far as the integrand is not 0. No term is negative, so none cancels."""
    x = real(x)
    end = np.where(x < 30, np.pi, 12 / np.sqrt(np.maximum(x, 30)))
    t = end[..., None] * (np.arange(128) + 0.5) / 128
    drop = 2 * np.sin(t / 2) ** 2
    return np.asarray(np.mean(drop**order * np.exp(-x[..., None] * drop), axis=-1) * (end / np.pi)).astype(x.dtype)


_both = inputs(Interval(0.3, 3.0), Interval(0.3, 3.0))
_sides = interval(-3.0, 3.0)
_bessel = interval(-3.0, 3.0, 0.0)

# fmt: off
erfcx_fall   = elementwise(_erfcx_fall, lambda g, y, x: g * (2 * x * y - 2 * erfcx(x)), name="special_erfcx_fall")
polygamma_: Op = elementwise(_polygamma, lambda g, y, x, n=0: g * polygamma_(x, n=n + 1), name="special_polygamma", domain=positive.with_cases((((2, 3),), {"n": 1}), (((),), {"n": 0}), (((3,),), {"n": 2})))
digamma_step = elementwise(_digamma_step, lambda g, y, a, b: g * (polygamma_(a + b, n=1) - polygamma_(a, n=1)), lambda g, y, a, b: g * polygamma_(a + b, n=1), name="special_digamma_step", domain=_both)

erfcx: Op = _row(scipy_special.erfcx,     lambda g, y, x: -g * erfcx_fall(x))
erf       = _row(scipy_special.erf,       lambda g, y, x: g * (2 / _ROOT_PI * _gauss(x)))
erfc      = _row(scipy_special.erfc,      lambda g, y, x: -g * (2 / _ROOT_PI * _gauss(x)))
erfinv    = _row(scipy_special.erfinv,    lambda g, y, x: g * (_ROOT_PI / 2 * erfcx(np.abs(y)) / (1 - np.abs(x))), domain=interval(-0.9, 0.9, 0.0))
erfcinv   = _row(scipy_special.erfcinv,   lambda g, y, x: -g * (_ROOT_PI / 2 * erfcx(np.abs(y)) / np.minimum(x, 2 - x)), domain=interval(0.1, 1.9, 1.0))
ndtr      = _row(scipy_special.ndtr,      lambda g, y, x: g * (_gauss(x, 0.5) / (_ROOT_2 * _ROOT_PI)))
ndtri     = _row(scipy_special.ndtri,     lambda g, y, p: g * (_ROOT_PI / _ROOT_2 * erfcx(np.abs(y) / _ROOT_2) / np.minimum(p, 1 - p)), domain=interval(0.1, 0.9, 0.5))
log_ndtr  = _row(scipy_special.log_ndtr,  lambda g, y, x: g * np.where(np.less(x, 0), _ROOT_2 / _ROOT_PI / erfcx(np.minimum(x, 0) / -_ROOT_2), _gauss(x, 0.5) / (_ROOT_2 * _ROOT_PI * ndtr(x))), domain=interval(-3.0, 3.0, 0.0))
expit: Op = _row(scipy_special.expit,     lambda g, y, x: g * (y * expit(-x)), domain=_sides)
logit     = _row(scipy_special.logit,     lambda g, y, x: g / (x * (1 - x)), domain=interval(0.1, 0.9))
log_expit = _row(scipy_special.log_expit, lambda g, y, x: g * expit(-x), domain=_sides)
gamma     = _row(scipy_special.gamma,     lambda g, y, x: g * (y * digamma(x)), domain=positive)
gammaln   = _row(scipy_special.gammaln,   lambda g, y, x: g * digamma(x), domain=positive)
digamma: Op = _row(scipy_special.digamma,   lambda g, y, x: g * polygamma_(x, n=1), domain=positive)
beta      = _row(scipy_special.beta,      lambda g, y, a, b: -g * (y * digamma_step(a, b)), lambda g, y, a, b: -g * (y * digamma_step(b, a)), domain=_both)
betaln    = _row(scipy_special.betaln,    lambda g, y, a, b: -g * digamma_step(a, b), lambda g, y, a, b: -g * digamma_step(b, a), domain=_both)
xlogy     = _row(scipy_special.xlogy,     lambda g, y, a, b: g * np.log(b), lambda g, y, a, b: g * _positive_part(a, a / b), domain=_both)
xlog1py   = _row(scipy_special.xlog1py,   lambda g, y, a, b: g * np.log1p(b), lambda g, y, a, b: g * _positive_part(a, a / (1 + b)), domain=_both)
entr      = _row(scipy_special.entr,      lambda g, y, x: -g * (np.log(x) + 1), domain=positive)
rel_entr  = _row(scipy_special.rel_entr,  lambda g, y, a, b: g * (np.log(a / b) + 1), lambda g, y, a, b: -g * (a / b), domain=_both)
kl_div    = _row(scipy_special.kl_div,    lambda g, y, a, b: g * np.log(a / b), lambda g, y, a, b: g * ((b - a) / b), domain=_both)
i0        = _row(scipy_special.i0,        lambda g, y, x: g * i1(x), domain=_bessel)
i1: Op = _row(scipy_special.i1,        _i1_rule, domain=_bessel)
i0e       = _row(scipy_special.i0e,       lambda g, y, x: -g * np.sign(x) * bell_moment(np.abs(x), order=1), domain=_bessel)
i1e: Op = _row(scipy_special.i1e,       lambda g, y, x: g * (bell_moment(np.abs(x), order=2) - bell_moment(np.abs(x), order=1)), domain=_bessel)
bell_moment: Op = elementwise(_bell_moment, lambda g, y, x, order=0: -g * bell_moment(x, order=order + 1), name="special_bell_moment", domain=positive.with_cases((((2, 3),), {"order": 1}), (((),), {"order": 2})))
gamma_density = _gamma_row(_gamma_density, lambda g, y, a, x: g * y * ((astype(a, dtype=x.dtype) - 1) / x - 1))
lower_gamma = _gamma_row(scipy_special.gammainc, lambda g, y, a, x: g * gamma_density(a, x))
upper_gamma = _gamma_row(scipy_special.gammaincc, lambda g, y, a, x: -g * gamma_density(a, x))
# fmt: on


# -- functions that are compositions -----------------------------------------------------------------------------------


def _in_x(row: Op, name: str) -> Callable[[Any, Any], Any]:
    def function(a: Any, x: Any) -> Any:
        if getattr(a, "requires_grad", False):
            raise NotDifferentiableError(
                f"scipy.special.{name} is differentiable in x, not in a (no closed form); pass a.detach() for a"
            )
        return row(a, x)

    function.__name__ = name
    function.__doc__ = f"scipy.special.{name}, differentiable in x."
    return function


gammainc = implements(scipy_special.gammainc)(_in_x(lower_gamma, "gammainc"))
gammaincc = implements(scipy_special.gammaincc)(_in_x(upper_gamma, "gammaincc"))


def polygamma(n: int, x: Any) -> Any:
    """The n-th derivative of digamma, at positive x. n: an int, not negative.

    >>> float(polygamma(1, 1.0))  # pi**2 / 6
    1.6449340668482266
    """
    if n < 0 or n != int(n):
        raise ValueError(f"polygamma: n is {n}; it must be an int, 0 or more")
    return polygamma_(x if hasattr(x, "dtype") else np.asarray(x, np.float64), n=int(n))


def logsumexp(a: Any, axis: Any = None, b: Any = None, keepdims: bool = False) -> Any:
    """log(sum(b exp(a))) without overflow; b: positive weights.

    >>> print(logsumexp(np.array([1000.0, 1000.0])).round(3))
    1000.693
    """
    return reductions.logsumexp(a if b is None else a + np.log(b), axis=axis, keepdims=keepdims)


def log_softmax(x: Any, axis: Any = None) -> Any:
    """log(softmax(x)) over `axis`: an int, a tuple, or None for all elements (SciPy's default; tg.log_softmax's is -1)."""
    return x - reductions.logsumexp(x, axis=axis, keepdims=True)


def softmax(x: Any, axis: Any = None) -> Any:
    """exp(x) / sum(exp(x)) over `axis`: an int, a tuple, or None for all elements (SciPy's default; tg.softmax's is -1).

    >>> softmax(np.zeros((1, 2)))
    array([[0.5, 0.5]])
    """
    return np.exp(log_softmax(x, axis))
