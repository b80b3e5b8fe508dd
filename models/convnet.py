"""Convolutional networks, written as their diagrams; images (N, channels, height, width) in, logits (N, classes) out.

LeNet-5 (LeCun et al. 1998), with ReLU and maxima where it had sigmoids and means:

    28 x 28 -- conv 5x5 -- 6 x 28 x 28 -- pool -- 6 x 14 x 14 -- conv 5x5 -- 16 x 10 x 10 -- pool -- 400 -- 120 -- 84 -- 10

A small VGG (Simonyan and Zisserman 2015): pairs of 3x3 convolutions, then a pool, as often as there are widths.

    3 x 32 x 32 -- [conv 3x3 -- conv 3x3 -- pool] x 3 -- 64 x 4 x 4 -- 10
"""

from collections.abc import Sequence

import numpy as np

import tinygrad_scratch.nn as nn

Rng = np.random.Generator | int | None


class LeNet5(nn.Sequential):
    """LeNet-5 for images of 28 x 28. `rng` is a Generator or a seed; weights as torch draws them.

    >>> LeNet5(rng=0)(np.zeros((5, 1, 28, 28), np.float32)).shape
    (5, 10)
    """

    def __init__(self, classes: int = 10, *, rng: Rng = None) -> None:
        rng = np.random.default_rng(rng)
        super().__init__(
            nn.Conv2d(1, 6, 5, padding=2, rng=rng), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5, rng=rng), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * 5 * 5, 120, rng=rng), nn.ReLU(),
            nn.Linear(120, 84, rng=rng), nn.ReLU(),
            nn.Linear(84, classes, rng=rng),
        )  # fmt: skip


class VGG(nn.Sequential):
    """A small VGG for images of `channels` and `size` x `size`, which each width halves. Raises ValueError if it cannot.

    The convolutions' weights are drawn from N(0, 2 / inputs) (He et al. 2015, eq. 10), their biases are 0.

    >>> VGG(rng=0)(np.zeros((5, 3, 32, 32), np.float32)).shape
    (5, 10)
    """

    def __init__(
        self,
        widths: Sequence[int] = (16, 32, 64),
        *,
        channels: int = 3,
        size: int = 32,
        classes: int = 10,
        rng: Rng = None,
    ) -> None:
        if size >> len(widths) << len(widths) != size or not size:
            raise ValueError(f"size {size}: must be a multiple of {2 ** len(widths)}, to be halved {len(widths)} times")
        rng = np.random.default_rng(rng)
        layers: list[nn.Module] = []
        inputs = channels
        for width in widths:
            layers += [_conv3x3(inputs, width, rng), nn.ReLU(), _conv3x3(width, width, rng), nn.ReLU(), nn.MaxPool2d(2)]
            inputs = width
        super().__init__(*layers, nn.Flatten(), nn.Linear(inputs * (size >> len(widths)) ** 2, classes, rng=rng))


def _conv3x3(inputs: int, outputs: int, rng: np.random.Generator) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, rng=rng)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu", rng=rng)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv
