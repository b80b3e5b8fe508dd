"""The multilayer perceptron, written as its diagram:

    x -- Linear -- activation -- Linear -- activation -- ... -- Linear -- logits

Nothing here knows how it is differentiated.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

import tinygrad_scratch.nn as nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
}
INITS = ("default", "normal", "glorot", "he")


class MLP(nn.Sequential):
    """Layers of `sizes` neurons, fully connected, with `activation` between them; it answers the logits.

    `sizes`: inputs, hidden layers, outputs, such as (784, 128, 10). x (N, sizes[0]) gives logits (N, sizes[-1]): the
    outputs before the softmax or the sigmoid, which belongs to the loss. `init`, for the weights:

    - "default": weights and biases uniform in +-1/sqrt(inputs), as `nn.Linear` makes them, and torch's;
    - "normal": N(0, std^2);
    - "glorot": uniform in +-sqrt(6/(inputs + outputs)), Glorot and Bengio 2010, eq. 16, for tanh and sigmoid;
    - "he": N(0, 2/inputs), He et al. 2015, eq. 10, for ReLU and its relatives;

    all but the first with biases of zero. `rng` is a Generator or a seed; the same seed gives the same bits. Raises
    ValueError for fewer than two sizes, a size below 1, or an unknown name. The names of the parameters are those of
    torch's `nn.Sequential` of the same layers: "0.weight", "0.bias", "2.weight" ...

    >>> model = MLP([784, 32, 10], "sigmoid", init="normal", std=0.1, rng=0)
    >>> model(np.zeros((5, 784), np.float32)).shape
    (5, 10)
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str = "relu",
        *,
        init: str = "default",
        std: float = 1.0,
        dtype: type[np.floating] = np.float32,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        _check(sizes, activation, init)
        rng = np.random.default_rng(rng)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            linear = nn.Linear(inputs, outputs, dtype=dtype, rng=rng)
            _initialise(linear, init, std, rng)
            layers += [linear, nn.PReLU(dtype=dtype) if activation == "prelu" else ACTIVATIONS[activation]()]
        super().__init__(*layers[:-1])


def _initialise(linear: nn.Linear, init: str, std: float, rng: np.random.Generator) -> None:
    if init == "default":
        return
    if init == "normal":
        nn.init.normal_(linear.weight, std=std, rng=rng)
    elif init == "glorot":
        nn.init.xavier_uniform_(linear.weight, rng=rng)
    else:
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu", rng=rng)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)


def _check(sizes: Sequence[int], activation: str, init: str) -> None:
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes {tuple(sizes)}: a network needs at least inputs and outputs, each of 1 or more")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation {activation!r}: must be one of {', '.join(ACTIVATIONS)}")
    if init not in INITS:
        raise ValueError(f"init {init!r}: must be one of {', '.join(INITS)}")
