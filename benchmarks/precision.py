"""Relative error of values and derivatives against 50 digits, where they are hard: near 0, near the ends of the domain, far out.

How to read it: a line is a function (of one of its arguments, where it has several). "value" and "derivative" are the
largest relative errors over all points, in units of the spacing of float64 at 1 (2.2e-16, an ulp of a number just above a
power of two); "at" is the point of the worst derivative; "bound" is what tests/test_precision.py asserts of the derivative.
The values are NumPy's and SciPy's own; the derivatives are this library's. The references are mpmath's. Functions of
scipy.special are left out where SciPy is not installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

import tinygrad_scratch as tg
from benchmarks import measure

Real = Callable[..., Any]
ULP = float(np.finfo(np.float64).eps)
DIGITS = 50


@dataclass(frozen=True)
class Case:
    """A function of Tensors, its twin of mpmath numbers and that one's derivative, and the points (tuples of arguments)."""

    name: str
    ours: Callable[..., Any]
    exact: Callable[..., Any]
    slope: Callable[..., Any]
    points: Sequence[tuple[float, ...]]
    argument: int = 0
    bound: float = 6.0
    why: str = ""
    absolute: bool = False  # errors are relative to 1, the largest slope, not to the slope


@dataclass(frozen=True)
class Found:
    """The worst errors of a case, in ulps, and where the derivative's is."""

    value: float
    derivative: float
    at: tuple[float, ...]


def measure_case(case: Case) -> Found:
    """Compare a case at all its points."""
    mpmath: Any = import_module("mpmath")

    worst = Found(0.0, 0.0, ())
    for point in case.points:
        with mpmath.workdps(DIGITS + 10):
            exact = [mpmath.mpf(x) for x in point]
            value, slope = case.exact(*exact), case.slope(*exact)
            tensors = [tg.Tensor(x, requires_grad=i == case.argument) for i, x in enumerate(point)]
            answer = case.ours(*tensors)
            answer.backward()
            found: Any = tensors[case.argument].grad
            errors = [_ulps(answer.item(), value), _ulps(found.item(), slope, 1.0 if case.absolute else 0.0)]
        at = point if errors[1] >= worst.derivative else worst.at
        worst = Found(max(worst.value, errors[0]), max(worst.derivative, errors[1]), at)
    return worst


def _ulps(found: float, exact: Any, least: float = 0.0) -> float:
    """Relative error in ulps; of what is below `least`, or below the smallest normal number, relative to that."""
    if not np.isfinite(found):
        return float("inf")
    return float(abs(found - exact) / max(abs(exact), least, float(np.finfo(np.float64).tiny))) / ULP


def one(*points: float) -> list[tuple[float, ...]]:
    """Points of a function of one argument."""
    return [(x,) for x in points]


def both(*points: float) -> list[tuple[float, ...]]:
    """Points and their negatives."""
    return one(*(s * x for x in points for s in (1.0, -1.0)))


NEAR_0 = (1e-300, 1e-20, 1e-8, 1e-3, 0.1)
SATURATED: dict[str, Any] = {
    "absolute": True,
    "why": "of the rounded answer, so off by an ulp of 1 where it saturates; the exact form costs another exponential in "
    "every backward (scipy.special.expit has it)",
}
ROUNDED: dict[str, Any] = {"bound": 500.0, "why": "NumPy takes the sine of a rounded pi x, 2 x ulps, of values too"}
SIDES = (*NEAR_0, 0.5, 1.0, 2.0, 5.0)
UNIT = (*NEAR_0, 0.5, 0.9, 1 - 1e-6, 1 - 1e-15)


