"""Activations and losses as functions. A loss is a row with a value for each example or element, and a reduction.

Shapes must agree exactly, because a loss that broadcasts (n, 1) against (n,) is finite, differentiable and wrong.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_scratch.errors import describe
from tinygrad_scratch.nn.activations import elu, gelu, silu  # noqa: F401  (part of its names)
from tinygrad_scratch.nn.convolution import avg_pool2d, conv2d, max_pool2d  # noqa: F401  (part of its names)
from tinygrad_scratch.ops.composed import take
from tinygrad_scratch.ops.elementwise import square, subtract
from tinygrad_scratch.ops.fused import (
    bce,
    bce_with_logits,
    check_labels,
    check_range,
    cross_entropy_labels,
    cross_entropy_probabilities,
    log_softmax,
    softplus,
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


def cross_entropy(
    input: Any,
    target: Any,
    reduction: str = "mean",
    *,
    weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Any:
    """softmax_cross_entropy in torch's layout: classes on axis 1 of `input` (N, C, ...); target (N, ...), or as input.

    weight: (C,), of each class; the mean is then divided by the sum of the weights of the examples' labels.
    ignore_index: a label of examples that do not count. A captured step expects it if it was there while it was recorded,
        or if it is not -100.
    label_smoothing: in [0, 1]: how much of each target is spread evenly over all classes (Szegedy et al. 2016).

    >>> cross_entropy(np.zeros((2, 4, 5)), np.zeros((2, 5), int), reduction="none").shape
    (2, 5)
    >>> round(float(cross_entropy(np.zeros((2, 4)), np.array([3, -100]))), 4)
    1.3863
    """
    reduce = reduction_named(reduction)
    input, target = _array(input), _array(target)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing is {label_smoothing}: it must be in [0, 1]")
    if input.ndim > 2:
        if target.ndim == input.ndim:
            target = moveaxis.apply(target, source=1, destination=-1)
        input = moveaxis.apply(input, source=1, destination=-1)
    weight = _class_weights("cross_entropy", weight, input)
    whole = tuple(target.shape) == tuple(input.shape) and target.dtype.kind == "f"
    if whole and (weight is not None or label_smoothing):
        if label_smoothing:
            target = target * (1 - label_smoothing) + label_smoothing / input.shape[-1]
        return reduce(cross_entropy_probabilities.apply(input, target if weight is None else target * weight))
    if whole or (weight is None and not label_smoothing and ignore_index == -100):
        try:
            return softmax_cross_entropy(input, target, reduction)
        except IndexError:
            if not (getattr(target, "_data", target) == ignore_index).any():
                raise
    kept, labels = _kept(target, ignore_index)
    losses = softmax_cross_entropy(input, labels, "none")
    each = 1 if weight is None else take(weight, labels, axis=0)
    if label_smoothing:
        logs = log_softmax.apply(input, axis=-1)
        spread = np.sum(logs if weight is None else logs * weight, axis=-1)
        losses = losses * ((1 - label_smoothing) * each) - spread * (label_smoothing / input.shape[-1])
    elif weight is not None:
        losses = losses * each
    return _weighted(losses, each, kept, reduction)


def nll_loss(input: Any, target: Any, reduction: str = "mean", *, weight: Any = None, ignore_index: int = -100) -> Any:
    """-input[label] for log-probabilities (N, C, ...) and labels (N, ...); options as in cross_entropy.

    >>> round(float(nll_loss(np.log(np.array([[0.25, 0.75]])), np.array([0]))), 4)
    1.3863
    """
    reduction_named(reduction)
    input, target = _array(input), _array(target)
    if input.ndim > 2:
        input = moveaxis.apply(input, source=1, destination=-1)
    if tuple(target.shape) != tuple(input.shape[:-1]) or target.dtype.kind not in "iu":
        raise _wrong_labels(input, target, "nll_loss")
    weight = _class_weights("nll_loss", weight, input)
    kept, labels = _kept(target, ignore_index)
    labels = check_labels.apply(labels, classes=input.shape[-1])
    chosen = np.equal(labels[..., None], np.arange(input.shape[-1]))
    losses = -np.sum(np.where(chosen, input, 0), axis=-1)
    each = 1 if weight is None else take(weight, labels, axis=0)
    return _weighted(losses if weight is None else losses * each, each, kept, reduction)


def binary_cross_entropy(input: Any, target: Any, reduction: str = "mean", *, weight: Any = None) -> Any:
    """-(t log(x) + (1 - t) log(1 - x)) of each element, and their mean, with each logarithm no lower than -100.

    input: probabilities in [0, 1], of any shape, else ValueError. target: of the same shape. weight: broadcasts to it.

    >>> float(binary_cross_entropy(np.array([1.0, 0.0]), np.array([0.0, 0.0]), reduction="sum"))
    100.0
    """
    reduce = reduction_named(reduction)
    input, target = _same_shape("binary_cross_entropy", input, target)
    check_range.apply(
        input, low=0.0, high=1.0, message="binary_cross_entropy of values that are not in [0, 1], where probabilities are; for "
        "logits, use binary_cross_entropy_with_logits",
    )  # fmt: skip
    losses = bce.apply(input, _as_float(target, input))
    return reduce(losses if weight is None else losses * _spread(weight, input, "binary_cross_entropy: weight"))


def binary_cross_entropy_with_logits(
    input: Any, target: Any, reduction: str = "mean", *, weight: Any = None, pos_weight: Any = None
) -> Any:
    """-(t log(sigmoid(x)) + (1 - t) log(1 - sigmoid(x))) of each element, and their mean; no overflow at any x.

    input: logits of any shape. target: of the same shape, else ValueError; probabilities, or 0 and 1 of any dtype.
    weight: of each element. pos_weight: of the first of the two terms. Both broadcast to the input's shape.

    >>> float(binary_cross_entropy_with_logits(np.array([-1000.0, 0.0]), np.array([1, 0]), reduction="sum"))
    1000.6931471805599
    """
    reduce = reduction_named(reduction)
    input, target = _same_shape("binary_cross_entropy_with_logits", input, target)
    target = _as_float(target, input)
    if pos_weight is None:
        losses = bce_with_logits.apply(input, target)
    else:
        more = (_spread(pos_weight, input, "binary_cross_entropy_with_logits: pos_weight") - 1) * target + 1
        losses = (1 - target) * input + more * softplus.apply(-input)
    return reduce(
        losses if weight is None else losses * _spread(weight, input, "binary_cross_entropy_with_logits: weight")
    )


def l1_loss(input: Any, target: Any, reduction: str = "mean") -> Any:
    """|input - target| of each element, and their mean. ValueError unless the shapes are equal."""
    reduce = reduction_named(reduction)
    input, target = _same_shape("l1_loss", input, target)
    return reduce(np.abs(input - target))


def huber_loss(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0) -> Any:
    """d**2 / 2 where d = |input - target| <= delta, delta (d - delta / 2) elsewhere, and the mean (Huber 1964).

    >>> huber_loss(np.array([0.5, 3.0]), np.zeros(2), reduction="none").tolist()
    [0.125, 2.5]
    """
    reduce = reduction_named(reduction)
    if not delta > 0:
        raise ValueError(f"delta is {delta}: it must be larger than 0")
    input, target = _same_shape("huber_loss", input, target)
    return reduce(_huber(np.abs(input - target), delta))


def smooth_l1_loss(input: Any, target: Any, reduction: str = "mean", beta: float = 1.0) -> Any:
    """huber_loss with delta = beta, divided by beta (Girshick 2015); l1_loss for beta = 0."""
    reduce = reduction_named(reduction)
    if not beta >= 0:
        raise ValueError(f"beta is {beta}: it must be 0 or larger")
    input, target = _same_shape("smooth_l1_loss", input, target)
    distance = np.abs(input - target)
    return reduce(_huber(distance, beta) / beta if beta else distance)


def kl_div(input: Any, target: Any, reduction: str = "mean", log_target: bool = False) -> Any:
    """target (log(target) - input) of each element, for log-probabilities `input`: the divergence of Kullback and Leibler.

    log_target: whether target holds logarithms too. reduction: also "batchmean", the sum divided by the length of axis 0:
        the divergence's own mean; "mean" divides by the number of elements.

    >>> p = np.array([[0.5, 0.5]])
    >>> round(float(kl_div(np.log(np.array([[0.25, 0.75]])), p, reduction="batchmean")), 6)
    0.143841
    """
    reduce = reduction_named("sum" if reduction == "batchmean" else reduction)
    input, target = _same_shape("kl_div", input, target)
    if log_target:
        losses = np.exp(target) * (target - input)
    else:
        there = np.greater(target, 0)
        losses = target * (np.log(np.where(there, target, 1)) - np.where(there, input, 0))
    return reduce(losses) / input.shape[0] if reduction == "batchmean" else reduce(losses)


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


def _huber(distance: Any, delta: float) -> Any:
    near = np.clip(distance, None, delta)
    return near * (distance - near * 0.5)


def _kept(target: Any, index: int) -> tuple[Any, Any]:
    """(which examples count, labels that are classes also where they do not)."""
    kept = np.not_equal(target, index)
    return kept, np.where(kept, target, 0)


def _weighted(losses: Any, each: Any, kept: Any, reduction: str) -> Any:
    """Reduce losses that are weighted already: their mean is divided by the weights of those that count."""
    losses = np.where(kept, losses, 0)
    if reduction != "mean":
        return reduction_named(reduction)(losses)
    with np.errstate(invalid="ignore"):  # 0 / 0, where nothing counts
        return np.sum(losses) / np.sum(np.where(kept, each, 0)).astype(losses.dtype)


def _class_weights(loss: str, weight: Any, input: Any) -> Any:
    """Weights of the classes as the input's dtype. ValueError for another number of them."""
    if weight is None:
        return None
    weight = _array(weight)
    if tuple(weight.shape) != tuple(input.shape[-1:]):
        raise ValueError(
            f"{loss}: weight is {describe(weight)}: it must have one element for each of {input.shape[-1]} classes"
        )
    return weight.astype(input.dtype)


def _spread(weight: Any, input: Any, what: str) -> Any:
    """Weights of elements as the input's dtype. ValueError unless they broadcast to the input's shape."""
    weight = _array(weight)
    lengths = zip(reversed(weight.shape), reversed(input.shape), strict=False)
    if weight.ndim > input.ndim or any(n not in (1, m) for n, m in lengths):
        raise ValueError(f"{what} of shape {tuple(weight.shape)} does not broadcast to input {tuple(input.shape)}")
    return weight.astype(input.dtype)


def _as_float(target: Any, input: Any) -> Any:
    """The target in a floating dtype: int64 would make float32 inputs float64."""
    return target if target.dtype.kind == "f" else target.astype(input.dtype)


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


def _wrong_labels(logits: Any, labels: Any, loss: str = "softmax_cross_entropy") -> Exception:
    """The error for labels that fit neither way of giving them, with what to do."""
    what = f"{loss} of logits {describe(logits)}: labels {describe(labels)}"
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
