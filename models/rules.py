"""Rules in which training differs from one description to the next: each is small, and none knows what it is for.

What happens inside a step (a loss that counts some examples only) is written in the engine's functions, so that it is
differentiated and captured with the step. What happens between steps changes the optimizer's options.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import tinygrad_scratch as tg
import tinygrad_scratch.nn as nn
from models.data import Array
from models.losses import LOSSES, Loss
from tinygrad_scratch.nn import functional as F


def _cross_entropy(logits: Any, labels: Array) -> Any:
    return F.cross_entropy(logits, labels, reduction="none")


def _bce(logits: Any, targets: Array) -> Any:
    return np.sum(F.binary_cross_entropy_with_logits(logits, targets, reduction="none"), axis=1)


def _squared_error(logits: Any, targets: Array) -> Any:
    return np.sum(F.mse_loss(tg.sigmoid(logits), targets, reduction="none"), axis=1)


EACH = {"cross_entropy": _cross_entropy, "bce": _bce, "squared_error": _squared_error}
"""The losses of `models.losses`, of each example alone: logits (N, C) give (N,)."""


def weighted(name: str, logits: Any, targets: Array, weights: Any) -> Any:
    """Mean over the examples of weight times loss. weights (N,).

    >>> logits, targets = np.zeros((2, 1)), np.ones((2, 1))
    >>> float(weighted("squared_error", logits, targets, np.array([1.0, 0.0])))
    0.125
    """
    return np.sum(EACH[name](logits, targets) * weights) / len(targets)


def wrongly_answered(logits: Any, targets: Array) -> Any:
    """Which examples are not answered with their label: bool (N,). Targets (N, C) are one at the label, else zero.

    A tie between the label and another class counts as right.

    >>> wrongly_answered(np.array([[1.0, 2.0], [1.0, 0.0]]), np.array([[1.0, 0.0], [1.0, 0.0]]))
    array([ True, False])
    """
    return np.sum(logits * targets, axis=1) < np.max(logits, axis=1)


def adapted(name: str, scale: float = 1.0, only_wrong: bool = False) -> Loss:
    """The loss of that name times `scale`; with `only_wrong`, as the perceptron's: zero for an example answered rightly.

    The latter needs targets (N, C): "bce" or "squared_error"; ValueError for another.
    """
    loss = LOSSES[name]
    if only_wrong and name == "cross_entropy":
        raise ValueError("only_wrong needs one-hot targets, and cross_entropy has labels: use bce or squared_error")

    def value(logits: Any, targets: Array) -> Any:
        made = (
            weighted(name, logits, targets, wrongly_answered(logits, targets))
            if only_wrong
            else loss.value(logits, targets)
        )
        return made if scale == 1 else made * scale

    return loss._replace(value=value)


def layers(model: nn.Module) -> list[nn.Linear]:
    """The fully connected layers, from the inputs on."""
    return [module for module in model.modules() if isinstance(module, nn.Linear)]


def groups(model: nn.Module, rates: Sequence[float] | None) -> list[dict[str, Any]]:
    """The optimizer's groups: all parameters in one, or one for each fully connected layer if there are `rates`.

    ValueError unless there is a rate for each.
    """
    if rates is None:
        return [{"params": list(model.parameters())}]
    parts = layers(model)
    if len(parts) != len(rates):
        raise ValueError(
            f"rates {tuple(rates)}: the network has {len(parts)} fully connected layers, one rate for each"
        )
    return [{"params": list(part.parameters())} for part in parts]


def set_options(optimizer: Any, rates: Sequence[float] | None, lr: float, **options: Any) -> None:
    """Give each group the learning rate `lr` times its own rate, and the other options."""
    for group, rate in zip(optimizer.param_groups, rates or (1.0,) * len(optimizer.param_groups), strict=True):
        group.update(options, lr=lr * rate)


SCHEDULES: dict[str, Callable[[int], float]] = {
    "constant": lambda epoch: 1.0,
    "inverse_sqrt": lambda epoch: epoch**-0.5,
}
"""What the learning rate is multiplied by in an epoch; the first is 1."""


def class_inaccuracy(labels: Array, guesses: Array, classes: int = 10) -> Array:
    """The share of each class's examples that were taken for another, (classes,); 0 for a class without examples.

    >>> class_inaccuracy(np.array([0, 0, 1]), np.array([0, 1, 1]), classes=3)
    array([0.5, 0. , 0. ])
    """
    counts = np.bincount(labels, minlength=classes)
    wrong: Array = np.bincount(labels[guesses != labels], minlength=classes)
    return wrong / np.maximum(counts, 1)
