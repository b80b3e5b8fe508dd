"""Reverse mode: walk the graph from newest to oldest, run each needed argument's rule, fit the result, add it up.

Knows no operation by name. A Tensor of the graph holds ``_node = (op, parents, values, options)`` and a rank from one
counter, so that every Tensor ranks above what it was made from: taking the highest rank that is waiting visits each
Tensor after all its uses, without recursion and without sorting the graph first.
"""

from collections.abc import Container, Sequence
from heapq import heappop, heappush
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_scratch._typing import Array, Shape
from tinygrad_scratch.context import state
from tinygrad_scratch.errors import GraphError, describe

if TYPE_CHECKING:
    from tinygrad_scratch.tensor import Tensor


def project(g: Any, shape: Shape, dtype: np.dtype[Any]) -> Any:
    """Fit a contribution to its input: sum over the axes that were broadcast, and cast. The only place that does so."""
    if dtype.kind != "f":
        raise TypeError(f"only floating-point Tensors have gradients, and this one of shape {shape} has dtype {dtype}")
    if g.shape != shape:
        extra = g.ndim - len(shape)
        if extra == 1 and g.shape[1:] == shape and g.dtype is dtype:  # a bias over a batch: nearly every call
            return np.add.reduce(g, axis=0) if g.shape[0] != 1 else g.reshape(shape)
        if extra < 0:
            raise ValueError(_misfit(g, shape))
        if prod(g.shape[:extra]) != 1:
            g = np.add.reduce(g, axis=tuple(range(extra)) if extra > 1 else 0)
            extra = 0
        axes = tuple([i + extra for i, n in enumerate(shape) if n == 1 != g.shape[i + extra]])
        if axes:
            g = np.add.reduce(g, axis=axes, keepdims=True)
        if g.shape != shape:
            if g.shape[extra:] != shape:
                raise ValueError(_misfit(g, shape))
            g = g.reshape(shape)
    if g.dtype != dtype:
        g = g.astype(dtype)
    return g


def _misfit(g: Any, shape: Shape) -> str:
    return (
        f"a derivative rule gave a cotangent of shape {tuple(g.shape)} for an input of shape {shape}, "
        "which does not broadcast to it"
    )


def pull(
    root: "Tensor", g: Any, lift: bool, stop: Container[int] = (), keep: Container[int] = ()
) -> dict[int, tuple["Tensor", Any]]:
    """Cotangents of the leaves that `root` depends on, as {id: (leaf, cotangent)}.

    g: cotangent of root: an array, or with `lift` a Tensor: then the rules are fed Tensors and what they do is kept.
    stop: ids of Tensors that are treated as leaves though they have a graph of their own.
    keep: ids of Tensors whose cotangents are wanted too, on the way to the leaves.
    """
    if root._node is None or id(root) in stop:
        return {id(root): (root, g)}
    leaves: dict[int, tuple[Tensor, Any]] = {}
    waiting = {root._rank: (root, g)}
    ranks = [-root._rank]
    tell = getattr(state.mode, "pulled", None)  # detect_anomaly, and capture
    while ranks:
        rank = -heappop(ranks)
        tensor, g = waiting.pop(rank)
        if keep and id(tensor) in keep:
            leaves[id(tensor)] = (tensor, g)
        op, parents, values, options = tensor._node  # type: ignore[misc]
        y: Any = tensor._data
        if lift:
            parents = tuple([p if p is None or p._rank <= rank else version_at(p, rank) for p in parents])
            y, values = tensor, lifted(tensor, parents, values)
        rules = op.rules
        contribution = rules[0](g, y, *values, **options) if op.variadic else None
        for i, parent in enumerate(parents):
            if parent is None:
                continue
            above = parent._rank
            if above > rank:
                if parent._node is None:
                    refuse_changed(op, i, parents, (_raw(g), tensor._data, *map(_raw, values)), options)
                parent = version_at(parent, rank)
                above = parent._rank
            if not parent._requires_grad:
                continue
            if contribution is not None:
                part = contribution(i)
            elif (rule := rules[i]) is None:
                continue
            elif options:
                part = rule(g, y, *values, **options)
            elif len(values) == 2:  # spelled out: a call with a star costs as much as a small product
                part = rule(g, y, values[0], values[1])
            else:
                part = rule(g, y, *values)
            data = parent._data
            if part.shape != data.shape or part.dtype is not data.dtype:
                part = project(part, data.shape, data.dtype)
            if tell is not None:
                tell(tensor, i, g, part)
            if parent._node is None or (stop and id(parent) in stop):
                known = leaves.get(id(parent))
                leaves[id(parent)] = (parent, part if known is None else known[1] + part)
            elif above in waiting:
                waiting[above] = (parent, waiting[above][1] + part)
            else:
                waiting[above] = (parent, part)
                heappush(ranks, -above)
    return leaves


