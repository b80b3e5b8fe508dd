"""What capturing a step costs and saves: time to the first replay, memory of a step, and an online epoch of MNIST.

How to read it. "to first replay" is the time in milliseconds from the first call of a step to the end of the first call
that runs as all later ones will (for us the third: two are recorded), in a fresh process, the import of libraries not
counted; "cold" with an empty cache of compiled code, "cached" in a second process. "memory" is the peak of all NumPy
arrays while steps run, less the parameters, what the optimizer keeps and the batches, in kilobytes (tracemalloc).
"online epoch" is 60,000 steps of one example, 784-32-10 with momentum 0.8, in seconds.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks import measure
from benchmarks.hand_derived import NETWORKS, STEPS, Network
from benchmarks.peers import PEERS
from benchmarks.worker import problem

STARTS = ("ours-numpy", "ours-compiled", "jax-jit", "torch-compile")
MEMORIES = ("hand-derived", "preallocated", "ours-eager", "ours-numpy", "ours-compiled")
EPOCHS = ("ours-numpy", "ours-compiled", "torch-eager", "jax-jit", "hand-derived")
CALLS_TO_REPLAY = 3


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Measure, print, write capture.json; returns the results."""
    parser = measure.parser("capture", __doc__)
    parser.add_argument("--shapes", nargs="+", choices=NETWORKS, default=STEPS, metavar="NAME")
    measure.add_cores(parser)
    options = parser.parse_args(arguments)
    results = measure.header("capture", options, "tinygrad_scratch", "numba", "torch", "jax")
    batch = 256 if options.quick else 10**9
    with measure.cores(options.cores):
        networks = {n: replace(NETWORKS[n], batch=min(NETWORKS[n].batch, batch)) for n in options.shapes}
        results["start_ms"] = {n: starts(network, options.seed) for n, network in networks.items()}
        results["memory_kb"] = {n: memories(network, options.seed) for n, network in networks.items()}
        examples = 600 if options.quick else 60_000
        results["epoch_s"] = {peer: apart(epoch, peer, examples, options.seed) for peer in EPOCHS}
    print(show(results, networks))
    measure.write_json(options.out / "capture.json", results)
    return results


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a call in a fresh process; a text that says why there is none."""
    context = multiprocessing.get_context("spawn")
    near, far = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(far, function, arguments), daemon=True)
    process.start()
    far.close()
    try:
        return near.recv()
    except EOFError:
        return "the process died"
    finally:
        process.join()


def _answer(pipe: Any, function: Callable[..., Any], arguments: Any) -> None:
    try:
        pipe.send(function(*arguments))
    except ImportError:
        pipe.send("not installed")
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")


def starts(network: Network, seed: int) -> dict[str, Any]:
    """Milliseconds to the first replay, by peer; compiled ones cold and from their cache."""
    found: dict[str, Any] = {}
    for peer in STARTS:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["TINYGRAD_SCRATCH_CACHE"] = folder
            found[peer] = apart(start, peer, network, seed)
            if peer == "ours-compiled":
                found["ours-cached"] = apart(start, peer, network, seed)
            del os.environ["TINYGRAD_SCRATCH_CACHE"]
    return found


def start(name: str, network: Network, seed: int) -> float:
    """Milliseconds until a step has run for the first time as it will from then on."""
    parameters, batches = problem(network, seed, np.float32)
    peer = PEERS[name](network, parameters, batches)
    peer.reset()
    if name == "ours-compiled":
        import numba  # noqa: F401  (as torch and jax are imported already)
    calls = CALLS_TO_REPLAY if name.startswith("ours") else 1
    began = time.perf_counter()
    peer.run(calls)
    return 1e3 * (time.perf_counter() - began)


def memories(network: Network, seed: int) -> dict[str, Any]:
    """Peak kilobytes of arrays while steps run, by peer."""
    return {peer: apart(memory, peer, network, seed) for peer in MEMORIES}


def memory(name: str, network: Network, seed: int) -> float:
    """Peak bytes of one peer's steps, over what must be there anyway, in kilobytes."""
    parameters, batches = problem(network, seed, np.float32)
    tracemalloc.start(1)
    peer = PEERS[name](network, parameters, batches[:1])
    peer.reset()
    peer.run(CALLS_TO_REPLAY + 1)
    steady, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    peer.run(3)
    _, peak = tracemalloc.get_traced_memory()
    arrays = [t for t in tracemalloc.take_snapshot().traces if t.domain == np.lib.tracemalloc_domain]
    held = sum(trace.size for trace in arrays)
    kept = sum(p.nbytes for p in parameters) * (2 if network.momentum else 1)
    if name == "preallocated" and not network.momentum:
        kept += sum(p.nbytes for p in parameters)  # it keeps velocities that it does not use
    return (held + max(peak - steady, 0) - kept) / 1e3


def epoch(name: str, examples: int, seed: int) -> float:
    """Seconds of one online epoch: every step one example."""
    from models.data import flatten, load_mnist, one_hot

    mnist = load_mnist()
    x, targets = flatten(mnist.x_train[:examples]), one_hot(mnist.y_train[:examples])
    network = NETWORKS["kth-online"]
    parameters, _ = problem(network, seed, np.float32)
    few = [(x[i : i + 1], targets[i : i + 1]) for i in range(10)]
    peer = PEERS[name](network, parameters, few)
    peer.reset()
    peer.run(10)
    order = np.random.default_rng(seed).permutation(examples)
    if name.startswith("ours"):
        step: Any = peer.step
        step.epoch(x[:100], targets[:100])
        began = time.perf_counter()
        step.epoch(x, targets, order=order)
        return time.perf_counter() - began
    peer.batches = [peer.convert(x[i : i + 1], targets[i : i + 1]) for i in order]
    began = time.perf_counter()
    peer.run(examples)
    return time.perf_counter() - began


def show(results: dict[str, Any], networks: dict[str, Network]) -> str:
    """The three tables."""

    def cell(value: Any) -> str:
        return f"{value:,.1f}" if isinstance(value, float) else "-"

    tables = []
    for title, key in (("ms to first replay", "start_ms"), ("memory of a step, kB", "memory_kb")):
        peers = list(next(iter(results[key].values())))
        rows = [[networks[n].label, *(cell(found[p]) for p in peers)] for n, found in results[key].items()]
        tables.append(measure.table([title, *peers], rows))
    online = results["epoch_s"]
    tables.append(measure.table(["online epoch, s", *online], [["60,000 steps", *(cell(v) for v in online.values())]]))
    return "\n\n".join(tables)
