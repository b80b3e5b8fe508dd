"""One training step (forward, backward, update) of eight networks, beside hand-derived NumPy and other libraries.

How to read it: a row is a network and a batch size, a column a competitor; a figure is its time for one step as a
multiple of plain hand-derived NumPy's in the same rounds (median over the rounds), so less is better and 1 is the
backprop an expert writes by hand. "preallocated" is the same without new arrays, "products-alone" the step's matrix
products and nothing else. All start from the same weights and see the same data, and after three steps their losses
and weights are compared with hand-derived NumPy in float64: "!" marks one that trains something else. "-" is one that
is not installed or failed; the notes say which. Nobody runs beside the one that is timed, unless --busy asks for it
(see worker.py). On a machine that others use too, products on several threads vary wildly: --cores 1 is steadier.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from benchmarks.hand_derived import NETWORKS, STEPS, Array, Network, Plain
from benchmarks.peers import PEERS, YARDSTICK
from benchmarks.worker import Loaded, Worker, problem

CHECK_STEPS = 3
# Relative to the change of a parameter's array over the steps, or to the loss. Float32 alone gives 1e-7 to 1e-4, but
# a ReLU whose input is a rounding error from 0 goes either way and so changes a column of a gradient (1e-2 was seen).
TOLERANCE = 0.02
LABEL = "time of one training step / hand-derived NumPy's (bars: quartiles over the rounds)"
DISTURBED = 0.35  # cores that other processes may keep busy beside a block (known to about 0.2)


@dataclass
class Measured:
    """One competitor on one network."""

    seconds: list[float] = field(default_factory=list)  # of one step, one figure a round
    others: list[float] = field(default_factory=list)  # cores kept busy by other processes in each of them
    first_step: float = 0.0
    disagreement: float | None = None
    note: str = ""

    def report(self, yardstick: Measured) -> dict[str, Any]:
        """For the results file."""
        if not self.seconds:
            return {"note": self.note}
        ratios = np.array(self.seconds) / np.array(yardstick.seconds)
        low, median, high = np.quantile(ratios, (0.25, 0.5, 0.75))
        return {
            "ratio": float(median),
            "ratio_quartiles": [float(low), float(high)],
            "best_us": 1e6 * min(self.seconds),
            "median_us": 1e6 * float(np.median(self.seconds)),
            "first_step_s": self.first_step,
            "disagreement": self.disagreement,
            "agrees": self.agrees,
            "note": self.note,
            "seconds": self.seconds,
            "others": self.others,
        }

    @property
    def agrees(self) -> bool:
        """Whether the losses and weights are hand-derived NumPy's; true for what trains nothing."""
        return self.disagreement is None or self.disagreement <= TOLERANCE


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Measure, print, write steps.json and steps.png; returns the results."""
    options = parse(arguments)
    results = measure.header(
        "steps", options, "tinygrad_scratch", "torch", "jax", "jaxlib", "autograd", "mygrad", "numba"
    )
    results["shapes"] = {}
    with busy_core(options.busy), measure.cores(options.cores), workers(options.peers) as pool:
        for name in options.shapes:
            network = NETWORKS[name]
            if options.quick:
                network = replace(network, batch=min(network.batch, 256))
            measured = measure_shape(network, pool, options)
            peers = {peer: figures.report(measured[YARDSTICK]) for peer, figures in measured.items()}
            results["shapes"][name] = {"label": network.label, "peers": peers}
            print(f"{network.label}: {1e6 * min(measured[YARDSTICK].seconds):.1f} us by hand", flush=True)
    print(f"\n{show(results, options.peers)}")
    stem = "steps" + ("-busy" if options.busy else "") + (f"-cores{options.cores}" if options.cores else "")
    measure.write_json(options.out / f"{stem}.json", results)
    print(f"\nWritten: {options.out / stem}.json")
    if importlib.util.find_spec("matplotlib"):
        measure.write_atomically(options.out / f"{stem}.png", lambda path: draw(results, options.peers, path))
        print(f"Written: {options.out / stem}.png")
    else:
        print("no chart: matplotlib is not installed")
    return results


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = measure.parser("steps", __doc__)
    parser.add_argument(
        "--shapes", nargs="+", choices=NETWORKS, default=STEPS, metavar="NAME", help=", ".join(NETWORKS)
    )
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), metavar="NAME", help=", ".join(PEERS))
    parser.add_argument("--rounds", type=measure.positive, default=11, help="rounds of blocks (default: %(default)s)")
    parser.add_argument("--block", type=float, default=0.03, help="seconds of a block (default: %(default)s)")
    parser.add_argument("--busy", action="store_true", help="keep one core busy with another process meanwhile")
    measure.add_cores(parser)
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.block = 2, 0.001
    if options.block <= 0:
        parser.error("--block must be positive")
    options.peers = [YARDSTICK, *(peer for peer in options.peers if peer != YARDSTICK)]
    return options


@contextmanager
def workers(peers: Sequence[str]) -> Iterator[dict[str, Worker]]:
    """A worker process for each peer."""
    pool = {peer: Worker(peer) for peer in peers}
    try:
        yield pool
    finally:
        for worker in pool.values():
            worker.close()


@contextmanager
def busy_core(wanted: bool) -> Iterator[None]:
    """Another process computes all the time, if wanted."""
    if not wanted:
        yield
        return
    process = multiprocessing.get_context("spawn").Process(target=spin, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def spin() -> None:
    """Keeps one core busy for ever."""
    while True:
        pass


def measure_shape(network: Network, pool: dict[str, Worker], options: argparse.Namespace) -> dict[str, Measured]:
    """Load and check every peer, then time them in rounds of one block each, in a new random order every round.

    A block that other processes disturb is run again, as long as no more than half of all blocks are run for nothing.
    """
    reference = reference_run(network, options.seed)
    measured = {peer: Measured() for peer in pool}
    counts: dict[str, int] = {}
    for peer, worker in pool.items():
        try:
            loaded = worker.load(network, options.seed, CHECK_STEPS)
            counts[peer] = worker.calibrate(options.block)
        except RuntimeError as error:
            measured[peer].note = str(error)
            continue
        measured[peer].first_step = loaded.first_step
        measured[peer].disagreement = disagreement(loaded, reference)
    order = np.random.default_rng(options.seed)
    spare = 0 if options.busy else options.rounds * len(counts)
    for _ in range(options.rounds):
        for peer in map(str, order.permutation(list(counts))):
            try:
                timed = pool[peer].block(counts[peer])
                while timed.others > DISTURBED and spare:
                    timed, spare = pool[peer].block(counts[peer]), spare - 1
            except RuntimeError as error:
                measured[peer] = Measured(note=str(error))
                del counts[peer]
                continue
            measured[peer].seconds.append(timed.seconds)
            measured[peer].others.append(timed.others)
    if YARDSTICK not in counts:
        raise RuntimeError(f"{YARDSTICK} failed: {measured[YARDSTICK].note}")
    return measured


# ---- do all compute the same? ----------------------------------------------------------------------------------------


def reference_run(network: Network, seed: int) -> tuple[list[float], list[Array], list[Array]]:
    """Hand-derived NumPy in float64: (losses, parameters before, parameters after)."""
    parameters, batches = problem(network, seed, np.float32)
    trained = Plain(network, [parameter.astype(np.float64) for parameter in parameters])
    losses = []
    for step in range(CHECK_STEPS):
        x, targets = batches[step % len(batches)]
        exact = targets if targets.dtype.kind == "i" else targets.astype(np.float64)
        losses.append(float(trained(x.astype(np.float64), exact)))
    measure.settle()
    return losses, parameters, trained.parameters


def disagreement(loaded: Loaded, reference: tuple[list[float], list[Array], list[Array]]) -> float | None:
    """The largest relative error of a loss, or (by norms) of an array's change over the steps; None for no training."""
    losses, before, after = reference
    if not loaded.weights:
        return None
    errors = [abs(a - b) / abs(b) for a, b in zip(loaded.losses, losses, strict=True)]
    for start, expected, got in zip(before, after, loaded.weights, strict=True):
        errors.append(float(np.linalg.norm(got - expected) / np.linalg.norm(expected - start)))
    return float(np.max(errors))


