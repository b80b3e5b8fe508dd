"""The networks that `--model` chooses from: one row each.

A row says how the network is built from a run's settings, in which shape it takes an image, and what a run of it does
unless told otherwise. Another network is another row.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import tinygrad_scratch.nn as nn
from models.autoencoder import Autoencoder
from models.convnet import VGG, LeNet5
from models.data.sets import DATA_SETS
from models.losses import LOSSES
from models.mlp import MLP
from models.optimizers import OPTIMIZERS

if TYPE_CHECKING:
    from models.settings import Settings

Rng = np.random.Generator | int | None


class Network(NamedTuple):
    """One choice of `--model`."""

    build: Callable[["Settings", Rng], nn.Module]
    describe: Callable[["Settings"], str]
    """The network in a few words."""
    flat: bool = True
    """Whether it takes an image as a row of pixels, or else as (channels, height, width)."""
    data: tuple[str, ...] = tuple(DATA_SETS)
    """Which of the data sets it can take."""
    shaped_by: tuple[str, ...] = ()
    """Which of the settings `sizes`, `activation`, `init` and `init_std` it heeds; the others are refused."""
    losses: tuple[str, ...] = tuple(LOSSES)
    """Those that suit it."""
    reconstructs: bool = False
    """Whether it is to give back its input, and not to tell the label."""
    pretrains: bool = False
    """Whether its layers can be pre-trained."""
    defaults: Mapping[str, Any] = {}
    """Settings of a run that are otherwise than `Settings`' own defaults, unless they are given."""


def _mlp(settings: "Settings", rng: Rng) -> nn.Module:
    return MLP(settings.sizes, settings.activation, init=settings.init, std=settings.init_std, rng=rng)


def _autoencoder(settings: "Settings", rng: Rng) -> nn.Module:
    return Autoencoder(settings.sizes, settings.activation, init=settings.init, std=settings.init_std, rng=rng)


def _lenet5(settings: "Settings", rng: Rng) -> nn.Module:
    return LeNet5(rng=rng)


def _vgg(settings: "Settings", rng: Rng) -> nn.Module:
    channels, size, _ = settings.images.image
    return VGG(_widths(settings), channels=channels, size=size, rng=rng)


def _widths(settings: "Settings") -> tuple[int, ...]:
    """Of a VGG whose pools can halve the images as often."""
    return (16, 32, 64) if settings.images.image[1] % 8 == 0 else (16, 32)


def _layers(settings: "Settings") -> str:
    return f"{'-'.join(map(str, settings.sizes))}, {settings.activation}"


SHAPING = ("sizes", "activation", "init", "init_std")

# fmt: off
NETWORKS: dict[str, Network] = {
    "mlp": Network(_mlp, _layers, shaped_by=SHAPING, pretrains=True),
    "autoencoder": Network(
        _autoencoder, _layers, shaped_by=SHAPING, losses=("bce", "squared_error"), reconstructs=True, pretrains=True,
        defaults={"sizes": (784, 256, 64), "loss": "bce", "optimizer": "adam", **OPTIMIZERS["adam"].defaults},
    ),
    "lenet5": Network(_lenet5, lambda settings: "LeNet-5", flat=False, data=("mnist",)),
    "vgg": Network(
        _vgg, lambda settings: f"small VGG {'-'.join(f'{width}-{width}' for width in _widths(settings))}", flat=False
    ),
}
# fmt: on
