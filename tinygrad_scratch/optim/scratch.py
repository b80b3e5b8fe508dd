"""Memory for what an update computes on its way, used again by the next: new memory for large arrays is slow to come by."""

from threading import local
from typing import Any

import numpy as np

from tinygrad_scratch._memory import placed
from tinygrad_scratch._typing import Array


class Scratch:
    """NumPy's functions for the parts of an array; their answers lie in memory that all parts and updates of a thread use.

    An answer that is an operand of another of these functions is used up by it: its memory takes the new one. `keep` says
    that it is not to be.
    """

    _threads = local()

    def __init__(self, dtype: Any):
        self.dtype, self.size = dtype, 0
        self.arrays: list[Array] = []
        self.views: list[Array] = []
        self.free: list[Array] = []
        self.used: dict[int, Array] = {}

    @classmethod
    def of(cls, dtype: Any) -> "Scratch":
        """This thread's, for answers of that dtype."""
        known: dict[Any, Scratch] = cls._threads.__dict__.setdefault("known", {})
        return known.setdefault(dtype, cls(dtype))

    def begin(self, size: int) -> "Scratch":
        """Before an update of that many elements."""
        if size != self.size:
            if self.arrays and size > self.arrays[0].size:  # too small, all of them
                self.arrays = []
            self.size, self.views = size, [array[:size] for array in self.arrays]
        self.free = self.views[::-1]
        self.used = {}
        return self

    def keep(self, answer: Any) -> Any:
        """An answer, to be read more than once."""
        self.used.pop(id(answer), None)
        return answer

    def _call(self, function: Any, *operands: Any) -> Any:
        mine = [self.used[id(x)] for x in operands if id(x) in self.used]
        if not mine and not self.free:
            length = self.arrays[0].size if self.arrays else self.size
            self.arrays.append(placed((length,), self.dtype, len(self.arrays) * 640))
            self.views.append(self.arrays[-1][: self.size])
            self.free.append(self.views[-1])
        out, *gone = mine or [self.free.pop()]
        self.used[id(out)] = out
        self.free += [x for x in gone if x is not out and self.used.pop(id(x), None) is not None]
        return function(*operands, out)

    def negative(self, a: Any) -> Any:
        return self._call(np.negative, a)

    def sqrt(self, a: Any) -> Any:
        return self._call(np.sqrt, a)

    def add(self, a: Any, b: Any) -> Any:
        return self._call(np.add, a, b)

    def subtract(self, a: Any, b: Any) -> Any:
        return self._call(np.subtract, a, b)

    def multiply(self, a: Any, b: Any) -> Any:
        return self._call(np.multiply, a, b)

    def divide(self, a: Any, b: Any) -> Any:
        return self._call(np.divide, a, b)
