"""NumPy functions that are compositions of rows: what runs when one of them meets a Tensor.

Each takes its function's arguments; an option that is not in the signature is refused by name, never ignored.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from operator import index as as_int
from string import ascii_letters
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from tinygrad_scratch.errors import NotDifferentiableError
from tinygrad_scratch.ops import elementwise, indexing, linalg, reductions, shaping
from tinygrad_scratch.registry import implements


def _array(x: Any) -> Any:
    """Lists and numbers as arrays; arrays and Tensors as they are."""
    return x if hasattr(x, "ndim") else np.asarray(x)


def _taken(a: Any, index: Any) -> Any:
    """``a[index]`` as a row, whichever of the two is a Tensor."""
    static, arrays = indexing.split_index(index)
    return indexing.getitem(a, *arrays, index=static)


@implements(np.copy)
def copy(a: Any, order: str = "K") -> Any:
    """np.copy: a copy that stays in the graph."""
    return elementwise.astype(a, dtype=a.dtype)


@implements(np.reshape)
def reshape(a: Any, shape: Any, order: str = "C", *, copy: bool | None = None) -> Any:
    """np.reshape in C or Fortran order."""
    if order == "F":
        shape = (shape,) if np.ndim(shape) == 0 else tuple(shape)
        return shaping.transpose(shaping.reshape(shaping.transpose(a), shape=shape[::-1]))
    if order != "C":
        raise NotDifferentiableError(
            f"np.reshape(order={order!r}) of a Tensor: its memory order is no part of it; use 'C' or 'F'"
        )
    return shaping.reshape(a, shape=(shape,) if isinstance(shape, (int, np.integer)) else shape)


@implements(np.ravel)
def ravel(a: Any, order: str = "C") -> Any:
    """np.ravel in C or Fortran order (a copy or a view, as reshape decides)."""
    return reshape(a, (-1,), order)


@implements(np.positive)
def positive(x: Any) -> Any:
    """+x."""
    return elementwise.astype(x, dtype=x.dtype)


@implements(np.clip)
def clip(a: Any, a_min: Any = None, a_max: Any = None, **bounds: Any) -> Any:
    """np.clip; bounds that are arrays are differentiated too, where they are what is taken."""
    low, high = bounds.pop("min", a_min), bounds.pop("max", a_max)
    refuse_options(np.clip, bounds)
    if all(b is None or isinstance(b, (int, float, np.generic)) for b in (low, high)):
        return elementwise.clip(a, low=low, high=high)
    a = a if low is None else elementwise.clip_below(a, low)
    return a if high is None else elementwise.clip_above(a, high)


@implements(np.cumsum, np.add.accumulate)
def cumsum(a: Any, axis: int | None = None) -> Any:
    """np.cumsum; ``axis=None`` flattens first."""
    return reductions.cumsum(ravel(a), axis=0) if axis is None else reductions.cumsum(a, axis=axis)


@implements(np.concatenate)
def concatenate(arrays: Sequence[Any], axis: int | None = 0) -> Any:
    """np.concatenate; ``axis=None`` flattens first."""
    return shaping.concatenate(*map(ravel, arrays), axis=0) if axis is None else shaping.concatenate(*arrays, axis=axis)


@implements(np.stack)
def stack(arrays: Sequence[Any], axis: int = 0) -> Any:
    """np.stack."""
    return shaping.concatenate(*(shaping.expand_dims(a, axis=axis) for a in arrays), axis=axis)


@implements(np.vstack)
def vstack(tup: Sequence[Any]) -> Any:
    """np.vstack."""
    return shaping.concatenate(*(atleast_2d(a) for a in tup), axis=0)


@implements(np.hstack)
def hstack(tup: Sequence[Any]) -> Any:
    """np.hstack."""
    arrays = [atleast_1d(a) for a in tup]
    return shaping.concatenate(*arrays, axis=0 if arrays[0].ndim == 1 else 1)


@implements(np.atleast_1d)
def atleast_1d(x: Any) -> Any:
    """np.atleast_1d of one array."""
    x = _array(x)
    return x if x.ndim else shaping.reshape(x, shape=(1,))


@implements(np.atleast_2d)
def atleast_2d(x: Any) -> Any:
    """np.atleast_2d of one array."""
    x = _array(x)
    return x if x.ndim > 1 else shaping.reshape(x, shape=(1, -1))


@implements(np.split)
def split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    """np.split: a list of Tensors. ValueError if an equal division is impossible."""
    axis = normalize_axis_index(axis, ary.ndim)
    if np.ndim(indices_or_sections) == 0 and ary.shape[axis] % indices_or_sections:
        raise ValueError(
            f"np.split: axis {axis} of length {ary.shape[axis]} does not divide into {indices_or_sections} equal parts; "
            "use np.array_split or give the indices"
        )
    return array_split(ary, indices_or_sections, axis)


@implements(np.array_split)
def array_split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    """np.array_split: a list of Tensors."""
    axis = normalize_axis_index(axis, ary.ndim)
    n = ary.shape[axis]
    if np.ndim(indices_or_sections):
        edges = [0, *map(as_int, indices_or_sections), n]
    elif (count := as_int(indices_or_sections)) > 0:
        edges = [0, *accumulate(n // count + (i < n % count) for i in range(count))]
    else:
        raise ValueError("number sections must be larger than 0.")
    return [ary[(*(slice(None),) * axis, slice(low, high))] for low, high in pairwise(edges)]


@implements(np.pad)
def pad(array: Any, pad_width: Any, mode: str = "constant", **options: Any) -> Any:
    """np.pad for 'constant' (with constant_values) and for the modes that repeat elements: edge, reflect, symmetric, wrap."""
    widths = _pad_widths(pad_width, array.ndim)
    if mode == "constant":
        padded = shaping.pad_zeros(array, pad_width=widths)
        value = options.pop("constant_values", 0)
        refuse_options(np.pad, options)
        if np.all(np.equal(value, 0)):
            return padded
        return padded + np.pad(np.zeros(array.shape, array.dtype), widths, constant_values=value)
    if mode not in ("edge", "reflect", "symmetric", "wrap"):
        raise NotDifferentiableError(
            f"np.pad(mode={mode!r}) of a Tensor: use constant, edge, reflect, symmetric or wrap"
        )
    if options.pop("reflect_type", "even") != "even":  # its elements are extrapolated, not repeated
        raise NotDifferentiableError(
            "np.pad(reflect_type='odd') of a Tensor: use 'even', or compose it from flip and concatenate"
        )
    refuse_options(np.pad, options)
    for axis, width in enumerate(widths):
        array = take(array, np.pad(np.arange(array.shape[axis]), width, mode), axis)  # type: ignore[call-overload]
    return array


def _pad_widths(pad_width: Any, ndim: int) -> tuple[tuple[int, int], ...]:
    if isinstance(pad_width, dict):
        full = [(0, 0)] * ndim
        for axis, width in pad_width.items():
            full[axis] = (width, width) if isinstance(width, int) else width
        pad_width = full
    return tuple((int(low), int(high)) for low, high in np.broadcast_to(pad_width, (ndim, 2)))


@implements(np.roll)
def roll(a: Any, shift: Any, axis: Any = None) -> Any:
    """np.roll: elements pushed off one end come back at the other."""
    if axis is None:
        return reshape(roll(ravel(a), shift, 0), a.shape)
    for by, along in np.broadcast(shift, axis):
        a = take(a, np.roll(np.arange(a.shape[along]), by), int(along))
    return a


@implements(np.tile)
def tile(A: Any, reps: Any) -> Any:  # noqa: N803  (NumPy's name)
    """np.tile: reshape, broadcast, reshape."""
    reps = (as_int(reps),) if np.ndim(reps) == 0 else tuple(map(as_int, reps))
    ndim = max(A.ndim, len(reps))
    shape, reps = (1,) * (ndim - A.ndim) + A.shape, (1,) * (ndim - len(reps)) + reps
    spread = shaping.reshape(A, shape=tuple(n for pair in shape for n in (1, pair)))
    spread = shaping.broadcast_to(spread, shape=tuple(n for pair in zip(reps, shape, strict=True) for n in pair))
    return shaping.reshape(spread, shape=tuple(r * n for r, n in zip(reps, shape, strict=True)))


@implements(np.repeat)
def repeat(a: Any, repeats: Any, axis: int | None = None) -> Any:
    """np.repeat, with one count or one for each element."""
    a, axis = (ravel(a), 0) if axis is None else (a, normalize_axis_index(axis, a.ndim))
    if np.ndim(repeats):
        return take(a, np.repeat(np.arange(a.shape[axis]), repeats), axis)
    before, n, after = a.shape[:axis], a.shape[axis], a.shape[axis + 1 :]
    spread = shaping.broadcast_to(shaping.expand_dims(a, axis=axis + 1), shape=(*before, n, as_int(repeats), *after))
    return shaping.reshape(spread, shape=(*before, n * as_int(repeats), *after))


@implements(np.take)
def take(a: Any, indices: Any, axis: int | None = None, mode: str = "raise") -> Any:
    """np.take; duplicated indices add up in the gradient."""
    a, indices = _array(a), _array(indices)
    if mode != "raise":
        n = a.size if axis is None else a.shape[axis]
        indices = np.remainder(indices, n) if mode == "wrap" else np.clip(indices, 0, n - 1)
    if indices.dtype.kind == "b":  # np.take counts with them, where a[...] takes them for a mask
        indices = indices.astype(np.intp)
    if axis is None:
        return _taken(ravel(a), indices)
    return _taken(a, (*(slice(None),) * normalize_axis_index(axis, a.ndim), indices))


@implements(np.take_along_axis)
def take_along_axis(arr: Any, indices: Any, axis: int | None = -1) -> Any:
    """np.take_along_axis; duplicated indices add up in the gradient."""
    if axis is None:
        return _taken(ravel(arr), indices)
    axis = normalize_axis_index(axis, arr.ndim)
    if arr.ndim != indices.ndim:
        raise ValueError(
            f"np.take_along_axis: indices have {indices.ndim} axes and the array {arr.ndim}; they must be as many"
        )
    grid = [
        indices if i == axis else np.arange(n).reshape([-1 if j == i else 1 for j in range(arr.ndim)])
        for i, n in enumerate(arr.shape)
    ]
    return _taken(arr, tuple(grid))


@implements(np.diagonal)
def diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """np.diagonal: the diagonal is the last axis of the answer."""
    a = np.moveaxis(a, (axis1, axis2), (-2, -1))
    rows, columns = a.shape[-2:]
    i = np.arange(max(0, min(rows + min(offset, 0), columns - max(offset, 0))))
    return a[..., i - min(offset, 0), i + max(offset, 0)]


@implements(np.trace)
def trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """np.trace."""
    return np.sum(diagonal(a, offset, axis1, axis2), axis=-1)


@implements(np.dot)
def dot(a: Any, b: Any) -> Any:
    """np.dot: products of scalars, else the last axis of a with the second to last of b."""
    a, b = _array(a), _array(b)
    if not (a.ndim and b.ndim):
        return np.multiply(a, b)
    return np.matmul(a, b) if (b.ndim <= 2 and a.ndim <= 2) or b.ndim == 1 else tensordot(a, b, (-1, -2))


@implements(np.outer)
def outer(a: Any, b: Any) -> Any:
    """np.outer: both flattened."""
    return np.multiply(np.reshape(a, (-1, 1)), np.reshape(b, (1, -1)))


@implements(np.inner)
def inner(a: Any, b: Any) -> Any:
    """np.inner: over the last axes."""
    a, b = _array(a), _array(b)
    return tensordot(a, b, (-1, -1)) if a.ndim and b.ndim else np.multiply(a, b)


@implements(np.tensordot)
def tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    """np.tensordot, as one matrix product."""
    a, b = _array(a), _array(b)
    if np.ndim(axes) == 0:
        left, right = list(range(a.ndim - axes, a.ndim)), list(range(axes))
    else:
        left, right = (([x] if np.ndim(x) == 0 else list(x)) for x in axes)
    left, right = [normalize_axis_index(x, a.ndim) for x in left], [normalize_axis_index(x, b.ndim) for x in right]
    if [a.shape[i] for i in left] != [b.shape[i] for i in right]:
        raise ValueError(
            f"np.tensordot: shapes {a.shape} and {b.shape} differ along the axes {left} and {right} to be summed"
        )
    keep_a, keep_b = [i for i in range(a.ndim) if i not in left], [i for i in range(b.ndim) if i not in right]
    inner_size = int(np.prod([a.shape[i] for i in left]))
    rows = np.reshape(np.transpose(a, keep_a + left), (int(np.prod([a.shape[i] for i in keep_a])), inner_size))
    columns = np.reshape(np.transpose(b, right + keep_b), (inner_size, int(np.prod([b.shape[i] for i in keep_b]))))
    return np.reshape(np.matmul(rows, columns), [a.shape[i] for i in keep_a] + [b.shape[i] for i in keep_b])


@implements(np.einsum)
def einsum(*operands: Any, optimize: Any = False) -> Any:
    """np.einsum, subscripts as a string or as lists of integers."""
    if isinstance(operands[0], str):
        return linalg.einsum(*map(_array, operands[1:]), subscripts=operands[0], optimize=optimize)
    letters = sorted(ascii_letters)  # NumPy's order, which an output that is left out follows

    def spell(labels: Sequence[Any]) -> str:
        return "".join("..." if i is Ellipsis else letters[i] for i in labels)

    terms = ",".join(spell(labels) for labels in operands[1::2][: len(operands) // 2])
    out = f"->{spell(operands[-1])}" if len(operands) % 2 else ""
    return linalg.einsum(
        *map(_array, operands[: len(operands) // 2 * 2 : 2]), subscripts=terms + out, optimize=optimize
    )


@implements(np.ndim, constant="none")
def ndim(a: Any) -> int:
    """np.ndim."""
    return int(a.ndim)


@implements(np.shape, constant="none")
def shape(a: Any) -> tuple[int, ...]:
    """np.shape."""
    return tuple(a.shape)


@implements(np.size, constant="none")
def size(a: Any, axis: int | None = None) -> int:
    """np.size."""
    return int(a.size if axis is None else a.shape[axis])


def refuse_options(function: Any, options: dict[str, Any]) -> None:
    """NotDifferentiableError that names the options nobody would honour."""
    if options:
        raise NotDifferentiableError(f"np.{function.__name__} of a Tensor does not take {', '.join(sorted(options))}")