def elementary() -> Iterator[Case]:
    """Rows that need NumPy alone."""
    mp: Any = import_module("mpmath")

    two, ten, half = mp.mpf(2), mp.mpf(10), mp.mpf(1) / 2
    far = (*SIDES, 20.0, 700.0)
    logs = (1e-300, 1e-8, 0.5, 1 - 1e-9, 1 + 1e-9, 3.0, 1e10, 1e300)
    angles = (*SIDES, 1.5707963, 3.1415926, 100.0, 1e6)
    yield Case("exp", np.exp, mp.exp, mp.exp, both(*far))
    yield Case("exp2", np.exp2, lambda x: two**x, lambda x: two**x * mp.log(two), both(*SIDES, 1000.0))
    yield Case("expm1", np.expm1, mp.expm1, mp.exp, both(*far))
    yield Case("log", np.log, mp.log, lambda x: 1 / x, one(*logs))
    yield Case("log2", np.log2, lambda x: mp.log(x, 2), lambda x: 1 / x / mp.log(two), one(*logs))
    yield Case("log10", np.log10, mp.log10, lambda x: 1 / x / mp.log(ten), one(*logs))
    yield Case("log1p", np.log1p, mp.log1p, lambda x: 1 / (1 + x), [*both(*UNIT), *one(5.0, 1e10)])
    yield Case("sqrt", np.sqrt, mp.sqrt, lambda x: half / mp.sqrt(x), one(*logs))
    yield Case("cbrt", np.cbrt, mp.cbrt, lambda x: 1 / (3 * mp.cbrt(x) ** 2), one(1e-200, 1e-8, 0.5, 3.0, 1e200))
    yield Case("square", np.square, lambda x: x * x, lambda x: 2 * x, both(1e-150, *SIDES[1:], 1e150))
    yield Case("reciprocal", np.reciprocal, lambda x: 1 / x, lambda x: -1 / x**2, both(1e-100, 1e-8, 0.3, 7.0, 1e100))
    yield Case("sin", np.sin, mp.sin, mp.cos, both(*angles))
    yield Case("cos", np.cos, mp.cos, lambda x: -mp.sin(x), both(*angles))
    yield Case("tan", np.tan, mp.tan, lambda x: mp.sec(x) ** 2, both(*angles))
    yield Case("arcsin", np.arcsin, mp.asin, lambda x: 1 / mp.sqrt(1 - x * x), both(*UNIT))
    yield Case("arccos", np.arccos, mp.acos, lambda x: -1 / mp.sqrt(1 - x * x), both(*UNIT))
    yield Case("arctan", np.arctan, mp.atan, lambda x: 1 / (1 + x * x), both(*SIDES, 1e10, 1e100))
    yield Case("sinh", np.sinh, mp.sinh, mp.cosh, both(*far))
    yield Case("cosh", np.cosh, mp.cosh, mp.sinh, both(*far))
    yield Case("tanh", np.tanh, mp.tanh, lambda x: mp.sech(x) ** 2, both(*SIDES, 15.0), **SATURATED)
    yield Case("arcsinh", np.arcsinh, mp.asinh, lambda x: 1 / mp.sqrt(1 + x * x), both(*SIDES, 1e10, 1e200))
    at_1 = one(1 + 1e-15, 1 + 1e-6, 1.5, 5.0, 1e10, 1e200)
    yield Case("arccosh", np.arccosh, mp.acosh, lambda x: 1 / mp.sqrt(x * x - 1), at_1)
    yield Case("arctanh", np.arctanh, mp.atanh, lambda x: 1 / (1 - x * x), both(*UNIT))
    yield from elementary_of_two()


def elementary_of_two() -> Iterator[Case]:
    """Rows of two arguments, and the fused ones."""
    mp: Any = import_module("mpmath")

    powers = [(0.5, 3.0), (1e-100, 2.5), (3.0, -2.0), (1 + 1e-9, 1e5), (1.5, 0.1), (1e50, 5.5)]
    yield Case("power, base", np.power, lambda a, b: a**b, lambda a, b: b * a ** (b - 1), powers)
    yield Case("power, exponent", np.power, lambda a, b: a**b, lambda a, b: a**b * mp.log(a), powers, argument=1)
    pairs = [(3.0, 4.0), (1e-200, 1.0), (1e150, 1e150), (1e180, 1e180), (-1e-8, 1.0), (1.0, 1e-8)]
    yield Case("hypot", np.hypot, mp.hypot, lambda a, b: a / mp.hypot(a, b), pairs)
    yield Case("arctan2", np.arctan2, mp.atan2, lambda a, b: b / (a * a + b * b), pairs)
    yield Case("arctan2, second", np.arctan2, mp.atan2, lambda a, b: -a / (a * a + b * b), pairs, argument=1)
    sums = [(0.0, 0.0), (1000.0, 1000.0), (-50.0, 0.0), (30.0, 0.0), (1e-8, 0.0), (1000.0, 998.0)]
    total: Real = lambda a, b: mp.log(mp.exp(a) + mp.exp(b))  # noqa: E731
    yield Case("logaddexp", np.logaddexp, total, lambda a, b: 1 / (1 + mp.exp(b - a)), sums)
    wide = both(*SIDES, 30.0, 700.0)
    yield Case("sigmoid", tg.sigmoid, logistic, logistic_slope, wide, **SATURATED)
    sinc_slope: Real = lambda x: (mp.cospi(x) - mp.sincpi(x)) / x  # noqa: E731
    yield Case("sinc", np.sinc, mp.sincpi, sinc_slope, both(1e-8, 1e-3, 0.1, 0.4, 0.6, 1.2, 5.3, 100.7), **ROUNDED)
    yield Case("np.i0", np.i0, lambda x: mp.besseli(0, x), lambda x: mp.besseli(1, x), both(1e-8, 1e-3, 0.5, 7.0, 30.0))
    yield Case("softplus", tg.softplus, lambda x: mp.log1p(mp.exp(x)), logistic, wide)


