"""Many tangents at once: forward mode with one leading axis of tangents, for Jacobians.

An elementwise row takes them all in one call, because its rules broadcast. A general row's derivative is recorded once,
as rows, and they are pushed through those. A linear or multilinear row is tried with its options moved past the new axis
(``axis=0`` becomes 1) and held to what it gives for a random combination of random tangents, which is right by chance
with probability 0 (Freivalds 1977); where the two differ, and where the trial fails, it is called once for each tangent.
"""

import inspect
from collections.abc import Callable, Iterator
from threading import local
from typing import Any

import numpy as np

from tinygrad_scratch.context import enable_grad
from tinygrad_scratch.forward import TANGENTS, Tangent, Tangents, fitted, is_real, push
from tinygrad_scratch.registry import Op
from tinygrad_scratch.tensor import Tensor

_KNOWN: dict[Any, Any] = {}
"""(row, which input moves, shapes, options) -> the way in which it takes many, or None."""

_MOST_KNOWN = 4096


class _Depth(local):
    now = 0


_depth = _Depth()
"""How many recorded general rows this thread is within."""


def in_batches(count: int) -> Tangent:
    """The step of forward.push for `count` tangents at once, along a new first axis."""

    def step(op: Op, tangents: Tangents, inputs: list[Any], y: Any, options: dict[str, Any]) -> Any:
        batched = _BATCHED[op.kind](op, tangents, inputs, y, options, count)
        return None if batched is None else fitted(batched, (count, *y.shape), y.dtype)

    return step


def _by_rules(op: Op, tangents: Tangents, inputs: list[Any], y: Any, options: dict[str, Any], count: int) -> Any:
    spread = [t if t is None else fitted(_padded(t, y.ndim), (count, *y.shape), t.dtype) for t in tangents]
    total = None
    for rule, t in zip(op.rules, spread, strict=True):
        if rule is not None and t is not None:
            part = rule(t, y, *inputs, **options)
            total = part if total is None else total + part
    return total


def _padded(t: Any, ndim: int) -> Any:
    """Tangents (count, *shape) with axes of length 1 after the first, for an answer of `ndim` axes."""
    missing = ndim + 1 - t.ndim
    return np.reshape(t, (t.shape[0], *(1,) * missing, *t.shape[1:])) if missing > 0 else t


def _recorded(op: Op, tangents: Tangents, inputs: list[Any], y: Any, options: dict[str, Any], count: int) -> Any:
    """The tangent of a general row for a placeholder, as a graph of rows that the tangents are pushed through.

    A general row within that graph (solve's is made of solve) takes its tangents one by one: it could go on for ever.
    """
    moved = [i for i, t in enumerate(tangents) if t is not None]
    if _depth.now:
        columns = [[t if t is None else t[k] for t in tangents] for k in range(count)]
        found = [TANGENTS["general"](op, column, inputs, y, options) for column in columns]
        return None if found[0] is None else np.stack(found)
    places: Tangents = [None] * len(tangents)
    for i in moved:
        shape = tangents[i].shape[1:]
        places[i] = Tensor(np.zeros(shape, tangents[i].dtype), requires_grad=True)
    with enable_grad():
        graph = TANGENTS["general"](op, places, inputs, y, options)
    if not isinstance(graph, Tensor) or not graph.requires_grad:
        return None
    lift = any(isinstance(tangents[i], Tensor) for i in moved)
    _depth.now += 1
    try:
        return push([graph], {id(places[i]): tangents[i] for i in moved}, lift, in_batches(count))[0]
    finally:
        _depth.now -= 1


def _together(op: Op, tangents: Tangents, inputs: list[Any], y: Any, options: dict[str, Any], count: int) -> Any:
    """A linear row: its real inputs all together."""
    if all(t is None for t in tangents):
        return None
    real = [i for i, x in enumerate(inputs) if is_real(x)]
    full = [_zeros(inputs[i], count) if tangents[i] is None else tangents[i] for i in real]
    return _many(op, real, full, inputs, y, options)


def _zeros(x: Any, count: int) -> Any:
    return np.zeros((count, *np.shape(x)), np.result_type(getattr(x, "_data", x)))


def _one_at_a_time(op: Op, tangents: Tangents, inputs: list[Any], y: Any, options: dict[str, Any], count: int) -> Any:
    total = None
    for i, t in enumerate(tangents):
        if t is not None:
            part = _many(op, [i], [t], inputs, y, options)
            total = part if total is None else total + part
    return total


_BATCHED: dict[str, Callable[..., Any]] = {
    "elementwise": _by_rules,
    "linear": _together,
    "multilinear": _one_at_a_time,
    "general": _recorded,
}


# -- a row that is linear in some of its inputs, of many of them at once -------------------------------------------------


