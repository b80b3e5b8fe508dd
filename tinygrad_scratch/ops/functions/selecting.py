"""Functions that choose among elements or arrays by indices and conditions."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinygrad_scratch.errors import NotDifferentiableError
from tinygrad_scratch.ops import composed, indexing
from tinygrad_scratch.ops.composed import ravel
from tinygrad_scratch.ops.functions.moving import array, values
from tinygrad_scratch.registry import MORE, implements


@implements(np.choose)
def choose(a: Any, choices: Any, mode: str = "raise") -> Any:
    """np.choose: element by element, the one of the choices that `a` names."""
    a, choices = array(a), [array(choice) for choice in choices]
    if mode == "raise":
        index = values(a)
        if index.size and (index.min() < 0 or index.max() >= len(choices)):
            raise ValueError(f"np.choose: an index is outside 0 ... {len(choices) - 1}; use mode='wrap' or 'clip'")
    elif mode == "wrap":
        a = np.remainder(a, len(choices))
    else:
        a = np.clip(a, 0, len(choices) - 1)
    answer = choices[0]
    for i, choice in enumerate(choices[1:], 1):
        answer = np.where(np.equal(a, i), choice, answer)
    return composed.copy(np.broadcast_to(answer, np.broadcast_shapes(a.shape, *(c.shape for c in choices))))


@implements(np.select)
def select(condlist: Sequence[Any], choicelist: Sequence[Any], default: Any = 0) -> Any:
    """np.select: the first choice whose condition is true."""
    if len(condlist) != len(choicelist) or not len(condlist):
        raise ValueError(
            f"np.select: {len(condlist)} conditions for {len(choicelist)} choices; give as many, at least one"
        )
    answer = default
    for condition, choice in zip(reversed(condlist), reversed(choicelist), strict=True):
        if (found := array(condition)).dtype != np.bool_:
            raise TypeError(f"np.select: a condition has dtype {found.dtype}; conditions must be of booleans")
        answer = np.where(found, choice, answer)
    return answer


@implements(np.compress)
def compress(condition: Any, a: Any, axis: int | None = None) -> Any:
    """np.compress: the slices along `axis` where the condition is true."""
    (kept,) = np.nonzero(values(condition))
    return np.take(array(a), kept, axis=axis)


@implements(np.extract)
def extract(condition: Any, arr: Any) -> Any:
    """np.extract: the elements where the condition is true."""
    (kept,) = np.nonzero(np.ravel(values(condition)))
    return ravel(array(arr))[kept]


@implements(np.piecewise)
def piecewise(x: Any, condlist: Any, funclist: Sequence[Any], *args: Any, **kw: Any) -> Any:
    """np.piecewise: each function is given the elements where its condition is true, and only those."""
    x = array(x)
    if isinstance(condlist, bool) or not isinstance(condlist, (list, tuple)) or np.ndim(condlist[0]) == 0 < x.ndim:
        condlist = [condlist]
    conditions = [values(c).astype(bool) for c in condlist]
    if len(funclist) == len(conditions) + 1:
        conditions.append(~np.any(conditions, axis=0))
    if len(funclist) != len(conditions):
        raise ValueError(
            f"np.piecewise: {len(funclist)} functions for {len(conditions)} conditions; one more may be given"
        )
    answer = np.zeros_like(x)
    for condition, function in zip(conditions, funclist, strict=True):
        if callable(function):
            chosen = function(x[condition], *args, **kw) if condition.any() else np.zeros(0, x.dtype)
        else:
            chosen = function
        answer = indexing.replace(answer, chosen, condition, index=(indexing.ARRAY,))
    return answer


def take(a: Any, indices: Any, axis: int | None = None, mode: str = "raise") -> Any:
    """np.take with indices outside the array wrapped around or clipped."""
    a, indices = array(a), array(indices)
    n = a.size if axis is None else a.shape[axis]
    indices = np.remainder(indices, n) if mode == "wrap" else np.clip(indices, 0, n - 1)
    return composed.take(a, indices, axis=axis)


def where(condition: Any, *choices: Any) -> Any:
    """np.where of a condition alone is np.nonzero."""
    if choices:
        raise NotDifferentiableError("np.where takes one array or 3 arrays, not 2")
    return np.nonzero(condition)


MORE[np.where] = where