def lifted(tensor: "Tensor", parents: Sequence[Any], values: Sequence[Any]) -> tuple[Any, ...]:
    """A row's operands as its rule is fed them: Tensors, also around the arrays that were none, so that all that the rule makes
    of them is seen."""
    return tuple(
        [
            p if p is not None else tensor.wrap(v) if type(v) is np.ndarray else v
            for p, v in zip(parents, values, strict=True)
        ]
    )


def version_at(x: "Tensor", rank: int) -> "Tensor":
    """What `x` was when a Tensor of this rank was made of it: a name that was given new values keeps each as a parent."""
    while x._node is not None and x._rank > rank:
        x = x._node[1][0]  # type: ignore[assignment]
    return x


def own(parts: Sequence[Any], seen: Sequence[Any]) -> list[Array]:
    """`parts` as arrays that share memory neither with each other nor with `seen`, and can be written."""
    taken = {id(a if a.base is None else _owner(a)) for a in seen}
    result = []
    for part in parts:
        array = part if type(part) is np.ndarray else np.asarray(part)
        base = array.base
        if base is None:
            owner: Any = array
        else:
            owner = base if base.__class__ is np.ndarray and base.base is None else _owner(array)
        if id(owner) in taken or not array.flags.writeable:
            owner = array = array.copy()
        taken.add(id(owner))
        result.append(array)
    return result


def _owner(a: Any) -> Any:
    while getattr(a, "base", None) is not None:
        a = a.base
    return a


def _raw(value: Any) -> Any:
    return getattr(value, "_data", value)


class _Outline:
    """Stands for an operand whose shape and dtype may be looked at, but not its values: anything else raises."""

    def __init__(self, array: Any):
        self.shape, self.ndim, self.size = array.shape, array.ndim, array.size
        self.dtype, self.flags = array.dtype, array.flags

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise TypeError("the values of this operand are gone")

    __array__ = __array_ufunc__ = __array_function__ = __bool__ = __index__ = _refuse


def refuse_changed(op: Any, i: int, parents: tuple[Any, ...], given: tuple[Any, ...], options: dict[str, Any]) -> None:
    """A parent that ranks above its child was changed in place since. Refuse, unless no rule that will run reads it."""
    if reads(op, i, parents, given, options):
        raise GraphError(
            f"argument {i} of {op.__name__}({', '.join(map(describe, given[2:]))}) was changed in place after the "
            "operation used it, so its derivative would be wrong; call backward() before changing it, or change a copy "
            "(x = x - step)"
        )


def reads(op: Any, i: int, parents: tuple[Any, ...], given: tuple[Any, ...], options: dict[str, Any]) -> bool:
    """Whether backward depends on the values of argument i: found by running the rules without them.

    given: what the rules are given: the cotangent, the answer and the operands, as arrays.
    Runs only on the way to an error.
    """
    if _owner(given[1]) is _owner(given[i + 2]):  # the answer is a view of it, and others may have read that
        return True
    outlined = (*given[: i + 2], _Outline(given[i + 2]), *given[i + 3 :])
    try:
        for j, parent in enumerate(parents):
            if parent is not None and parent._requires_grad:
                if op.variadic:
                    op.rules[0](*outlined, **options)(j)
                elif op.rules[j] is not None:
                    op.rules[j](*outlined, **options)
    except Exception:  # _Outline refused
        return True
    return False
