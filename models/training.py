"""A training run: what it consists of, one step, one epoch, and how well the network does.

Three random streams grow from the seed and never touch each other: which examples are held out, the first weights,
and the order of the examples. A run can stop after any step and go on later as if it had not.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import numpy as np

import tinygrad_scratch as tg
from models.data import Array, Mnist, batches, flatten, split
from models.files import RunError
from models.losses import LOSSES, Loss
from models.mlp import MLP
from models.settings import EXAMPLES, Settings
from tinygrad_scratch.optim import SGD

Step = Callable[[Array, Array], tuple[tg.Tensor, tg.Tensor]]


class Examples(NamedTuple):
    """x: float32 (N, pixels) in [0, 1]; labels: int (N,)."""

    x: Array
    labels: Array


class Measured(NamedTuple):
    """Mean loss, and share of the examples whose largest output is at the label."""

    loss: float
    accuracy: float


@dataclass
class Epoch:
    """One finished epoch. The training figures are means over its steps, the validation figures are of its end."""

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    seconds: float
    examples_per_second: float


@dataclass
class Partial:
    """The epoch that is under way: its steps done, and sums over their examples."""

    steps: int = 0
    seen: int = 0
    loss: float = 0.0
    correct: int = 0
    seconds: float = 0.0


@dataclass
class Run:
    """All that changes in training. `order` draws the order of the examples; its state is that before this epoch."""

    settings: Settings
    model: MLP
    optimizer: SGD
    order: np.random.Generator
    history: list[Epoch] = field(default_factory=list)
    partial: Partial = field(default_factory=Partial)


def _streams(seed: int) -> list[np.random.Generator]:
    """The streams of the split, the weights and the order."""
    return [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(3)]


def new_run(settings: Settings) -> Run:
    """A run before its first step. The same settings give the same run, bit for bit."""
    _, weights, order = _streams(settings.seed)
    model = build_model(settings, weights)
    optimizer = SGD(
        model.parameters(),
        lr=settings.lr,
        momentum=settings.momentum,
        dampening=settings.dampening,
        weight_decay=settings.weight_decay,
        nesterov=settings.nesterov,
    )
    return Run(settings, model, optimizer, order)


def build_model(settings: Settings, rng: np.random.Generator | None = None) -> MLP:
    """The network that the settings describe, its weights drawn by `rng`."""
    return MLP(settings.sizes, settings.activation, init=settings.init, std=settings.init_std, rng=rng)


def prepare(settings: Settings, mnist: Mnist) -> tuple[Examples, Examples]:
    """The examples to train on and those held out for validation."""
    training, held_out = split(EXAMPLES, settings.validation, _streams(settings.seed)[0])

    def chosen(rows: Array) -> Examples:
        return Examples(flatten(mnist.x_train[rows]), mnist.y_train[rows])

    return chosen(training[: settings.examples]), chosen(held_out)


def make_step(model: MLP, optimizer: SGD, loss: Loss) -> Step:
    """The training step, a plain function of a batch: step(x (N, inputs), targets) gives the loss and the logits
    from before the update."""

    def step(x: Array, targets: Array) -> tuple[tg.Tensor, tg.Tensor]:
        optimizer.zero_grad()
        logits = model(x)
        value = loss.value(logits, targets)
        value.backward()
        optimizer.step()
        return value, logits

    return step


def train_epoch(
    run: Run, training: Examples, stop: Callable[[], bool], show: Callable[[Partial], None], step: Step
) -> bool:
    """Finish the epoch under way, or leave it at the step after which `stop()` is true; True if it is finished.

    `show` is called after each step.
    """
    partial, began = run.partial, time.perf_counter() - run.partial.seconds
    state = run.order.bit_generator.state
    order = run.order.permutation(len(training.labels))
    targets = LOSSES[run.settings.loss].targets(training.labels)
    for batch in islice(batches(order, run.settings.batch_size), partial.steps, None):
        value, logits = step(training.x[batch], targets[batch])
        partial.steps += 1
        partial.seen += len(batch)
        partial.loss += value.item() * len(batch)
        partial.correct += int(np.count_nonzero(logits.data.argmax(axis=1) == training.labels[batch]))
        partial.seconds = time.perf_counter() - began
        show(partial)
        if stop():
            break
    if partial.seen < len(order):
        run.order.bit_generator.state = state
    return partial.seen == len(order)


def train(
    run: Run,
    training: Examples,
    validation: Examples,
    *,
    stop: Callable[[], bool] = lambda: False,
    show: Callable[[Partial], None] = lambda partial: None,
    after_epoch: Callable[[Run], None] = lambda run: None,
) -> bool:
    """Train until the settings' number of epochs is done, or `stop()` is true after a step; True if it is done.

    `after_epoch` is called when an epoch has entered the history. Raises RunError if the loss is no longer finite.
    """
    loss = LOSSES[run.settings.loss]
    step = make_step(run.model, run.optimizer, loss)
    while len(run.history) < run.settings.epochs:
        with np.errstate(all="ignore"):  # no warning is needed where `_close_epoch` looks at the loss itself
            if not train_epoch(run, training, stop, show, step):
                return False
            validated = measure(run.model, loss, validation) if len(validation.labels) else None
        _close_epoch(run, validated)
        after_epoch(run)
        if stop():
            break
    return len(run.history) >= run.settings.epochs


def _close_epoch(run: Run, validation: Measured | None) -> None:
    """Move the epoch under way into the history."""
    partial, number = run.partial, len(run.history) + 1
    if not math.isfinite(partial.loss) or (validation and not math.isfinite(validation.loss)):
        raise RunError(f"the loss of epoch {number} is not finite: training diverged; a smaller learning rate may help")
    run.history.append(
        Epoch(
            epoch=number,
            train_loss=partial.loss / partial.seen,
            train_accuracy=partial.correct / partial.seen,
            validation_loss=validation.loss if validation else None,
            validation_accuracy=validation.accuracy if validation else None,
            seconds=partial.seconds,
            examples_per_second=partial.seen / partial.seconds,
        )
    )
    run.partial = Partial()


def predict(model: MLP, x: Array, chunk: int = 1000) -> Array:
    """The logits (N, classes) for x (N, inputs), computed `chunk` examples at a time without a graph."""
    with tg.no_grad():
        return np.concatenate([model(x[start : start + chunk]).data for start in range(0, len(x), chunk)])


def score(logits: Array, loss: Loss, labels: Array) -> Measured:
    """Loss and accuracy of logits (N, classes) against labels (N,)."""
    return Measured(float(loss.value(logits, loss.targets(labels))), float(np.mean(logits.argmax(axis=1) == labels)))


def measure(model: MLP, loss: Loss, examples: Examples) -> Measured:
    """Loss and accuracy of the network on examples."""
    return score(predict(model, examples.x), loss, examples.labels)
