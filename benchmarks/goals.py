"""Convolutional networks trained until they reach a goal on the test images, beside torch: LeNet-5 99 % of MNIST's, a small VGG
72 % of CIFAR-10's (left out where CIFAR-10 is not found; models/data/README.md says where it is looked for).

How to read it: both start from the same weights and see the same batches of 60 and 64 in the same order, with the settings of kth's
convolutional claims (`python -m models papers`): SGD with momentum and weight decay, after some epochs a tenth of the rate.
"seconds" is the time of the training steps of all epochs until the goal, "processor" what they took of all cores; "start" is
that of the first three steps, in which ours are recorded and compiled (or found compiled from before). Choosing the batches is
in it, evaluating and reading data are not. Each is a process of its own, one after the other, with its own threads.
"""

from __future__ import annotations

import importlib
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from benchmarks import layers, measure
from models.data import batches, flatten
from models.data.sets import DATA_SETS
from models.files import RunError
from models.papers.kth import LENET, VGG
from models.papers.networks import NETWORKS, Standardised
from models.papers.tasks import Task


class Competitor(NamedTuple):
    """A network and how it is trained: its optimizer, step(x, labels), logits(x)."""

    optimizer: Any
    step: Callable[[Any, Any], Any]
    logits: Callable[[Any], Any]


GOALS: dict[str, tuple[str, Task, tuple[layers.Layer, ...], float]] = {
    "lenet5": ("LeNet-5 on MNIST", LENET["LeNet-5"], layers.LENET5, 0.99),
    "vgg": ("VGG 16-32-64 on CIFAR-10", VGG["small VGG"], layers.vgg(16, 32, 64), 0.72),
}
ASKED = 500  # images at a time


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Measure, print, write goals.json; returns the results."""
    parser = measure.parser("goals", __doc__)
    parser.add_argument("--cases", nargs="+", choices=GOALS, default=list(GOALS), metavar="NAME", help=", ".join(GOALS))
    parser.add_argument(
        "--peers",
        nargs="+",
        choices=COMPETITORS,
        default=list(COMPETITORS),
        metavar="NAME",
        help=", ".join(COMPETITORS),
    )
    measure.add_cores(parser)
    options = parser.parse_args(arguments)
    results = measure.header("goals", options, "tinygrad_scratch", "torch", "numba")
    results["runs"] = {}
    with measure.cores(options.cores):
        for case in options.cases:
            results["runs"][case] = {}
            for peer in options.peers:
                with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                    found = pool.submit(run_one, peer, case, options.seed, options.quick).result()
                results["runs"][case][peer] = found
                print(f"{GOALS[case][0]}, {peer}: {found}", flush=True)
    print(f"\n{show(results)}")
    measure.write_json(options.out / "goals.json", results)
    print(f"\nWritten: {options.out / 'goals.json'}")
    return results


def run_one(peer: str, case: str, seed: int, quick: bool) -> dict[str, Any]:
    """One training run in this process; a note for what is not installed, or not there."""
    _, task, parts, goal = GOALS[case]
    try:
        data = DATA_SETS[task.data].load()
        rng = np.random.default_rng(seed)
        network: Any = NETWORKS[task.network][0](task, rng)
        competitor = COMPETITORS[peer](task, network, parts)
    except (ImportError, RunError) as error:
        return {"note": str(error)}
    x, x_test = (prepared(network, task, images) for images in (data.x_train, data.x_test))
    labels = data.y_train.astype(np.int64)
    rates = [phase.lr for phase in task.phases for _ in range(phase.epochs)]
    size = task.phases[0].batch_size
    count = (2_000 if quick else len(labels)) // size * size  # whole batches, so that all steps are of one shape
    found: dict[str, Any] = {
        "epochs": 0,
        "seconds": 0.0,
        "processor": 0.0,
        "start": 0.0,
        "accuracies": [],
        "goal": goal,
    }
    for lr in rates[: 1 if quick else None]:
        competitor.optimizer.param_groups[0]["lr"] = lr
        order = rng.permutation(len(labels))[:count]
        wall, processor = time.perf_counter(), time.process_time()
        for n, batch in enumerate(batches(order, size)):
            competitor.step(x[batch], labels[batch])
            if n == 2 and not found["epochs"]:
                found["start"] = time.perf_counter() - wall
        found["seconds"] += time.perf_counter() - wall
        found["processor"] += time.process_time() - processor
        found["epochs"] += 1
        right = [competitor.logits(x_test[i : i + ASKED]).argmax(1) for i in range(0, len(x_test), ASKED)]
        found["accuracies"].append(float(np.mean(np.concatenate(right) == data.y_test)))
        if found["accuracies"][-1] >= goal:
            break
    return found


def prepared(network: Standardised, task: Task, images: Any) -> Any:
    """Images as the network inside takes them, float32 (N, C, H, W)."""
    x = flatten(images).reshape(-1, *NETWORKS[task.network][1])
    return (x - network.mean) / network.deviation


def training(model: Any, optimizer: Any, cross_entropy: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    """The training step, ours or torch's."""

    def step(x: Any, labels: Any) -> Any:
        loss = cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def ours(task: Task, network: Standardised, parts: tuple[layers.Layer, ...]) -> Competitor:
    """tinygrad_scratch, captured and compiled."""
    import tinygrad_scratch as tg

    importlib.import_module("numba")
    model = network.network
    optimizer = tg.optim.SGD(model.parameters(), **options_of(task))
    step = tg.capture(training(model, optimizer, tg.nn.functional.cross_entropy), backend="numba")

    def logits(x: Any) -> Any:
        with tg.no_grad():
            return model(x).numpy()

    return Competitor(optimizer, step, logits)


def torch_eager(task: Task, network: Standardised, parts: tuple[layers.Layer, ...]) -> Competitor:
    """torch.nn and torch.optim, from the same weights."""
    torch = importlib.import_module("torch")
    model = layers.in_torch(torch, parts, network.network)
    optimizer = torch.optim.SGD(model.parameters(), **options_of(task))
    step = training(model, optimizer, torch.nn.functional.cross_entropy)

    def logits(x: Any) -> Any:
        with torch.no_grad():
            return model(torch.from_numpy(x)).numpy()

    return Competitor(optimizer, lambda x, labels: step(torch.from_numpy(x), torch.from_numpy(labels)), logits)


def options_of(task: Task) -> dict[str, Any]:
    first = task.phases[0]
    return {"lr": first.lr, "momentum": first.momentum, "weight_decay": task.weight_decay}


COMPETITORS: dict[str, Callable[..., Competitor]] = {"ours": ours, "torch-eager": torch_eager}


def show(results: dict[str, Any]) -> str:
    """A row a run."""
    rows = []
    for case, runs in results["runs"].items():
        for peer, f in runs.items():
            if "note" in f:
                rows.append([GOALS[case][0], peer, *["-"] * 5, f["note"]])
                continue
            reached = "" if f["accuracies"][-1] >= f["goal"] else f"below {f['goal']:.0%}"
            times = [f"{f[key]:,.1f}" for key in ("seconds", "processor", "start")]
            rows.append([GOALS[case][0], peer, str(f["epochs"]), *times, f"{f['accuracies'][-1]:.2%}", reached])
    return measure.table(["network", "", "epochs", "seconds", "processor", "start", "accuracy", ""], rows)
