"""Functions that join arrays: NumPy's own, run on the positions of all their elements."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinygrad_scratch.ops.functions.moving import array, rearranged
from tinygrad_scratch.ops.functions.moving import values as values_of
from tinygrad_scratch.registry import MORE, implements


@implements(np.append)
def append(arr: Any, values: Any, axis: int | None = None) -> Any:
    """np.append: a new Tensor."""
    return np.concatenate([array(arr), array(values)], axis=axis)


@implements(np.column_stack)
def column_stack(tup: Sequence[Any]) -> Any:
    """np.column_stack."""
    return rearranged(lambda *places: np.column_stack(places), *tup)


@implements(np.dstack)
def dstack(tup: Sequence[Any]) -> Any:
    """np.dstack."""
    return rearranged(lambda *places: np.dstack(places), *tup)


@implements(np.block)
def block(arrays: Any) -> Any:
    """np.block of nested lists."""
    leaves: list[Any] = []

    def collect(part: Any) -> None:
        if isinstance(part, list):
            for inner in part:
                collect(inner)
        else:
            leaves.append(array(part))

    def nested(part: Any, places: Any) -> Any:
        return [nested(inner, places) for inner in part] if isinstance(part, list) else next(places)

    collect(arrays)
    return rearranged(lambda *places: np.block(nested(arrays, iter(places))), *leaves)


@implements(np.insert)
def insert(arr: Any, obj: Any, values: Any, axis: int | None = None) -> Any:
    """np.insert: a new Tensor of arr's dtype."""
    arr = array(arr)
    where = obj if isinstance(obj, slice) else _index(obj)
    return rearranged(lambda places, new: np.insert(places, where, new, axis), arr, np.astype(array(values), arr.dtype))


def _index(obj: Any) -> Any:
    found = values_of(obj)
    return found if found.ndim else int(found)


def concatenate(arrays: Sequence[Any], axis: int | None = 0, dtype: Any = None, casting: Any = "same_kind") -> Any:
    """np.concatenate with a dtype for the answer."""
    joined = np.concatenate(arrays, axis=axis)
    if not np.can_cast(joined.dtype, dtype, casting):
        raise TypeError(f"np.concatenate: cannot cast {joined.dtype} to {np.dtype(dtype)} under casting={casting!r}")
    return np.astype(joined, np.dtype(dtype))


MORE[np.concatenate] = concatenate