# ---- what is shown ---------------------------------------------------------------------------------------------------


def show(results: dict[str, Any], peers: Sequence[str]) -> str:
    """The tables of ratios and of times, and the notes."""
    ratios, times = [], []
    notes: dict[str, None] = {}
    for shape in results["shapes"].values():
        found = [shape["peers"][peer] for peer in peers]
        notes.update({f"{peer}: {f['note']}": None for peer, f in zip(peers, found, strict=True) if f["note"]})
        marks = ["" if f.get("agrees", True) else " !" for f in found]
        cells = [f"{f['ratio']:.2f}{mark}" if "ratio" in f else "-" for f, mark in zip(found, marks, strict=True)]
        ratios.append([shape["label"], *cells])
        times.append([shape["label"], *(f"{f['best_us']:,.0f}" if "best_us" in f else "-" for f in found)])
    tables = [
        measure.table([f"time / {YARDSTICK}, median", *peers], ratios),
        measure.table(["us, best of all rounds", *peers], times),
    ]
    found = [figures for shape in results["shapes"].values() for figures in shape["peers"].values()]
    others = np.array([share for figures in found for share in figures.get("others", [])])
    load = (
        f"Beside the blocks, other processes kept {others.mean():.2f} of {results['machine']['cores']} cores busy; "
        f"{np.sum(others > DISTURBED)} of {len(others)} blocks were disturbed."
    )
    return "\n".join(["\n\n".join(tables), "", *notes, load])


def draw(results: dict[str, Any], peers: Sequence[str], path: Path, label: str = LABEL) -> None:
    """The table as a chart: a row a step, a mark a competitor, logarithmic."""
    from matplotlib.figure import Figure

    shapes = list(results["shapes"].values())
    figure = Figure(figsize=(9, 1.5 + 0.55 * len(shapes)), layout="constrained")
    axes = figure.add_subplot()
    markers = "osD^vP*Xh<>pd"
    for index, peer in enumerate(peers[1:]):
        found = [(s["peers"][peer], row) for row, s in enumerate(shapes) if "ratio" in s["peers"][peer]]
        ours = peer.startswith("ours")
        axes.errorbar(
            [figures["ratio"] for figures, _ in found],
            [row for _, row in found],
            xerr=np.array([np.abs(np.array(f["ratio_quartiles"]) - f["ratio"]) for f, _ in found]).reshape(-1, 2).T,
            fmt=markers[index % len(markers)],
            color=f"C{index}",
            markersize=9 if ours else 6,
            markeredgecolor="black" if ours else "none",
            elinewidth=1,
            label=peer,
            zorder=3 if ours else 2,
        )
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_yticks(range(len(shapes)), [shape["label"] for shape in shapes])
    axes.invert_yaxis()
    axes.grid(alpha=0.3)
    axes.set_xlabel(label)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(path, dpi=150)
