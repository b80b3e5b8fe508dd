"""The data sets that `--data` chooses from: one row each."""

import functools
from collections.abc import Callable
from typing import NamedTuple

from models.data import Mnist, load_mnist


class DataSet(NamedTuple):
    """One choice of `--data`: ten classes of images."""

    title: str
    load: Callable[[], Mnist]
    """Its arrays, read once; images (N, 28, 28), or (N, *image)."""
    image: tuple[int, int, int]
    """(channels, height, width)."""
    examples: int
    """To train on."""
    names: tuple[str, ...]
    """Of the classes, in a few letters."""

    @property
    def pixels(self) -> int:
        """Numbers in an image."""
        channels, height, width = self.image
        return channels * height * width


@functools.cache
def _cifar10() -> Mnist:
    from models.data.cifar10 import load_cifar10

    return Mnist(*load_cifar10())


COLOURED = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

DATA_SETS = {
    "mnist": DataSet("MNIST", load_mnist, (1, 28, 28), 60_000, tuple("0123456789")),
    "cifar10": DataSet("CIFAR-10", _cifar10, (3, 32, 32), 50_000, COLOURED),
}
