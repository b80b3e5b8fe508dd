"""tinygrad_scratch: NumPy that differentiates. A Tensor is an array that remembers how it was made.

>>> import numpy as np, tinygrad_scratch as tg
>>> x = tg.Tensor([0.0, 1.0], requires_grad=True)
>>> np.sum(np.tanh(x) ** 2).backward()
>>> x.grad.dtype, x.grad.shape
(dtype('float64'), (2,))
"""

from typing import TYPE_CHECKING, Any

from tinygrad_scratch import interchange as _interchange  # noqa: F401  (gives Tensor the array API's attributes)
from tinygrad_scratch import ops as _ops  # noqa: F401  (fills the table)
from tinygrad_scratch import record as _record  # noqa: F401  (binds it to Tensor)
from tinygrad_scratch import writing as _writing  # noqa: F401  (binds what changes a Tensor)
from tinygrad_scratch.anomaly import detect_anomaly
from tinygrad_scratch.context import enable_grad, is_grad_enabled, no_grad, rewriting, set_grad_enabled
from tinygrad_scratch.registry import OPS, elementwise, general, implements, linear, multilinear
from tinygrad_scratch.tensor import Tensor, as_tensor
from tinygrad_scratch.transforms import (
    checkpoint,
    custom_vjp,
    grad,
    gradients,
    hessian,
    hvp,
    jacobian,
    jvp,
    linearize,
    stop_gradient,
    value_and_grad,
    vjp,
)

if TYPE_CHECKING:
    from tinygrad_scratch import array_api, data, errors, nn, optim, optimize, random, special, stats, testing, trees
    from tinygrad_scratch.capture import Captured, capture

__version__ = "0.1.0"
__all__ = [
    "OPS",
    "Captured",
    "Tensor",
    "array_api",
    "as_tensor",
    "capture",
    "checkpoint",
    "custom_vjp",
    "data",
    "detect_anomaly",
    "elementwise",
    "enable_grad",
    "errors",
    "fft",
    "general",
    "grad",
    "gradients",
    "hessian",
    "hvp",
    "implements",
    "is_grad_enabled",
    "jacobian",
    "jvp",
    "linear",
    "linearize",
    "multilinear",
    "nn",
    "no_grad",
    "optim",
    "optimize",
    "random",
    "rewriting",
    "set_grad_enabled",
    "special",
    "stats",
    "stop_gradient",
    "testing",
    "trees",
    "value_and_grad",
    "vjp",
]


_LATE = frozenset("array_api capture data errors fft nn optim optimize random special stats testing trees".split())
"""What is imported when it is first used."""


def __getattr__(name: str) -> Any:
    """Every row of the table by its name: ``tg.tanh``, ``tg.softmax`` ..., users' own rows too; and what loads late."""
    if name in OPS:
        return OPS[name]
    if name in _LATE:
        from importlib import import_module

        return import_module(f"tinygrad_scratch.{name}")
    if name == "Captured":
        from tinygrad_scratch.capture import Captured

        return Captured
    if name in ("softmax_cross_entropy", "binary_cross_entropy_with_logits"):
        from tinygrad_scratch.nn import functional

        return getattr(functional, name)
    raise AttributeError(f"module 'tinygrad_scratch' has no attribute {name!r}")
