"""A training run: what it consists of, one step, one epoch, and how well the network does.

Random streams grow from the seed and never touch each other: which examples are held out, the first weights (and what
the network draws while it trains, as dropout does), the order of the examples and their augmentation, and each layer's
pre-training. A run can stop after any step and go on later as if it had not.

The training step is captured: recorded once and replayed, by numba in compiled code that does many steps at a time.
What is learned is the same as eagerly, within the rounding of sums that are added in another order.
"""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

import tinygrad_scratch as tg
import tinygrad_scratch.nn as nn
from models.data import Array, Mnist, augmentation, flatten, split
from models.files import RunError
from models.losses import LOSSES, Loss
from models.networks import NETWORKS
from models.optimizers import SCHEDULES, build_optimizer
from models.settings import Settings
from tinygrad_scratch.data import DataLoader
from tinygrad_scratch.optim import Optimizer
from tinygrad_scratch.optim.lr_scheduler import LRScheduler

Step = Callable[[Array, Array], tuple[tg.Tensor, tg.Tensor | None]]
Forward = Callable[[Array], tg.Tensor]
Stop = Callable[[], bool]
After = Callable[[Array, Array | None], bool]


class Examples(NamedTuple):
    """x: float32 in [0, 1], (N, ...) as the network takes it; labels: int (N,)."""

    x: Array
    labels: Array


class Measured(NamedTuple):
    """Mean loss, and, of a classifier, the share of the examples whose largest output is at the label."""

    loss: float
    accuracy: float | None


@dataclass
class Epoch:
    """One finished epoch. The training figures are means over its steps, the validation figures are of its end.

    The seconds are those of the steps; in the first epoch, or after a resume, also of recording and compiling the step.
    """

    epoch: int
    train_loss: float
    train_accuracy: float | None
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
    """All that changes in training. `order` is where its loader stands, None before the first step; `pretrained` are the
    losses of the layers that were pre-trained.

    `step` is captured unless the settings' back end is "eager".
    """

    settings: Settings
    model: nn.Module
    optimizer: Optimizer
    schedule: LRScheduler
    step: Step
    pretrained: list[float] = field(default_factory=list)
    order: dict[str, Any] | None = None
    history: list[Epoch] = field(default_factory=list)
    partial: Partial = field(default_factory=Partial)
    watch: nn.Watch | None = None

    @property
    def classifies(self) -> bool:
        """Whether the network tells labels; the others give back what they were fed."""
        return not NETWORKS[self.settings.model].reconstructs

    @property
    def generators(self) -> list[np.random.Generator]:
        """What the network draws from while it trains, each once."""
        found = [value for part in self.model.modules() for value in vars(part).values()]
        return list({id(value): value for value in found if isinstance(value, np.random.Generator)}.values())


def _streams(seed: int) -> list[np.random.SeedSequence]:
    """The seeds of the split, the weights, and the order."""
    return np.random.SeedSequence(seed).spawn(3)


def new_run(settings: Settings) -> Run:
    """A run before its first step. The same settings give the same run, bit for bit.

    Its settings name the back end that "auto" stands for here. RunError if numba is wanted and not installed.
    """
    model = build_model(settings, np.random.default_rng(_streams(settings.seed)[1]))
    optimizer = build_optimizer(settings, model.parameters())
    schedule = SCHEDULES[settings.schedule](optimizer, settings)
    step = make_step(model, optimizer, LOSSES[settings.loss], not NETWORKS[settings.model].reconstructs)
    if settings.backend != "eager":
        step = captured(step, settings.backend)
        settings = replace(settings, backend=step.backend)
    return Run(settings, model, optimizer, schedule, step, watch=make_watch(model, settings))


def make_watch(model: nn.Module, settings: Settings) -> nn.Watch | None:
    """What looks inside the network, if the settings want that."""
    loss = LOSSES[settings.loss].value
    return (
        nn.Watch(model, lambda model, x, targets: loss(model(x), targets), settings.watch) if settings.watch else None
    )


def captured(step: Callable[..., Any], backend: str) -> tg.Captured:
    """`step`, recorded and replayed by the back end. RunError if that is numba and it is not installed."""
    try:
        found: tg.Captured = tg.capture(step, backend=backend)
    except ImportError:
        advice = "pip install 'tinygrad_scratch[jit]', or choose --backend numpy, which differs in rounding only"
        raise RunError(f"backend numba: numba is not installed: {advice}") from None
    return found


def build_model(settings: Settings, rng: np.random.Generator | None = None) -> nn.Module:
    """The network that the settings describe, its weights drawn by `rng`."""
    return NETWORKS[settings.model].build(settings, rng)


