"""The random numbers of many steps, drawn at once: each generator gives the stream that it gives step by step."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from tinygrad_scratch._typing import Array

BLOCK = 1 << 20
"""Bytes drawn at once: to draw takes hundreds of times as long as to ask for it, and the steps find it in the cache."""


class Stream:
    """What a step draws from one generator: a row of a block, its arrays one after the other in the order of the draws."""

    def __init__(self, rng: np.random.Generator, arrays: Sequence[Array]):
        self.rng, self.arrays, self.dtype = rng, arrays, arrays[0].dtype
        sizes = [a.size for a in arrays]
        self.starts = [sum(sizes[:n]) for n in range(len(sizes))]
        self.width = sum(sizes)
        self._state: Any = None

    @cached_property
    def block(self) -> Array:
        """Memory for the rows of the steps, one after the other."""
        return np.empty(self.width * max(1, BLOCK // max(1, self.width * self.dtype.itemsize)), self.dtype)

    @property
    def rows(self) -> int:
        """How many steps there is room for."""
        return len(self.block) // self.width if self.width else BLOCK

    def draw(self, steps: int) -> Array:
        """The block, with the numbers of so many steps."""
        self._state = self.rng.bit_generator.state
        self._fill(steps)
        return self.block

    def rewind(self, steps: int) -> None:
        """Have drawn for so many steps only."""
        self.rng.bit_generator.state = self._state
        self._fill(steps)

    def _fill(self, steps: int) -> None:
        self.rng.random(out=self.block[: steps * self.width], dtype=self.dtype)


def streams(draws: Sequence[tuple[np.random.Generator, Array]]) -> list[Stream] | None:
    """The draws of a step by where they come from; None if one generator draws numbers of two dtypes in turn, which at once
    would be others (of two generators with one source of bits, each is that source)."""
    found: dict[int, tuple[np.random.Generator, list[Array]]] = {}
    for rng, array in draws:
        found.setdefault(id(rng.bit_generator), (rng, []))[1].append(array)
    if any(len({a.dtype for a in arrays}) > 1 for _, arrays in found.values()):
        return None
    return [Stream(rng, arrays) for rng, arrays in found.values()]
