"""One run of an experiment, from its task to a record: curves and final figures that JSON can say.

Three random streams grow from the seed: which examples are held out, the first weights, and, for each epoch anew, the
order of the examples. So runs that differ in a learning rate or a batch size begin alike and see the same order.
"""

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import tinygrad_scratch as tg
import tinygrad_scratch.nn as nn
from models import rules
from models.data import Array, flatten, load_mnist
from models.files import RunError
from models.losses import LOSSES, Loss
from models.papers.networks import NETWORKS, Data
from models.papers.tasks import Phase, Task
from models.plots import worst_mistakes
from models.training import make_step, predict

Record = dict[str, Any]
SPLIT, WEIGHTS, ORDER, PRETRAINING = range(4)
MISTAKES = 24
CHUNK, COMPILED_FROM = 500, 25_000
"""How many examples a captured forward takes, and how many calls of it must be to come: each saves 0.04 to 0.07 ms, of the
second that it takes to compile."""


def stream(task: Task, *purpose: int) -> np.random.Generator:
    """The generator of one purpose; purposes do not disturb each other."""
    return np.random.default_rng([task.seed, *purpose])


class Part:
    """Examples: x float32 (N, ...) as the network takes it, labels (N,), and targets as the loss wants them."""

    def __init__(self, task: Task, x: Array, labels: Array):
        self.x = flatten(x).reshape(len(x), *NETWORKS[task.network][1])
        self.labels = labels if task.digit is None else (labels == task.digit).astype(labels.dtype)
        self.targets = targets(task, self.labels)

    def __len__(self) -> int:
        return len(self.x)


def targets(task: Task, labels: Array) -> Array:
    """What the task's loss compares the outputs with."""
    if task.digit is not None:
        return labels.astype(np.float32)[:, np.newaxis]
    made: Array = LOSSES[task.loss].targets(labels)
    return made


def guesses(logits: Array) -> Array:
    """The class of the largest output; for a single output, whether it is more likely than not."""
    made: Array = (logits[:, 0] > 0).astype(int) if logits.shape[1] == 1 else logits.argmax(axis=1)
    return made


@functools.lru_cache(maxsize=1)
def dataset(name: str, folder: str | None) -> Data:
    """A data set, read once a process."""
    if name == "mnist":
        return Data(*load_mnist())
    if name == "cifar10":
        from models.data.cifar10 import load_cifar10

        return Data(*load_cifar10(folder))
    raise RunError(f"data {name!r}: must be mnist or cifar10")


