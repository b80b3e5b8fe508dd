"""Initialisers: each fills a Tensor in place and returns it. ``rng``: a Generator or a seed; same seed, same bits.

Fans of a weight (out, in, *kernel): fan_in = in * prod(kernel), fan_out = out * prod(kernel).
"""

from math import ceil, erf, prod, sqrt
from typing import Any, TypeVar

import numpy as np

from tinygrad_scratch.context import no_grad
from tinygrad_scratch.nn.layers import Rng
from tinygrad_scratch.tensor import Tensor

T = TypeVar("T", bound=Tensor)

_GAINS = {
    "linear": 1.0,
    "conv1d": 1.0,
    "conv2d": 1.0,
    "conv3d": 1.0,
    "sigmoid": 1.0,
    "tanh": 5 / 3,
    "relu": sqrt(2.0),
    "selu": 3 / 4,
}


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


def orthogonal_(tensor: T, gain: float = 1.0, *, rng: Rng = None) -> T:
    """Fill with rows that are orthonormal, or columns if there are more rows, times `gain` (Saxe et al. 2014).

    Of more than two axes, all but the first are taken as one. Drawn evenly from all such matrices. ValueError for one axis.

    >>> from tinygrad_scratch import nn
    >>> w = orthogonal_(nn.Parameter(np.zeros((3, 5))), rng=0).numpy()
    >>> bool(np.allclose(w @ w.T, np.eye(3)))
    True
    """
    fans(tensor)
    rows, columns = tensor.shape[0], prod(tensor.shape[1:])
    q, r = np.linalg.qr(np.random.default_rng(rng).normal(size=(max(rows, columns), min(rows, columns))))
    q *= np.where(
        np.diagonal(r) < 0, -1, 1
    )  # without the choice of signs that makes r unique, q would not be drawn evenly
    return _fill(tensor, gain * (q if rows >= columns else q.T).reshape(tensor.shape))


def trunc_normal_(
    tensor: T, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, *, rng: Rng = None
) -> T:
    """Fill with N(mean, std**2) between a and b, by rejection. ValueError unless a < b.

    >>> from tinygrad_scratch import nn
    >>> w = trunc_normal_(nn.Parameter(np.zeros(1000)), std=3.0, rng=0).numpy()
    >>> bool((abs(w) <= 2).all())
    True
    """
    if not a < b or not std > 0:
        raise ValueError(f"trunc_normal_ between {a} and {b} with std {std}: it needs a < b and std > 0")
    generator, low, high = np.random.default_rng(rng), (a - mean) / std, (b - mean) / std
    share = (erf(high / sqrt(2)) - erf(low / sqrt(2))) / 2
    near = min(max(low, 0), high)  # the likeliest value; in a far tail, hardly any is much farther out
    reach = 40 / max(abs(near), 1)
    ends = max(low, near - reach), min(high, near + reach)
    made, found = [], 0
    while found < tensor.size:
        if share > 0.05:
            x = generator.normal(size=tensor.size)
        else:
            x = generator.uniform(*ends, size=tensor.size)
            x = x[generator.random(tensor.size) < np.exp((near * near - x * x) / 2)]
        made.append(x[(x >= low) & (x <= high)])
        found += made[-1].size
    values = np.concatenate([*made, np.empty(0)])[: tensor.size].reshape(tensor.shape)
    return _fill(tensor, np.clip(mean + std * values, a, b))


def eye_(tensor: T) -> T:
    """Fill a matrix with the identity. ValueError for another number of axes."""
    if tensor.ndim != 2:
        raise ValueError(f"eye_ fills a matrix, not a Tensor of shape {tensor.shape}")
    return _fill(tensor, np.eye(tensor.shape[0], tensor.shape[1]))


def dirac_(tensor: T, groups: int = 1) -> T:
    """Fill a convolution's weight (out, in / groups, *kernel) so that it keeps its inputs: 1 in the kernel's middle, else 0.

    ValueError for less than one axis of a kernel or more than three, or an `out` that does not divide into the groups.
    """
    if not 3 <= tensor.ndim <= 5 or tensor.shape[0] % groups:
        raise ValueError(f"dirac_ fills (out, in, *kernel), out divisible by {groups} groups, not shape {tensor.shape}")
    values = np.zeros(tensor.shape)
    each, middle = tensor.shape[0] // groups, tuple(n // 2 for n in tensor.shape[2:])
    for group in range(groups):
        for i in range(min(each, tensor.shape[1])):
            values[(group * each + i, i, *middle)] = 1
    return _fill(tensor, values)


def sparse_(tensor: T, sparsity: float, std: float = 0.01, *, rng: Rng = None) -> T:
    """Fill a matrix with N(0, std**2), and in each column that share of rows with 0 (Martens 2010). ValueError if no matrix."""
    if tensor.ndim != 2:
        raise ValueError(f"sparse_ fills a matrix, not a Tensor of shape {tensor.shape}")
    generator = np.random.default_rng(rng)
    values = generator.normal(0, std, tensor.shape)
    places = generator.random(tensor.shape).argsort(axis=0)[: ceil(sparsity * tensor.shape[0])]
    values[places, np.arange(tensor.shape[1])] = 0
    return _fill(tensor, values)


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
