"""What a Tensor can hold: arrays of real numbers, without masks, in the machine's byte order."""

from typing import Any

import numpy as np

from tinygrad_scratch._typing import Array
from tinygrad_scratch.context import is_lifted, state
from tinygrad_scratch.ops.elementwise import astype


def copied(data: Any, dtype: Any) -> Array:
    """A new array with the values of `data`. A listener that looks inside hears of it."""
    source = getattr(data, "_data", None) if hasattr(data, "_node") else refuse_mask(data)
    copy = real_numbers(np.array(source, dtype=dtype))
    if isinstance(source, np.ndarray) and is_lifted():
        mode: Any = state.mode
        copy = mode.record(astype, (source,), {"dtype": copy.dtype}, copy, (data if source is not data else None,))
    return copy


def refuse_mask(data: Any) -> Any:
    """`data`, unless it is a masked array, whose mask would be lost: TypeError."""
    if isinstance(data, np.ndarray) and type(data).__module__.startswith("numpy.ma"):
        raise TypeError(f"data of type {type(data).__name__}: masks are not supported; use .filled(value), or np.where")
    return data


def real_numbers(array: Array) -> Array:
    kind = array.dtype.kind
    if kind == "c":
        raise TypeError("complex numbers are not supported yet; pass the real and imaginary parts as two Tensors")
    if kind not in "fiub":
        raise TypeError(
            f"a Tensor holds real numbers, not dtype {array.dtype}; convert the data with dtype=np.float64 first"
        )
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
