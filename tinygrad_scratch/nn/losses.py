"""The losses of ``nn.functional`` as modules: called with (input, target), made with the functions' options.

`reduction` is "mean", "sum" or "none", anything else a ValueError.
"""

from typing import Any

from tinygrad_scratch.nn import functional
from tinygrad_scratch.nn.module import Module
from tinygrad_scratch.tensor import Tensor


class _Loss(Module):
    """A loss with a reduction, and with options that its function takes by the names of its attributes."""

    _options: tuple[str, ...] = ()

    def __init__(self, reduction: str = "mean"):
        functional.reduction_named(reduction)
        self.reduction = reduction

    def _keep(self, name: str, weight: Any) -> None:
        """A weight as a buffer, which is part of the state dict; None as nothing."""
        self.register_buffer(name, None if weight is None else Tensor(weight))

    def forward(self, input: Any, target: Any) -> Any:
        options = {name: getattr(self, name) for name in self._options}
        return type(self)._function(input, target, self.reduction, **options)

    @staticmethod
    def _function(*arguments: Any, **options: Any) -> Any:
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


class CrossEntropyLoss(_Loss):
    """``nn.functional.cross_entropy`` as a module: logits (N, C, ...) and class indices (N, ...) or probabilities.

    >>> import numpy as np
    >>> round(float(CrossEntropyLoss()(np.zeros((3, 10)), np.array([1, 2, 3]))), 4)
    2.3026
    """

    _options = ("weight", "ignore_index", "label_smoothing")
    _function = staticmethod(functional.cross_entropy)

    def __init__(
        self, reduction: str = "mean", *, weight: Any = None, ignore_index: int = -100, label_smoothing: float = 0.0
    ):
        super().__init__(reduction)
        self._keep("weight", weight)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing


class NLLLoss(_Loss):
    """``nn.functional.nll_loss`` as a module: log-probabilities (N, C, ...) and class indices (N, ...)."""

    _options = ("weight", "ignore_index")
    _function = staticmethod(functional.nll_loss)

    def __init__(self, reduction: str = "mean", *, weight: Any = None, ignore_index: int = -100):
        super().__init__(reduction)
        self._keep("weight", weight)
        self.ignore_index = ignore_index


class BCELoss(_Loss):
    """``nn.functional.binary_cross_entropy`` as a module."""

    _options = ("weight",)
    _function = staticmethod(functional.binary_cross_entropy)

    def __init__(self, reduction: str = "mean", *, weight: Any = None):
        super().__init__(reduction)
        self._keep("weight", weight)


class BCEWithLogitsLoss(_Loss):
    """``nn.functional.binary_cross_entropy_with_logits`` as a module."""

    _options = ("weight", "pos_weight")
    _function = staticmethod(functional.binary_cross_entropy_with_logits)

    def __init__(self, reduction: str = "mean", *, weight: Any = None, pos_weight: Any = None):
        super().__init__(reduction)
        self._keep("weight", weight)
        self._keep("pos_weight", pos_weight)


class MSELoss(_Loss):
    """``nn.functional.mse_loss`` as a module."""

    _function = staticmethod(functional.mse_loss)


class L1Loss(_Loss):
    """``nn.functional.l1_loss`` as a module."""

    _function = staticmethod(functional.l1_loss)


class HuberLoss(_Loss):
    """``nn.functional.huber_loss`` as a module."""

    _options = ("delta",)
    _function = staticmethod(functional.huber_loss)

    def __init__(self, reduction: str = "mean", delta: float = 1.0):
        super().__init__(reduction)
        self.delta = delta


class SmoothL1Loss(_Loss):
    """``nn.functional.smooth_l1_loss`` as a module."""

    _options = ("beta",)
    _function = staticmethod(functional.smooth_l1_loss)

    def __init__(self, reduction: str = "mean", beta: float = 1.0):
        super().__init__(reduction)
        self.beta = beta


class KLDivLoss(_Loss):
    """``nn.functional.kl_div`` as a module; its reduction may be "batchmean" too."""

    _options = ("log_target",)
    _function = staticmethod(functional.kl_div)

    def __init__(self, reduction: str = "mean", log_target: bool = False):
        super().__init__("sum" if reduction == "batchmean" else reduction)
        self.reduction, self.log_target = reduction, log_target
