"""Changing a Tensor: ``x[i] = v`` and ``x += v`` on a leaf, where it lies; ``x.at[i]``, which makes a new one.

A graph that used the old values will notice (its derivative is refused), and so does a listener.
"""

from collections.abc import Callable
from sys import getrefcount
from typing import Any

import numpy as np

from tinygrad_scratch._memory import Slab
from tinygrad_scratch._typing import Array
from tinygrad_scratch.context import is_grad_enabled, state
from tinygrad_scratch.errors import GraphError, describe
from tinygrad_scratch.ops import indexing
from tinygrad_scratch.record import PLAIN, constant
from tinygrad_scratch.registry import OPS, Op
from tinygrad_scratch.tensor import Tensor, as_tensor, next_rank


def writable(tensor: Tensor, value: Any, what: str, instead: str) -> Array:
    """The array to write `value` into, or the reason why this Tensor is not changed in place."""
    wanted = tensor._requires_grad or (isinstance(value, Tensor) and value._requires_grad)
    if tensor._node is not None or (wanted and is_grad_enabled()):
        kind = "has a graph" if tensor._node is not None else "(or the value) requires a gradient"
        raise GraphError(
            f"{what}: {describe(tensor)} {kind}, so it is not changed in place; write {instead}, "
            "or use no_grad() on a leaf"
        )
    if tensor._data.base is not None and not (state.through_views or _is_alone(tensor._data)):
        raise GraphError(
            f"{what}: this Tensor is a view of another array, which would change too; write {instead}, or copy it first"
        )
    return tensor._data


def _references(view: Array) -> int:
    return getrefcount(view.base)


_ALONE = _references(np.empty(2)[:1])


def _is_alone(view: Array) -> bool:
    """Whether nothing else shows the memory that a view shows: it is the only one that keeps what owns it."""
    owner = view.base
    return type(owner) is Slab or (type(owner) is np.ndarray and owner.base is None and _references(view) == _ALONE + 1)


class At:
    """What ``x.at`` gives: ``x.at[i].set(v)`` and ``x.at[i].add(v)`` are new Tensors, differentiable in x and in v.

    >>> x = Tensor([1.0, 2.0, 3.0])
    >>> x.at[1].set(9.0).tolist(), x.at[[0, 0]].add(1.0).tolist()
    ([1.0, 9.0, 3.0], [3.0, 2.0, 3.0])
    """

    __slots__ = ("_index", "_tensor")

    def __init__(self, tensor: Tensor, index: Any = ...):
        self._tensor = tensor
        self._index = index

    def __getitem__(self, index: Any) -> "At":
        return At(self._tensor, index)

    def set(self, value: Any) -> Tensor:
        """A copy of the Tensor with `value` at the index."""
        static, arrays = indexing.split_index(self._index)
        return indexing.replace(self._tensor, value, *arrays, index=static)  # type: ignore[no-any-return]

    def add(self, value: Any) -> Tensor:
        """A copy of the Tensor with `value` added at the index, once for each time an element is named."""
        static, arrays = indexing.split_index(self._index)
        x = self._tensor
        spread = np.zeros(x[self._index].shape, x.dtype) + value
        return x + indexing.scatter(as_tensor(spread), *arrays, index=static, shape=x.shape)  # type: ignore[no-any-return]


def _rewritten(x: Tensor, value: Any) -> bool:
    """Whether there is a graph to keep when `x` is changed, so that it makes a new value under the old name."""
    if not is_grad_enabled():
        return False
    return x._node is not None or (not x.requires_grad and isinstance(value, Tensor) and value.requires_grad)


def _rewrite(x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Give `x` what `change` makes of it. The value until now lives on as a parent, which backward finds by its rank."""
    old: Tensor = Tensor.__new__(Tensor)
    old._data, old._node, old._rank, old._requires_grad, old._grad = x._data, x._node, x._rank, x._requires_grad, None
    new = change(old)
    if new.shape != x.shape:
        raise ValueError(f"a Tensor of shape {x.shape} cannot hold the result of shape {new.shape}")
    new = new if new.dtype == x.dtype else new.astype(x.dtype)
    if new._node is None or new._node[1][0] is not old:  # the earlier value must be its first parent, to be found
        new = At(old).set(new)
    x._data, x._node, x._rank, x._requires_grad = new._data, new._node, new._rank, new._requires_grad
    return x


def setitem(self: Tensor, index: Any, value: Any) -> None:
    """``x[i] = v`` on a leaf, where it lies."""
    if state.rewriting and _rewritten(self, value):
        places = index if isinstance(index, tuple) else (index,)

        def change(old: Tensor) -> Tensor:
            return At(old, tuple([old if i is self else i for i in places])).set(old if value is self else value)

        _rewrite(self, change)
        return
    writable(self, value, "x[i] = v", "x = x.at[i].set(v)")
    overwrite(self, index, value)


def overwrite(x: Tensor, index: Any, value: Any) -> None:
    """Put `value` at an index of the memory that a Tensor shows, whoever else shows it. A graph that used it will notice."""
    static, arrays = indexing.split_index(index)
    value = value if isinstance(value, Tensor) or type(value) in PLAIN else constant(value)
    x._data[indexing.join_index(static, tuple([getattr(i, "_data", i) for i in arrays]))] = getattr(
        value, "_data", value
    )
    _changed(x, OPS["replace"], (value, *arrays), index=static)


def _changed(x: Tensor, op: Op, others: tuple[Any, ...], **options: Any) -> None:
    """A Tensor was changed in place, by what `op` makes of it and the others: its graphs, and a listener, are to know."""
    x._rank = next_rank()
    mode = state.mode
    if mode is not True and mode is not False:
        parents = (x, *(v if isinstance(v, Tensor) else None for v in others))
        values = (x._data, *(getattr(v, "_data", v) for v in others))
        mode.record(op, values, {"out": x._data, **options}, x._data, parents)


def in_place(op: Op, sign: str) -> Callable[[Tensor, Any], Tensor]:
    """``x -= v`` on a leaf: the array is changed where it lies, and a graph that used it will notice."""
    fn = op.fn

    def change(self: Tensor, other: Any) -> Tensor:
        if state.rewriting and _rewritten(self, other):
            return _rewrite(self, lambda old: op.apply(old, old if other is self else other))
        target = writable(self, other, f"x {sign}= v", f"x = x {sign} v")
        value = other._data if isinstance(other, Tensor) else other
        fn(target, value, out=target, casting="same_kind")
        _changed(self, op, (other,))
        return self

    return change


_IN_PLACE = (
    ("iadd", "add", "+"), ("isub", "subtract", "-"), ("imul", "multiply", "*"), ("itruediv", "divide", "/"),
    ("ifloordiv", "floor_divide", "//"), ("imod", "remainder", "%"), ("ipow", "power", "**"),
)  # fmt: skip


for _short, _name, _sign in _IN_PLACE:
    setattr(Tensor, f"__{_short}__", in_place(OPS[_name], _sign))
Tensor.__setitem__ = setitem  # type: ignore[method-assign]
Tensor.at = property(At, doc=At.__doc__)
