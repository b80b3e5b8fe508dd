"""Training MNIST with the defaults of `python -m models train`, beside hand-derived NumPy and torch doing the same.

How to read it: all three start from the same weights, see the same examples in the same order and do the same work:
in every step the loss and the number of right answers, after every epoch the loss and accuracy on the held-out
images. "seconds" is that, without loading the data and without the final test, of the fastest run. The same start
makes the first epoch's mean loss equal to a few digits; later rounding takes each its own way, and the test
accuracies differ by a few tenths of a percent. "whole command" is the command itself: start of Python, data,
training, test and figures.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from benchmarks.hand_derived import Array, Network, backward, forward, loss_and_delta, update
from benchmarks.peer import interleave
from models import training
from models.data import batches, flatten, load_mnist
from models.settings import Settings
from tinygrad_scratch.data import DataLoader

ROOT = Path(__file__).parents[1]
CHUNK = 1000  # images at a time when the network is only asked

Epochs = list[float]
Predict = Callable[[Array], Array]


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Measure, print, write training.json; returns the results."""
    parser = measure.parser("training", __doc__)
    parser.add_argument(
        "--rounds", type=measure.positive, default=3, help="runs of each; the fastest counts (default: 3)"
    )
    parser.add_argument(
        "--epochs",
        type=measure.positive,
        default=Settings().epochs,
        help="passes (default: %(default)s, the command's)",
    )
    measure.add_cores(parser)
    options = parser.parse_args(arguments)
    settings = Settings(epochs=options.epochs, seed=options.seed)
    if options.quick:
        options.rounds, settings = 1, replace(settings, epochs=1, examples=2_000, validation=1_000)
    results = measure.header("training", options, "tinygrad_scratch", "torch")
    results["training"] = settings.to_json()
    with measure.cores(options.cores):
        results["runs"] = measure_all(settings, options.rounds)
        results["whole command"] = whole_command(settings, figures=not options.quick)
    print(show(results))
    measure.write_json(options.out / "training.json", results)
    print(f"\nWritten: {options.out / 'training.json'}")
    return results


