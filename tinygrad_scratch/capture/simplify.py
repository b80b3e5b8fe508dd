"""Rows that move elements, said with copies: what the compiled back end has no loop of its own for, as rows that it has."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinygrad_scratch._typing import Shape
from tinygrad_scratch.capture.memory import Use
from tinygrad_scratch.capture.recording.trace import Instr, Var
from tinygrad_scratch.capture.rewrite import CHECKS
from tinygrad_scratch.ops.indexing import ARRAY


class Unsupported(Exception):  # noqa: N818  (a signal to take the NumPy back end)
    """A row that the compiled back end has no loop for."""


class Named:
    """Stands for a row: ``gather`` (indexing by arrays), ``scatter_add`` (its transpose), ``spread`` (a copy that broadcasts),
    ``copy`` (a reshape that copies)."""

    def __init__(self, name: str):
        self.__name__, self.fn, self.rules = name, None, ()


@dataclass(eq=False)
class Scatter:
    """out += values where `indices` say, in the values' order, or out = values; `before` axes come before those that they index."""

    values: Var
    indices: list[Var]
    out: Var
    before: int
    phase: str
    adds: bool = True

    def use(self, kept: set[int]) -> Use:
        own = [self.out.root] if self.out.root.kind == "answer" else []
        return Use([self.values, *self.indices, self.out], own)


@dataclass(eq=False)
class Check:
    """Values that must be from `low` up to `high`, or below it if they are integers: labels, which must be classes."""

    values: Var
    low: float
    high: float
    phase: str
    error: Exception | None = None  # to be raised; of labels the step itself knows better

    def use(self, kept: set[int]) -> Use:
        return Use([self.values], ())


def check_of(instr: Instr) -> Check:
    """The item of a row that checks."""
    options, values = instr.options, instr.vars[0]
    if instr.op.__name__ == "check_labels":
        return Check(values, 0, options["classes"], instr.phase)
    kind = {"ValueError": ValueError, "RuntimeError": RuntimeError}[options.get("kind", "ValueError")]
    return Check(values, options["low"], options["high"], instr.phase, kind(options["message"]))


def row(name: str, inputs: list[Any], out: Var, like: Instr, **options: Any) -> Instr:
    """A row of that name, at the place of `like`."""
    return Instr(Named(name), inputs, options, out, like.phase)  # type: ignore[arg-type]


def scratch(dtype: Any, *shape: int) -> Var:
    """An answer of no row: memory to work in."""
    local = Var("answer", np.broadcast_to(np.zeros((), dtype), shape))
    local.strides = c_strides(shape)
    return local


def readers_of(rows: Sequence[Instr]) -> dict[int, list[Instr]]:
    """The rows that read an owner of memory, by its id."""
    readers: dict[int, list[Instr]] = {}
    for row in rows:
        for var in row.vars:
            readers.setdefault(id(var.root), []).append(row)
    return readers


def simple_rows(instr: Instr) -> list[Instr]:
    """The rows that a row stands for; Unsupported for indexing that is no loop over the answer's elements."""
    name, index = instr.op.__name__, instr.options.get("index", ())
    if instr.in_place:
        return _written(instr) if name == "replace" else _apart(instr)
    if name == "getitem" and ARRAY not in index:  # one element, which NumPy copies
        return [row("spread", [part(instr.vars[0], index)], instr.out, instr)]
    if name == "getitem":
        source, indices, before = _indexed(instr, instr.vars[0])
        return [row("gather", [source, *indices], instr.out, instr, before=before)]
    if name == "reshape":  # over the input's shape: the answer is written in C order
        source = instr.vars[0]
        return [row("copy", [source], view(instr.out, source.shape, c_strides(source.shape)), instr)]
    if name == "broadcast_to":
        return [row("spread", [instr.vars[0]], instr.out, instr)]
    if name == "replace" and ARRAY in index:
        raise Unsupported("replace by arrays of indices")
    if name == "scatter" and ARRAY in index:
        return _scattered(instr)
    if name == "scatter":
        return [_zeros(instr), row("spread", [instr.inputs[0]], part(instr.out, index), instr)]
    if name == "replace":
        return [
            row("spread", [instr.inputs[0]], instr.out, instr),
            row("spread", [instr.inputs[1]], part(instr.out, index), instr),
        ]
    if name == "pad_zeros":
        inner = tuple(
            slice(low, low + n) for (low, _), n in zip(instr.options["pad_width"], instr.vars[0].shape, strict=True)
        )
        return [_zeros(instr), row("spread", [instr.vars[0]], part(instr.out, inner), instr)]
    if name == "concatenate":
        return _joined(instr)
    return [instr]


