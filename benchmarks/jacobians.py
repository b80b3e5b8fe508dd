"""Whole Jacobians and Hessians: all directions at once, beside one at a time.

How to read it: "ms" is the best time of ``tg.jacobian`` (``tg.hessian``), in forward and in reverse mode; "loop" is what
one call of the linear function for each row (``tg.vjp``) or column (``tg.linearize``; for the Hessian ``tg.hvp``) takes, as a
multiple of it: both alternate, and the best of all rounds count. Both are held to the same numbers first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

import tinygrad_scratch as tg
from benchmarks import measure

F = Callable[[Any], Any]


def functions() -> dict[str, tuple[F, int]]:
    """name -> (a function of a vector, the vector's length)."""
    rng = np.random.default_rng(0)
    w, v = rng.standard_normal((200, 100)) / 10, rng.standard_normal((100, 200)) / 10
    return {
        "network 100-200-100": (lambda x: v @ np.tanh(w @ x), 100),
        "element by element, 50": (lambda x: np.sin(np.exp(-x * x) * x) * np.cos(x), 50),
        "element by element, 1000": (lambda x: np.sin(np.exp(-x * x) * x) * np.cos(x), 1000),
        "log softmax, 100": (lambda x: tg.log_softmax(np.sin(x)), 100),
        "neighbours, 200": (lambda x: np.concatenate([10 * (x[1:] - x[:-1] ** 2), 1 - x[:-1]]), 200),
        "cumsum of sorted, 200": (lambda x: np.cumsum(np.sort(x)) * x, 200),
    }


def rosenbrock(x: Any) -> Any:
    """Its Hessian has three diagonals."""
    return np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def by_rows(f: F, x: Any) -> Any:
    """The Jacobian, a cotangent at a time."""
    value, pull_back = tg.vjp(f, x)
    return np.stack([pull_back(e)[0] for e in np.eye(value.size)])


def by_columns(f: F, x: Any) -> Any:
    """The Jacobian, a tangent at a time."""
    _, push_forward = tg.linearize(f, x)
    return np.stack([push_forward(e) for e in np.eye(x.size)], -1)


def by_products(f: F, x: Any) -> Any:
    """The Hessian, a product at a time."""
    return np.stack([tg.hvp(f, (x,), (e,)) for e in np.eye(x.size)])


def compare(at_once: Callable[[], Any], one_by_one: Callable[[], Any], rounds: int) -> dict[str, float]:
    """Best milliseconds at once, and the other's time as a multiple. AssertionError where their numbers differ."""
    np.testing.assert_allclose(at_once(), one_by_one(), rtol=1e-9, atol=1e-9)
    best = [np.inf, np.inf]
    for _ in range(rounds):
        for i, f in enumerate((at_once, one_by_one)):
            best[i] = min(best[i], measure.seconds_per_call(f, 1 if i else 5))
    return {"ms": 1e3 * best[0], "loop": best[1] / best[0]}


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Measure, print, write jacobians.json; returns the results."""
    parser = measure.parser("jacobians", __doc__)
    parser.add_argument("--rounds", type=measure.positive, default=25, help="rounds of each pair (default: 25)")
    options = parser.parse_args(arguments)
    rounds = 1 if options.quick else options.rounds
    results = measure.header("jacobians", options)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, (f, size) in functions().items():
        x = np.random.default_rng(1).uniform(-1, 1, size)
        forward, reverse = (tg.jacobian(f, mode=mode) for mode in ("forward", "reverse"))
        found[name] = {
            "forward": compare(partial(forward, x), partial(by_columns, f, x), rounds),
            "reverse": compare(partial(reverse, x), partial(by_rows, f, x), rounds),
        }
    x = np.random.default_rng(1).uniform(-1, 1, 100)
    hessian = compare(lambda: tg.hessian(rosenbrock)(x), lambda: by_products(rosenbrock, x), rounds)
    found["Hessian of Rosenbrock, 100"] = {"forward": hessian}
    results["jacobians"] = found
    rows = [
        [name, *(f"{kinds[k][c]:.3g}" if k in kinds else "" for k in ("forward", "reverse") for c in ("ms", "loop"))]
        for name, kinds in found.items()
    ]
    print(measure.table(["function", "forward ms", "loop", "reverse ms", "loop"], rows))
    measure.write_json(options.out / "jacobians.json", results)
    return results
