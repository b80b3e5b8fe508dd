"""The autoencoder, written as its diagram, and layer-wise pre-training, which teaches any network's layers that way:

    x -- Linear -- activation -- ... -- Linear -- activation -- code
                                                                  |
    logits of x -- Linear -- ... -- activation -- Linear ---------+

Hinton and Salakhutdinov 2006 (the network), Bengio et al. 2007 (greedy pre-training of a classifier's layers).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

import tinygrad_scratch.nn as nn
from models.mlp import MLP


class Autoencoder(nn.Module):
    """Layers of `sizes` neurons down to a code, and of the same sizes back; it answers the logits of its input.

    `sizes`: inputs, hidden layers, code, such as (784, 256, 32). `encoder`: x (N, sizes[0]) to codes (N, sizes[-1]), with
    the names of the parameters that an MLP's first layers have. `decoder`: codes to logits (N, sizes[0]), whose sigmoids
    are the reconstruction. `activation`, `init`, `std`, `dtype` and `rng` as in MLP.

    >>> model = Autoencoder([784, 64, 16], "sigmoid", rng=0)
    >>> x = np.zeros((5, 784), np.float32)
    >>> model(x).shape, model.encoder(x).shape
    ((5, 784), (5, 16))
    """

    def __init__(self, sizes: Sequence[int], activation: str = "sigmoid", **options: Any) -> None:
        layers = MLP([*sizes, *reversed(sizes[:-1])], activation, **options)
        self.encoder = layers[: len(layers) // 2 + 1]
        self.decoder = layers[len(layers) // 2 + 1 :]

    def forward(self, x: Any) -> Any:
        return self.decoder(self.encoder(x))


class Layer(nn.Module):
    """One layer of an encoder, and the way back from its code to what it was fed."""

    def __init__(self, there: nn.Sequential, back: nn.Sequential):
        self.there, self.back = there, back

    def forward(self, x: Any) -> Any:
        return self.back(self.there(x))


def layers_of(encoder: nn.Sequential, decoder: nn.Sequential | None = None, rng: Any = None) -> list[Layer]:
    """An autoencoder for each layer of an encoder: Linear, activation, and back through the decoder's layer.

    Without a decoder, as in a classifier, each gets one of its own, drawn by `rng`. The first layer's output are logits,
    the others' has gone through the activation that made what they are to give back.

    >>> [len(layer.back) for layer in layers_of(Autoencoder([8, 4, 2]).encoder)]
    [1, 2]
    """
    rng = np.random.default_rng(rng)
    there = [encoder[i : i + 2] for i in range(0, len(encoder) - 1, 2)]
    if decoder is not None:
        back = [decoder[i : i + 2] for i in range(0, len(decoder), 2)][::-1]
    else:
        back = [nn.Sequential(_reversed(part[0], rng)) for part in there]
        back[1:] = [nn.Sequential(part[0], before[1]) for part, before in zip(back[1:], there[:-1], strict=True)]
    return [Layer(*pair) for pair in zip(there, back, strict=True)]


def _reversed(linear: nn.Linear, rng: np.random.Generator) -> nn.Linear:
    """A Linear from the outputs of `linear` to its inputs, drawn as Glorot and Bengio 2010 draw."""
    made = nn.Linear(linear.out_features, linear.in_features, dtype=linear.weight.dtype, rng=rng)
    nn.init.xavier_uniform_(made.weight, rng=rng)
    return made