def measure_all(settings: Settings, rounds: int) -> dict[str, Any]:
    """The fastest of `rounds` runs of each, in turn, each in a process of its own; a note for what is not installed."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in COMPETITORS}
    notes: dict[str, str] = {}
    for _ in range(rounds):
        for name in COMPETITORS:
            if name in notes:
                continue
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                try:
                    runs[name].append(pool.submit(run_one, name, settings).result())
                except ImportError as error:
                    notes[name] = f"not installed: {error}"
    return {
        name: min(found, key=lambda run: run["seconds"]) if found else {"note": notes[name]}
        for name, found in runs.items()
    }


def run_one(name: str, settings: Settings) -> dict[str, float]:
    """One training run in this process."""
    mnist = load_mnist()
    parts = training.prepare(settings, mnist)
    epochs, predict = COMPETITORS[name](settings, *parts)
    start = time.perf_counter()
    losses = epochs()
    seconds = time.perf_counter() - start
    right = predict(flatten(mnist.x_test)).argmax(axis=1) == mnist.y_test
    examples = settings.epochs * settings.training_examples()
    return {
        "seconds": seconds,
        "examples_per_second": examples / seconds,
        "first_epoch_loss": losses[0],
        "last_epoch_loss": losses[-1],
        "test_accuracy": float(np.mean(right)),
    }


# ---- the competitors: each gives a function that trains and returns each epoch's mean loss, and one that predicts ----


def ours(
    settings: Settings, examples: training.Examples, validation: training.Examples
) -> tuple[Callable[[], Epochs], Predict]:
    """models.training, as the command uses it."""
    run = training.new_run(settings)

    def epochs() -> Epochs:
        training.train(run, examples, validation)
        return [epoch.train_loss for epoch in run.history]

    return epochs, lambda x: training.predict(run.model, x)


def by_hand(
    settings: Settings, examples: training.Examples, validation: training.Examples
) -> tuple[Callable[[], Epochs], Predict]:
    """hand_derived, the plain version."""
    if settings.loss != "cross_entropy" or settings.activation not in ("relu", "sigmoid") or settings.weight_decay:
        raise ValueError("hand-derived training knows cross-entropy, ReLU or sigmoid, and no weight decay")
    network = Network(
        name="training",
        sizes=settings.sizes,
        hidden="relu" if settings.activation == "relu" else "sigmoid",
        loss="softmax_cross_entropy",
        batch=settings.batch_size,
        lr=settings.lr,
        momentum=settings.momentum,
    )
    run = training.new_run(settings)
    parameters = [np.ascontiguousarray(value.T) for value in run.model.state_dict().values()]
    velocities = [np.zeros_like(parameter) for parameter in parameters]

    def step(x: Array, labels: Array) -> tuple[float, int]:
        inputs, z = forward(network, parameters, x)
        loss, delta = loss_and_delta(network, z, labels)
        update(network, parameters, velocities, backward(network, parameters, inputs, delta))
        return float(loss), int(np.count_nonzero(z.argmax(axis=1) == labels))

    def predict(x: Array) -> Array:
        return np.concatenate([forward(network, parameters, x[i : i + CHUNK])[1] for i in range(0, len(x), CHUNK)])

    def ask(labels: Array) -> float:
        return float(loss_and_delta(network, predict(validation.x), labels)[0])

    return lambda: train(
        settings, training.make_loader(run, examples), (examples.x, integers(examples)), integers(validation), step, ask
    ), predict


def torch_eager(
    settings: Settings, examples: training.Examples, validation: training.Examples
) -> tuple[Callable[[], Epochs], Predict]:
    """torch.nn and torch.optim."""
    torch = importlib.import_module("torch")
    layers = [torch.nn.Linear(*size) for size in zip(settings.sizes, settings.sizes[1:], strict=False)]
    between = torch.nn.ReLU if settings.activation == "relu" else torch.nn.Sigmoid
    model = torch.nn.Sequential(*interleave(layers, between))
    run = training.new_run(settings)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in run.model.state_dict().items()})
    optimizer = torch.optim.SGD(model.parameters(), lr=settings.lr, momentum=settings.momentum)
    criterion = torch.nn.CrossEntropyLoss()

    def step(x: Any, labels: Any) -> tuple[float, int]:
        optimizer.zero_grad()
        z = model(x)
        loss = criterion(z, labels)
        loss.backward()
        optimizer.step()
        return loss.item(), int((z.argmax(dim=1) == labels).sum())

    def logits(x: Array) -> Any:
        with torch.no_grad():
            return torch.cat([model(torch.from_numpy(x[i : i + CHUNK])) for i in range(0, len(x), CHUNK)])

    def ask(labels: Array) -> float:
        return float(criterion(logits(validation.x), torch.from_numpy(labels)))

    tensors = torch.from_numpy(examples.x), torch.from_numpy(integers(examples))
    loader = training.make_loader(run, examples)
    return lambda: train(settings, loader, tensors, integers(validation), step, ask), lambda x: np.asarray(logits(x))


COMPETITORS: dict[str, Callable[..., tuple[Callable[[], Epochs], Predict]]] = {
    "hand-derived": by_hand,
    "ours": ours,
    "torch-eager": torch_eager,
}


def integers(examples: training.Examples) -> Array:
    """The labels as int64, which torch wants."""
    return examples.labels.astype(np.int64)


def train(
    settings: Settings,
    loader: DataLoader,
    examples: tuple[Any, Any],
    held_out_labels: Array,
    step: Callable[[Any, Any], tuple[float, int]],
    ask: Callable[[Array], float],
) -> Epochs:
    """The loop of `models.training` for the other competitors: the same batches; returns each epoch's mean loss."""
    x, labels = examples
    means = []
    for _ in range(settings.epochs):
        total = right = 0.0
        for batch in batches(loader.rows(), settings.batch_size):
            loss, correct = step(x[batch], labels[batch])
            total += loss * len(batch)
            right += correct
        loader.advance(len(loader))
        ask(held_out_labels)
        means.append(total / len(labels))
    return means


def whole_command(settings: Settings, figures: bool) -> dict[str, float]:
    """`python -m models train` itself, in a fresh folder: {"seconds", "test_accuracy"}."""
    given = {"epochs": settings.epochs, "seed": settings.seed, "validation": settings.validation}
    if settings.examples is not None:
        given["examples"] = settings.examples
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    words += [] if figures else ["--no-figures"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        start = time.perf_counter()
        command = [sys.executable, "-m", "models", "train", *words, "--out", str(out)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()}")
        found = json.loads((out / "results.json").read_text())
    return {"seconds": seconds, "test_accuracy": found["test"]["accuracy"]}


def show(results: dict[str, Any]) -> str:
    """The table."""
    rows = []
    yardstick = results["runs"]["hand-derived"]["seconds"]
    for name, run in results["runs"].items():
        if "note" in run:
            rows.append([name, *["-"] * 5, run["note"]])
            continue
        times = [f"{run['seconds']:.2f}", f"{run['seconds'] / yardstick:.2f}", f"{run['examples_per_second']:,.0f}"]
        losses = [f"{run['first_epoch_loss']:.5f}", f"{run['last_epoch_loss']:.5f}"]
        rows.append([name, *times, *losses, f"{100 * run['test_accuracy']:.2f} %"])
    whole = results["whole command"]
    rows.append(
        ["whole command", f"{whole['seconds']:.2f}", "-", "-", "-", "-", f"{100 * whole['test_accuracy']:.2f} %"]
    )
    headings = ["", "seconds", "/ by hand", "examples/s", "loss, epoch 1", "loss, last", "test accuracy"]
    return measure.table(headings, rows)