def logistic(x: Any) -> Any:
    """1 / (1 + exp(-x)) of an mpmath number."""
    mp: Any = import_module("mpmath")

    return 1 / (1 + mp.exp(-x))


def logistic_slope(x: Any) -> Any:
    """Its derivative."""
    mp: Any = import_module("mpmath")

    return 1 / (2 + mp.exp(x) + mp.exp(-x))


def special() -> Iterator[Case]:
    """Error functions and logistic ones of scipy.special."""
    mp: Any = import_module("mpmath")
    sp: Any = import_module("scipy.special")

    def inverse(function: Any, start: Any) -> Any:
        return lambda x: mp.findroot(lambda y: function(y) - x, mp.mpf(float(start(float(x)))))

    erfinv, ndtri = inverse(mp.erf, sp.erfinv), inverse(mp.ncdf, sp.ndtri)
    scaled: Real = lambda x: mp.exp(x * x) * mp.erfc(x)  # noqa: E731
    bell: Real = lambda x: 2 / mp.sqrt(mp.pi) * mp.exp(-x * x)  # noqa: E731
    tails = (*SIDES, 3.0, 10.0, 26.0)
    yield Case("erf", sp.erf, mp.erf, bell, both(*tails))
    yield Case("erfc", sp.erfc, mp.erfc, lambda x: -bell(x), both(*tails))
    many = [*both(*SIDES), *one(1.5, 1.9, 2.1, 10.0, 100.0, 1e6)]
    yield Case("erfcx", sp.erfcx, scaled, lambda x: 2 * x * scaled(x) - 2 / mp.sqrt(mp.pi), many)
    ends = both(1e-20, 1e-8, 0.1, 0.5, 0.9, 1 - 1e-6, 1 - 1e-12)
    yield Case("erfinv", sp.erfinv, erfinv, lambda x: 1 / bell(erfinv(x)), ends)
    yield Case("ndtr", sp.ndtr, mp.ncdf, mp.npdf, both(*SIDES, 20.0, 37.0))
    shares = one(1e-30, 1e-8, 0.01, 0.3, 0.5 + 1e-9, 0.9, 1 - 1e-9)
    yield Case("ndtri", sp.ndtri, ndtri, lambda p: 1 / mp.npdf(ndtri(p)), shares)
    log_ndtr: Real = lambda x: mp.log(mp.ncdf(x)) if x < 5 else mp.log1p(-mp.ncdf(-x))  # noqa: E731
    far = [*both(*SIDES), *one(-20.0, -100.0, 20.0)]
    yield Case("log_ndtr", sp.log_ndtr, log_ndtr, lambda x: mp.npdf(x) / mp.ncdf(x), far)
    wide = both(*SIDES, 30.0, 700.0)
    yield Case("expit", sp.expit, logistic, logistic_slope, wide)
    odds = one(1e-300, 1e-8, 0.3, 0.5, 0.9, 1 - 1e-9, 1 - 1e-15)
    yield Case("logit", sp.logit, lambda x: mp.log(x / (1 - x)), lambda x: 1 / (x * (1 - x)), odds)
    yield Case("log_expit", sp.log_expit, lambda x: -mp.log1p(mp.exp(-x)), lambda x: logistic(-x), wide)
    small = one(1e-300, 1e-8, 0.1, 0.5, 1.0, 5.0, 1e10)
    yield Case("entr", sp.entr, lambda x: -x * mp.log(x), lambda x: -mp.log(x) - 1, small)
    products = [(2.0, 1e-300), (3.0, 1 + 1e-9), (1e-8, 5.0), (-2.0, 0.3)]
    yield Case("xlogy", sp.xlogy, lambda a, b: a * mp.log(b), lambda a, b: mp.log(b), products)
    yield Case("xlogy, second", sp.xlogy, lambda a, b: a * mp.log(b), lambda a, b: a / b, products, argument=1)
    near = [(2.0, 1e-9), (3.0, -1 + 1e-9)]
    yield Case("xlog1py, second", sp.xlog1py, lambda a, b: a * mp.log1p(b), lambda a, b: a / (1 + b), near, argument=1)


