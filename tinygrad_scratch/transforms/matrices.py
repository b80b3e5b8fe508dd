"""Whole matrices of derivatives: jacobian, by forward or reverse mode, many directions at once; hessian."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from tinygrad_scratch.batch import in_batches
from tinygrad_scratch.context import enable_grad, set_grad_enabled, state
from tinygrad_scratch.forward import push
from tinygrad_scratch.tensor import Tensor, wrap
from tinygrad_scratch.transforms.common import Argnums, Run, run, split_aux, tensors_of
from tinygrad_scratch.transforms.reverse import cotangents, grad, one_root
from tinygrad_scratch.trees import leaves, rebuild

_AT_ONCE = 1 << 18
"""Elements of one batch of tangents: more would not stay in the cache of a core, and need memory."""


def jacobian(
    f: Callable[..., Any], argnums: Argnums = 0, mode: str = "auto", has_aux: bool = False
) -> Callable[..., Any]:
    """A function that returns all first derivatives of `f`: for an output of shape s and an argument of shape t, s + t.

    argnums: an int, or a tuple for a tuple of Jacobians. Arguments and outputs may be lists, tuples and dicts: the result
    has the output's form with the argument's in each place; a module's is a dict {path: ...}.
    mode: "forward" (a tangent for each element of the arguments), "reverse" (a cotangent for each element of the
    output), or "auto": the one that needs fewer. Either way many of them are taken through a row in one call.
    has_aux: f returns (output, anything), and the result is (Jacobian, anything).

    Differentiable again where grad would be. ValueError for another mode, GraphError where the graph is lost.

    >>> jacobian(lambda v: v[:2] * v[1])(np.array([2.0, 3.0, 5.0]))
    array([[3., 2., 0.],
           [0., 6., 0.]])
    """
    if mode not in ("auto", "forward", "reverse"):
        raise ValueError(f"jacobian: mode must be 'auto', 'forward' or 'reverse', not {mode!r}")

    @wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        call = run(f, args, kwargs, argnums)
        output, aux = split_aux(call.output, has_aux)
        outputs = tensors_of(output)
        forward = mode == "forward" or (mode == "auto" and _size(call.variables) <= _size(outputs))
        blocks = (_forward if forward else _reverse)(call, outputs)  # of each output, of each variable
        placed = []
        for row in blocks:
            parts = call.given([call.outward(block) for block in row])
            placed.append(parts[0] if isinstance(argnums, int) else parts)
        result = rebuild(output, placed)
        return (result, rebuild(aux, map(call.outward, leaves(aux)))) if has_aux else result

    return wrapped


def hessian(f: Callable[..., Any], argnums: Argnums = 0) -> Callable[..., Any]:
    """A function that returns all second derivatives of `f`, which returns one element: forward over reverse.

    For an argument of shape t, t + t; for several, a tuple of tuples; for a tree, the form of its gradient twice.

    >>> hessian(lambda v: v[0] ** 2 * v[1])(np.array([3.0, 5.0]))
    array([[10.,  6.],
           [ 6.,  0.]])
    """
    return jacobian(grad(f, argnums), argnums, mode="forward")


def _size(tensors: list[Tensor]) -> int:
    return sum(x.size for x in tensors)


def _forward(call: Run, outputs: list[Tensor]) -> list[list[Tensor]]:
    """Columns: derivatives of the outputs along each element of the variables."""
    columns = _pushed(outputs, call.variables, call.nested)
    return [
        [_column_block(part, y, x) for part, x in zip(_split(column, call.variables), call.variables, strict=True)]
        for column, y in zip(columns, outputs, strict=True)
    ]


def _column_block(part: Any, y: Tensor, x: Tensor) -> Tensor:
    return _tensor(np.reshape(np.moveaxis(part, 0, -1), y.shape + x.shape))


def _reverse(call: Run, outputs: list[Tensor]) -> list[list[Tensor]]:
    """Rows: the cotangents of the variables, as a linear function of those of the outputs, of each element of these."""
    with enable_grad():
        seeds = [Tensor(np.zeros(y.shape, y.dtype), requires_grad=True) for y in outputs]
        root, seed = one_root(outputs, seeds)
        found = cotangents(root, call.variables, seed, True, stop={id(x) for x in call.variables})
    rows = [_split(row, outputs) for row in _pushed(found, seeds, call.nested)]
    return [
        [_tensor(np.reshape(rows[j][i], y.shape + x.shape)) for j, x in enumerate(call.variables)]
        for i, y in enumerate(outputs)
    ]


def _split(column: Any, tensors: list[Tensor]) -> list[Any]:
    """The parts of the first axis that belong to each Tensor."""
    start = 0
    parts = []
    for x in tensors:
        parts.append(column[start : start + x.size])
        start += x.size
    return parts


def _tensor(x: Any) -> Tensor:
    return x if isinstance(x, Tensor) else wrap(np.array(x, order="C"))


def _pushed(outputs: list[Tensor], variables: list[Tensor], nested: bool) -> list[Any]:
    """For each output, (all elements of the variables, *its shape): the tangent along each of them."""
    mode = state.mode
    lift = nested or (not isinstance(mode, bool) and mode.lift)
    total = _size(variables)
    at_once = max(1, _AT_ONCE // max([1, *(y.size for y in outputs), *(x.size for x in variables)]))
    chunks: list[list[Any]] = [[] for _ in outputs]
    for start in range(0, total, at_once):
        count = min(at_once, total - start)
        seeds = _directions(variables, start, count, lift)
        with set_grad_enabled(nested), np.errstate(all="ignore"):
            found = push(outputs, seeds, lift, in_batches(count))
        for chunk, t, y in zip(chunks, found, outputs, strict=True):
            chunk.append(np.zeros((count, *y.shape), y.dtype) if t is None else t)
    empty = [np.zeros((0, *y.shape), y.dtype) for y in outputs]
    return [np.concatenate(c) if len(c) > 1 else c[0] if c else e for c, e in zip(chunks, empty, strict=True)]


def _directions(variables: list[Tensor], start: int, count: int, lift: bool) -> dict[int, Any]:
    """Unit tangents along elements `start` to `start + count` of all variables in a row."""
    seeds: dict[int, Any] = {}
    first = 0
    for x in variables:
        low, high = max(start, first), min(start + count, first + x.size)
        if low < high:
            unit = np.zeros((count, x.size), x.dtype)
            unit[np.arange(low, high) - start, np.arange(low, high) - first] = 1
            seeds[id(x)] = wrap(unit.reshape(count, *x.shape)) if lift else unit.reshape(count, *x.shape)
        first += x.size
    return seeds
