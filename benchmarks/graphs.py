"""A chain and a wide graph of a million operations: time, memory, and freeing without the garbage collector.

How to read it: "chain" applies an operation to its own answer n times (depth n); "wide" applies n/2 operations to one
Tensor and adds the answers up in pairs (one Tensor with n/2 uses). Each runs at two sizes, every one in a process of
its own with the garbage collector off. Times are per operation, so a linear engine has equal figures in both rows;
"growth" is the whole time at ten times the size over the time at the smaller, at most 12 wanted. "peak" is memory at
its highest, less that before, per operation; "kept" the same when the graph's last name is gone, still without the
garbage collector. Then it is asked: "in cycles" is how many objects it finds that reference counting alone would
never free, "objects" how many more exist than before the graph. Both should be 0, or a few that do not grow with the
graph.
"""

from __future__ import annotations

import gc
import math
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import tinygrad_scratch as tg
from benchmarks import measure

SIZES = (100_000, 1_000_000)
GROWTH = 12.0  # the most that ten times the operations may take


def chain(x: Any, n: int) -> Any:
    """n multiplications, one after the other; the derivative is 1."""
    for step in range(n):
        x = x * (0.5 if step % 2 else 2.0)
    return x if n % 2 == 0 else x * 0.5


def wide(x: Any, n: int) -> Any:
    """About n/2 multiplications of one Tensor and as many additions, in a tree; the derivative is 1."""
    terms = [x * (2.0 / n) for _ in range(n // 2)]
    while len(terms) > 1:
        pairs = [a + b for a, b in zip(terms[::2], terms[1::2], strict=False)]
        terms = pairs + terms[2 * len(pairs) :]
    return terms[0]


KINDS: dict[str, Callable[[Any, int], Any]] = {"chain": chain, "wide": wide}


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Measure, print, write graphs.json; returns the results."""
    parser = measure.parser("graphs", __doc__)
    parser.add_argument(
        "--rounds", type=measure.positive, default=3, help="runs of each; the fastest counts (default: 3)"
    )
    options = parser.parse_args(arguments)
    sizes = (1_000, 10_000) if options.quick else SIZES
    if options.quick:
        options.rounds = 1
    results = measure.header("graphs", options, "tinygrad_scratch")
    results["graphs"] = {kind: measure_kind(kind, sizes, options.rounds) for kind in KINDS}
    print(show(results["graphs"]))
    measure.write_json(options.out / "graphs.json", results)
    print(f"\nWritten: {options.out / 'graphs.json'}")
    return results


def measure_kind(kind: str, sizes: Sequence[int], rounds: int) -> dict[str, Any]:
    """One kind of graph at every size, and how its time grows."""
    runs = {size: best_of([in_own_process(kind, size) for _ in range(rounds)]) for size in sizes}
    small, large = (runs[size] for size in sizes)
    growth = {part: large[part] / small[part] for part in ("build_s", "backward_s", "free_s", "total_s")}
    return {
        "sizes": {str(size): run for size, run in runs.items()},
        "growth": growth,
        "linear": growth["total_s"] <= GROWTH,
    }


def in_own_process(kind: str, size: int) -> dict[str, float]:
    """`run_graph` in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run_graph, kind, size).result()


def best_of(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """The least of each figure over the runs; what was kept is never the least, but the most."""
    return {key: (max if key.startswith("kept") else min)(run[key] for run in runs) for key in runs[0]}


def run_graph(kind: str, size: int) -> dict[str, float]:
    """Build, differentiate and free one graph in this process, the garbage collector off."""
    run_once(kind, 10_000)  # fills the free lists of the interpreter and of NumPy
    resident("VmRSS")
    gc.collect()
    gc.disable()
    try:
        blocks, memory = sys.getallocatedblocks(), resident("VmRSS")
        times, gradient = run_once(kind, size)
        if not math.isclose(gradient, 1.0, rel_tol=1e-9):
            raise RuntimeError(f"the gradient of {kind} is {gradient}, not 1")
        kept_memory = resident("VmRSS") - memory
        in_cycles = (
            gc.collect()
        )  # finds nothing, and empties the interpreter's free lists, which would be counted below
        return {
            **times,
            "peak_bytes_per_op": (resident("VmHWM") - memory) / size,
            "kept_bytes_per_op": kept_memory / size,
            "kept_objects": sys.getallocatedblocks() - blocks,
            "kept_in_cycles": in_cycles,
        }
    finally:
        gc.enable()


def run_once(kind: str, size: int) -> tuple[dict[str, float], float]:
    """(seconds of each part, the derivative)."""
    x = tg.Tensor(np.ones(4), requires_grad=True)
    start = time.perf_counter()
    y = KINDS[kind](x, size).sum()
    built = time.perf_counter()
    y.backward()
    differentiated = time.perf_counter()
    del y
    freed = time.perf_counter()
    times = {
        "build_s": built - start,
        "backward_s": differentiated - built,
        "free_s": freed - differentiated,
        "total_s": freed - start,
    }
    assert x.grad is not None
    return times, float(x.grad.numpy()[0])


def resident(field: str) -> float:
    """Bytes of memory of this process, now (VmRSS) or at most (VmHWM); NaN where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return math.nan
    return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def show(graphs: dict[str, Any]) -> str:
    """The table and the verdicts."""
    rows, lines = [], []
    for kind, found in graphs.items():
        for size, run in found["sizes"].items():
            times = [f"{1e6 * run[part] / int(size):.2f}" for part in ("build_s", "backward_s", "free_s")]
            memory = [
                f"{run[key]:.0f}"
                for key in ("peak_bytes_per_op", "kept_bytes_per_op", "kept_in_cycles", "kept_objects")
            ]
            rows.append([kind, f"{int(size):,}", f"{run['total_s']:.2f}", *times, *memory])
        growth = found["growth"]
        parts = ", ".join(f"{part.removesuffix('_s')} {growth[part]:.1f}" for part in growth)
        lines.append(
            f"{kind}: growth for ten times the operations: {parts} ({'linear' if found['linear'] else 'NOT LINEAR'})"
        )
    headings = [
        "graph",
        "ops",
        "total s",
        "build us/op",
        "backward",
        "free",
        "peak B/op",
        "kept B/op",
        "in cycles",
        "objects",
    ]
    return "\n".join([measure.table(headings, rows), *lines])
