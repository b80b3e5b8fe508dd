"""A training run: what it consists of, one step, one epoch, and how well the network does.

Three random streams grow from the seed and never touch each other: which examples are held out, the first weights,
and the order of the examples. A run can stop after any step and go on later as if it had not.

The training step is captured: recorded once and replayed, by numba in compiled code that does many steps at a time.
What is learned is the same as eagerly, within the rounding of sums that are added in another order.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

import tinygrad_scratch as tg
import tinygrad_scratch.nn as nn
from models.data import Array, Mnist, flatten, split
from models.files import RunError
from models.losses import LOSSES, Loss
from models.networks import NETWORKS
from models.settings import EXAMPLES, Settings
from tinygrad_scratch.optim import SGD

Step = Callable[[Array, Array], tuple[tg.Tensor, tg.Tensor]]


class Examples(NamedTuple):
    """x: float32 in [0, 1], (N, ...) as the network takes it; labels: int (N,)."""

    x: Array
    labels: Array


class Measured(NamedTuple):
    """Mean loss, and share of the examples whose largest output is at the label."""

    loss: float
    accuracy: float


@dataclass
class Epoch:
    """One finished epoch. The training figures are means over its steps, the validation figures are of its end.

    The seconds are those of the steps; in the first epoch, or after a resume, also of recording and compiling the step.
    """

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
    """All that changes in training. `order` draws the order of the examples; its state is that before this epoch.

    `step` is captured unless the settings' back end is "eager".
    """

    settings: Settings
    model: nn.Module
    optimizer: SGD
    step: Step
    order: np.random.Generator
    history: list[Epoch] = field(default_factory=list)
    partial: Partial = field(default_factory=Partial)


def _streams(seed: int) -> list[np.random.Generator]:
    """The streams of the split, the weights and the order."""
    return [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(3)]


def new_run(settings: Settings) -> Run:
    """A run before its first step. The same settings give the same run, bit for bit.

    Its settings name the back end that "auto" stands for here. RunError if numba is wanted and not installed.
    """
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
    step = make_step(model, optimizer, LOSSES[settings.loss])
    if settings.backend != "eager":
        try:
            step = tg.capture(step, backend=settings.backend)
        except ImportError:
            advice = "pip install 'tinygrad_scratch[jit]', or choose --backend numpy, which differs in rounding only"
            raise RunError(f"backend numba: numba is not installed: {advice}") from None
        settings = replace(settings, backend=step.backend)
    return Run(settings, model, optimizer, step, order)


def build_model(settings: Settings, rng: np.random.Generator | None = None) -> nn.Module:
    """The network that the settings describe, its weights drawn by `rng`."""
    return NETWORKS[settings.model].build(settings, rng)


def as_inputs(settings: Settings, images: Array) -> Array:
    """Images of bytes (N, 28, 28) as the network takes them: float32 in [0, 1], (N, *its shape)."""
    return flatten(images).reshape(len(images), *NETWORKS[settings.model].shape)


def prepare(settings: Settings, mnist: Mnist) -> tuple[Examples, Examples]:
    """The examples to train on and those held out for validation."""
    training, held_out = split(EXAMPLES, settings.validation, _streams(settings.seed)[0])

    def chosen(rows: Array) -> Examples:
        return Examples(as_inputs(settings, mnist.x_train[rows]), mnist.y_train[rows])

    return chosen(training[: settings.examples]), chosen(held_out)


def make_step(model: nn.Module, optimizer: SGD, loss: Loss) -> Step:
    """The training step, a plain function of a batch: step(x (N, ...), targets) gives the loss and the logits
    from before the update."""

    def step(x: Array, targets: Array) -> tuple[tg.Tensor, tg.Tensor]:
        optimizer.zero_grad()
        logits = model(x)
        value = loss.value(logits, targets)
        value.backward()
        optimizer.step()
        return value, logits

    return step


def train_epoch(run: Run, training: Examples, stop: Callable[[], bool], show: Callable[[Partial], None]) -> bool:
    """Finish the epoch under way, or leave it between two steps when `stop()` is true; True if it is finished.

    `show` and `stop` are called after each step, or, where compiled code does many, about 20 times a second.
    """
    partial, size, began = run.partial, run.settings.batch_size, time.perf_counter() - run.partial.seconds
    state = run.order.bit_generator.state
    order = run.order.permutation(len(training.labels))

    def after(losses: Array, logits: Array) -> bool:
        taken = order[partial.seen : partial.seen + len(logits)]
        partial.correct += int(np.count_nonzero(logits.argmax(axis=1) == training.labels[taken]))
        for loss in losses.tolist():  # one by one, so that the sum does not depend on how many come at a time
            count = min(size, len(order) - partial.seen)
            partial.steps += 1
            partial.seen += count
            partial.loss += loss * count
        partial.seconds = time.perf_counter() - began
        show(partial)
        return stop()

    targets = LOSSES[run.settings.loss].targets(training.labels)
    take_steps(run, training.x, targets, order[partial.steps * size :], after)
    if partial.seen < len(order):
        run.order.bit_generator.state = state
    return partial.seen == len(order)


def take_steps(run: Run, x: Array, targets: Array, order: Array, after: Callable[[Array, Array], bool]) -> None:
    """Do a step for each batch of the examples in `order`, until `after` answers true.

    after: is given the losses (steps,) and the logits (examples, classes) of the steps since it was last called.

    The first step of a run is computed eagerly, as it makes the momentum; of a captured step all others are replays.
    """
    size = run.settings.batch_size
    while len(order):
        if isinstance(run.step, tg.Captured) and (run.history or run.partial.steps):
            if not run.step.plans:
                rehearse(run, x, targets)
            size = min(size, len(order))
            run.step.epoch(x, targets, order=order, batch_size=size, progress=lambda done, steps, made: after(*made))
            return
        batch, order = order[:size], order[size:]
        value, logits = run.step(x[batch], targets[batch])
        if after(value.data[np.newaxis], logits.data):
            return


def rehearse(run: Run, x: Array, targets: Array) -> None:
    """Have the step recorded for both lengths of batch, and undo what that did to the weights and the momentum.

    What is recorded is computed eagerly, and rounded otherwise than replays. So it is not a part of the run: a run that
    is continued records its step where the run that was not stopped had long been replaying.
    """
    weights = run.model.state_dict()
    momentum = [array for arrays in run.optimizer.state.values() for array in arrays.values()]
    before = [array.copy() for array in momentum]
    for length in (run.settings.batch_size, len(x) % run.settings.batch_size):
        for _ in range(2 if length else 0):
            run.step(x[:length], targets[:length])
    run.model.load_state_dict(weights)
    for array, values in zip(momentum, before, strict=True):  # in place: the captured step holds on to these arrays
        array[...] = values


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
    while len(run.history) < run.settings.epochs:
        with np.errstate(all="ignore"):  # no warning is needed where `_close_epoch` looks at the loss itself
            if not train_epoch(run, training, stop, show):
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


def predict(model: nn.Module, x: Array, chunk: int = 1000) -> Array:
    """The logits (N, classes) for x (N, ...), computed `chunk` examples at a time without a graph."""
    with tg.no_grad():
        return np.concatenate([model(x[start : start + chunk]).data for start in range(0, len(x), chunk)])


def score(logits: Array, loss: Loss, labels: Array) -> Measured:
    """Loss and accuracy of logits (N, classes) against labels (N,)."""
    return Measured(float(loss.value(logits, loss.targets(labels))), float(np.mean(logits.argmax(axis=1) == labels)))


def measure(model: nn.Module, loss: Loss, examples: Examples) -> Measured:
    """Loss and accuracy of the network on examples."""
    return score(predict(model, examples.x), loss, examples.labels)
