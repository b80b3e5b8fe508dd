"""Activations and losses as functions. A loss is a row with a value for each example or element, and a reduction.

Shapes must agree exactly, because a loss that broadcasts (n, 1) against (n,) is finite, differentiable and wrong.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_scratch.errors import describe
from tinygrad_scratch.nn.activations import elu, gelu, silu  # noqa: F401  (part of its names)
from tinygrad_scratch.nn.convolution import avg_pool2d, conv2d, max_pool2d  # noqa: F401  (part of its names)
from tinygrad_scratch.ops.elementwise import square, subtract
from tinygrad_scratch.ops.fused import (
    bce_with_logits,
    cross_entropy_labels,
    cross_entropy_probabilities,
    squared_error,
)
from tinygrad_scratch.ops.reductions import mean, sum_
from tinygrad_scratch.ops.shaping import moveaxis
from tinygrad_scratch.tensor import Tensor

Reduce = Callable[[Any], Any]

_REDUCTIONS: dict[str, Reduce] = {"mean": mean.apply, "sum": sum_.apply, "none": lambda x: x}


def softmax_cross_entropy(logits: Any, labels: Any, reduction: str = "mean") -> Any:
    """-log(softmax(logits)[label]) over the last axis, of each example, and their mean.

    logits: (N, C), or any (..., C): the outputs before the softmax.
    labels: integers in [0, C) of shape (N,), or probabilities, floating point, of the logits' shape: then it is
        -sum(labels * log(softmax(logits))), and differentiable in both.
    reduction: "mean" or "sum" over the examples, or "none": one value for each, shape (N,).

    IndexError for a label out of range; TypeError for labels of another dtype; ValueError for another number of them.

    >>> float(softmax_cross_entropy(np.array([[1000.0, 0.0]]), np.array([1])))
    1000.0
    """
    reduce = reduction_named(reduction)
    logits, labels = _array(logits), _array(labels)
    kind, shape = labels.dtype.kind, logits.shape
    if kind in "iu" and labels.shape == shape[:-1] and shape:
        return reduce(cross_entropy_labels.apply(logits, labels))
    if kind == "f" and labels.shape == shape and shape:
        return reduce(cross_entropy_probabilities.apply(logits, labels))
    raise _wrong_labels(logits, labels)


def cross_entropy(input: Any, target: Any, reduction: str = "mean") -> Any:
    """softmax_cross_entropy in torch's layout: classes on axis 1 of `input` (N, C, ...); target (N, ...), or as input.

    >>> cross_entropy(np.zeros((2, 4, 5)), np.zeros((2, 5), int), reduction="none").shape
    (2, 5)
    """
    input, target = _array(input), _array(target)
    if input.ndim > 2:
        if target.ndim == input.ndim:
            target = moveaxis.apply(target, source=1, destination=-1)
        input = moveaxis.apply(input, source=1, destination=-1)
    return softmax_cross_entropy(input, target, reduction)


def binary_cross_entropy_with_logits(input: Any, target: Any, reduction: str = "mean") -> Any:
    """-(t log(sigmoid(x)) + (1 - t) log(1 - sigmoid(x))) of each element, and their mean; no overflow at any x.

    input: logits of any shape. target: of the same shape, else ValueError; probabilities, or 0 and 1 of any dtype.

    >>> float(binary_cross_entropy_with_logits(np.array([-1000.0, 0.0]), np.array([1, 0]), reduction="sum"))
    1000.6931471805599
    """
    reduce = reduction_named(reduction)
    input, target = _same_shape("binary_cross_entropy_with_logits", input, target)
    if target.dtype.kind != "f":  # int64 would make float32 logits float64
        target = target.astype(input.dtype)
    return reduce(bce_with_logits.apply(input, target))


def mse_loss(input: Any, target: Any, reduction: str = "mean") -> Any:
    """(input - target)**2 of each element, and their mean. ValueError unless the shapes are equal.

    >>> float(mse_loss(np.array([1.0, 2.0]), np.array([1.0, 4.0])))
    2.0
    """
    reduce = reduction_named(reduction)
    input, target = _same_shape("mse_loss", input, target)
    if reduction == "none":
        return reduce(square.apply(subtract.apply(input, target)))
    total = squared_error.apply(input, target)
    return total if reduction == "sum" else total / input.size


def reduction_named(name: str) -> Reduce:
    """The function that reduces. ValueError for an unknown name."""
    try:
        return _REDUCTIONS[name]
    except (KeyError, TypeError):
        raise ValueError(f"{name} is not a valid value for reduction; use mean, sum or none") from None


def _array(x: Any) -> Any:
    return x if isinstance(x, (Tensor, np.ndarray)) else np.asarray(x)


def _same_shape(loss: str, input: Any, target: Any) -> tuple[Any, Any]:
    if not isinstance(input, (Tensor, np.ndarray)) or not isinstance(target, (Tensor, np.ndarray)):
        input, target = _array(input), _array(target)
    if input.shape != target.shape:
        shapes = f"input has shape {tuple(input.shape)}, but target has shape {tuple(target.shape)}"
        fix = "are they of the same batch?"
        if input.size == target.size:
            fix = "target.reshape(input.shape) if their elements correspond"
        elif target.size < input.size:
            fix = "np.broadcast_to(target, input.shape) if it is meant to be repeated"
        raise ValueError(f"{loss}: {shapes}; they must be equal: {fix}")
    return input, target


def _wrong_labels(logits: Any, labels: Any) -> Exception:
    """The error for labels that fit neither way of giving them, with what to do."""
    what = f"softmax_cross_entropy of logits {describe(logits)}: labels {describe(labels)}"
    kind, shape, wanted = labels.dtype.kind, tuple(labels.shape), tuple(logits.shape[:-1])
    if not logits.ndim:
        return ValueError(f"{what}; logits must have an axis of classes")
    if kind == "f" and shape == wanted:
        return TypeError(f"{what} are class indices but not integers; use labels.astype(np.int64)")
    if kind not in "iuf":
        return TypeError(f"{what} are neither class indices (integers) nor probabilities; use labels.astype(np.int64)")
    if kind in "iu" and shape == tuple(logits.shape):
        return TypeError(f"{what} look one-hot: probabilities must be floating point, use labels.astype(logits.dtype)")
    if kind in "iu" and shape == (*wanted, 1):
        return ValueError(f"{what} must have shape {wanted}; use labels[..., 0]")
    return ValueError(
        f"{what} must be class indices of shape {wanted}, one for each example, or probabilities of shape "
        f"{tuple(logits.shape)}; are logits and labels of the same batch?"
    )
