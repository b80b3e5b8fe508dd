"""What a classifier's logits are measured by, and what they say as probabilities.

Each loss is the mean over the examples of the sum over the outputs, so that a learning rate means the same whatever
the batch size and the number of classes. They are written in the engine's functions: fed arrays they give a number,
fed Tensors a Tensor to differentiate.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tinygrad_scratch as tg
from models.data import Array, one_hot
from tinygrad_scratch.nn import functional as F


class Loss(NamedTuple):
    """A loss, with the probabilities that it reads the logits as, and the targets that it wants for labels (N,)."""

    value: Callable[[Any, Array], Any]
    probabilities: Callable[[Any], Any]
    targets: Callable[[Array], Array]


def cross_entropy(logits: Any, labels: Array) -> Any:
    """-log softmax(logits) at the label, mean over the examples. logits (N, C), labels int (N,)."""
    return F.cross_entropy(logits, labels)


def bce(logits: Any, targets: Array) -> Any:
    """Binary cross-entropy of each output's sigmoid, summed over the outputs. logits and targets (N, C)."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(targets)


def squared_error(logits: Any, targets: Array) -> Any:
    """Squared distance between the outputs' sigmoids and the targets. logits and targets (N, C)."""
    return distance(tg.sigmoid(logits), targets)


def distance(outputs: Any, targets: Array) -> Any:
    """Squared distance between outputs and targets (N, C), as they are."""
    return F.mse_loss(outputs, targets, reduction="sum") / len(targets)


LOSSES = {
    "cross_entropy": Loss(cross_entropy, tg.softmax, lambda labels: labels.astype("int64")),
    "bce": Loss(bce, tg.sigmoid, one_hot),
    "squared_error": Loss(squared_error, tg.sigmoid, one_hot),
}
