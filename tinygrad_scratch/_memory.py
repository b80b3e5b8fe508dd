"""Where arrays lie.

Two arrays that are written and read in step run up to four times slower when their addresses are equal modulo a page
(the processor takes one's load for the other's pending store), as large NumPy arrays' addresses mostly are.
"""

from typing import Any

import numpy as np

from tinygrad_scratch._typing import Array, Shape

PAGE, LINE = 4096, 64


class Slab(np.ndarray[Any, np.dtype[Any]]):
    """Raw bytes that exactly one array lies in: that array is no view of another's values."""


def placed(shape: Shape, dtype: Any, offset: int, order: Any = "C") -> Array:
    """An uninitialised array at the start of a cache line; one of a page or more, at an address that is `offset` modulo a page."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape)) * dtype.itemsize
    room = PAGE if count >= PAGE else LINE
    raw = Slab((count + room,), np.uint8)
    start = (offset // LINE * LINE - raw.ctypes.data) % room
    return np.ndarray(shape, dtype, buffer=raw, offset=start, order=order)


def beside(array: Array) -> Array:
    """An uninitialised array like `array`, in its memory order, half a page away from it modulo a page."""
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    return placed(array.shape, array.dtype, array.ctypes.data + PAGE // 2, order)


def settled(array: Array) -> Array:
    """A copy of `array` in its memory order, at the start of a page."""
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    copy = placed(array.shape, array.dtype, 0, order)
    copy[...] = array
    return copy
