"""Forward mode: walk a recorded graph from oldest to newest and push tangents, by what each row's kind word says.

Knows no operation by name, and no rule but those that backward has:

- elementwise: the same rules, fed tangents;
- linear: the row itself, of the tangents of all its floating-point inputs together;
- multilinear: the product rule: the row with one input at a time replaced by its tangent;
- general: its rule is linear in the cotangent, so differentiating *it*, contracted with the tangent, with respect to
  the cotangent gives the transpose of the transpose.
"""

from collections.abc import Callable, Iterable
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from tinygrad_scratch.backward import lifted, project, pull, refuse_changed, version_at
from tinygrad_scratch.context import enable_grad, is_grad_enabled, set_grad_enabled
from tinygrad_scratch.registry import Op
from tinygrad_scratch.tensor import Tensor

Tangents = list[Any]
Tangent = Callable[[Op, Tangents, list[Any], Any, dict[str, Any]], Any]
"""(row, tangents of its inputs or None, the inputs, the answer, options) -> tangent of the answer, or None for zero."""


def tangent_of(op: Op, tangents: Tangents, inputs: list[Any], y: Any, options: dict[str, Any]) -> Any:
    """The tangent of a row's answer, in its shape and dtype; None where it is zero."""
    tangent = TANGENTS[op.kind](op, tangents, inputs, y, options)
    return None if tangent is None else fitted(tangent, y.shape, y.dtype)


def push(outputs: list[Tensor], seeds: dict[int, Any], lift: bool, step: Tangent = tangent_of) -> list[Any]:
    """Tangents of `outputs` for tangents of Tensors that they depend on, {id: tangent}; None where it is zero.

    Tangents are arrays or, with `lift`, Tensors: then what is done to them is kept. Rules run under the caller's mode.
    step: what is done at each row; another one pushes many tangents at once.
    """
    known = dict(seeds)
    for tensor in _dependents(outputs, known):
        op, _, values, options = tensor._node  # type: ignore[misc]
        parents = _parents(tensor)
        for i, parent in enumerate(parents):
            if parent is not None and parent._rank > tensor._rank:  # it was changed in place since
                raw = [getattr(v, "_data", v) for v in values]
                refuse_changed(op, i, parents, (tensor._data, tensor._data, *raw), options)
        given = [None if p is None else known.get(id(p)) for p in parents]
        y: Any = tensor._data
        inputs = list(values)
        if lift:
            y, inputs = tensor, list(lifted(tensor, parents, values))
        tangent = step(op, given, inputs, y, options)
        if tangent is not None:
            known[id(tensor)] = tangent
    return [known.get(id(x)) for x in outputs]


def _parents(tensor: Tensor) -> tuple[Tensor | None, ...]:
    """What a Tensor was made of, as it was then."""
    return tuple([p if p is None else version_at(p, tensor._rank) for p in tensor._node[1]])  # type: ignore[index]


def _dependents(outputs: Iterable[Tensor], seeds: dict[int, Any]) -> list[Tensor]:
    """The Tensors between the seeds and `outputs` that depend on a seed, each after what it was made from."""
    seen: dict[int, Tensor] = {}
    waiting = [x for x in outputs if x._node is not None]
    while waiting:
        tensor = waiting.pop()
        if id(tensor) not in seen and id(tensor) not in seeds:
            seen[id(tensor)] = tensor
            waiting += [p for p in _parents(tensor) if p is not None and p._node is not None]
    found: list[Tensor] = []
    moved = set(seeds)
    for tensor in sorted(seen.values(), key=lambda x: x._rank):
        if any(id(p) in moved for p in _parents(tensor)):
            moved.add(id(tensor))
            found.append(tensor)
    return found


def fitted(tangent: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """A tangent in its answer's shape (it may have to be spread, as an operand is) and dtype."""
    if tangent.shape != shape:
        tangent = np.broadcast_to(tangent, shape)
    return tangent if tangent.dtype == dtype else tangent.astype(dtype)


def _total(parts: list[Any]) -> Any:
    return reduce(add, parts) if parts else None


def _by_rules(op: Op, tangents: Tangents, inputs: list[Any], y: Any, options: dict[str, Any]) -> Any:
    wanted = [(rule, t) for rule, t in zip(op.rules, tangents, strict=True) if rule is not None and t is not None]
    return _total([rule(fitted(t, y.shape, t.dtype), y, *inputs, **options) for rule, t in wanted])


def _by_itself(op: Op, tangents: Tangents, inputs: list[Any], y: Any, options: dict[str, Any]) -> Any:
    if all(t is None for t in tangents):
        return None
    moved = [
        _zeros(x) if t is None and is_real(x) else x if t is None else t for t, x in zip(tangents, inputs, strict=True)
    ]
    return op(*moved, **options)


def is_real(x: Any) -> bool:
    """Whether an input can have a tangent: floating point, not indices, labels or conditions."""
    return x is not None and np.result_type(getattr(x, "_data", x)).kind == "f"


def _zeros(x: Any) -> Any:
    return np.zeros(np.shape(x), np.result_type(getattr(x, "_data", x)))


def _one_at_a_time(op: Op, tangents: Tangents, inputs: list[Any], y: Any, options: dict[str, Any]) -> Any:
    moved = [(i, t) for i, t in enumerate(tangents) if t is not None]
    return _total([op(*inputs[:i], t, *inputs[i + 1 :], **options) for i, t in moved])


def _transposed(op: Op, tangents: Tangents, inputs: list[Any], y: Any, options: dict[str, Any]) -> Any:
    """J t as the derivative of <J' g, t> with respect to g, which may be taken at any g: at 0 of y's form."""
    lift, keep_graph = isinstance(y, Tensor), is_grad_enabled()
    dummy = Tensor(np.zeros(y.shape, y.dtype), requires_grad=True)
    stop = {id(x) for x in (dummy, y, *inputs)}
    parts = []
    with enable_grad():
        first = op.rules[0] if op.variadic else None
        rule = None if first is None else first(dummy, y, *inputs, **options)
        for i, t in enumerate(tangents):
            own = None if op.variadic else op.rules[i]
            if t is None or (rule is None and own is None):
                continue
            part = rule(i) if rule is not None else own(dummy, y, *inputs, **options)  # type: ignore[misc]
            part = project(part, t.shape, t.dtype)
            if not isinstance(part, Tensor) or not part._requires_grad:
                continue  # the rule is zero whatever the cotangent
            with set_grad_enabled(keep_graph):
                found = pull(part, t, lift, stop=stop)
            if id(dummy) in found:
                parts.append(found[id(dummy)][1])
    return _total(parts)


TANGENTS: dict[str, Tangent] = {
    "elementwise": _by_rules,
    "linear": _by_itself,
    "multilinear": _one_at_a_time,
    "general": _transposed,
}
"""How forward mode follows from the kind word of a row."""