def _many(op: Op, places: list[int], batches: list[Any], inputs: list[Any], y: Any, options: dict[str, Any]) -> Any:
    """The row with the inputs at `places` replaced by each of their batches: in one call where that is the same."""
    count = batches[0].shape[0]
    key = (op, tuple(places), count, tuple(map(_form, inputs)), repr(options))
    if key not in _KNOWN:
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.clear()
        _KNOWN[key] = _way(op, places, count, [getattr(x, "_data", x) for x in inputs], y, options)
    way = _KNOWN[key]
    if way is not None:
        return way(op, places, batches, inputs)
    return np.stack([op(*_with(inputs, places, [b[k] for b in batches]), **options) for k in range(count)])


def _form(x: Any) -> Any:
    return (x.shape, x.dtype.char) if hasattr(x, "shape") else type(x)


def _with(inputs: list[Any], places: list[int], values: list[Any]) -> list[Any]:
    replaced = list(inputs)
    for i, value in zip(places, values, strict=True):
        replaced[i] = value
    return replaced


def _way(op: Op, places: list[int], count: int, inputs: list[Any], y: Any, options: dict[str, Any]) -> Any:
    """How the row takes many tangents in one call, or None. Held to random numbers, of which it is linear."""
    rng = np.random.default_rng(0)
    drawn = [rng.standard_normal(np.shape(x)) if is_real(x) else x for x in inputs]
    batches = [rng.standard_normal((count, *np.shape(inputs[i]))) for i in places]
    weights = rng.standard_normal(count)
    mixed = [np.asarray(np.tensordot(weights, b, 1)) for b in batches]
    expected = np.asarray(op.fn(*_with(drawn, places, mixed), **options))
    ndim = max(np.ndim(inputs[i]) for i in places)
    for way in _ways({**_defaults(op), **options}, places, count, ndim, y.ndim):
        try:
            found = np.asarray(way(op, places, batches, drawn))
        except (ValueError, TypeError, IndexError, OverflowError):  # NumPy's AxisError is both of the first and third
            continue
        if found.shape == (count, *y.shape):
            scale = float(np.max(np.abs(expected), initial=1e-300))
            if np.allclose(np.tensordot(weights, found, 1), expected, rtol=0, atol=1e-9 * scale):
                return way
    return None


def _ways(options: dict[str, Any], places: list[int], count: int, ndim: int, answer_ndim: int) -> Iterator[Any]:
    """Calls that may be right: with the options moved, with the tangents padded to the answer's axes, with them last."""
    moved = {k: _MOVED[k](v, count, ndim, places) if k in _MOVED else v for k, v in options.items()}

    def first(op: Op, places: list[int], batches: list[Any], inputs: list[Any]) -> Any:
        return op(*_with(inputs, places, batches), **moved)

    def padded(op: Op, places: list[int], batches: list[Any], inputs: list[Any]) -> Any:
        return op(*_with(inputs, places, [_padded(b, answer_ndim) for b in batches]), **moved)

    def last(op: Op, places: list[int], batches: list[Any], inputs: list[Any]) -> Any:
        return np.moveaxis(op(*_with(inputs, places, [np.moveaxis(b, 0, -1) for b in batches]), **options), -1, 0)

    yield from (first, padded, last)


def _defaults(op: Op) -> dict[str, Any]:
    """The options of a row that would have to move though they were not given: ``axis=None`` of a sum."""
    wanted = [name for name in op.keywords if name in _MOVED]
    known = inspect.signature(op.fn).parameters if wanted else {}
    return {name: known[name].default for name in wanted if known[name].default is not inspect.Parameter.empty}


def _past(axis: Any, count: int, ndim: int, places: list[int]) -> Any:
    """Axes counted from the front move by one; None, all of them, is all but the first."""
    if axis is None:
        return tuple(range(1, ndim + 1))
    if isinstance(axis, (tuple, list)):
        return tuple(_past(a, count, ndim, places) for a in axis)
    return axis + 1 if axis >= 0 else axis


def _reversed(axes: Any, count: int, ndim: int, places: list[int]) -> Any:
    return (0, *(range(ndim, 0, -1) if axes is None else _past(axes, count, ndim, places)))


def _subscripts(subscripts: str, count: int, ndim: int, places: list[int]) -> str:
    """einsum's, with a letter of its own for the tangents."""
    left, arrow, out = subscripts.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow:  # as NumPy fills it in
        out = "..." * ("..." in left) + "".join(sorted(c for c in set(left) - set(".,") if left.count(c) == 1))
    letter = next((c for c in "ZYXWVUTSRQPONMLKJIHGFEDCBA" if c not in subscripts), "")
    return ",".join(letter * (i in places) + t for i, t in enumerate(terms)) + "->" + letter + out


_MOVED: dict[str, Callable[[Any, int, int, list[int]], Any]] = {
    "axis": _past,
    "axis1": _past,
    "axis2": _past,
    "source": _past,
    "destination": _past,
    "axes": _reversed,
    "shape": lambda shape, count, ndim, places: (count, *shape),
    "index": lambda index, count, ndim, places: (slice(None), *index),
    "pad_width": lambda widths, count, ndim, places: ((0, 0), *widths),
    "subscripts": _subscripts,
}
"""What the options that rows share are where there is one axis more in front; whatever they say is tried, not trusted."""