def _apart(instr: Instr) -> list[Instr]:
    """A change in place that reads its own memory at other elements reads a copy, made before: so does NumPy."""
    copies: list[Instr] = []
    for n, x in enumerate(instr.inputs):
        if isinstance(x, Var) and x.root is instr.out.root and x is not instr.out:
            instr.inputs[n] = copied(x, instr, copies)
    return [*copies, instr]


def _written(instr: Instr) -> list[Instr]:
    """``x[index] = value``, where x lies."""
    *copies, instr = _apart(instr)
    target, value, *arrays = instr.inputs
    if not arrays:
        return [*copies, _into(part(target, instr.options["index"]), "spread", [value], instr)]
    if any(v.dtype.kind == "b" for v in arrays):
        mask = arrays[0]
        if instr.options["index"] != (ARRAY,) or (isinstance(value, Var) and value.array.size != 1):
            raise Unsupported("writing by a mask and more, or of several values")
        gaps = (0,) * (len(target.shape) - len(mask.shape))
        mask = view(mask, (*mask.shape, *(1 for _ in gaps)), (*(mask.strides or ()), *gaps)) if gaps else mask
        return [*copies, _into(target, "where", [mask, value, target], instr)]
    places, indices, before = _indexed(Instr(instr.op, [target, *arrays], instr.options, target, instr.phase), target)
    after = len(places.shape) - before - len(indices)
    taken = np.broadcast_shapes(*(v.shape for v in arrays))
    values = scratch(target.dtype, *places.shape[:before], *taken, *places.shape[len(places.shape) - after :])
    copies.append(row("spread", [value], values, instr))
    return [*copies, row("scatter_set", [values, *indices], places, instr, before=before)]


def _into(out: Var, name: str, inputs: list[Any], like: Instr) -> Instr:
    """A row whose answer goes into memory that is there."""
    return Instr(Named(name), inputs, {}, out, like.phase, in_place=True)  # type: ignore[arg-type]


def _indexed(instr: Instr, x: Var) -> tuple[Var, list[Var], int]:
    """(what slices leave of `x`, the arrays of indices, how many axes come before those that they index).

    The indices' axes stand in the answer where the indexed ones stood in x; each has axes of length 1 for those that follow.
    """
    index, arrays = instr.options["index"], instr.inputs[1:]
    if any(v.dtype.kind == "b" for v in arrays):
        raise Unsupported("indexing by a mask")
    first = index.index(ARRAY)
    others = [*index[:first], *index[first + len(arrays) :]]
    if ARRAY in others or any(isinstance(i, int) for i in others):  # NumPy puts the indices' axes in front
        raise Unsupported("indexing by arrays, and by slices or numbers between them")
    own = len(x.shape) - len(arrays) - sum(isinstance(i, slice) for i in others)  # axes of x that are not named
    before = sum(own if i is Ellipsis else 1 for i in index[:first])
    if others:
        x = part(x, tuple(slice(None) if i is ARRAY else i for i in index))
    after = len(x.shape) - before - len(arrays)
    ones, gaps = (1,) * after, (0,) * after
    return x, [view(v, (*v.shape, *ones), (*v.strides, *gaps)) if after else v for v in arrays], before


def _scattered(instr: Instr) -> list[Instr]:
    target, indices, before = _indexed(instr, instr.out)
    values, after = instr.inputs[0], len(target.shape) - before - len(indices)
    taken = np.broadcast_shapes(*(v.shape for v in instr.inputs[1:]))
    whole = (*target.shape[:before], *taken, *target.shape[len(target.shape) - after :])
    if not isinstance(values, Var) or values.shape != whole or values.dtype.kind != "f":
        raise Unsupported("scatter of what is broadcast, or of integers")
    return [_zeros(instr), row("scatter_add", [values, *indices], target, instr, before=before)]


def _zeros(instr: Instr) -> Instr:
    return row("zeros_like", [0.0], instr.out, instr)


def _joined(instr: Instr) -> list[Instr]:
    axis, rows, start = instr.options.get("axis", 0) % len(instr.out.shape), [], 0
    for x in instr.vars:
        stop = start + x.shape[axis]
        if x.array.size:
            rows.append(row("spread", [x], part(instr.out, (*(slice(None),) * axis, slice(start, stop))), instr))
        start = stop
    return rows


def c_strides(shape: Shape) -> Shape:
    """In elements, of an array in C order."""
    return tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))


def strides_along(var: Var, shape: Shape) -> list[int]:
    """Strides along the axes of a shape: 0 where the Var is broadcast."""
    lead = len(shape) - len(var.shape)
    if lead < 0:
        raise Unsupported("an operand with more axes than the answer")
    own: Any = var.strides
    return [0] * lead + [
        0 if n == 1 != shape[lead + k] else s for k, (n, s) in enumerate(zip(var.shape, own, strict=True))
    ]


