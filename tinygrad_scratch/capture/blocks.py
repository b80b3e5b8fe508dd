"""Steps over many rows (the examples of a batch), done for some hundred rows at a time, from their forward to their backward pass.

A product over a large batch reads it from memory, and so does the product that makes the weight's gradient; what lies
between them is written to memory and read again. Here items that need nothing of a row but what lies in that row are done
together for a block of rows that the cache holds. What is needed of a block alone has memory for a block alone; sums
over the rows, gradients among them, are added up as the blocks go by. Threads share the blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tinygrad_scratch._team import MOST
from tinygrad_scratch.capture.kernels import PIECES, Kernel
from tinygrad_scratch.capture.lower import LEAST_ROWS, Item, Loop, Product, can_be_joined
from tinygrad_scratch.capture.memory import Memory, Use, lay_out
from tinygrad_scratch.capture.recording.trace import Instr, Var
from tinygrad_scratch.capture.simplify import Scatter, reduced_axes, scratch, strides_along

LEAST_BYTES = 1 << 23  # that the rows have in all arrays: more than caches near a core hold
BLOCK_BYTES = 3 << 19  # of a block's rows in all arrays
WORTH = 4  # how many times the bytes of all pieces' sums the rows must have
MOST_ITEMS = 64  # looked at for one group: compiling takes more than twice as long for twice as much


@dataclass(eq=False)
class Blocks:
    """Items that are done for one block of rows after the other."""

    items: list[Item]
    rows: int
    height: int  # rows of a block, at most
    pieces: int
    local: dict[int, Var]  # owners of which a block's rows are enough, by id
    memory: Memory  # where each of them lies
    room: Var  # that memory, for each thread
    partial: dict[int, Var]  # by the id of a sum over rows: memory for that of each piece

    def use(self, kept: set[int]) -> Use:
        """What it reads and writes outside of a block."""
        uses = [item.use(kept) for item in self.items]
        reads = [v for use in uses for v in use.reads if id(v.root) not in self.local]
        writes = [v for use in uses for v in use.writes if id(v) not in self.local]
        return Use([*reads, *self.partial.values()], [*writes, *self.partial.values()])


Program = Sequence[Item | Blocks]


def arrange(items: Sequence[Item], kept: set[int], outputs: Sequence[Var]) -> list[Item | Blocks]:
    """The items, in blocks where that is worth it.

    Beside blocks and convolutions, and where there are no products, threads share all that is large: BLAS's own, once woken,
    look for more products on the same cores for a while.
    """
    program = _in_blocks(list(items), _Step(items, kept, outputs))
    shared = any(isinstance(item, Blocks) or (isinstance(item, Kernel) and item.pieces > 1) for item in program)
    if shared or not any(isinstance(item, Product) for item in program):
        share(program)
    return program


def share(program: Program) -> None:
    """Have threads share large loops and products."""
    for item in program:
        if isinstance(item, (Loop, Product)):
            item.share()


def _in_blocks(items: list[Item], step: "_Step") -> list[Item | Blocks]:
    program: list[Item | Blocks] = []
    start = 0
    while start < len(items):
        group = _Group(items, start, step)
        blocks = group.blocks()
        if blocks is None:
            program.append(items[start])
            start += 1
        else:  # what had to wait may go together after it
            program += [*group.before, blocks, *_in_blocks(group.after, step)]
            start = group.stop
    return program


# -- what an item needs of rows ----------------------------------------------------------------------------------------


@dataclass
class Touch:
    """Owners (by id) that an item touches: in the row that it is at, or elsewhere too; and those that it writes."""

    row: dict[int, Var] = field(default_factory=dict)
    whole: set[int] = field(default_factory=set)
    written: set[int] = field(default_factory=set)  # row by row
    sums: dict[int, Var] = field(default_factory=dict)  # over the rows

    def reads(self, var: Var, axis: int, rows: int) -> None:
        """Note a read of an array, whose `axis` runs along the rows; -1 if none does."""
        if axis >= 0 and lies_by_row(var, axis, rows):
            self.row[id(var.root)] = var.root
        else:
            self.whole.add(id(var.root))

    def writes(self, var: Var, axis: int, rows: int) -> bool:
        """Note a write; False if other rows' memory would be written."""
        self.row[id(var.root)] = var.root
        self.written.add(id(var.root))
        return var.root.kind == "answer" and lies_by_row(var, axis, rows)

    def all(self) -> set[int]:
        return self.row.keys() | self.whole | self.sums.keys()

    def answers(self) -> set[int]:
        """What it writes, row by row or as a sum."""
        return self.written | self.sums.keys()

    def add(self, other: "Touch") -> None:
        """Touch what another does, too."""
        self.row |= other.row
        self.whole |= other.whole
        self.written |= other.written
        self.sums |= other.sums


