"""Initialisers: each fills a Tensor in place and returns it. ``rng``: a Generator or a seed; same seed, same bits.

Fans of a weight (out, in, *kernel): fan_in = in * prod(kernel), fan_out = out * prod(kernel).
"""

from math import prod, sqrt
from typing import Any, TypeVar

import numpy as np

from tinygrad_scratch.context import no_grad
from tinygrad_scratch.nn.layers import Rng
from tinygrad_scratch.tensor import Tensor

T = TypeVar("T", bound=Tensor)

_GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": sqrt(2.0), "selu": 3 / 4}


def uniform_(tensor: T, a: float = 0.0, b: float = 1.0, *, rng: Rng = None) -> T:
    """Fill with U(a, b).

    >>> from tinygrad_scratch import nn
    >>> w = uniform_(nn.Parameter(np.zeros((2, 3))), -1, 1, rng=0)
    >>> bool((w.numpy() == uniform_(nn.Parameter(np.zeros((2, 3))), -1, 1, rng=0).numpy()).all())
    True
    """
    return _fill(tensor, np.random.default_rng(rng).uniform(a, b, tensor.shape))


def normal_(tensor: T, mean: float = 0.0, std: float = 1.0, *, rng: Rng = None) -> T:
    """Fill with N(mean, std**2)."""
    return _fill(tensor, np.random.default_rng(rng).normal(mean, std, tensor.shape))


def constant_(tensor: T, val: float) -> T:
    """Fill with `val`."""
    return _fill(tensor, val)


def zeros_(tensor: T) -> T:
    """Fill with 0."""
    return _fill(tensor, 0)


def ones_(tensor: T) -> T:
    """Fill with 1."""
    return _fill(tensor, 1)


def xavier_uniform_(tensor: T, gain: float = 1.0, *, rng: Rng = None) -> T:
    """Fill with U(-b, b), b = gain * sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010, eq. 16)."""
    bound = gain * sqrt(6 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound, rng=rng)


def xavier_normal_(tensor: T, gain: float = 1.0, *, rng: Rng = None) -> T:
    """Fill with N(0, std**2), std = gain * sqrt(2 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""
    return normal_(tensor, 0.0, gain * sqrt(2 / sum(fans(tensor))), rng=rng)


def kaiming_uniform_(
    tensor: T, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", *, rng: Rng = None
) -> T:
    """Fill with U(-b, b), b = sqrt(3) * gain / sqrt(fan) (He et al. 2015); `a` is the slope of leaky_relu."""
    bound = sqrt(3) * _he(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, rng=rng)


def kaiming_normal_(
    tensor: T, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", *, rng: Rng = None
) -> T:
    """Fill with N(0, std**2), std = gain / sqrt(fan) (He et al. 2015, eq. 10 and 14)."""
    return normal_(tensor, 0.0, _he(tensor, a, mode, nonlinearity), rng=rng)


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor on the weights before `nonlinearity` that keeps the variance; `param`: the slope of leaky_relu.

    >>> calculate_gain("leaky_relu", 1.0)
    1.0
    """
    if nonlinearity == "leaky_relu":
        return sqrt(2 / (1 + (0.01 if param is None else param) ** 2))
    if nonlinearity not in _GAINS:
        raise ValueError(f"{nonlinearity} is not a known nonlinearity; use leaky_relu, {', '.join(_GAINS)}")
    return _GAINS[nonlinearity]


def fans(tensor: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out): the inputs of each output, the outputs of each input. ValueError for less than two axes."""
    if tensor.ndim < 2:
        raise ValueError(
            f"fan in and fan out need two axes or more (out, in, ...), this Tensor has shape {tensor.shape}; "
            "use normal_ or uniform_ for it"
        )
    kernel = prod(tensor.shape[2:])
    return tensor.shape[1] * kernel, tensor.shape[0] * kernel


def _he(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"{mode} is not a valid mode; use fan_in or fan_out")
    return calculate_gain(nonlinearity, a) / sqrt(fans(tensor)[mode == "fan_out"])


def _fill(tensor: T, values: Any) -> T:
    with no_grad():
        tensor[...] = values
    return tensor
