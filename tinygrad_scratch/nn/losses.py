"""The losses of ``nn.functional`` as modules."""

from typing import Any

from tinygrad_scratch.nn import functional
from tinygrad_scratch.nn.module import Module


class _Loss(Module):
    """A loss: called with (input, target); `reduction` is "mean", "sum" or "none", anything else a ValueError."""

    def __init__(self, reduction: str = "mean"):
        functional.reduction_named(reduction)
        self.reduction = reduction

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


class CrossEntropyLoss(_Loss):
    """``nn.functional.cross_entropy`` as a module: logits (N, C, ...) and class indices (N, ...) or probabilities.

    >>> import numpy as np
    >>> round(float(CrossEntropyLoss()(np.zeros((3, 10)), np.array([1, 2, 3]))), 4)
    2.3026
    """

    def forward(self, input: Any, target: Any) -> Any:
        return functional.cross_entropy(input, target, self.reduction)


class BCEWithLogitsLoss(_Loss):
    """``nn.functional.binary_cross_entropy_with_logits`` as a module."""

    def forward(self, input: Any, target: Any) -> Any:
        return functional.binary_cross_entropy_with_logits(input, target, self.reduction)


class MSELoss(_Loss):
    """``nn.functional.mse_loss`` as a module."""

    def forward(self, input: Any, target: Any) -> Any:
        return functional.mse_loss(input, target, self.reduction)