def lies_by_row(var: Var, axis: int, rows: int) -> bool:
    """Whether an array has, at index i of `axis`, nothing but what lies in the i-th of `rows` equal parts of its owner's memory."""
    size, strides = var.root.array.size, var.strides
    if size % rows or not strides or var.shape[axis] != rows or min(strides) < 0 or strides[axis] != size // rows:
        return False
    others = [(n - 1) * s for k, (n, s) in enumerate(zip(var.shape, strides, strict=True)) if k != axis]
    return var.offset + sum(others) < size // rows


def touch(item: Item, rows: int, kept: set[int]) -> Touch | None:
    """What an item touches, if it can be done for some of the rows at a time."""
    if isinstance(item, Loop):
        return _of_loop(item, rows, kept)
    return _of_product(item, rows) if isinstance(item, Product) else None


def _of_loop(loop: Loop, rows: int, kept: set[int]) -> Touch | None:
    made, inner = Touch(), {id(r.out) for r in loop.rows}
    if loop.shape[:1] != (rows,) or 0 in loop.shape:
        return None
    for row in [*loop.rows, *loop.reductions]:
        gathers = row.op.__name__ == "gather"
        if gathers and not all(row.options["certain"]):
            return None  # a bad index ends the step, which a piece of a job cannot
        for n, var in enumerate(row.vars):
            if gathers and not n:
                along = row.options["before"] or _counts_rows(row, loop)
                made.reads(var, 0 if along else -1, rows)
            elif id(var) not in inner:
                made.reads(var, 0 if len(var.shape) == len(loop.shape) else -1, rows)
    for row in loop.rows:
        if (row.in_place or id(row.out) in kept) and not made.writes(row.out, 0, rows):
            return None
    for row in loop.reductions:
        axes, ndim = reduced_axes(row, len(loop.shape)), len(loop.shape)
        if 0 in axes:
            if not can_be_joined(row.out):
                return None
            made.sums[id(row.out)] = row.out
        elif axes != set(range(ndim - len(axes), ndim)) or not made.writes(row.out, 0, rows):
            return None
    return made


def _counts_rows(gather: Instr, loop: Loop) -> bool:
    """Whether the first index is the number of the row."""
    return gather.options["certain"][0] == "counted" and strides_along(gather.inputs[1], loop.shape)[0] != 0


def _of_product(product: Product, rows: int) -> Touch | None:
    made, a, b, out = Touch(), product.a, product.b, product.out
    if product.into is not None:
        return None
    if a.shape[0] == rows:
        made.reads(a, 0, rows)
        made.reads(b, -1, rows)
        return made if made.writes(out, 0, rows) else None
    if a.shape[1] != rows or out.base is not None or out.dtype.kind != "f":
        return None
    made.reads(a, 1, rows)
    made.reads(b, 0, rows)
    made.sums[id(out)] = out
    return made


# -- which items go together -------------------------------------------------------------------------------------------


class _Step:
    """All items of a step, and what each touches, found out once."""

    def __init__(self, items: Sequence[Item], kept: set[int], outputs: Sequence[Var]):
        self.items, self.kept = items, kept
        self.returned = {id(v.root) for v in outputs}
        self.uses = {id(item): _reads_and_writes(item, kept) for item in items}
        self._touches: dict[tuple[int, int], Touch | None] = {}

    def touch(self, item: Item, rows: int) -> Touch | None:
        key = id(item), rows
        if key not in self._touches:
            self._touches[key] = touch(item, rows, self.kept)
        return self._touches[key]

    def needed_by_others(self, some: Sequence[Item]) -> set[int]:
        """Ids of the owners that are returned, or that any item but these touches."""
        needed, own = set(self.returned), set(map(id, some))
        for item in self.items:
            if id(item) not in own:
                reads, writes, _ = self.uses[id(item)]
                needed |= reads | writes
        return needed


