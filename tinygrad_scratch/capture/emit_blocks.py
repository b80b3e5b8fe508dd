"""Blocks of rows in the compiled back end: a loop over blocks around the code of their items."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from typing import TYPE_CHECKING

from tinygrad_scratch.capture import emit_products
from tinygrad_scratch.capture.blocks import Blocks
from tinygrad_scratch.capture.emit_loops import join, literal, unit_of
from tinygrad_scratch.capture.lower import Loop, Product
from tinygrad_scratch.capture.recording.trace import Var

if TYPE_CHECKING:
    from tinygrad_scratch.capture.emit_numba import Emitter


def write(blocks: Blocks, e: "Emitter") -> None:
    """A job: each piece goes through its blocks, and adds up its own sums; then the sums of all pieces."""
    sums = list(_sums(blocks))
    with e.job(blocks.pieces):
        for out, _, unit in sums:
            partial, z = blocks.partial[id(out)], e.fresh("z")
            e.write(0, f"for {z} in range({out.array.size}):")
            e.write(1, e.put(partial, f"piece * {out.array.size} + {z}", unit))
        with _each_block(blocks, e):
            for item in blocks.items:
                if isinstance(item, Product) and id(item.out) in blocks.partial:
                    emit_products.add(item, blocks.partial[id(item.out)], e)
                else:
                    e.item(item)
    for out, name, _ in sums:
        join(e, out, name, blocks.partial[id(out)], blocks.pieces)


def _sums(blocks: Blocks) -> Iterator[tuple[Var, str, str]]:
    """What is summed over rows, by which reduction, and what that starts from."""
    for item in blocks.items:
        if isinstance(item, Product) and id(item.out) in blocks.partial:
            yield item.out, "sum", literal(0, item.out.dtype)
        elif isinstance(item, Loop):
            yield from ((r.out, r.op.__name__, unit_of(r)) for r in item.reductions if id(r.out) in blocks.partial)


@contextmanager
def _each_block(blocks: Blocks, e: "Emitter") -> Iterator[None]:
    """What is written meanwhile is done for the rows of one block after the other."""
    count = ceil(ceil(blocks.rows / blocks.pieces) / blocks.height)
    start, stop, block, first, last = (e.fresh(stem) for stem in ("start", "stop", "block", "first", "last"))
    for name, bound in zip((start, stop), e.bounds(blocks.rows), strict=True):
        e.write(0, f"{name} = {bound}")
    e.write(0, f"for {block} in range({count}):")
    e.write(1, f"{first} = {start} + {block} * ({stop} - {start}) // {count}")
    e.write(1, f"{last} = {start} + ({block} + 1) * ({stop} - {start}) // {count}")
    e.depth, e.block = 1, (first, last, blocks.rows)
    _point(blocks, first, e)
    yield
    e.depth, e.block = 0, None


def _point(blocks: Blocks, first: str, e: "Emitter") -> None:
    """Pointers to what is local: to where row 0 would lie, if there were memory for more than the block."""
    e.pointer(blocks.room)
    slot, starts = e.table.index(blocks.room), blocks.memory.starts()
    for key, var in blocks.local.items():
        width = var.array.nbytes // blocks.rows
        e.names[key] = f"p_{var.name}" if var.name else e.fresh("local")
        place = f"place * {starts[-1]} + {starts[blocks.memory.place[key]]} - {first} * {width}"
        e.write(0, f"{e.names[key]} = p_{var.dtype}(table[{slot}] + {place})")
