"""What fused rows stand for, in smaller rows: what a captured step is made of.

The arithmetic is that of the row's own function, operation for operation, so that captured equals eager to the last bit;
here it is visible to the passes, which find common parts (the softmax of a loss and of its gradient) and give buffers.
"""

from typing import Any

import numpy as np

from tinygrad_scratch.ops import convolution, indexing, linalg, reductions
from tinygrad_scratch.registry import OPS


def real(x: Any) -> Any:
    return x if x.dtype.kind == "f" else OPS["astype"](x, dtype=np.float64)


def sigmoid(x: Any) -> Any:
    x = real(x)
    return np.reciprocal(np.exp(np.negative(x)) + 1)


def softmax(x: Any, axis: int = -1) -> Any:
    x = real(x)
    y = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return y / np.sum(y, axis=axis, keepdims=True)


def log_softmax(x: Any, axis: int = -1) -> Any:
    x = real(x)
    y = x - np.max(x, axis=axis, keepdims=True)
    return y - np.log(np.sum(np.exp(y), axis=axis, keepdims=True))


def logsumexp(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    x = real(x)
    top = np.max(x, axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    y = np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True)) + top
    return y if keepdims else y.reshape(reductions.reduced_shape(x, axis))


def cross_entropy_labels(logits: Any, labels: Any) -> Any:
    logits = real(logits)
    labels = OPS["check_labels"](labels, classes=logits.shape[-1])
    shifted = logits - np.max(logits, axis=-1, keepdims=True)
    grid = tuple(
        np.arange(n).reshape([-1 if i == j else 1 for j in range(labels.ndim)]) for i, n in enumerate(labels.shape)
    )
    index = (indexing.ARRAY,) * logits.ndim
    picked = indexing.getitem(shifted, *grid, labels, index=index)
    return np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True)).reshape(labels.shape) - picked


def cross_entropy_probabilities(logits: Any, target: Any) -> Any:
    return -np.sum(target * log_softmax(logits), axis=-1)


def bce_with_logits(x: Any, target: Any) -> Any:
    x = real(x)
    return np.log1p(np.exp(-np.absolute(x))) + np.maximum(x, 0) - x * target


def bce(x: Any, target: Any) -> Any:
    with np.errstate(divide="ignore"):
        return (target - 1) * np.maximum(np.log1p(-x), -100) - target * np.maximum(np.log(x), -100)


def mean(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    total = np.sum(x, axis=axis, keepdims=keepdims)
    return total / (x.size // max(total.size, 1))


def var(x: Any, axis: Any = None, ddof: float = 0, keepdims: bool = False) -> Any:
    centre = np.sum(x, axis=axis, keepdims=True)
    deviation = x - centre / (x.size // max(centre.size, 1))
    total = np.sum(deviation * deviation, axis=axis, keepdims=keepdims)
    return total / max(x.size // max(total.size, 1) - ddof, 0)


def std(x: Any, axis: Any = None, ddof: float = 0, keepdims: bool = False) -> Any:
    return np.sqrt(var(x, axis, ddof, keepdims))


def affine(x: Any, weight: Any, bias: Any) -> Any:
    return linalg.matmul(x, weight.T) + bias


def conv2d_affine(x: Any, weight: Any, bias: Any, **options: Any) -> Any:
    return convolution.conv2d(x, weight, **options) + bias.reshape((-1, 1, 1))


EXPANSIONS: dict[str, Any] = {
    "squared_error": lambda a, b: np.sum(np.square(np.subtract(a, b))),
    "sigmoid": sigmoid,
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x, slope=0.01: np.where(x > 0, x, slope * x),
    "prelu": lambda x, slope: np.where(x > 0, x, slope * x),
    "clip_below": lambda x, low: np.maximum(x, low),
    "clip_above": lambda x, high: np.minimum(x, high),
    "softplus": lambda x: np.logaddexp(x, 0),
    "softmax": softmax,
    "log_softmax": log_softmax,
    "logsumexp": logsumexp,
    "cross_entropy_labels": cross_entropy_labels,
    "cross_entropy_probabilities": cross_entropy_probabilities,
    "bce_with_logits": bce_with_logits,
    "bce": bce,
    "mean": mean,
    "var": var,
    "std": std,
    "affine": affine,
    "conv2d_affine": conv2d_affine,
}