class _Group:
    """Items from `start` on that go together; of the others among them, those that can be done before, and those that can after."""

    def __init__(self, items: list[Item], start: int, step: _Step):
        self.items: list[Item] = []
        self.step = step
        self.before: list[Item] = []
        self.after: list[Item] = []
        self.touched = Touch()
        self.stop, self.rows = start, _rows_of(items[start])
        if self.rows >= LEAST_ROWS and step.touch(items[start], self.rows) is not None:
            self._collect(items[start : start + MOST_ITEMS])

    def _collect(self, items: list[Item]) -> None:
        late_reads: set[int] = set()
        late_writes: set[int] = set()
        for item in items:
            reads, writes, answers = self.step.uses[id(item)]
            free = not (reads & late_writes or writes & (late_reads | late_writes))
            made = self.step.touch(item, self.rows)
            if made is not None and free and self._fits(made):
                self.items.append(item)
                self.touched.add(made)
            elif not answers:
                return
            elif free and not (reads & self.touched.answers() or writes & self.touched.all()):
                self.before.append(item)
            else:
                self.after.append(item)
                late_reads |= reads
                late_writes |= writes
            self.stop += 1

    def _fits(self, made: Touch) -> bool:
        """Whether nothing is needed of a row before its block is done, or changed while other blocks need it."""
        return not (
            made.whole & self.touched.answers()
            or made.row.keys() & self.touched.sums.keys()
            or made.written & self.touched.whole
        )

    def blocks(self) -> Blocks | None:
        """The blocks, if they are worth it: more rows than the caches hold, read more than once, for sums that they do hold."""
        width = sum(v.array.nbytes for v in self.touched.row.values()) // max(self.rows, 1)
        pieces = min(PIECES, self.rows)
        sums = pieces * sum(v.array.nbytes for v in self.touched.sums.values())
        if len(self.items) < 2 or not width or self.rows * width < max(LEAST_BYTES, WORTH * sums):
            return None
        needed = self.step.needed_by_others(self.items)
        local = {key: v for key, v in self.touched.row.items() if key in self.touched.written and key not in needed}
        height = max(1, min(BLOCK_BYTES // width, -(-self.rows // pieces)))
        memory, parts = _lay_out(self.items, local, height, self.rows, self.step.kept)
        room = scratch("uint8", MOST, memory.starts()[-1])
        memory.place = {key: memory.place[id(part)] for key, part in parts.items()}
        return Blocks(self.items, self.rows, height, pieces, local, memory, room, self._partial(pieces))

    def _partial(self, pieces: int) -> dict[int, Var]:
        """Memory for the sums of each piece; for a product's with the longer side along memory, which BLAS adds to faster."""
        partial: dict[int, Var] = {}
        for item in self.items:
            if isinstance(item, Loop):
                sums = [r.out for r in item.reductions if id(r.out) in self.touched.sums]
                item.partial = {id(out): scratch(out.dtype, pieces, out.array.size) for out in sums}
                partial |= item.partial
            elif isinstance(item, Product) and id(item.out) in self.touched.sums:
                partial[id(item.out)] = scratch(item.out.dtype, pieces, *sorted(item.out.shape))
        return partial


def _rows_of(item: Item) -> int:
    if isinstance(item, Loop):
        return item.shape[0] if item.shape else 0
    if isinstance(item, Product):
        return item.a.shape[0] if item.a.shape[0] >= LEAST_ROWS else item.a.shape[1]
    return 0


def _reads_and_writes(item: Item, kept: set[int]) -> tuple[set[int], set[int], bool]:
    """Ids of the owners that an item reads, and writes; and whether these are answers of the step, all of them."""
    use = item.use(kept)
    written: list[Any] = list(use.writes)
    if isinstance(item, Loop):
        written += [r.out for r in item.rows if r.in_place]
    elif isinstance(item, Product) and item.into is not None:
        written.append(item.into)
    elif isinstance(item, Scatter):
        written.append(item.out)
    return {id(v.root) for v in use.reads}, {id(v.root) for v in written}, all(v.root.kind == "answer" for v in written)


def _lay_out(
    items: list[Item], local: dict[int, Var], height: int, rows: int, kept: set[int]
) -> tuple[Memory, dict[int, Var]]:
    """Memory for one block's rows of what is local, and the Var that stands for each there."""
    parts = {key: scratch(v.dtype, height, v.array.size // rows) for key, v in local.items()}
    uses = []
    for item in items:
        use = item.use(kept)
        reads = [parts[id(v.root)] for v in use.reads if id(v.root) in parts]
        uses.append(Use(reads, [parts[id(v.root)] for v in use.writes if id(v.root) in parts]))
    return lay_out(uses, ()), parts