def reduced_axes(reduction: Instr, ndim: int) -> set[int]:
    """The axes that a reduction of an array of so many goes over."""
    axis = reduction.options.get("axis")
    if axis is None or not ndim:  # of a number, NumPy takes -1 and 0 for an axis
        return set(range(ndim))
    return {a % ndim for a in (axis if isinstance(axis, tuple) else (axis,))}


def view(var: Var, shape: Shape, strides: Shape, offset: int = 0) -> Var:
    """Other axes over the memory of a Var."""
    shown = Var("answer", np.broadcast_to(np.zeros((), var.dtype), shape), base=var)
    shown.strides, shown.offset = strides, var.offset + offset
    return shown


def part(var: Var, index: Any) -> Var:
    """``var[index]`` for slices, integers, None and Ellipsis."""
    size = var.dtype.itemsize
    whole = np.lib.stride_tricks.as_strided(np.zeros(1, var.dtype), var.shape, [s * size for s in var.strides or ()])
    taken = whole[index if Ellipsis in index else (*index, ...)]  # an array, also of one element
    offset = (taken.ctypes.data - whole.ctypes.data) // size
    return view(var, taken.shape, tuple(s // size for s in taken.strides), offset)


# -- indices -----------------------------------------------------------------------------------------------------------


def certain_indices(rows: list[Instr]) -> list[Instr]:
    """The rows, labels that nothing changes checked first; each gather says of its indices which need no check of their own."""
    changed = {id(r.out.root) for r in rows if r.op.__name__ not in CHECKS}
    early = [r for r in rows if r.op.__name__ == "check_labels" and id(r.vars[0].root) not in changed]
    classes = {_shown(r.vars[0]): r.options["classes"] for r in early}
    for gather in rows:
        if gather.op.__name__ == "gather":
            source, *indices = gather.inputs
            lengths = source.shape[gather.options["before"] :]
            gather.options["certain"] = [
                "counted" if _counts(v, n) else "checked" if classes.get(_shown(v), n + 1) <= n else ""
                for v, n in zip(indices, lengths, strict=False)
            ]
    return [*early, *(r for r in rows if r not in early)]


def _shown(var: Var) -> tuple[Any, ...]:
    """What of which memory a Var shows, but for axes of one element."""
    strides: Any = var.strides
    return id(var.root), var.offset, tuple((n, s) for n, s in zip(var.shape, strides, strict=True) if n != 1)


def _counts(index: Var, length: int) -> bool:
    """Whether an index is 0, 1, 2 and so on along an axis of its own."""
    known, n = index.root.array, index.array.size
    if (
        index.root.kind != "constant"
        or known.size != n
        or n > length
        or _shown(index)[1:] not in ((0, ((n, 1),)), (0, ()))
    ):
        return False
    return bool((known.reshape(-1) == np.arange(n)).all())


# -- products ----------------------------------------------------------------------------------------------------------


def as_matrices(item: Any) -> tuple[list[Instr], Any]:
    """A Product of vectors, or of a stack and a matrix, as one of matrices that BLAS takes; and the copies to make before."""
    a, b, out = item.a, item.b, item.out
    if len(b.shape) > 2:
        raise Unsupported("a product of stacks of matrices")
    copies: list[Instr] = []
    if len(a.shape) > 2 and a.strides != c_strides(a.shape):
        a = copied(a, item, copies)
    if len(a.shape) == 1:
        a = view(a, (1, *a.shape), (a.shape[0], *a.strides))
    elif len(a.shape) > 2:
        a = view(a, (int(np.prod(a.shape[:-1])), a.shape[-1]), (a.shape[-1], 1))
    if len(b.shape) == 1:
        b = view(b, (*b.shape, 1), (*b.strides, 1))
    a, b = (x if _regular(x) else copied(x, item, copies) for x in (a, b))
    if out.shape != (a.shape[0], b.shape[1]):
        if out.strides != c_strides(out.shape):
            raise Unsupported("a product of a stack into memory of another order")
        out = view(out, (a.shape[0], b.shape[1]), (b.shape[1], 1))
    return copies, item if (a, b, out) == (item.a, item.b, item.out) else replace(item, a=a, b=b, out=out)


def _regular(var: Var) -> bool:
    """Whether BLAS can read a matrix where it lies: rows or columns without gaps inside."""
    (rows, columns), (down, right) = var.shape, var.strides or (1, 1)
    plain = (right == 1 or columns <= 1) and (rows <= 1 or down >= columns)
    turned = (down == 1 or rows <= 1) and (columns <= 1 or right >= rows)
    return plain or turned


def copied(var: Var, item: Any, copies: list[Instr]) -> Var:
    local = scratch(var.dtype, *var.shape)
    copies.append(Instr(Named("spread"), [var], {}, local, item.phase))  # type: ignore[arg-type]
    return local