def gammas() -> Iterator[Case]:
    """Gamma functions of scipy.special."""
    mp: Any = import_module("mpmath")
    sp: Any = import_module("scipy.special")

    psi = mp.digamma
    many = one(1e-8, 0.1, 0.5, 1.0, 2.0, 3.5, 20.0, 100.0, 170.0, -0.5, -3.5)
    yield Case("gamma", sp.gamma, mp.gamma, lambda x: mp.gamma(x) * psi(x), many)
    positive = one(1e-8, 0.1, 0.5, 1.0, 2.0, 5.0, 50.0, 1e5, 1e15)
    yield Case("gammaln", sp.gammaln, mp.loggamma, psi, positive)
    yield Case("digamma", sp.digamma, psi, lambda x: mp.psi(1, x), positive)
    yield Case(
        "polygamma(1)", lambda x: tg.special.polygamma(1, x), lambda x: mp.psi(1, x), lambda x: mp.psi(2, x), positive
    )
    shapes = [(0.5, 0.5), (2.0, 3.0), (100.0, 1e-3), (1e-3, 100.0), (20.0, 30.0), (1e-8, 1e-8), (1e5, 1e-6)]
    step: Real = lambda a, b: psi(a) - psi(a + b)  # noqa: E731
    yield Case(
        "beta",
        sp.beta,
        mp.beta,
        lambda a, b: mp.beta(a, b) * step(a, b),
        shapes[:-1],
        bound=200.0,
        why="SciPy's own value is off by as much",
    )
    log_beta: Real = lambda a, b: mp.loggamma(a) + mp.loggamma(b) - mp.loggamma(a + b)  # noqa: E731
    yield Case("betaln", sp.betaln, log_beta, step, shapes)
    incomplete = [(0.5, 1e-8), (1.0, 1.0), (2.5, 30.0), (30.0, 25.0), (100.0, 120.0), (1e4, 9.9e3), (1e6, 1e6 + 1)]
    density: Real = lambda a, x: mp.exp((a - 1) * mp.log(x) - x - mp.loggamma(a))  # noqa: E731
    yield Case(
        "gammainc, second",
        sp.gammainc,
        lambda a, x: mp.gammainc(a, 0, x, True),
        density,
        incomplete,
        argument=1,
        bound=12.0,
        why="the density far out is exp of a large number",
    )


def bessels() -> Iterator[Case]:
    """Modified Bessel functions of scipy.special."""
    mp: Any = import_module("mpmath")
    sp: Any = import_module("scipy.special")

    bessel = both(1e-8, 1e-3, 0.5, 2.0, 7.0, 15.0, 30.0, 100.0, 700.0)
    i = mp.besseli
    yield Case("i0", sp.i0, lambda x: i(0, x), lambda x: i(1, x), bessel)
    yield Case("i1", sp.i1, lambda x: i(1, x), lambda x: i(0, x) - i(1, x) / x, bessel)
    down: Real = lambda x: mp.exp(-abs(x))  # noqa: E731
    yield Case(
        "i0e",
        sp.i0e,
        lambda x: i(0, x) * down(x),
        lambda x: (i(1, x) - mp.sign(x) * i(0, x)) * down(x),
        bessel,
    )
    yield Case(
        "i1e",
        sp.i1e,
        lambda x: i(1, x) * down(x),
        lambda x: (i(0, x) - i(1, x) / x - mp.sign(x) * i(1, x)) * down(x),
        bessel,
    )


def cases() -> list[Case]:
    """All that can be compared here."""
    return [*elementary(), *([*special(), *gammas(), *bessels()] if find_spec("scipy") else ())]


def show(results: dict[str, dict[str, Any]]) -> str:
    """The table."""
    rows = [
        [
            name,
            f"{r['value']:.3g}",
            f"{r['derivative']:.3g}",
            ", ".join(f"{x:.16g}" for x in r["at"]),
            f"{r['bound']:g}",
        ]
        for name, r in results.items()
    ]
    return measure.table(["function", "value", "derivative", "at", "bound"], rows)


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Compare, print, write precision.json; returns the results."""
    options = measure.parser("precision", __doc__).parse_args(arguments)
    if find_spec("mpmath") is None:
        raise SystemExit("python -m benchmarks precision needs mpmath: pip install mpmath")
    results = measure.header("precision", options, "tinygrad_scratch")
    results["functions"] = {
        c.name: {"value": f.value, "derivative": f.derivative, "at": f.at, "bound": c.bound, "why": c.why}
        for c in cases()
        for f in [measure_case(c)]
    }
    print(show(results["functions"]))
    reasons = [f"{name}: {r['why']}" for name, r in results["functions"].items() if r["why"]]
    print("\n".join(["", *reasons]))
    measure.write_json(options.out / "precision.json", results)
    print(f"\nWritten: {options.out / 'precision.json'}")
    return results