def prepare(settings: Settings, mnist: Mnist) -> tuple[Examples, Examples]:
    """The examples to train on and those held out for validation."""
    training, held_out = split(
        settings.images.examples, settings.validation, np.random.default_rng(_streams(settings.seed)[0])
    )

    def chosen(rows: Array) -> Examples:
        return Examples(as_inputs(settings, mnist.x_train[rows]), mnist.y_train[rows])

    return chosen(training[: settings.examples]), chosen(held_out)


def as_inputs(settings: Settings, images: Array) -> Array:
    """Images of bytes as the network takes them: float32 in [0, 1], (N, pixels) or (N, channels, height, width)."""
    x = flatten(images)
    return x if NETWORKS[settings.model].flat else x.reshape(len(x), *settings.images.image)


def make_loader(run: Run, training: Examples) -> DataLoader:
    """What gives the run its batches, standing where the run stands: of inputs and targets, or of inputs that are both."""
    arrays = [training.x, LOSSES[run.settings.loss].targets(training.labels)] if run.classifies else [training.x]
    loader = DataLoader(
        *arrays,
        batch_size=run.settings.batch_size,
        shuffle=True,
        transforms=augmentation(run.settings.shift, run.settings.flip, run.settings.images.image),
        rng=_streams(run.settings.seed)[2],
    )
    if run.order is not None:
        loader.load_state_dict(run.order)
    return loader


def make_step(model: nn.Module, optimizer: Optimizer, loss: Loss, classifies: bool = True) -> Step:
    """The training step, a plain function of a batch: step(x (N, ...), targets) gives the loss and, of a network that
    classifies, the logits from before the update."""

    def step(x: Array, targets: Array) -> tuple[tg.Tensor, tg.Tensor | None]:
        optimizer.zero_grad()
        logits = model(x)
        value = loss.value(logits, targets)
        value.backward()
        optimizer.step()
        return value, logits if classifies else None

    return step


def train_epoch(run: Run, loader: DataLoader, labels: Array, stop: Stop, show: Callable[[Partial], None]) -> bool:
    """Finish the epoch under way, or leave it between two steps when `stop()` is true; True if it is finished.

    labels (N,): of the loader's examples. `show` and `stop` are called after each step, or, where compiled code does
    many, about 20 times a second.
    """
    partial, size, began = run.partial, run.settings.batch_size, time.perf_counter() - run.partial.seconds
    left = loader.rows()

    def after(losses: Array, logits: Array | None) -> bool:
        nonlocal left
        taken, left = left[: len(losses) * size], left[len(losses) * size :]
        if logits is not None:
            partial.correct += int(np.count_nonzero(logits.argmax(axis=1) == labels[taken]))
        for place, loss in enumerate(losses.tolist()):  # one by one: the sum does not depend on how many come at a time
            count = len(taken[place * size : (place + 1) * size])
            partial.steps += 1
            partial.seen += count
            partial.loss += loss * count
        partial.seconds = time.perf_counter() - began
        show(partial)
        return stop()

    take_steps(run, loader, after)
    run.order = loader.state_dict()
    return len(left) == 0


