"""What a run of an experiment is told. A task is frozen and can be written as JSON: its hash names its results."""

import hashlib
import json
import math
from dataclasses import dataclass, fields, replace
from typing import Any

VERSION = 1
"""To be raised when the same task would give other results, so that results that are kept are not taken for them."""

QUICK_EXAMPLES, QUICK_TESTS, QUICK_STEPS = 600, 500, 200


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of training with the same options. A run has one or more, so that they can change in mid-training.

    epochs: passes over the training examples; of the last one only the first `steps` of the phase, if that is given.
    record: training loss and accuracy are means over so many steps; None: over an epoch.
    evaluate: the test after so many steps; None: after each epoch.
    """

    epochs: int
    lr: float
    batch_size: int = 1
    momentum: float = 0.0
    steps: int | None = None
    record: int | None = None
    evaluate: int | None = None


@dataclass(frozen=True, kw_only=True)
class Task:
    """The settings of a run, for `models.papers.run`.

    network: "mlp", or the name of a network in `models.papers.networks`; sizes, activation, init, std, biases are the
        MLP's; biases: "zero", or "normal" for N(0, std^2). With init "glorot", std is the gain.
    digit: if given, the one label that is told from all others by a single output.
    scale: the loss is multiplied by it. only_wrong: learn from an example only if it is answered wrongly.
    rates: of each layer, times the learning rate. schedule: of the learning rate, by epoch (`rules.SCHEDULES`).
    examples, validation, tests: how many are trained on, held out, tested on. resplit: drawn anew in each epoch.
    measured: which parts the evaluations are of, besides "test". stop_at: stop when the mean test inaccuracy of the
        classes is that low. classes: keep the inaccuracy of each class. probe: keep each layer's gradient norm.
    pretrain: epochs of auto-encoding for each hidden layer, before the training.
    """

    data: str = "mnist"
    network: str = "mlp"
    sizes: tuple[int, ...] = ()
    activation: str = "sigmoid"
    loss: str = "squared_error"
    scale: float = 1.0
    only_wrong: bool = False
    init: str = "normal"
    std: float = 1.0
    biases: str = "zero"
    digit: int | None = None
    optimizer: str = "sgd"
    weight_decay: float = 0.0
    dropout: float = 0.0
    rates: tuple[float, ...] | None = None
    schedule: str = "constant"
    phases: tuple[Phase, ...]
    examples: int = 60_000
    validation: int = 0
    tests: int = 10_000
    resplit: bool = False
    measured: tuple[str, ...] = ()
    stop_at: float | None = None
    classes: bool = False
    probe: bool = False
    pretrain: int = 0
    keep_weights: bool = False
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """The settings that differ from the defaults, as JSON can say them."""
        told = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }
        return {**told, "phases": [_told(phase) for phase in self.phases]}

    @property
    def key(self) -> str:
        """The name of the task's results: a hash of the settings that differ from the defaults."""
        text = json.dumps([VERSION, self.to_json()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    def epoch_steps(self, phase: Phase) -> int:
        """The steps of one epoch."""
        return 1 if self.resplit else math.ceil(self.examples / phase.batch_size)

    def phase_steps(self, phase: Phase) -> int:
        """The steps of the whole phase."""
        whole = phase.epochs * self.epoch_steps(phase)
        return whole if phase.steps is None else min(whole, phase.steps)

    @property
    def steps(self) -> int:
        """The steps of the whole run."""
        return sum(map(self.phase_steps, self.phases))

    def evaluations(self, phase: Phase) -> float:
        """About how often the network is measured in the phase."""
        return self.phase_steps(phase) / (phase.evaluate or self.epoch_steps(phase))

    @property
    def cost(self) -> float:
        """A rough measure of the work, to begin with the longest run: products, and a constant for each step."""
        weights = sum(a * b for a, b in zip(self.sizes, self.sizes[1:], strict=False)) or 1_000_000
        total = 0.0
        for phase in self.phases:
            steps = self.phase_steps(phase)
            batch = self.examples if self.resplit else phase.batch_size
            total += steps * (20_000 + 3 * batch * weights) + self.evaluations(phase) * weights * self.tests
        return total

    def quick(self) -> "Task":
        """The same with few examples and steps: it shows that everything works, and no more."""
        examples = min(self.examples, QUICK_EXAMPLES)
        small = replace(
            self,
            examples=examples,
            validation=min(self.validation, QUICK_EXAMPLES // 3),
            tests=min(self.tests, QUICK_TESTS),
            pretrain=min(self.pretrain, 1),
        )
        return replace(small, phases=tuple(_quick(phase, small) for phase in self.phases))


def _quick(phase: Phase, task: Task) -> Phase:
    batch = min(phase.batch_size, task.examples)
    epochs = max(1, min(phase.epochs, QUICK_STEPS // task.epoch_steps(replace(phase, batch_size=batch))))
    few = {name: min(value, 100) for name in ("steps", "record", "evaluate") if (value := getattr(phase, name))}
    return replace(phase, epochs=epochs, batch_size=batch, **few)


def _told(phase: Phase) -> dict[str, Any]:
    return {field.name: value for field in fields(phase) if (value := getattr(phase, field.name)) != field.default}
