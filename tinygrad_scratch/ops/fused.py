"""A few fused rows, for speed and for numerical stability; each carries the composition that tests hold it to."""

from typing import Any

import numpy as np

from tinygrad_scratch.domains import Domain, Integers, Interval, inputs, nonzero, reals
from tinygrad_scratch.ops.reductions import real
from tinygrad_scratch.registry import elementwise, general


def _sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)): accurate to the last bits on both sides; its overflow gives the right 0, so it is silent."""
    if type(x) is not np.ndarray or x.dtype.kind != "f":
        x = real(x)
    y = np.negative(x)
    with np.errstate(over="ignore"):
        y = np.exp(y)
    y += 1
    return np.reciprocal(y, out=y) if isinstance(y, np.ndarray) else np.reciprocal(y)


def _relu(x: Any) -> Any:
    """max(x, 0). Its derivative at 0 is 0."""
    return np.maximum(x, 0)


def _leaky_relu(x: Any, slope: float = 0.01) -> Any:
    """x where x > 0, slope * x elsewhere. Its derivative at 0 is slope."""
    return np.where(x > 0, x, slope * x)


def _prelu(x: Any, slope: Any) -> Any:
    """leaky_relu whose slope is a parameter (He et al. 2015); the slope broadcasts against x."""
    return np.where(x > 0, x, slope * x)


def _softplus(x: Any) -> Any:
    """log(1 + exp(x)), without overflow."""
    return np.logaddexp(x, 0)


def _softmax(x: Any, axis: int = -1) -> Any:
    """exp(x) / sum(exp(x)) along `axis`, without overflow."""
    x = real(x)
    y = np.exp(x - np.maximum.reduce(x, axis=axis, keepdims=True))
    y /= np.add.reduce(y, axis=axis, keepdims=True)
    return y


def _log_softmax(x: Any, axis: int = -1) -> Any:
    """log(softmax(x)) along `axis`, without overflow and without the logarithm of a rounded 0."""
    x = real(x)
    y = x - np.maximum.reduce(x, axis=axis, keepdims=True)
    y -= np.log(np.add.reduce(np.exp(y), axis=axis, keepdims=True))
    return y


def _check_labels(labels: Any, classes: int = 0) -> Any:
    """The labels, once each is known to be a class: IndexError for one that is negative or too large."""
    if labels.dtype.kind not in "iu":
        raise TypeError(
            f"labels are class indices, so integers; these have dtype {labels.dtype} (use .astype(np.intp))"
        )
    if not labels.dtype.isnative:
        labels = labels.astype(np.intp)
    unsigned = labels if labels.dtype.kind == "u" else labels.view(f"u{labels.dtype.itemsize}")  # negative: very large
    if labels.size and np.maximum.reduce(unsigned, axis=None) >= classes:
        bad = labels[(labels < 0) | (labels >= classes)].flat[0]
        raise IndexError(f"label {bad} is out of bounds: there are {classes} classes, 0 to {classes - 1}")
    return labels


def _check_range(x: Any, low: float = 0.0, high: float = 0.0, message: str = "", kind: str = "ValueError") -> Any:
    """`x`, once all of it is known to lie from `low` to `high`: an error of that kind for anything else, NaN too."""
    if x.size and not (x.min() >= low and x.max() <= high):
        raise {"ValueError": ValueError, "RuntimeError": RuntimeError}[kind](message)
    return x


def _pick(x: Any, labels: Any) -> Any:
    """x[..., label] for each label (last axis)."""
    if labels.shape != x.shape[:-1]:
        raise ValueError(
            f"labels of shape {labels.shape} do not go with logits of shape {x.shape}: one for each row, {x.shape[:-1]}"
        )
    labels = _check_labels(labels, x.shape[-1])
    if x.ndim == 2:
        return x[np.arange(x.shape[0]), labels]
    return np.take_along_axis(x, labels[..., None], axis=-1)[..., 0]


def _cross_entropy_labels(logits: Any, labels: Any) -> Any:
    """logsumexp(logits) - logits[label] over the last axis: (..., C) and integers (...) -> (...)."""
    logits = real(logits)
    shifted = logits - np.maximum.reduce(logits, axis=-1, keepdims=True)
    picked = _pick(shifted, labels)
    return np.log(np.add.reduce(np.exp(shifted, out=shifted), axis=-1)) - picked


def _cross_entropy_labels_rule(g: Any, y: Any, z: Any, labels: Any) -> Any:
    """(softmax(z) - onehot) g."""
    onehot = np.equal(labels[..., None], np.arange(z.shape[-1]))
    return (softmax(z) - onehot) * g[..., None]


def _cross_entropy(logits: Any, target: Any) -> Any:
    """-sum(target * log_softmax(logits)) over the last axis, where target holds probabilities."""
    return -np.add.reduce(target * _log_softmax(logits), axis=-1)


def _cross_entropy_rule(g: Any, y: Any, z: Any, t: Any) -> Any:
    return (softmax(z) * np.sum(t, axis=-1, keepdims=True) - t) * g[..., None]


def _squared_error(a: Any, b: Any) -> Any:
    """sum((a - b)**2): one row for what squared losses are made of."""
    return np.add.reduce(np.square(np.subtract(a, b)), axis=None)


def _bce_with_logits(x: Any, target: Any) -> Any:
    """-(t log(sigmoid(x)) + (1 - t) log(1 - sigmoid(x))) = max(x, 0) - x t + log1p(exp(-|x|)), elementwise and stable."""
    x = real(x)
    y = np.log1p(np.exp(-np.abs(x)))
    y += np.maximum(x, 0)
    return y - x * target


def _bce(x: Any, target: Any) -> Any:
    """-(t log(x) + (1 - t) log(1 - x)), elementwise, with each logarithm no lower than -100."""
    with np.errstate(divide="ignore"):
        return (target - 1) * np.maximum(np.log1p(-x), -100) - target * np.maximum(np.log(x), -100)


_classes = Domain((Interval(), Integers(0, 4)), ((((3, 4), (3,)), {}), (((2, 3, 4), (2, 3)), {})))
_probabilities = Domain((Interval(), Interval(0.1, 1.0)), ((((3, 4), (3, 4)), {}), (((4,), (4,)), {})))
_targets = inputs(Interval(-3.0, 3.0, (0.0,)), Interval(0.05, 0.95))
_chances = inputs(Interval(0.05, 0.95), Interval(0.05, 0.95))
_slopes = inputs(Interval(-2.0, 2.0, (0.0,)), Interval(0.1, 0.9))
_over_axes = reals.with_cases((((3, 4),), {}), (((3, 4),), {"axis": 0}), (((5,),), {}), (((2, 3, 2),), {"axis": 1}))

# fmt: off
sigmoid     = elementwise(_sigmoid,    lambda g, y, x: g * (y * (1 - y)), reference=lambda x: 1 / (1 + np.exp(-x)))
relu        = elementwise(_relu,       lambda g, y, x: g * (y > 0), reference=lambda x: np.where(x > 0, x, 0.0), domain=nonzero)
leaky_relu  = elementwise(_leaky_relu, lambda g, y, x, slope=0.01: np.where(x > 0, g, slope * g), reference=lambda x, slope=0.01: np.maximum(x, 0) + slope * np.minimum(x, 0), domain=nonzero)
prelu       = elementwise(_prelu,      lambda g, y, x, a: np.where(x > 0, g, a * g), lambda g, y, x, a: np.where(x > 0, 0, g * x), reference=lambda x, a: np.maximum(x, 0) + a * np.minimum(x, 0), domain=_slopes)
softplus    = elementwise(_softplus,   lambda g, y, x: g * sigmoid(x), reference=lambda x: np.log(1 + np.exp(x)))
softmax     = general(_softmax,        lambda g, y, x, axis=-1: y * (g - np.sum(g * y, axis=axis, keepdims=True)), reference=lambda x, axis=-1: np.exp(x) / np.sum(np.exp(x), axis=axis, keepdims=True), domain=_over_axes)
log_softmax = general(_log_softmax,    lambda g, y, x, axis=-1: g - np.exp(y) * np.sum(g, axis=axis, keepdims=True), reference=lambda x, axis=-1: np.log(np.exp(x) / np.sum(np.exp(x), axis=axis, keepdims=True)), domain=_over_axes)
cross_entropy_labels = general(_cross_entropy_labels, _cross_entropy_labels_rule, None, reference=lambda z, t: -np.take_along_axis(np.log(np.exp(z) / np.sum(np.exp(z), axis=-1, keepdims=True)), np.expand_dims(t, -1), axis=-1)[..., 0], domain=_classes)
cross_entropy_probabilities = general(_cross_entropy, _cross_entropy_rule, lambda g, y, z, t: -log_softmax(z) * g[..., None], name="cross_entropy_probabilities", reference=lambda z, t: -np.sum(t * np.log(np.exp(z) / np.sum(np.exp(z), axis=-1, keepdims=True)), axis=-1), domain=_probabilities)
check_labels = general(_check_labels, None, domain=Domain((Integers(0, 4),), ((((3,),), {"classes": 4}),)))
check_range = elementwise(_check_range, lambda g, y, x, **_: g, domain=Domain(cases=((((3,),), {"low": -9.0, "high": 9.0, "message": "too far"}),)))
squared_error = general(_squared_error, lambda g, y, a, b: g * (2 * (a - b)), lambda g, y, a, b: g * (2 * (b - a)), reference=lambda a, b: np.sum((a - b) * (a - b)), domain=reals.with_cases((((2, 3), (2, 3)), {}), (((4,), (4,)), {}), (((), ()), {})))
bce_with_logits = elementwise(_bce_with_logits, lambda g, y, x, t: g * (sigmoid(x) - t), lambda g, y, x, t: -g * x, reference=lambda x, t: -(t * np.log(1 / (1 + np.exp(-x))) + (1 - t) * np.log(1 / (1 + np.exp(x)))), domain=_targets)
bce         = elementwise(_bce,        lambda g, y, x, t: g * ((x - t) / np.maximum((1 - x) * x, 1e-12)), lambda g, y, x, t: g * (np.maximum(np.log1p(-x), -100) - np.maximum(np.log(x), -100)), reference=lambda x, t: -(t * np.log(x) + (1 - t) * np.log(1 - x)), domain=_chances)
# fmt: on
