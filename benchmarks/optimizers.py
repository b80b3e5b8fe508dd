"""One update of all parameters of 784-512-512-10 (669,706 numbers, float32): ours eager, captured and compiled, and torch's.

How to read it: microseconds of one ``optimizer.step()``, the best block of all rounds, the competitors' blocks in a new
random order in each round; in brackets the median over the rounds of the ratio to torch's foreach form. The gradients
are there already and stay the same; captured steps take them as inputs, with all that a call costs. "fused" is torch's
own kernel, with ``fused=True``; "-": torch has none, or is not installed. Before it is timed, every competitor's
parameters are compared with the first's after 5 updates; "differs" stands where they are not equal within rounding.
NumPy works on one thread; ``--threads`` is how many torch may take (default: as torch itself decides).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

import tinygrad_scratch as tg
from benchmarks import measure

SIZES = (784, 512, 512, 10)
OPTIONS: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 1e-3, "momentum": 0.9},
    "Adam": {},
    "AdamW": {},
    "RMSprop": {},
    "Adagrad": {},
}
YARDSTICK = "torch foreach"
TOLERANCE = 2e-6  # of parameters of about 0.05, after 5 updates
Update = tuple[Callable[[], Any], Callable[[], list[np.ndarray[Any, Any]]]]


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Measure, print, write optimizers.json; returns the results."""
    parser = measure.parser("optimizers", __doc__)
    parser.add_argument("--rounds", type=measure.positive, default=15, help="rounds (default: 15)")
    parser.add_argument("--threads", type=measure.positive, help="torch's threads")
    parser.add_argument("--optimizers", nargs="+", choices=OPTIONS, default=list(OPTIONS), help="which (default: all)")
    options = parser.parse_args(arguments)
    sizes, rounds, block = (SIZES, options.rounds, 0.02) if not options.quick else ((8, 4, 3), 2, 0.001)
    results = measure.header("optimizers", options, "numba", "torch")
    results["optimizers"] = {
        name: measure_one(name, sizes, options.seed, options.threads, rounds, block) for name in options.optimizers
    }
    print(show(results["optimizers"]))
    measure.write_json(options.out / "optimizers.json", results)
    print(f"\nWritten: {options.out / 'optimizers.json'}")
    return results


def measure_one(
    name: str, sizes: Sequence[int], seed: int, threads: int | None, rounds: int, block: float
) -> dict[str, Any]:
    """Every competitor's time for one kind of optimizer."""
    rng = np.random.default_rng(seed)
    shapes = [shape for a, b in pairwise(sizes) for shape in ((b, a), (b,))]
    start = [rng.normal(scale=0.05, size=shape).astype(np.float32) for shape in shapes]
    gradients = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    updates = {**ours(name, start, gradients), **torchs(name, start, gradients, threads)}
    first: list[Any] = []
    found: dict[str, Any] = {}
    for peer, (update, values) in updates.items():
        for _ in range(5):
            update()
        first = first or values()
        furthest = max(float(np.abs(a - b).max()) for a, b in zip(first, values(), strict=True))
        found[peer] = {"agrees": furthest <= TOLERANCE, "seconds": []}
    counts = {
        peer: measure.calls_per_block(partial(measure.seconds_per_call, update), block)
        for peer, (update, _) in updates.items()
    }
    order, shuffle = list(updates), random.Random(seed)
    for _ in range(rounds):
        shuffle.shuffle(order)
        for peer in order:
            measure.settle()
            found[peer]["seconds"].append(measure.seconds_per_call(updates[peer][0], counts[peer]))
    for figures in found.values():
        figures["best_s"] = min(figures["seconds"])
        if YARDSTICK in found:
            figures["ratio"] = float(np.median(np.array(figures["seconds"]) / found[YARDSTICK]["seconds"]))
    return found


def ours(name: str, start: list[Any], gradients: list[Any]) -> dict[str, Update]:
    """Our ways to update; compiled where numba is installed."""

    def make(backend: str | None) -> Update:
        parameters = [tg.nn.Parameter(np.asfortranarray(a)) for a in start]  # weights lie as those of nn.Linear
        given = [tg.Tensor(np.ascontiguousarray(g.T)) for g in gradients]  # and their gradients as those
        optimizer = getattr(tg.optim, name)(parameters, **OPTIONS[name])

        def values() -> list[Any]:
            return [p.numpy().copy() for p in parameters]

        def step(*gradients: Any) -> None:  # captured, nothing is left of it but the update
            optimizer.zero_grad()
            for parameter, gradient in zip(parameters, gradients, strict=True):
                np.sum(parameter * gradient.T).backward()
            optimizer.step()

        if backend is None:
            for parameter, gradient in zip(parameters, given, strict=True):
                parameter.grad = tg.as_tensor(gradient.numpy().T)
            return optimizer.step, values
        run = tg.capture(step, backend=backend)
        return lambda: run(*given), values

    backends = {"eager": None, "captured": "numpy", "compiled": "numba"}
    if "numba" not in measure.versions("numba"):
        del backends["compiled"]
    return {label: make(backend) for label, backend in backends.items()}


def torchs(name: str, start: list[Any], gradients: list[Any], threads: int | None) -> dict[str, Update]:
    """torch's foreach and fused forms; none where torch is not installed."""
    try:
        import torch
    except ImportError:
        return {}
    if threads is not None:
        torch.set_num_threads(threads)

    def make(form: str) -> Update:
        parameters = [torch.tensor(a, requires_grad=True) for a in start]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = torch.tensor(gradient)
        optimizer = getattr(torch.optim, name)(parameters, **OPTIONS[name], **{form: True})
        return optimizer.step, lambda: [p.detach().numpy().copy() for p in parameters]

    forms = {"torch foreach": "foreach", "torch fused": "fused"}
    if name == "RMSprop":
        del forms["torch fused"]
    return {label: make(form) for label, form in forms.items()}


def show(results: dict[str, Any]) -> str:
    """The table."""
    peers = list(dict.fromkeys(peer for found in results.values() for peer in found))
    rows = []
    for name, found in results.items():
        cells = []
        for peer in peers:
            figures = found.get(peer)
            ratio = f" ({figures['ratio']:.2f})" if figures and "ratio" in figures else ""
            mark = "" if figures is None or figures["agrees"] else " differs"
            cells.append("-" if figures is None else f"{figures['best_s'] * 1e6:,.0f}{ratio}{mark}")
        rows.append([name, *cells])
    return measure.table(["microseconds", *peers], rows)
