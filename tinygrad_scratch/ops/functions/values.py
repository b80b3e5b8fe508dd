"""Functions whose answers are truth values, indices or counts: NumPy's own, run on the values of Tensors.

Their answers have no gradient. What a captured step would have to decide anew in every call, it refuses to read.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from tinygrad_scratch.ops.functions.moving import array
from tinygrad_scratch.registry import VALUES, implements

VALUES.update(
    (np.nonzero, np.flatnonzero, np.argwhere, np.argpartition, np.lexsort, np.nanargmax, np.nanargmin, np.digitize,
     np.isclose, np.allclose, np.array_equal, np.array_equiv, np.isin, np.isreal, np.iscomplex, np.isrealobj,
     np.iscomplexobj, np.result_type, np.can_cast, np.min_scalar_type, np.common_type, np.ix_, np.diag_indices_from,
     np.tril_indices_from, np.triu_indices_from, np.ravel_multi_index, np.unravel_index, np.packbits, np.unpackbits,
     np.einsum_path, np.shares_memory, np.may_share_memory, np.array_repr, np.array_str, np.array2string)
)  # fmt: skip


@implements(np.empty_like, constant="none")
def empty_like(prototype: Any, dtype: Any = None, shape: Any = None) -> Any:
    """np.empty_like: a Tensor without a graph, of zeros."""
    return (
        np.zeros_like(prototype, dtype=dtype) if shape is None else np.zeros_like(prototype, dtype=dtype, shape=shape)
    )


@implements(np.apply_over_axes)
def apply_over_axes(func: Any, a: Any, axes: Any) -> Any:
    """np.apply_over_axes: a reduction along one axis after the other."""
    answer = array(a)
    for axis in np.atleast_1d(axes):
        reduced = func(answer, int(axis))
        answer = reduced if reduced.ndim == answer.ndim else np.expand_dims(reduced, int(axis))
    return answer


@implements(np.apply_along_axis)
def apply_along_axis(func1d: Any, axis: int, arr: Any, *args: Any, **options: Any) -> Any:
    """np.apply_along_axis: a function of vectors, called on each slice along an axis."""
    moved = np.moveaxis(array(arr), axis, -1)
    count = prod(moved.shape[:-1])
    if not count:
        raise ValueError(f"np.apply_along_axis: an array of shape {moved.shape} has no slices to call the function on")
    rows = moved.reshape((count, moved.shape[-1]))
    answers: Sequence[Any] = [array(func1d(rows[i], *args, **options)) for i in range(rows.shape[0])]
    shape = answers[0].shape
    joined = np.stack(answers).reshape((*moved.shape[:-1], *shape))
    front = len(moved.shape) - 1
    place = axis % moved.ndim
    return np.moveaxis(joined, range(front, front + len(shape)), range(place, place + len(shape)))
