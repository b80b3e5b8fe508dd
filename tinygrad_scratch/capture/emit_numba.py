"""The compiled back end: items as one function over typed pointers, in plain loops that LLVM turns into vector code."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from tinygrad_scratch._typing import Shape
from tinygrad_scratch.capture import emit_blocks, emit_products, kernels
from tinygrad_scratch.capture.blocks import Blocks, Program
from tinygrad_scratch.capture.emit_loops import LoopWriter, in_bounds, literal
from tinygrad_scratch.capture.kernels import Kernel
from tinygrad_scratch.capture.lower import Item, Product
from tinygrad_scratch.capture.recording.trace import Var
from tinygrad_scratch.capture.simplify import Check, Scatter, Unsupported, strides_along

_POINTERS = frozenset("float32 float64 bool int8 int16 int32 int64 uint8 uint16 uint32 uint64".split())
_TEAM = """@compiled(types.void(types.int64[::1], types.int64, types.int64, types.int64))
def part(table, job, piece, place):
{parts}


@compiled(types.void(types.int64[::1], types.int64))
def helper(table, place):
    {words}
    assist(table, team, place)


"""


class Emitter:
    """Writes the source of a compiled step, and notes which arrays its table of addresses must hold."""

    def __init__(self, items: Program, kept: set[int], inputs: Sequence[Var], places: dict[int, int]):
        self.items, self.kept, self.places = items, kept, places
        self.how_many = 1 + max(places.values(), default=0)
        self.inputs = list(inputs)
        self.table: list[Var] = []  # owners of memory, in the order of the table of addresses
        self.names: dict[int, str] = {}
        self.lines: list[str] = []
        self.jobs: list[list[str]] = []  # what threads share, in pieces
        self.errors: list[Exception] = []  # that the step may end with
        self.pieces = 1  # of what is being written
        self.block: tuple[str, str, int] | None = None  # what is being written is of rows from, to; of so many
        self.depth = self.count = 0
        self.phase = ""

    # -- names and addresses ---------------------------------------------------------------------------------------

    def pointer(self, var: Var) -> str:
        """The name of the pointer to a Var's owner."""
        owner = var.root
        if id(owner) not in self.names:
            if str(owner.dtype) not in _POINTERS:
                raise Unsupported(f"dtype {owner.dtype}")
            self.names[id(owner)] = f"p_{owner.name}" if owner.name else self.fresh("local")
            if owner not in self.inputs:
                self.table.append(owner)
        return self.names[id(owner)]

    def get(self, var: Var, place: str) -> str:
        """A read of one element of a Var's owner."""
        return f"get({self.pointer(var)}, {place}, {self.place(var)})"

    def put(self, var: Var, place: str, value: str) -> str:
        """A write of one element of a Var's owner."""
        return f"put({self.pointer(var)}, {place}, {value}, {self.place(var)})"

    def place(self, var: Var) -> int:
        """Where its owner lies, for the compiler: owners of different numbers share no memory; 0 if that is not known."""
        number = self.places.get(id(var.root))
        return 0 if number is None else number + 1000 * self.how_many

    def fresh(self, stem: str = "v") -> str:
        self.count += 1
        return f"{stem}{self.count}"

    def write(self, depth: int, line: str) -> None:
        self.lines.append("    " * (self.depth + depth + 1) + line)

    # -- what threads share ----------------------------------------------------------------------------------------

    @contextmanager
    def job(self, pieces: int) -> Iterator[None]:
        """What is written meanwhile is done piece by piece: it knows the number of its `piece`, and of its thread (`place`)."""
        if pieces == 1:
            yield
            return
        outside, self.lines, self.pieces = self.lines, [], pieces
        yield
        self.jobs.append(self.lines)
        self.lines, self.pieces = outside, 1
        self.write(0, f"together(table, team, i64({len(self.jobs) - 1}), i64({pieces}))")

    def own(self, var: Var, number: str) -> str:
        """The pointer to scratch memory, and where the part of the `piece`, or of the thread at its `place`, begins."""
        return f"{self.pointer(var)}, {number if self.pieces > 1 else 0} * i64({int(np.prod(var.shape[1:]))})"

    def bounds(self, count: int) -> tuple[str, str]:
        """The first of `count` things that are to be done, and the one after the last; in a block, so many of each row."""
        if self.block is not None:
            first, last, rows = self.block
            each = count // rows
            return (first, last) if each == 1 else (f"{first} * {each}", f"{last} * {each}")
        if self.pieces == 1:
            return "i64(0)", f"i64({count})"
        return f"(piece * i64({count}) // i64({self.pieces}))", f"((piece + 1) * i64({count}) // i64({self.pieces}))"

    def range(self, count: int) -> str:
        """Its bounds, as two arguments."""
        return ", ".join(self.bounds(count))

    def team(self) -> str:
        """The source of what does a piece of a job, and of what threads do that come to help; none without jobs."""
        if not self.jobs:
            return ""
        parts = []
        for number, job in enumerate(self.jobs):
            parts.append(f"    {'elif' if number else 'if'} job == {number}:")
            parts += [f"    {line}" for line in [*self.addresses(job), *job]]
        return _TEAM.format(parts="\n".join(parts), words=self.words())

    def words(self) -> str:
        return f"team = p_int64(table.ctypes.data + {8 * self.table_size})"

    @property
    def table_size(self) -> int:
        """How many addresses the table holds; a team's words follow, a line of the cache after them."""
        return len(self.table) + len(self.inputs) + 8

    def addresses(self, lines: Sequence[str]) -> list[str]:
        """Lines that read from the table the pointers that other lines use."""
        used = {word for line in lines for word in re.findall(r"\w+", line)}
        owners = [*self.table, *self.inputs]
        named = [(self.names.get(id(v), ""), v, n) for n, v in enumerate(owners)]
        return [f"    {name} = p_{v.dtype}(table[{n}])" for name, v, n in named if name in used]

    # -- items -----------------------------------------------------------------------------------------------------

    def body(self) -> None:
        """Write all items; then the table of addresses is known."""
        for item in self.items:
            if isinstance(item, Blocks):
                emit_blocks.write(item, self)
            else:
                self.item(item)

    def item(self, item: Item) -> None:
        """Write one item, below a line that says to what part of the step it belongs."""
        if item.phase != self.phase:
            self.phase = item.phase
            self.write(0, f"# {item.phase}")
        if isinstance(item, Check):
            self.check(item)
        elif isinstance(item, Scatter):
            self.scatter(item)
        elif isinstance(item, Product):
            emit_products.write(item, self)
        elif isinstance(item, Kernel):
            kernels.write(item, self)
        else:
            LoopWriter(self, item).write()

    def function(self, name: str, direct: bool) -> str:
        """The source of the step: of its inputs themselves (`direct`), or with their addresses at the table's end."""
        lines = []
        for n in range(len(self.inputs)) if direct else ():
            lines.append(f"    table[{len(self.table) + n}] = a_{n}.ctypes.data")
        lines += self.addresses(self.lines)
        if self.jobs:
            lines.append(f"    {self.words()}")
        arguments = "".join(f", a_{n}" for n in range(len(self.inputs))) if direct else ""
        return "\n".join([f"def {name}(table{arguments}):", *lines, *self.lines, "    return 0", ""])

    def check(self, item: Check) -> None:
        """The step ends with a number where a value is out of range: of labels how many classes there are, else from -2 down,
        which of the errors is to be raised."""
        var, terms, depth = item.values, [str(item.values.offset)], 0
        if item.error is None:
            upper, code = f"< {int(item.high)}", int(item.high)
        else:
            self.errors.append(item.error)
            upper, code = f"<= {literal(item.high, var.dtype)}", -1 - len(self.errors)
        lower = literal(item.low, var.dtype) if item.error is not None else "0"
        strides: Any = var.strides
        for n, stride in zip(var.shape, strides, strict=True):
            terms.append(f"{self.fresh('k')} * {stride}")
            self.write(depth, f"for {terms[-1].split()[0]} in range({n}):")
            depth += 1
        self.write(depth, f"if not {lower} <= {self.get(var, ' + '.join(terms))} {upper}:")
        self.write(depth + 1, f"return {code}")

    def scatter(self, item: Scatter) -> None:
        """Sums in the order of the values, which is that of ``np.add.at``."""
        values, out, shape = item.values, item.out, item.values.shape
        names, found = [self.fresh("k") for _ in shape], [self.fresh() for _ in item.indices]
        last = item.before + len(item.indices)
        known = len(shape) - (len(out.shape) - last)  # the depth from which the indices are
        for depth in range(len(shape) + 1):
            if depth == known:
                for index, where, n in zip(item.indices, found, out.shape[item.before :], strict=False):
                    for line in in_bounds(where, self.get(index, _place(index, names, shape)), n):
                        self.write(depth, line)
            if depth < len(shape):
                self.write(depth, f"for {names[depth]} in range({shape[depth]}):")
        place = _place(out, [*names[: item.before], *found, *names[known:]], out.shape)
        value = self.get(values, _place(values, names, shape))
        self.write(len(shape), self.put(out, place, f"{self.get(out, place)} + {value}" if item.adds else value))


def _place(var: Var, names: list[str], shape: Shape) -> str:
    """Where the element of a Var lies that loops of these names over `shape` are at."""
    terms = [f"{name} * {stride}" for name, stride in zip(names, strides_along(var, shape), strict=True) if stride]
    return " + ".join([*terms, str(var.offset)])