def take_steps(run: Run, loader: DataLoader, after: After) -> None:
    """Do a step for each batch that is left of the loader's epoch, until `after` answers true.

    after: is given the losses (steps,) and the logits (examples, classes) of the steps since it was last called.

    The first step of a run is computed eagerly, as it makes the momentum; of a captured step all others are replays.
    """
    left = -(-len(loader.rows()) // loader.batch_size)
    if isinstance(run.step, tg.Captured):
        if not (run.history or run.partial.steps):
            if one_step(run, loader, after) or left == 1:
                return
            left -= 1
        if not run.step.plans:
            rehearse(run, loader)
    while left:
        many = 1
        if isinstance(run.step, tg.Captured) and not loader.transforms:
            many = left if run.watch is None else min(left, run.watch.left)
        if (replay if many > 1 else one_step)(run, loader, after, many):
            return
        left -= max(many, 1)


def one_step(run: Run, loader: DataLoader, after: After, steps: int = 1) -> bool:
    """The step of the loader's next batch, watched when that is due; what `after` answers."""
    loader.rows()  # the pass goes on with this epoch
    x, targets = pair(next(iter(loader)))
    with run.watch(x, targets) if run.watch else nullcontext():
        value, logits = run.step(x, targets)
    return after(value.data[np.newaxis], None if logits is None else logits.data)


def pair(batch: Any) -> tuple[Array, Array]:
    """Inputs and targets: the two arrays of a batch, or twice the only one, which is to be given back."""
    if isinstance(batch, np.ndarray):
        return batch, batch
    x, *targets = batch
    return x, (targets or [x])[0]


def replay(run: Run, loader: DataLoader, after: After, steps: int) -> bool:
    """So many of the loader's next steps in compiled code, many at a time, for a loader that changes nothing; whether
    `after` has ended them."""
    rows, stopped = loader.rows()[: steps * loader.batch_size], False

    def progress(done: int, steps: int, made: tuple[Array, Array | None]) -> bool:
        nonlocal stopped
        loader.advance(len(made[0]))
        if run.watch:
            run.watch.advance(len(made[0]))
        stopped = after(*made)
        return stopped

    size = min(loader.batch_size, len(rows))
    step: Any = run.step
    step.epoch(*pair(loader.dataset.arrays), order=rows, batch_size=size, progress=progress)
    return stopped


def rehearse(run: Run, loader: DataLoader) -> None:
    """Have the step recorded for both lengths of batch, and undo what that did to the weights, the momentum and the
    generators.

    What is recorded is computed eagerly, and rounded otherwise than replays. So it is not a part of the run: a run that
    is continued records its step where the run that was not stopped had long been replaying.
    """
    x, targets = pair(loader.dataset.arrays)
    weights, streams = run.model.state_dict(), [rng.bit_generator.state for rng in run.generators]
    momentum = [array for arrays in run.optimizer.state.values() for array in arrays.values()]
    before = [array.copy() for array in momentum]
    step: Any = run.step
    for length in sorted({min(loader.batch_size, len(x)), len(x) % loader.batch_size} - {0}, reverse=True):
        known = len(step.plans)
        while len(step.plans) == known:  # and no longer: a replay here would be compiled for itself
            step(x[:length], targets[:length])
    run.model.load_state_dict(weights)
    for array, values in zip(momentum, before, strict=True):  # in place: the captured step holds on to these arrays
        array[...] = values
    for rng, state in zip(run.generators, streams, strict=True):
        rng.bit_generator.state = state


def train(
    run: Run,
    training: Examples,
    validation: Examples,
    *,
    stop: Stop = lambda: False,
    show: Callable[[Partial], None] = lambda partial: None,
    after_epoch: Callable[[Run], None] = lambda run: None,
) -> bool:
    """Train until the settings' number of epochs is done, or `stop()` is true after a step; True if it is done.

    `after_epoch` is called when an epoch has entered the history. Raises RunError if the loss is no longer finite.
    """
    loader, loss = make_loader(run, training), LOSSES[run.settings.loss]
    while len(run.history) < run.settings.epochs:
        with np.errstate(all="ignore"):  # no warning is needed where `_close_epoch` looks at the loss itself
            if not train_epoch(run, loader, training.labels, stop, show):
                return False
            validated = measure(run.model, loss, validation, run.classifies) if len(validation.labels) else None
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
            train_accuracy=partial.correct / partial.seen if run.classifies else None,
            validation_loss=validation.loss if validation else None,
            validation_accuracy=validation.accuracy if validation else None,
            seconds=partial.seconds,
            examples_per_second=partial.seen / partial.seconds,
        )
    )
    run.partial = Partial()
    run.schedule.step()


def predict(model: nn.Module, x: Array, chunk: int = 250, forward: Forward | None = None) -> Array:
    """The logits (N, outputs) for x (N, ...), computed `chunk` examples at a time in eval mode, without a graph.

    forward: of a whole chunk, in the model's stead: ``tg.capture`` of it. A smaller last one is the model's, lest it be
        captured as well.
    """
    training, whole = model.training, len(x) - len(x) % chunk
    forward = forward or model
    model.eval()
    try:
        with tg.no_grad():
            made = [forward(x[start : start + chunk]).data for start in range(0, whole, chunk)]
            if whole < len(x):
                made.append(model(x[whole:]).data)
            return np.concatenate(made)
    finally:
        model.train(training)


def score(logits: Array, loss: Loss, examples: Examples, classifies: bool = True) -> Measured:
    """Loss, and accuracy if the network classifies, of logits (N, outputs) for the examples."""
    if not classifies:
        return Measured(float(loss.value(logits, examples.x)), None)
    value = float(loss.value(logits, loss.targets(examples.labels)))
    return Measured(value, float(np.mean(logits.argmax(axis=1) == examples.labels)))


def measure(model: nn.Module, loss: Loss, examples: Examples, classifies: bool = True) -> Measured:
    """Loss and accuracy of the network on examples."""
    return score(predict(model, examples.x), loss, examples, classifies)
