"""Batches of examples that lie in arrays: shuffled, split, augmented, and resumed in the middle of an epoch.

A whole batch is indexed at once: 3 times as fast as a loop over its examples where memory is the limit (rows of 784 that
are not in the cache), 16 times where they are, 80 times for rows of 16. A loader owns its random stream: it is the same
whatever else draws numbers, and nothing else draws other numbers because of it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import floor, isclose
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tinygrad_scratch._typing import Array
from tinygrad_scratch.errors import describe
from tinygrad_scratch.tensor import Tensor

Seed = np.random.Generator | np.random.SeedSequence | int | None
Transform = Callable[[Array, np.random.Generator], Array]


class TensorDataset:
    """Arrays (or Tensors) whose first axis are the same examples: ``dataset[rows]`` is a tuple of their rows.

    ValueError for no arrays, arrays without axes, and arrays of different lengths.

    >>> dataset = TensorDataset(np.arange(8.0).reshape(4, 2), np.arange(4))
    >>> len(dataset), dataset[np.array([2, 0])]
    (4, (array([[4., 5.],
           [0., 1.]]), array([2, 0])))
    """

    def __init__(self, *arrays: Any):
        self.arrays = tuple(a.data if isinstance(a, Tensor) else np.asarray(a) for a in arrays)
        shapes = ", ".join(map(describe, self.arrays)) or "none"
        if not self.arrays or any(not a.ndim for a in self.arrays) or len({len(a) for a in self.arrays}) > 1:
            raise ValueError(
                f"a data set takes arrays with the same number of examples on their first axis, not {shapes}"
            )

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, rows: Any) -> tuple[Array, ...]:
        if isinstance(rows, np.ndarray) and rows.dtype.kind in "iu":
            return tuple(a.take(rows, 0) for a in self.arrays)  # a quarter faster than a[rows]
        return tuple(a[rows] for a in self.arrays)


class Subset:
    """The rows `indices` (n,) of a data set, by reference: what ``random_split`` gives."""

    def __init__(self, dataset: Any, indices: Array):
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, rows: Any) -> tuple[Array, ...]:
        found: tuple[Array, ...] = self.dataset[self.indices[rows]]
        return found


def random_split(dataset: Any, lengths: Sequence[float], rng: Seed = None) -> list[Subset]:
    """Parts of a data set that have nothing in common, drawn by `rng`: the same seed gives the same parts.

    dataset: a data set (``len`` and rows by an index array), an array, or a tuple of arrays.
    lengths: how many examples each part gets, adding up to all; or shares that add up to 1, rounded down, where the
        examples that are left over go to the first parts, one each.

    ValueError for lengths that do not add up.

    >>> train, test = random_split(np.arange(10), [0.8, 0.2], rng=0)
    >>> len(train), len(test), sorted([*train[:][0], *test[:][0]]) == list(range(10))
    (8, 2, True)
    """
    dataset = _dataset((dataset,))
    count = len(dataset)
    sizes: list[Any] = list(lengths)
    if any(isinstance(size, float) for size in sizes) and isclose(sum(sizes), 1):
        sizes = [floor(count * share) for share in sizes]
        for part in range(count - sum(sizes)):
            sizes[part % len(sizes)] += 1
    if any(size < 0 or size != int(size) for size in sizes) or sum(sizes) != count:
        raise ValueError(
            f"lengths {list(lengths)} of a data set of {count} examples: they must be whole numbers with the sum {count}, "
            "or shares with the sum 1"
        )
    order = np.random.default_rng(rng).permutation(count)
    ends = np.cumsum([int(size) for size in sizes])
    return [Subset(dataset, part) for part in np.split(order, ends[:-1])]


class DataLoader:
    """The examples of a data set in batches: one pass, an epoch, each time that it is iterated over.

    Parameters
    ----------
    data: arrays with the same number of examples on their first axis; or one data set: anything with ``len(data)`` and
        ``data[rows]``, a tuple of arrays, for an array of indices `rows`.
    batch_size: examples a batch. The last batch is shorter if they do not divide, or left out if drop_last.
    shuffle: a new order in every epoch, or the order in which they lie.
    transforms: functions ``f(x, rng) -> x`` applied in turn to the first array of each batch: RandomShift(2), ...
    rng: a seed, or a Generator, of which a stream of its own is spawned: the Generator's numbers stay what they were.

    Yields a tuple of arrays, or one array if there is one: copies, which the caller may keep. ``len(loader)`` is the
    number of batches. ``state_dict()`` says where it stands, also between two batches; a loader of the same data that
    loads it goes on with the next batch, bit for bit. One pass at a time: a second one ends the first (RuntimeError).

    ValueError for no examples, different lengths, a batch_size below 1, or above their number with drop_last.

    >>> loader = DataLoader(np.arange(5), np.arange(5) ** 2, batch_size=2)
    >>> [(x.tolist(), y.tolist()) for x, y in loader]
    [([0, 1], [0, 1]), ([2, 3], [4, 9]), ([4], [16])]
    """

    def __init__(
        self,
        *data: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        drop_last: bool = False,
        transforms: Sequence[Transform] = (),
        rng: Seed = None,
    ):
        self.dataset = _dataset(data)
        self.batch_size, self.shuffle, self.drop_last = batch_size, shuffle, drop_last
        self.transforms = tuple(transforms)
        self._rng = _own_stream(rng)
        self._began: Mapping[str, Any] | None = None  # the stream's state before this epoch's order was drawn
        self._order: Array | None = None
        self._given = 0  # batches of this epoch
        self._open = False  # whether the next pass goes on with this epoch
        self._pass: object = None
        _check(len(self.dataset), batch_size, drop_last)

    def __len__(self) -> int:
        count = len(self.dataset)
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        if not self._open:
            self._order = None
        rows, size = self.rows(), self.batch_size
        self._open, self._pass = False, (this := object())
        for start in range(0, len(rows), size):
            if self._pass is not this:
                raise RuntimeError("this pass over the loader ended when another began; use a loader for each of them")
            batch = self._batch(rows[start : start + size])
            self.advance()
            yield batch

    def _batch(self, rows: Array) -> Any:
        found = self.dataset[rows]
        if self.transforms:
            x = found[0]
            for transform in self.transforms:
                x = transform(x, self._rng)
            found = (x, *found[1:])
        return found if len(found) > 1 else found[0]

    # -- for steps that gather batches themselves (Captured.epoch) -------------------------------------------------

    def rows(self) -> Array:
        """The indices of the examples to come in the epoch under way, in their order; if none is, one begins.

        For ``step.epoch(x, y, order=loader.rows(), batch_size=loader.batch_size)``; then ``advance`` says how far it came.
        The next pass over the loader takes what is left of this epoch.
        """
        if self._order is None:
            self._began, self._given = self._rng.bit_generator.state, 0
            self._order = self._drawn(self._rng)
        self._open = True
        end = len(self) * self.batch_size if self.drop_last else None
        return self._order[self._given * self.batch_size : end]

    def _drawn(self, rng: np.random.Generator) -> Array:
        count = len(self.dataset)
        return rng.permutation(count) if self.shuffle else np.arange(count)

    def advance(self, batches: int = 1) -> None:
        """Count so many batches of the epoch under way as given."""
        self._given += batches
        if self._given >= len(self):
            self._began, self._order, self._given, self._open = None, None, 0, False

    # -- its state -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where it stands: a few numbers, which can be written as JSON (of NumPy's default generator)."""
        return {
            "examples": len(self.dataset),
            "batch_size": self.batch_size,
            "batches": self._given,
            "began": self._began,
            "stream": self._rng.bit_generator.state,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a ``state_dict()`` of a loader of the same data. ValueError if it does not fit; then nothing changes.

        >>> loader = DataLoader(np.arange(6), batch_size=2, shuffle=True, rng=0)
        >>> _, state = next(iter(loader)), loader.state_dict()
        >>> other = DataLoader(np.arange(6), batch_size=2, shuffle=True)
        >>> other.load_state_dict(state)
        >>> len(list(other)), len(list(other))
        (2, 3)
        """
        names = sorted(self.state_dict())
        if not isinstance(state_dict, Mapping) or sorted(state_dict) != names:
            raise ValueError(f"no state_dict of a DataLoader, which has {', '.join(names)}")
        batches, began, size = state_dict["batches"], state_dict["began"], state_dict["batch_size"]
        if state_dict["examples"] != len(self.dataset) or (batches and size != self.batch_size):
            raise ValueError(
                f"the state is of {state_dict['examples']} examples in batches of {size}, "
                f"the loader has {len(self.dataset)} in batches of {self.batch_size}"
            )
        if not 0 <= batches < len(self) or (batches and began is None):
            raise ValueError(f"the state is of batch {batches} of an epoch of {len(self)}")
        rng = np.random.Generator(type(self._rng.bit_generator)(0))
        order = None
        try:
            if began is not None:
                rng.bit_generator.state = began
                order = self._drawn(rng)
            rng.bit_generator.state = state_dict["stream"]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the state's random numbers are of another generator: {error!r}") from None
        self._rng.bit_generator.state = rng.bit_generator.state
        self._began, self._order, self._given = began, order, batches
        self._open, self._pass = order is not None, None


# -- augmentation of images: x (N, C, H, W), or any (N, ..., H, W), in one go for the whole batch ---------------------


@dataclass(frozen=True)
class RandomShift:
    """Each image moved by up to `most` pixels along both axes; what comes in has the value `fill`.

    >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> RandomShift(1)(x, np.random.default_rng(0)).shape
    (1, 1, 3, 3)
    """

    most: int
    fill: float = 0.0

    def __post_init__(self) -> None:
        _require(self.most >= 0, f"RandomShift({self.most}): the pixels must be 0 or more")

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        return _cut(_padded(x, self.most, self.fill), x.shape[-2:], rng)


@dataclass(frozen=True)
class RandomCrop:
    """From each image, with a margin of `padding` pixels of the value `fill` around it, a part of `size`: (H, W), or H = W.

    ValueError for images that are smaller.

    >>> RandomCrop(24)(np.zeros((5, 3, 28, 28)), np.random.default_rng(0)).shape
    (5, 3, 24, 24)
    """

    size: int | tuple[int, int]
    padding: int = 0
    fill: float = 0.0

    def __post_init__(self) -> None:
        _require(
            min(self.shape) >= 1 and self.padding >= 0, f"{self!r}: the size must be 1 or more, the padding 0 or more"
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of what it gives."""
        return self.size if isinstance(self.size, tuple) else (self.size, self.size)

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        return _cut(_padded(x, self.padding, self.fill), self.shape, rng)


@dataclass(frozen=True)
class RandomFlip:
    """Each image mirrored with probability `p`: left and right (axis -1), or top and bottom (axis -2).

    >>> RandomFlip(1.0)(np.arange(3.0).reshape(1, 1, 1, 3), np.random.default_rng(0)).tolist()
    [[[[2.0, 1.0, 0.0]]]]
    """

    p: float = 0.5
    axis: int = -1

    def __post_init__(self) -> None:
        _require(0 <= self.p <= 1 and self.axis in (-1, -2), f"{self!r}: p must be in [0, 1], the axis -1 or -2")

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        _check_images(x)
        flipped = rng.random(len(x)) < self.p
        made = x.copy()
        made[flipped] = np.flip(x[flipped], self.axis)
        return made


def _cut(x: Array, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """A window of `shape` at a place of its own from each image."""
    room = x.shape[-2] - shape[0], x.shape[-1] - shape[1]
    if min(room) < 0:
        raise ValueError(f"no part of shape {tuple(shape)} fits into images of shape {x.shape}; give more padding")
    top, left = (rng.integers(0, most + 1, len(x)) for most in room)
    windows = sliding_window_view(x, shape, (-2, -1))  # (N, ..., places, places, *shape), of no memory of its own
    place: Any = (np.arange(len(x)), *(slice(None),) * (x.ndim - 3), top, left)
    made: Array = windows[place]
    return made


def _padded(x: Array, margin: int, fill: float) -> Array:
    _check_images(x)
    if not margin:
        return x
    height, width = x.shape[-2:]
    made = np.full((*x.shape[:-2], height + 2 * margin, width + 2 * margin), fill, x.dtype)
    made[..., margin : margin + height, margin : margin + width] = x
    return made


def _check_images(x: Array) -> None:
    _require(x.ndim >= 3, f"augmentation takes images (N, C, H, W), or any (N, ..., H, W), not {describe(x)}")


def _dataset(data: tuple[Any, ...]) -> Any:
    """The one data set among the arguments, or one of the arrays."""
    if (
        len(data) == 1
        and not isinstance(data[0], (np.ndarray, Tensor, list, tuple))
        and hasattr(data[0], "__getitem__")
    ):
        return data[0]
    return TensorDataset(*(data[0] if len(data) == 1 and isinstance(data[0], tuple) else data))


def _own_stream(rng: Seed) -> np.random.Generator:
    if isinstance(rng, np.random.Generator):
        try:
            return rng.spawn(1)[0]
        except TypeError:
            raise TypeError(
                "rng is a Generator that was not made from a seed, so none can be spawned of it; pass a seed"
            ) from None
    return np.random.default_rng(rng)


def _check(count: int, batch_size: int, drop_last: bool) -> None:
    _require(count > 0, "the data set has no examples")
    _require(batch_size >= 1, f"batch_size is {batch_size}: it must be 1 or more")
    if drop_last and batch_size > count:
        raise ValueError(
            f"batch_size {batch_size} with drop_last leaves none of the {count} examples: use at most {count}"
        )


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
