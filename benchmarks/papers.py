"""The training steps of the five papers' own experiments, beside hand-derived NumPy and torch doing the same work.

How to read it: `python -m models reproduce all` takes so many training steps of so many networks; each kind of step is
timed on random batches, as `steps` does it, and multiplied by its number. A figure is the training time that this gives,
in seconds on one process: measured on a part and extrapolated. What a reproduction does besides (evaluating, reading
data, drawing) is left out for all alike, and so are the experiments beyond the papers and CIFAR-10.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks import measure, steps
from benchmarks.hand_derived import Network
from benchmarks.peers import PEERS, YARDSTICK
from models.papers import NAMES
from models.papers.commands import paper
from models.papers.tasks import Phase, Task

LOSSES = {"squared_error": "squared_error", "bce": "binary_cross_entropy", "cross_entropy": "softmax_cross_entropy"}
CHOSEN = (YARDSTICK, "ours-compiled", "torch-eager")
LAB2_BATCH = 40_000  # of the 60,000 images, drawn anew in each epoch


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Measure, print, write papers.json; returns the results."""
    parser = measure.parser("papers", __doc__)
    parser.add_argument(
        "--peers", nargs="+", choices=PEERS, default=list(CHOSEN), metavar="NAME", help=", ".join(PEERS)
    )
    parser.add_argument("--rounds", type=measure.positive, default=3, help="rounds of blocks (default: %(default)s)")
    measure.add_cores(parser)
    options = parser.parse_args(arguments)
    options.block, options.busy = (0.001, False) if options.quick else (0.03, False)
    options.peers = [YARDSTICK, *(peer for peer in options.peers if peer != YARDSTICK)]
    results = measure.header("papers", options, "tinygrad_scratch", "torch", "numba")
    results["papers"] = {}
    with measure.cores(options.cores), steps.workers(options.peers) as pool:
        known: dict[Network, dict[str, float]] = {}
        for name in NAMES:
            counts = count_steps(name)
            if options.quick:
                counts = Counter(dict([min(counts.items(), key=lambda item: item[0].batch * item[0].sizes[1])]))
            for network in counts.keys() - known.keys():
                measured = steps.measure_shape(network, pool, options)
                known[network] = {peer: min(m.seconds) for peer, m in measured.items() if m.seconds}
            results["papers"][name] = extrapolated(counts, known)
    print(show(results, options.peers))
    measure.write_json(options.out / "papers.json", results)
    return results


def count_steps(name: str) -> Counter[Network]:
    """How many steps of which networks the paper's own experiments take, each different run once."""
    tasks = {task.key: task for claim in paper(name).claims if not claim.beyond for task in claim.tasks.values()}
    counts: Counter[Network] = Counter()
    for task in tasks.values():
        if task.data == "mnist":
            for network, count in networks(task):
                counts[network] += count
    return counts


def networks(task: Task) -> Iterator[tuple[Network, int]]:
    """The network and the number of steps of each of a task's phases."""
    for phase in task.phases:
        yield network_of(task, phase), task.phase_steps(phase)


def network_of(task: Task, phase: Phase) -> Network:
    """The step as the hand-derived code knows it: rates do not change its cost, so they are left out."""
    batch = LAB2_BATCH if task.resplit else phase.batch_size
    momentum = 0.5 if phase.momentum else 0.0
    return Network("", task.sizes, task.activation, LOSSES[task.loss], batch, 0.01, momentum)  # type: ignore[arg-type]


def extrapolated(counts: Counter[Network], known: dict[Network, dict[str, float]]) -> dict[str, Any]:
    """Steps, and each peer's seconds for all of them; none for a peer that does not do them all."""
    seconds = {
        peer: sum(count * known[network][peer] for network, count in counts.items())
        for peer in next(iter(known.values()))
        if all(peer in known[network] for network in counts)
    }
    return {"steps": counts.total(), "kinds": len(counts), "seconds": seconds}


def show(results: dict[str, Any], peers: Sequence[str]) -> str:
    """A row a paper."""
    rows = []
    for name, found in results["papers"].items():
        times = [f"{found['seconds'][peer]:,.0f}" if peer in found["seconds"] else "-" for peer in peers]
        rows.append([name, f"{found['steps']:,}", str(found["kinds"]), *times])
    return measure.table(["seconds of training steps", "steps", "kinds", *peers], rows)