class Run:
    """A run under way. `run` makes one, trains it and asks it for its record."""

    def __init__(self, task: Task, data: Data, backend: str, show: Callable[[float], None]):
        self.task, self.backend, self.show = task, backend, show
        self.loss: Loss = rules.adapted(task.loss, task.scale, task.only_wrong)
        order = stream(task, SPLIT).permutation(len(data.labels)) if task.validation else np.arange(len(data.labels))
        chosen, held_out = order[task.validation :][: task.examples], order[: task.validation]
        self.parts = {"test": Part(task, data.x_test[: task.tests], data.labels_test[: task.tests])}
        if len(held_out):
            self.parts["validation"] = Part(task, data.x[held_out], data.labels[held_out])
        everything = len(chosen) == len(data.labels) and not task.validation
        self.train = Part(task, data.x, data.labels) if everything else Part(task, data.x[chosen], data.labels[chosen])
        self.parts["train"] = self.train
        self.model = NETWORKS[task.network][0](task, stream(task, WEIGHTS))
        self.seconds = {"train": 0.0, "evaluate": 0.0, "pretrain": 0.0}
        self.curve: dict[str, list[Any]] = {"epoch": [], "step": []}
        self.record: dict[str, list[Any]] = {"epoch": [], "step": [], "loss": [], "accuracy": []}
        self.steps, self.epochs, self.all_steps, self.stopped = 0, 0.0, task.steps, False
        self.optimizer = make_optimizer(task, self.model)
        made = make_step(self.model, self.optimizer, self.loss)
        self.step = tg.capture(weighted_step(self) if task.resplit else made, backend=backend)
        self.forward = tg.capture(lambda x: self.model(x), backend=backend) if self.chunks > COMPILED_FROM else None

    # -- training ------------------------------------------------------------------------------------------------------

    def go(self) -> None:
        """All phases, or until the test is good enough."""
        if self.task.pretrain:
            self._pretrain()
        self.evaluate()
        for phase in self.task.phases:
            done = 0
            for epoch in range(phase.epochs):
                done = self._epoch(phase, round(self.epochs) + 1 if not epoch else epoch_number(self), done)
                if self.stopped or (phase.steps is not None and done >= phase.steps):
                    break
            if self.stopped:
                break

    def _pretrain(self) -> None:
        """Teach each hidden layer in turn to code what it is fed."""
        from models.autoencoder import layers_of
        from models.pretraining import pretrain_layers

        began, task = time.perf_counter(), self.task
        layers = layers_of(self.model[:-1], rng=stream(task, PRETRAINING))  # type: ignore[index]
        seed = np.random.SeedSequence([task.seed, PRETRAINING, 1])
        batch_size = task.phases[0].batch_size
        pretrain_layers(layers, self.train.x, seed, epochs=task.pretrain, batch_size=batch_size, backend=self.backend)
        self.seconds["pretrain"] = time.perf_counter() - began

    def _epoch(self, phase: Phase, number: int, done: int) -> int:
        task = self.task
        rate = phase.lr * rules.SCHEDULES[task.schedule](number)
        options = {"momentum": phase.momentum} if task.optimizer == "sgd" else {}
        rules.set_options(self.optimizer, task.rates, rate, **options)
        began = self.epochs
        if task.resplit:
            self._full_batch(number)
            return done + 1
        order = stream(task, ORDER, number).permutation(len(self.train))
        steps = task.epoch_steps(phase)
        last = steps if phase.steps is None else min(steps, phase.steps - done)
        window = Window()
        for start, stop in spans(last, phase.record or steps, phase.evaluate or steps, done):
            took = order[start * phase.batch_size : stop * phase.batch_size]
            self._steps(took, phase.batch_size, window)
            self.epochs = began + stop / steps
            if (done + stop) % (phase.record or steps) == 0 or stop == last:
                self._keep(window)
                window = Window()
            if (done + stop) % (phase.evaluate or steps) == 0 or stop == last:
                self.evaluate()
            if self.stopped:
                break
        return done + last

    def _steps(self, took: Array, batch_size: int, window: "Window") -> None:
        """One step for each batch of the examples that `took` lists."""
        began = time.perf_counter()
        before = self.steps

        def progress(done: int, count: int, made: Any) -> None:
            self.show((before + done) / self.all_steps)

        losses, logits = self.step.epoch(
            self.train.x, self.train.targets, order=took, batch_size=batch_size, progress=progress
        )
        self.seconds["train"] += time.perf_counter() - began
        self.steps += len(losses)
        window.add(losses, logits, self.train.labels[took])

    def _full_batch(self, number: int) -> None:
        """One step over a part of the examples, drawn anew; the others are what it is validated on."""
        task, began = self.task, time.perf_counter()
        count = len(self.train)
        chosen = np.zeros(count, np.float32)
        taken = stream(task, ORDER, number).permutation(count)[: 2 * count // 3]
        chosen[taken] = count / len(taken)
        losses, logits = self.step(self.train.x, self.train.targets, chosen)
        self.seconds["train"] += time.perf_counter() - began
        self.steps, self.epochs = self.steps + 1, self.epochs + 1
        right = guesses(logits.data) == self.train.labels
        for name, rows in (("train", chosen > 0), ("validation", chosen == 0)):
            self.record.setdefault(f"{name}_loss", []).append(float(losses.data[rows].mean()))
            self.record.setdefault(f"{name}_accuracy", []).append(float(right[rows].mean()))
        self.record["epoch"].append(number)
        self.show(self.steps / self.all_steps)
        if self.steps == self.all_steps:
            self.evaluate()

    def _keep(self, window: "Window") -> None:
        self.record["epoch"].append(self.epochs)
        self.record["step"].append(self.steps)
        loss, accuracy, classes = window.means(self.task.classes)
        self.record["loss"].append(loss / self.task.scale)
        self.record["accuracy"].append(accuracy)
        if classes is not None:
            self.record.setdefault("classes", []).append(np.round(classes, 4).tolist())

    # -- measuring -----------------------------------------------------------------------------------------------------

    def evaluate(self) -> None:
        """Add a point to the curve: the test, and the other parts that the task wants measured."""
        began = time.perf_counter()
        self.curve["epoch"].append(self.epochs)
        self.curve["step"].append(self.steps)
        for name in ("test", *self.task.measured):
            for figure, value in self.measure(name).items():
                self.curve.setdefault(f"{name}_{figure}", []).append(value)
        if self.task.probe:
            self.curve.setdefault("gradients", []).append(gradient_norms(self))
        if self.task.stop_at is not None:
            self.stopped = float(np.mean(self.curve["test_classes"][-1])) <= self.task.stop_at
        self.seconds["evaluate"] += time.perf_counter() - began

    def measure(self, name: str) -> dict[str, Any]:
        """Loss, accuracy and, if wanted, the inaccuracy of each class."""
        part = self.parts[name]
        logits = self.logits(part.x)
        guessed = guesses(logits)
        figures: dict[str, Any] = {
            "loss": float(LOSSES[self.task.loss].value(logits, part.targets)),
            "accuracy": float(np.mean(guessed == part.labels)),
        }
        if self.task.classes and name == "test":
            figures["classes"] = np.round(rules.class_inaccuracy(part.labels, guessed), 4).tolist()
        return figures

    @property
    def chunks(self) -> float:
        """About how many chunks all evaluations of the run are made of."""
        examples = sum(len(self.parts[name]) for name in ("test", *self.task.measured))
        return sum(map(self.task.evaluations, self.task.phases)) * examples / CHUNK

    def logits(self, x: Array) -> Array:
        """The outputs before the sigmoid or the softmax, without dropout."""
        return predict(self.model, x) if self.forward is None else predict(self.model, x, CHUNK, self.forward)

    def result(self) -> Record:
        """The record: what the figures and the claims are made from."""
        task = self.task
        made: Record = {
            "task": task.to_json(),
            "curve": self.curve,
            "record": {name: values for name, values in self.record.items() if values},
            "final": {name: self.measure(name) for name in self.parts},
            "steps": self.steps,
            "seconds": self.seconds,
            "backend": self.step.backend,
        }
        if task.digit is None:
            part = self.parts["test"]
            logits = self.logits(part.x)
            probabilities = np.asarray(LOSSES[task.loss].probabilities(logits))
            worst = worst_mistakes(part.labels, probabilities, MISTAKES)
            made["mistakes"] = {"index": worst.tolist(), "probabilities": np.round(probabilities[worst], 4).tolist()}
            made["classes"] = rules.class_inaccuracy(part.labels, guesses(logits)).tolist()
        return made


class Window:
    """Sums over the steps of a training record."""

    def __init__(self) -> None:
        self.losses: list[Array] = []
        self.guesses: list[Array] = []
        self.labels: list[Array] = []

    def add(self, losses: Array, logits: Array, labels: Array) -> None:
        self.losses.append(losses)
        self.guesses.append(guesses(logits))
        self.labels.append(labels)

    def means(self, classes: bool) -> tuple[float, float, Array | None]:
        """Mean loss of the steps, share of right answers before each step, and the inaccuracy of each class."""
        guessed, labels = np.concatenate(self.guesses), np.concatenate(self.labels)
        inaccuracy = rules.class_inaccuracy(labels, guessed) if classes else None
        return float(np.mean(np.concatenate(self.losses))), float(np.mean(guessed == labels)), inaccuracy


def spans(last: int, record: int, evaluate: int, done: int) -> Iterator[tuple[int, int]]:
    """The steps 0..last, cut wherever `done` + step is a multiple of `record` or of `evaluate`.

    >>> list(spans(10, 4, 6, 0))
    [(0, 4), (4, 6), (6, 8), (8, 10)]
    """
    start = 0
    while start < last:
        at = done + start
        stop = min(last, start + min(n - at % n for n in (record, evaluate)))
        yield start, stop
        start = stop


def epoch_number(run: Run) -> int:
    """The epoch that is about to begin, from 1."""
    return int(run.epochs) + 1


def make_optimizer(task: Task, model: nn.Module) -> Any:
    """The task's optimizer; its learning rate is set before each epoch."""
    groups = rules.groups(model, task.rates)
    if task.optimizer == "sgd":
        first = task.phases[0]
        return tg.optim.SGD(groups, lr=first.lr, momentum=first.momentum, weight_decay=task.weight_decay)
    return tg.optim.Adam(groups, lr=task.phases[0].lr, weight_decay=task.weight_decay)


def weighted_step(run: Run) -> Callable[..., Any]:
    """A step over all examples, of which those count that have a weight; it gives the loss of each, and the logits."""
    task, model, optimizer = run.task, run.model, run.optimizer

    def step(x: Array, wanted: Array, weights: Array) -> tuple[Any, Any]:
        optimizer.zero_grad()
        logits = model(x)
        losses = rules.EACH[task.loss](logits, wanted)
        value = np.sum(losses * weights) * (task.scale / len(x))
        value.backward()
        optimizer.step()
        return losses, logits

    return step


def gradient_norms(run: Run, examples: int = 500) -> list[float]:
    """The norm of each layer's weight gradient, from the first, on the first training examples."""
    part = run.train
    loss = LOSSES[run.task.loss].value(run.model(part.x[:examples]), part.targets[:examples])
    made = tg.gradients(loss, [layer.weight for layer in rules.layers(run.model)])
    return [float(np.linalg.norm(gradient.data)) for gradient in made]


def run(
    task: Task, *, data_dir: str | None = None, backend: str = "auto", show: Callable[[float], None] = lambda done: None
) -> tuple[Record, dict[str, Array]]:
    """Do the task. Returns its record, and its weights if it wants them kept.

    data_dir: where data sets are that are not shipped. show: told the share that is done. RunError for missing data.
    """
    wall, cpu = time.perf_counter(), time.process_time()
    data = dataset(task.data, data_dir)
    with np.errstate(all="ignore"):  # a rate that is too large is a finding here, not a mistake
        under_way = Run(task, data, backend, show)
        under_way.go()
        record = under_way.result()
    record["seconds"]["all"] = time.perf_counter() - wall
    record["seconds"]["cpu"] = time.process_time() - cpu
    return record, under_way.model.state_dict() if task.keep_weights else {}
