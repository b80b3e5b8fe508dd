"""Distributions with SciPy's names, arguments and support, differentiable in the value and in every parameter. Needs SciPy.

``scipy.stats`` itself makes arrays of what it is given, so it takes no Tensor that requires a gradient; write
``tg.stats.norm.logpdf(x, loc, scale)`` instead. All are compositions of the rows in ``special``.

>>> import numpy as np, tinygrad_scratch as tg
>>> x = np.array([1.0, 2.0, 6.0])
>>> loc, scale = tg.grad(lambda loc, scale: np.sum(tg.stats.norm.logpdf(x, loc, scale)), (0, 1))(3.0, 2.0)
>>> float(loc), float(scale)
(0.0, 0.25)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygrad_scratch import special

_LOG_ROOT_2PI = 0.5 * math.log(2 * math.pi)
Function = Callable[..., Any]


@dataclass(frozen=True)
class Continuous:
    """A family of densities, shifted by loc and stretched by scale, after its shape parameters: ``f(x, *shapes, loc, scale)``.

    The fields are functions of (z, *shapes) with z = (x - loc) / scale; one that is None has no closed form here. Outside the
    support the density is 0, its logarithm -inf, and the derivatives are 0.
    """

    name: str
    shapes: int
    log_density: Function
    below: Function | None = None
    above: Function | None = None
    log_below: Function | None = None
    log_above: Function | None = None
    quantile: Function | None = None
    support: tuple[float, float] = (-math.inf, math.inf)

    def logpdf(self, x: Any, *parameters: Any, **named: Any) -> Any:
        """The logarithm of the density."""
        z, shapes, scale = self._standard(x, parameters, named)
        low, high = self.support
        if (low, high) == (-math.inf, math.inf):
            return self.log_density(z, *shapes) - np.log(scale)
        inside = np.logical_and(np.greater_equal(z, low), np.less_equal(z, high))
        within = np.where(inside, z, low + 0.5)
        return np.where(inside, self.log_density(within, *shapes) - np.log(scale), -np.inf)

    def pdf(self, x: Any, *parameters: Any, **named: Any) -> Any:
        """The density."""
        return np.exp(self.logpdf(x, *parameters, **named))

    def cdf(self, x: Any, *parameters: Any, **named: Any) -> Any:
        """The probability of a value up to x."""
        return self._of("below", x, parameters, named)

    def sf(self, x: Any, *parameters: Any, **named: Any) -> Any:
        """The probability of a value above x."""
        return self._of("above", x, parameters, named)

    def logcdf(self, x: Any, *parameters: Any, **named: Any) -> Any:
        """log(cdf), without the logarithm of a rounded 0."""
        return self._of("log_below", x, parameters, named)

    def logsf(self, x: Any, *parameters: Any, **named: Any) -> Any:
        """log(sf), without the logarithm of a rounded 0."""
        return self._of("log_above", x, parameters, named)

    def ppf(self, q: Any, *parameters: Any, **named: Any) -> Any:
        """The value that a share q of the values lies below: the inverse of cdf."""
        q, shapes, loc, scale = self._given(q, parameters, named)
        return self._field("quantile")(q, *shapes) * scale + loc

    def _of(self, field: str, x: Any, parameters: Any, named: Any) -> Any:
        function = self._field(field)
        z, shapes, _ = self._standard(x, parameters, named)
        return function(np.clip(z, *self.support) if self.support[0] > -math.inf else z, *shapes)

    def _field(self, field: str) -> Function:
        function: Function | None = getattr(self, field)
        if function is None:
            raise NotImplementedError(
                f"stats.{self.name}: this function of it has no closed form that is differentiable here"
            )
        return function

    def _standard(self, x: Any, parameters: Any, named: Any) -> tuple[Any, tuple[Any, ...], Any]:
        x, shapes, loc, scale = self._given(x, parameters, named)
        return (x - loc) / scale, shapes, scale

    def _given(self, x: Any, parameters: Any, named: Any) -> tuple[Any, tuple[Any, ...], Any, Any]:
        """(x, shape parameters, loc, scale). Python's numbers take the dtype of x: float32 stays float32."""
        further = dict(zip(("loc", "scale"), parameters[self.shapes :], strict=False))
        count, twice, unknown = len(parameters), further.keys() & named, named.keys() - {"loc", "scale"}
        if not self.shapes <= count <= self.shapes + 2 or twice or unknown:
            raise TypeError(
                f"stats.{self.name} takes x, {self.shapes} shape parameters, and loc=0 and scale=1, by position or by name"
            )
        further = {"loc": 0.0, "scale": 1.0, **further, **named}
        x = x if hasattr(x, "dtype") else np.asarray(x, np.float64)
        dtype = x.dtype if x.dtype.kind == "f" else np.dtype(np.float64)
        shapes, loc, scale = parameters[: self.shapes], further["loc"], further["scale"]
        return x, tuple(_as(p, dtype) for p in shapes), _as(loc, dtype), _as(scale, dtype)


