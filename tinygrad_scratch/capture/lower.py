"""From rows to loops: which rows run in one pass over memory, and which are calls of BLAS.

A Loop runs scalar expressions over one shape; sums and maxima of what it computes ride along. A Product is one of matrices,
into a new answer or straight into a state (``beta``), so that a weight gradient is never stored. What has no lowering raises
Unsupported, and the plan runs on the NumPy back end instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from tinygrad_scratch._typing import Shape
from tinygrad_scratch.capture.kernels import KERNELS, Kernel, as_kernel, fuse, pieces_of
from tinygrad_scratch.capture.memory import Use
from tinygrad_scratch.capture.recording.trace import Instr, Var
from tinygrad_scratch.capture.rewrite import CHECKS, is_number, uses
from tinygrad_scratch.capture.simplify import (
    Check,
    Scatter,
    Unsupported,
    as_matrices,
    c_strides,
    certain_indices,
    check_of,
    readers_of,
    scratch,
    simple_rows,
)

SCALAR = frozenset(
    "add subtract multiply divide power negative absolute square sqrt reciprocal exp expm1 log log1p logaddexp sin cos tan tanh "
    "maximum minimum where clip sign greater greater_equal less less_equal equal not_equal logical_and logical_or logical_xor "
    "logical_not isnan isfinite isinf astype arcsin arccos arctan arctan2 sinh cosh arcsinh arccosh arctanh floor ceil hypot "
    "zeros_like ones_like copy spread gather log2 log10 exp2 trunc rint cbrt floor_divide remainder bitwise_and bitwise_or "
    "bitwise_xor invert erf".split()
)
REDUCTIONS = frozenset({"sum", "max", "min", "prod", "any", "all"})
_PARTIAL = 4096  # numbers that a reduction may have, for its memory to be had several times
LEAST_ROWS = (
    2048  # of a batch that may be done in blocks; beside a sum over so many it costs nothing to store the answer
)


@dataclass(eq=False)
class Loop:
    """Scalar rows over `shape`, in order; reductions of their answers (or of memory of that shape)."""

    shape: Shape
    phase: str
    rows: list[Instr] = field(default_factory=list)
    reductions: list[Instr] = field(default_factory=list)
    values: dict[int, Var] = field(default_factory=dict)  # computed here, element by element
    pieces: int = 1  # that threads may do it in
    partial: dict[int, Var] = field(default_factory=dict)  # of a reduction's answer: memory for that of each piece

    def use(self, kept: set[int]) -> Use:
        """What it reads from memory and writes to it; `kept` are the ids of answers that somebody else reads."""
        inner = {id(r.out) for r in self.rows}
        reads = [v for r in [*self.rows, *self.reductions] for v in r.vars if id(v) not in inner or id(v) in kept]
        stored = [r.out for r in self.rows if r.in_place or id(r.out) in kept] + [r.out for r in self.reductions]
        partial = list(self.partial.values())
        return Use([*reads, *stored, *partial], [*_owners(stored), *partial])

    def share(self) -> None:
        """Make room for what each piece adds up, if there is enough work for several threads."""
        pieces = pieces_of(max(self.shape, default=1), prod(self.shape))
        if pieces > 1 and all(can_be_joined(r.out) for r in self.reductions):
            self.pieces = pieces
            self.partial = {id(r.out): scratch(r.out.dtype, pieces, r.out.array.size) for r in self.reductions}


def can_be_joined(answer: Var) -> bool:
    """Whether a reduction may be done in pieces: of floats, so few that its memory may be had several times."""
    whole = answer.base is None and answer.strides == c_strides(answer.shape)
    return whole and answer.dtype.kind == "f" and answer.array.size <= _PARTIAL


@dataclass(eq=False)
class Product:
    """out = a @ b, or with `into`: into = alpha (a @ b) + beta into. alpha and beta are numbers, Vars, or (-1, Var)."""

    a: Var
    b: Var
    out: Var
    phase: str
    into: Var | None = None
    flip: bool = False  # `into` holds the transpose of a @ b
    alpha: Any = 1.0
    beta: Any = 0.0
    pieces: int = 1  # that threads do it in

    def share(self) -> None:
        """Have several threads do it, if it is large."""
        (m, k), n = self.a.shape, self.b.shape[1]
        self.pieces = pieces_of(max(m, n), m * n * k, "multiply-adds")

    def use(self, kept: set[int]) -> Use:
        extra = [x for x in (self.alpha, self.beta) if isinstance(x, Var)]
        target = self.out if self.into is None else self.into
        return Use([self.a, self.b, target, *extra], _owners([target]))


Item = Loop | Product | Check | Scatter | Kernel


def _owners(variables: Sequence[Var]) -> list[Var]:
    return list({id(v.root): v.root for v in variables if v.root.kind == "answer"}.values())


def _elsewhere(instr: Instr, var: Var) -> bool:
    """Whether a row reads a Var at other elements than its own, so that all of it must be there before."""
    return instr.op.__name__ == "gather" and var is instr.inputs[0]


def lower(instrs: Sequence[Instr], outputs: list[Var]) -> list[Item]:
    """Items in an order that computes what the rows compute."""
    rows = certain_indices([row for i in instrs if not _nothing_to_do(i) for row in simple_rows(i)])
    for instr in rows:
        for var in instr.vars:
            if not var.root.compact and var.base is not None:
                raise Unsupported(f"a view of {instr.op.__name__}'s operand, whose memory had gaps")
    rows = fuse(_sink_outer_products(rows, outputs), outputs)
    program = _fold_updates(rows, outputs)
    items: list[Item] = []
    schedule = _Schedule(items)
    for entry in program:
        if isinstance(entry, Instr):
            schedule.place(entry)
        elif isinstance(entry, Product):
            copies, product = as_matrices(entry)
            for copy in copies:
                schedule.place(copy)
            schedule.append(product)
    return items


def _nothing_to_do(instr: Instr) -> bool:
    """Whether a row only shows memory that lies elsewhere, or has an empty answer."""
    if instr.op.__name__ in CHECKS:
        return not instr.vars[0].array.size
    return not instr.in_place and (instr.out.base is not None or not instr.out.array.size)


def _is_product(instr: Instr) -> bool:
    return instr.op.__name__ == "matmul" and not _is_outer(instr)


def _is_outer(instr: Instr) -> bool:
    a, b = instr.vars
    return a.array.ndim > 1 and b.array.ndim > 1 and a.shape[-1] == 1 == b.shape[-2]


def _sink_outer_products(rows: list[Instr], outputs: list[Var]) -> list[Instr]:
    """A sum over one term (the weight gradient of a batch of one) is computed where it is used, never stored."""
    readers = readers_of(rows)
    returned = {id(v.root) for v in outputs}
    changed = {id(r.out.root) for r in rows if r.in_place}
    result = list(rows)
    for row in rows:
        if row.op.__name__ != "matmul" or not _is_outer(row) or id(row.out) in returned:
            continue
        users = readers.get(id(row.out), [])
        if len(users) != 1 or any(id(v.root) in changed for v in row.vars) or users[0].op.__name__ not in SCALAR:
            continue
        value = next(v for v in users[0].vars if v.root is row.out)
        if _elsewhere(users[0], value):
            continue
        a, b = row.vars
        if value.shape == row.out.shape and value.strides == row.out.strides:
            pass
        elif len(value.shape) == 2 and value.strides == row.out.strides[::-1] and value.base is row.out:  # type: ignore[index]
            a, b = _turned(b), _turned(a)
        else:
            continue
        local = scratch(value.dtype, *value.shape)
        local.strides = value.strides
        result.remove(row)
        result.insert(result.index(users[0]), Instr(row.op, [a, b], {}, local, users[0].phase))
        users[0].inputs = [local if x is value else x for x in users[0].inputs]
    return result


def _turned(var: Var) -> Var:
    """The transpose of a matrix, as a view."""
    view = Var("answer", var.array.T, base=var)
    view.strides, view.offset = var.strides[::-1], var.offset  # type: ignore[index]
    return view


# -- updates folded into products --------------------------------------------------------------------------------------


def _fold_updates(rows: list[Instr], outputs: list[Var]) -> list[Any]:
    """state -= rate * (a @ b) and state = beta * state + a @ b as one product that adds into the state."""
    counts = uses(rows, outputs)
    for other in rows:  # a view's reader reads its owner too
        for var in other.vars:
            base = var.base
            while base is not None:
                counts[id(base)] = counts.get(id(base), 0) + 1
                base = base.base
    made = {id(r.out): r for r in rows}
    program: list[Any] = list(rows)
    for instr in rows:
        if not instr.in_place or instr.op.__name__ not in ("add", "subtract") or not isinstance(instr.inputs[1], Var):
            continue
        state, value = instr.inputs
        alpha: Any = 1.0 if instr.op.__name__ == "add" else -1.0
        scale = made.get(id(value))
        gone = []
        if scale is not None and scale.op.__name__ == "multiply" and counts.get(id(value)) == 1:
            number, rest = scale.inputs if is_number(scale.inputs[0]) else scale.inputs[::-1]
            if is_number(number) and isinstance(rest, Var):
                alpha, value, gone = ((alpha, number), rest, [scale])
        product = made.get(id(value.root))
        if product is None or not _is_product(product) or not _foldable(product, value, state, rows, counts):
            continue
        beta: Any = 1.0
        before = _scaled_just_before(program, instr, state)
        if before is not None and alpha == 1.0:
            beta, gone = before.inputs[1], [*gone, before]
        a, b = product.vars
        folded = Product(a, b, product.out, instr.phase, state, flip=value is not product.out, alpha=alpha, beta=beta)
        program[program.index(instr)] = folded
        for dead in [*gone, product]:
            program.remove(dead)
    return [
        Product(e.vars[0], e.vars[1], e.out, e.phase) if isinstance(e, Instr) and _is_product(e) else e for e in program
    ]


def _foldable(product: Instr, value: Var, state: Var, rows: list[Instr], counts: dict[int, int]) -> bool:
    if product.vars[0].shape[-1] >= LEAST_ROWS:  # blocks of them cannot change what other blocks need
        return False
    two = all(v.array.ndim == 2 for v in (*product.vars, state))
    direct = value is product.out or (value.base is product.out and value.strides == product.out.strides[::-1])  # type: ignore[index]
    once = counts.get(id(product.out), 0) == 1
    changed = {id(r.out.root) for r in rows if r.in_place}
    steady = all(id(v.root) not in changed for v in product.vars)
    same = state.shape == value.shape and state.dtype == product.out.dtype and state.dtype.kind == "f"
    return two and direct and once and steady and same and 1 in (state.strides or ())


def _scaled_just_before(program: list[Any], instr: Instr, state: Var) -> Instr | None:
    """``state *= number``, if nothing reads the state between it and `instr`."""
    for entry in reversed(program[: program.index(instr)]):
        if isinstance(entry, Product):
            if any(v.root is state.root for v in (entry.a, entry.b, entry.into or entry.out)):
                return None
            continue
        if entry.in_place and entry.out is state:
            return entry if entry.op.__name__ == "multiply" and is_number(entry.inputs[1]) else None
        if any(v.root is state.root for v in entry.vars):
            return None
    return None


# -- which rows share a loop -------------------------------------------------------------------------------------------


class _Schedule:
    """Puts rows into loops, as early as their inputs allow and as late as they must."""

    def __init__(self, items: list[Item]):
        self.items = items
        self.checked = 0  # the item that follows the last check
        self.written: dict[int, int] = {}  # id of an owner -> the item that wrote it last
        self.read: dict[int, dict[int, bool]] = {}  # id of an owner -> {item: whether only at the same element}

    def append(self, item: Any) -> None:
        self.items.append(item)
        n = len(self.items) - 1
        for var in item.use(set()).reads:
            self.read.setdefault(id(var.root), {})[n] = False
        target = getattr(item, "into", None) or getattr(item, "out", None)
        if target is not None:
            self.written[id(target.root)] = n

    def place(self, instr: Instr) -> None:
        name = instr.op.__name__
        if name in CHECKS:
            self.append(check_of(instr))
            self.checked = len(self.items)
            return
        if name in ("scatter_add", "scatter_set"):
            values, *indices = instr.vars
            self.append(
                Scatter(values, indices, instr.out, instr.options["before"], instr.phase, name == "scatter_add")
            )
            return
        if name in KERNELS:
            kernel = as_kernel(instr)
            for copy in kernel.copies:
                self.place(copy)
            self.append(kernel)
            return
        if name == "matmul":  # a sum over one term
            reduction = False
        elif name in REDUCTIONS:
            reduction = True
        elif name in SCALAR:
            reduction = False
        else:
            raise Unsupported(f"row {name}")
        shape = instr.vars[0].shape if reduction else instr.out.shape
        n = self._choose(instr, shape, reduction)
        loop: Any = self.items[n]
        (loop.reductions if reduction else loop.rows).append(instr)
        if not reduction:
            loop.values[id(instr.out)] = instr.out
        for var in instr.vars:
            same = (var.shape == shape and id(var) in loop.values) or var is instr.out
            direct = (
                same and not reduction and not _elsewhere(instr, var)
            )  # a reduction runs after all rows of its loop
            known = self.read.setdefault(id(var.root), {})
            known[n] = known.get(n, True) and direct
        self.written[id(instr.out.root)] = n

    def _choose(self, instr: Instr, shape: Shape, reduction: bool) -> int:
        earliest = self._earliest(instr, shape)
        makers = [self.written[id(v.root)] for v in instr.vars if id(v.root) in self.written]
        candidates = [max(makers)] if makers else []
        if not reduction:
            candidates.append(len(self.items) - 1)
        for n in candidates:
            if n >= earliest and n >= 0:
                item = self.items[n]
                if (
                    isinstance(item, Loop)
                    and item.shape == shape
                    and item.phase == instr.phase
                    and self._fits(item, n, instr)
                ):
                    return n
        self.items.append(Loop(shape, instr.phase))
        return len(self.items) - 1

    def _fits(self, loop: Loop, n: int, instr: Instr) -> bool:
        """No row of a loop reads, at other elements, what the same loop writes."""
        written = {id(r.out.root) for r in [*loop.rows, *loop.reductions]}
        if any((id(v) not in loop.values or _elsewhere(instr, v)) and id(v.root) in written for v in instr.vars):
            return False
        if id(instr.out.root) in written and id(instr.out) not in loop.values:
            return False
        return not (instr.in_place and not self.read.get(id(instr.out.root), {}).get(n, True))

    def _earliest(self, instr: Instr, shape: Shape) -> int:
        n = 0
        for var in instr.vars:
            if id(var.root) in self.written:
                maker = self.written[id(var.root)]
                item = self.items[maker]
                inside = (
                    isinstance(item, Loop)
                    and id(var) in item.values
                    and item.shape == shape
                    and not _elsewhere(instr, var)
                )
                n = max(n, maker if inside else maker + 1)
        if instr.out.base is not None:  # a part of memory: after whatever filled the rest of it
            n = max(n, self.written.get(id(instr.out.root), -1) + 1)
        if instr.in_place:  # nothing from outside is changed before what comes first is checked
            n = max(n, self.checked)
        if instr.in_place or instr.out.base is not None:
            for reader, direct in self.read.get(id(instr.out.root), {}).items():
                item = self.items[reader]
                n = max(n, reader if direct and isinstance(item, Loop) and item.shape == shape else reader + 1)
        return n


def needed_outside(items: Sequence[Item], outputs: Sequence[Var]) -> set[int]:
    """Ids of answers that are read by another item than the one that computes them, through a view, or returned."""
    needed = {id(v) for v in outputs}
    owners = {id(v.root) for v in outputs}
    for item in items:
        if isinstance(item, Loop):
            inner = {id(r.out) for r in item.rows}
            outside = [v for r in [*item.rows, *item.reductions] for v in r.vars if id(v) not in inner]
        else:
            outside = list(item.use(set()).reads)
        owners |= {id(v.root) for v in outside}
    for item in items:
        if isinstance(item, Loop):
            needed |= {id(r.out) for r in item.rows if id(r.out.root) in owners or r.in_place or r.out.base is not None}
    return needed
