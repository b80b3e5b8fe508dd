"""What training does with all gradients at once: clipping, under torch's names."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from tinygrad_scratch.context import is_lifted, no_grad
from tinygrad_scratch.errors import describe
from tinygrad_scratch.ops.fused import check_range
from tinygrad_scratch.tensor import Tensor, next_rank

_LARGEST = float(np.finfo(np.float64).max)


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """Scale all gradients by one number, so that their norm, as of one vector, is at most `max_norm` (Pascanu et al. 2013).

    norm_type: the p of the p-norm; ``float("inf")`` for the largest element. Returns the norm before, a Tensor of one number.
    error_if_nonfinite: RuntimeError if that is infinite or NaN, and then no gradient is changed.

    >>> from tinygrad_scratch import nn
    >>> p = nn.Parameter([0.0, 0.0])
    >>> p.grad = Tensor([3.0, 4.0])
    >>> float(clip_grad_norm_([p], 1.0)), p.grad.numpy().round(3).tolist()
    (5.0, [0.6, 0.8])
    """
    kept = _with_gradients(parameters)
    with no_grad(), np.errstate(all="ignore"):
        total = _norm([p.grad for p in kept], float(norm_type))
        if error_if_nonfinite:
            check_range.apply(
                total, low=-_LARGEST, high=_LARGEST, kind="RuntimeError",
                message=f"the gradients' norm of order {norm_type} is not finite, so they cannot be clipped; find where it arises "
                "with detect_anomaly(), or pass error_if_nonfinite=False",
            )  # fmt: skip
        factor = np.minimum(float(max_norm) / (total + 1e-6), 1)
        for p in kept:
            _change(p, np.multiply, factor.astype(p.dtype))
    return total


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Clip each element of all gradients to [-clip_value, clip_value].

    >>> from tinygrad_scratch import nn
    >>> p = nn.Parameter([0.0, 0.0])
    >>> p.grad = Tensor([3.0, -0.5])
    >>> clip_grad_value_([p], 1.0)
    >>> p.grad.tolist()
    [1.0, -0.5]
    """
    bound = float(clip_value)
    with no_grad():
        for p in _with_gradients(parameters):
            _change(p, np.clip, -bound, bound)


def _with_gradients(parameters: Any) -> list[Any]:
    given = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    for p in given:
        if not isinstance(p, Tensor):
            raise TypeError(f"gradients of Tensors are clipped, not of {describe(p)}; pass model.parameters()")
    return [p for p in given if p.grad is not None]


def _norm(gradients: list[Any], order: float) -> Tensor:
    """The norm of all elements, taken as those of one vector."""
    if not gradients:
        return Tensor(0.0, np.float32)
    if order == float("inf"):
        total = np.max(np.abs(gradients[0]))
        for g in gradients[1:]:
            total = np.maximum(total, np.max(np.abs(g)))
        return total  # type: ignore[no-any-return]
    total = sum(np.sum(np.square(g) if order == 2 else np.abs(g) ** order) for g in gradients)
    return np.sqrt(total) if order == 2 else total ** (1 / order)  # type: ignore[no-any-return]


def _change(p: Tensor, function: Any, *operands: Any) -> None:
    """p.grad = function(p.grad, *operands): in place, unless a graph or a listener is to know of it."""
    g: Any = p.grad
    if g._node is not None or is_lifted():
        p.grad = function(g, *operands)
        return
    function(g._data, *(getattr(x, "_data", x) for x in operands), out=g._data)
    g._rank = next_rank()
