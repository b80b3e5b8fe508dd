"""The methods of any binary ufunc that is answered: reduce, accumulate, reduceat by applying it again and again, outer.

``np.add.reduce`` and its like are rows of their own; these run for the others, and cost an operation an element.
"""

from typing import Any

import numpy as np

from tinygrad_scratch.ops import reductions
from tinygrad_scratch.ops.functions.moving import array, axes_last, values
from tinygrad_scratch.registry import METHODS, MORE, implements

_NO_VALUE: Any = np._NoValue


def reduce(
    ufunc: Any,
    array: Any,
    axis: Any = 0,
    dtype: Any = None,
    keepdims: bool = False,
    initial: Any = _NO_VALUE,
    where: Any = True,
) -> Any:
    """ufunc.reduce: from the first element to the last along an axis."""
    x = _cast(array, dtype)
    ufunc.reduce(np.ones((1,) * x.ndim), axis=axis)  # NumPy's own errors: an axis out of range, axes that have an order
    rows, restore = axes_last(x, axis, keepdims)
    chosen = None if where is True else axes_last(np.broadcast_to(where, x.shape), axis, keepdims)[0]
    start = ufunc.identity if initial is _NO_VALUE and (chosen is not None or not rows.shape[-1]) else initial
    if start is None and (initial is _NO_VALUE):
        raise ValueError(f"np.{ufunc.__name__}.reduce has no identity: give initial=")
    elements = [rows[..., i] for i in range(rows.shape[-1])]
    answer = elements.pop(0) if start is _NO_VALUE else np.zeros(rows.shape[:-1], x.dtype) + start
    for i, element in enumerate(elements):
        after = ufunc(answer, element)
        answer = after if chosen is None else np.where(chosen[..., i], after, answer)
    return restore(np.expand_dims(answer, -1), ())


def accumulate(ufunc: Any, array: Any, axis: int = 0, dtype: Any = None) -> Any:
    """ufunc.accumulate: all that reduce passes through."""
    x = np.moveaxis(_cast(array, dtype), axis, 0)
    answers = [x[:1]]
    for i in range(1, len(x)):
        answers.append(ufunc(answers[-1], x[i : i + 1]))
    return np.moveaxis(np.concatenate(answers), 0, axis)


def reduceat(ufunc: Any, array: Any, indices: Any, axis: int = 0, dtype: Any = None) -> Any:
    """ufunc.reduceat: the reduction of each slice from an index to the next; one element where that is not after it."""
    x = np.moveaxis(_cast(array, dtype), axis, 0)
    starts = [int(i) for i in values(indices)]
    if any(not 0 <= i < len(x) for i in starts):
        raise IndexError(f"np.{ufunc.__name__}.reduceat: an index is outside 0 ... {len(x) - 1}")
    ends = [*starts[1:], len(x)]
    parts = [ufunc.reduce(x[i:j], axis=0) if i < j else x[i] for i, j in zip(starts, ends, strict=True)]
    return np.moveaxis(np.stack(parts), 0, axis)


def outer(ufunc: Any, A: Any, B: Any) -> Any:  # noqa: N803  (NumPy's names)
    """ufunc.outer: every element of A with every element of B."""
    return ufunc(np.reshape(array(A), np.shape(A) + (1,) * np.ndim(B)), B)


METHODS.update(reduce=reduce, accumulate=accumulate, reduceat=reduceat, outer=outer)


@implements(np.logaddexp.reduce)
def logaddexp_reduce(array: Any, axis: Any = 0, keepdims: bool = False) -> Any:
    """np.logaddexp.reduce: the logarithm of a sum of exponentials."""
    return reductions.logsumexp(array, axis=axis, keepdims=keepdims)


MORE[np.logaddexp.reduce] = lambda array, **options: reduce(np.logaddexp, array, **options)


def _cast(x: Any, dtype: Any) -> Any:
    return array(x) if dtype is None else np.astype(array(x), np.dtype(dtype))
