"""The data sets, as arrays, and what is done to arrays of examples before and during training.

MNIST lies beside this file and needs nothing else. Further data sets, which are too large or not free to ship, are
looked for in the folder that the environment variable TINYGRAD_SCRATCH_DATA names.
"""

import functools
import hashlib
import math
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from models.files import RunError
from tinygrad_scratch.data import RandomFlip, RandomShift, Transform

Array = np.ndarray[Any, Any]

MNIST_PATH = Path(__file__).with_name("mnist.npz")
MNIST_SHA256 = "ee068f36682cba7f38bafdedc77b0f873ebbcf877036f7ebde566966146ac146"


class Mnist(NamedTuple):
    """Handwritten digits: images uint8 (N, 28, 28), 0 paper and 255 full ink; labels uint8 (N,), 0 to 9."""

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array


@functools.cache
def load_mnist(path: Path = MNIST_PATH, sha256: str = MNIST_SHA256) -> Mnist:
    """All of MNIST: 60,000 examples for training, 10,000 for testing. Read once; the arrays are read-only.

    Raises RunError if the file is missing or is not, byte for byte, the one that `build_mnist.py` writes.

    >>> mnist = load_mnist()
    >>> mnist.x_train.shape, mnist.y_test[:5].tolist()
    ((60000, 28, 28), [7, 2, 1, 0, 4])
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}; models/data/README.md says how it is built") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise RunError(f"{path}: damaged, its SHA-256 is not {sha256}; models/data/README.md says how it is built")
    with zipfile.ZipFile(path) as archive:
        arrays = [_read_only(archive, f"{name}.npy") for name in Mnist._fields]
    return Mnist(*arrays)


def _read_only(archive: zipfile.ZipFile, member: str) -> Array:
    with archive.open(member) as stream:
        array: Array = np.lib.format.read_array(stream, allow_pickle=False)
    array.setflags(write=False)
    return array


def extra_data_folder(name: str) -> Path:
    """The folder of a data set that is not shipped: `name` in the folder that TINYGRAD_SCRATCH_DATA names.

    Raises RunError, with what to set, if the variable is not set or the folder is not there.
    """
    root = os.environ.get("TINYGRAD_SCRATCH_DATA")
    if not root:
        raise RunError(f"{name} is not shipped: set TINYGRAD_SCRATCH_DATA to a folder that holds {name}/")
    folder = Path(root) / name
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder; TINYGRAD_SCRATCH_DATA must name a folder that holds {name}/")
    return folder


def flatten(images: Array) -> Array:
    """Images of bytes (N, ...) as rows of float32 in [0, 1], (N, pixels).

    >>> flatten(np.array([[[0, 51], [102, 255]]], np.uint8))
    array([[0. , 0.2, 0.4, 1. ]], dtype=float32)
    """
    return images.reshape(len(images), math.prod(images.shape[1:])) / np.float32(255)


def one_hot(labels: Array, classes: int = 10) -> Array:
    """Labels (N,) as float32 rows (N, classes) with a one at the label. Raises IndexError for a label out of range.

    >>> one_hot(np.array([2, 0]), classes=3)
    array([[0., 0., 1.],
           [1., 0., 0.]], dtype=float32)
    """
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise IndexError(f"labels from {labels.min()} to {labels.max()}: must be from 0 to {classes - 1}")
    return np.eye(classes, dtype=np.float32)[labels]


def split(count: int, held_out: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Which of `count` examples to train on and which to hold out: two arrays of indices, in the order of drawing.

    Raises ValueError unless 0 <= held_out < count.

    >>> train, validation = split(5, 2, np.random.default_rng(0))
    >>> train.tolist(), validation.tolist()
    ([3, 0, 1], [2, 4])
    """
    if not 0 <= held_out < count:
        raise ValueError(f"cannot hold out {held_out:,} of {count:,} examples: at least one must be left to train on")
    order = rng.permutation(count)
    return order[held_out:], order[:held_out]


def augmentation(shift: int, flip: bool, image: tuple[int, ...] = (1, 28, 28)) -> list[Transform]:
    """What a loader does to each batch of images, which may lie as rows of pixels: moves them by up to `shift` pixels,
    mirrors half of them.

    >>> [augment] = augmentation(2, False)
    >>> augment(np.zeros((5, 784)), np.random.default_rng(0)).shape
    (5, 784)
    """
    wanted: list[Transform] = [*([RandomShift(shift)] if shift else []), *([RandomFlip()] if flip else [])]

    def on_images(transform: Transform) -> Transform:
        return lambda x, rng: transform(x.reshape(len(x), *image), rng).reshape(x.shape)

    return [on_images(transform) for transform in wanted]


def check_batch_size(batch_size: int, examples: int) -> None:
    """ValueError unless 1 <= batch_size <= examples."""
    if not 1 <= batch_size <= examples:
        raise ValueError(f"batch size {batch_size:,}: must be from 1 to the number of training examples, {examples:,}")


def batches(order: Array, batch_size: int) -> Iterator[Array]:
    """`order`, an array of indices, cut into batches; the last one may be shorter.

    >>> [batch.tolist() for batch in batches(np.arange(5), 2)]
    [[0, 1], [2, 3], [4]]
    """
    check_batch_size(batch_size, len(order))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
