"""Indexing: one row takes, its transpose puts back (duplicated indices add up), one replaces.

An index is split into a static ``index`` (slices, None, Ellipsis, integers; ``ARRAY`` where an array stood) and the arrays,
which are inputs of the row like any other: a captured step may index by its own arguments.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_scratch.domains import Booleans, Domain, Integers, Interval
from tinygrad_scratch.registry import linear


class _ArrayHere:
    """Marks the place of an array in an index."""

    def __repr__(self) -> str:
        return "ARRAY"


ARRAY = _ArrayHere()


def split_index(index: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """(static index, arrays) of anything that NumPy accepts between square brackets."""
    items = index if isinstance(index, tuple) else (index,)
    static: list[Any] = []
    arrays: list[Any] = []
    for item in items:
        if item is None or item is Ellipsis or (isinstance(item, (int, slice)) and not isinstance(item, bool)):
            static.append(item)
        else:
            static.append(ARRAY)
            empty = isinstance(item, list) and not len(item)  # which NumPy would call float64
            arrays.append(
                np.asarray(item, np.intp if empty else None) if isinstance(item, (list, bool, np.generic)) else item
            )
    return tuple(static), tuple(arrays)


def join_index(index: tuple[Any, ...], arrays: tuple[Any, ...]) -> Any:
    """The inverse of split_index."""
    left = iter(arrays)
    return tuple(next(left) if item is ARRAY else item for item in index)


def _getitem(x: Any, *arrays: Any, index: tuple[Any, ...] = ()) -> Any:
    return x[join_index(index, arrays)]


def _scatter(g: Any, *arrays: Any, index: tuple[Any, ...] = (), shape: tuple[int, ...] = ()) -> Any:
    """Zeros of `shape` with `g` added at the index: the transpose of taking it."""
    x = np.zeros(shape, g.dtype)
    if all(a.dtype.kind == "b" for a in arrays):  # no element twice
        x[join_index(index, arrays)] = g
    else:
        np.add.at(x, join_index(index, arrays), g)
    return x


def _replace(x: Any, value: Any, *arrays: Any, index: tuple[Any, ...] = ()) -> Any:
    """A copy of `x` with `value` at the index. TypeError if x is of integers and the value is not."""
    y = x.copy()
    if y.dtype.kind != "f" and not np.can_cast(np.result_type(value), y.dtype, "same_kind"):
        raise TypeError(
            f"integers cannot hold a value of dtype {np.result_type(value)}; use x.astype(np.float64) first"
        )
    y[join_index(index, arrays)] = value
    return y


def _getitem_rule(g: Any, y: Any, x: Any, *arrays: Any, index: tuple[Any, ...]) -> Callable[[int], Any]:
    return lambda i: scatter(g, *arrays, index=index, shape=x.shape)


def _scatter_rule(g: Any, y: Any, h: Any, *arrays: Any, index: tuple[Any, ...], shape: Any) -> Callable[[int], Any]:
    return lambda i: getitem(g, *arrays, index=index)


def _replace_rule(g: Any, y: Any, x: Any, value: Any, *arrays: Any, index: tuple[Any, ...]) -> Callable[[int], Any]:
    """Of an element that is named several times, only the last value stays, so only that one gets the cotangent."""

    def pull(i: int) -> Any:
        if i == 0:
            return replace(g, 0.0, *arrays, index=index)
        taken = getitem(g, *arrays, index=index)
        if all(a.dtype.kind == "b" for a in arrays):  # no element twice
            return taken
        turns = np.arange(float(taken.size)).reshape(taken.shape)
        last = getitem(replace(np.zeros(g.shape), turns, *arrays, index=index), *arrays, index=index)
        return taken * np.equal(last, turns)

    return pull


_rows = Integers(0, 3)
_taken = Domain(
    (Interval(), _rows),
    (
        (((3, 4),), {"index": (1,)}),
        (((3, 4),), {"index": (slice(None, None, -2), None, slice(1, 3))}),
        (((3, 4, 2),), {"index": (Ellipsis, -1)}),
        (((3, 4), (5,)), {"index": (ARRAY,)}),
        (((3, 3), (2, 2), (2,)), {"index": (ARRAY, ARRAY)}),
    ),
)
_masked = Domain(
    (Interval(), Booleans()), ((((3, 4), (3, 4)), {"index": (ARRAY,)}), (((3, 2), (3,)), {"index": (ARRAY,)}))
)
_put = Domain(
    (Interval(), _rows),
    ((((5, 4), (5,)), {"index": (ARRAY,), "shape": (3, 4)}), (((4,),), {"index": (1,), "shape": (3, 4)})),
)
_replaced = Domain(
    (Interval(), Interval(), Integers(0, 3)),
    (
        (((3, 4), (4,)), {"index": (1,)}),
        (((3, 4), ()), {"index": (slice(0, 2), slice(1, 3))}),
        (((3, 4), (5, 4), (5,)), {"index": (ARRAY,)}),
    ),
)

# fmt: off
getitem = linear(_getitem, _getitem_rule, variadic=True, domain=_taken)
scatter = linear(_scatter, _scatter_rule, variadic=True, domain=_put)
replace = linear(_replace, _replace_rule, variadic=True, domain=_replaced)
# fmt: on