@dataclass(frozen=True)
class Discrete:
    """A family of probabilities of whole numbers: ``logpmf(k, *parameters)``, differentiable in the parameters."""

    name: str
    log_probability: Function

    def logpmf(self, k: Any, *parameters: Any) -> Any:
        """The logarithm of the probability of k: an integer array (a float one counts as integers)."""
        k = k if hasattr(k, "dtype") else np.asarray(k)
        dtype = np.result_type(*(p.dtype for p in parameters if hasattr(p, "dtype")), np.float32)
        dtype = dtype if any(hasattr(p, "dtype") for p in parameters) else np.dtype(np.float64)
        return self.log_probability(k.astype(dtype), *(_as(p, dtype) for p in parameters))

    def pmf(self, k: Any, *parameters: Any) -> Any:
        """The probability of k."""
        return np.exp(self.logpmf(k, *parameters))


def _as(parameter: Any, dtype: Any) -> Any:
    return parameter if hasattr(parameter, "dtype") else np.asarray(parameter, dtype)


def _normal(z: Any) -> Any:
    return -0.5 * z * z - _LOG_ROOT_2PI


def _students(z: Any, df: Any) -> Any:
    half = (df + 1) / 2
    start = special.gammaln(half) - special.gammaln(df / 2) - 0.5 * np.log(df * math.pi)
    return start - half * np.log1p(z * z / df)


def _log_normal(z: Any, s: Any) -> Any:
    logarithm = np.log(z)
    return _normal(logarithm / s) - np.log(s) - logarithm


def _laplace_below(z: Any) -> Any:
    half = np.exp(-np.abs(z)) / 2
    return np.where(np.less(z, 0), half, 1 - half)


def _choose(n: Any, k: Any) -> Any:
    return special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)


_positive = (0.0, math.inf)
norm = Continuous(
    "norm", 0, _normal, special.ndtr, lambda z: special.ndtr(-z),
    special.log_ndtr, lambda z: special.log_ndtr(-z), special.ndtri,
)  # fmt: skip
logistic = Continuous(
    "logistic", 0, lambda z: special.log_expit(z) + special.log_expit(-z), special.expit, lambda z: special.expit(-z),
    special.log_expit, lambda z: special.log_expit(-z), special.logit,
)  # fmt: skip
laplace = Continuous("laplace", 0, lambda z: -np.abs(z) - math.log(2), _laplace_below, lambda z: _laplace_below(-z))
cauchy = Continuous(
    "cauchy", 0, lambda z: -np.log1p(z * z) - math.log(math.pi), lambda z: np.arctan(z) / math.pi + 0.5,
    lambda z: 0.5 - np.arctan(z) / math.pi, quantile=lambda q: np.tan(math.pi * (q - 0.5)),
)  # fmt: skip
expon = Continuous(
    "expon", 0, lambda z: -z, lambda z: -np.expm1(-z), lambda z: np.exp(-z),
    log_above=lambda z: -z, quantile=lambda q: -np.log1p(-q), support=_positive,
)  # fmt: skip
gamma = Continuous(
    "gamma", 1, lambda z, a: special.xlogy(a - 1, z) - z - special.gammaln(a),
    lambda z, a: special.gammainc(a, z), lambda z, a: special.gammaincc(a, z), support=_positive,
)  # fmt: skip
beta = Continuous(
    "beta", 2, lambda z, a, b: special.xlogy(a - 1, z) + special.xlog1py(b - 1, -z) - special.betaln(a, b),
    support=(0.0, 1.0),
)  # fmt: skip
t = Continuous("t", 1, _students)
lognorm = Continuous("lognorm", 1, _log_normal, lambda z, s: special.ndtr(np.log(z) / s), support=_positive)
uniform = Continuous(
    "uniform", 0, lambda z: z * 0, lambda z: z, lambda z: 1 - z, quantile=lambda q: q, support=(0.0, 1.0)
)

poisson = Discrete("poisson", lambda k, mu: special.xlogy(k, mu) - special.gammaln(k + 1) - mu)
binom = Discrete("binom", lambda k, n, p: _choose(n, k) + special.xlogy(k, p) + special.xlog1py(n - k, -p))
bernoulli = Discrete("bernoulli", lambda k, p: special.xlogy(k, p) + special.xlog1py(1 - k, -p))
