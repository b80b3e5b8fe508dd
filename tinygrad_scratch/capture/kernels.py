"""Convolution and pooling in the compiled back end: which rows they are, the memory they work in, the calls that do them.

A convolution takes a bias and a ReLU that follow it along, while its answer is in cache. Threads share the images of a call.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_scratch._team import MOST
from tinygrad_scratch._typing import Shape
from tinygrad_scratch.capture.memory import Use
from tinygrad_scratch.capture.recording.trace import Instr, Var
from tinygrad_scratch.capture.simplify import Named, Unsupported, c_strides, copied, readers_of, scratch
from tinygrad_scratch.ops.convolution import leading, turned_windows
from tinygrad_scratch.ops.windows import Windows, pooling, windows

if TYPE_CHECKING:
    from tinygrad_scratch.capture.emit_numba import Emitter


@dataclass(eq=False)
class Kernel:
    """A row that is a call of ``runtime_windows``; ``scratch`` is memory that it needs meanwhile."""

    name: str
    inputs: list[Var]
    out: Var
    options: dict[str, Any]
    phase: str
    copies: list[Instr] = field(default_factory=list)  # to be made before
    scratch: list[Var] = field(default_factory=list)
    pieces: int = 1  # that threads do it in

    def use(self, kept: set[int]) -> Use:
        return Use([*self.inputs, *self.scratch, self.out], [self.out.root, *self.scratch])

    def room(self, *shape: int) -> None:
        """More memory, in the answer's dtype."""
        self.scratch.append(scratch(self.out.dtype, *shape))

    def in_order(self, n: int) -> Var:
        """Input n in C order: itself, or a copy."""
        if self.inputs[n].strides != c_strides(self.inputs[n].shape):
            self.inputs[n] = copied(self.inputs[n], self, self.copies)
        return self.inputs[n]


def as_kernel(instr: Instr) -> Kernel:
    """The kernel of a row. Unsupported for dtypes that differ, or that BLAS does not know."""
    kernel = Kernel(instr.op.__name__, list(instr.vars), instr.out, dict(instr.options), instr.phase)
    if any(v.dtype != instr.out.dtype for v in instr.vars) or instr.out.dtype not in (np.float32, np.float64):
        raise Unsupported(f"{kernel.name} of {', '.join(str(v.dtype) for v in instr.vars)}")
    if instr.out.strides != c_strides(instr.out.shape):
        raise Unsupported(f"{kernel.name} into memory of another order")
    KERNELS[kernel.name](kernel)
    return kernel


# -- pieces and memory -------------------------------------------------------------------------------------------------

PIECES = 16  # enough that a thread that comes late, or whose core is slow for a while, does fewer
_SUMS = 4  # of a sum over images: each piece has memory of its own
LEAST = {"elements": 1 << 16, "multiply-adds": 1 << 21}
"""Work that is shared, of passes over memory and of products: from some 20 us on, for sharing costs one or two."""


def pieces_of(count: int, work: int, unit: str = "elements") -> int:
    """In how many pieces threads share `count` equal parts of some work; 1 if it is too little.

    It depends on shapes alone, never on the number of threads, so that bits do not.
    """
    return max(1, min(count, PIECES)) if work >= LEAST[unit] else 1


def _steps(kernel: Kernel) -> list[Any]:
    options = kernel.options
    return [options.get("stride", 1), options.get("padding", 0), options.get("dilation", 1)]


def _convolution(kernel: Kernel, x: Shape, weight: Shape, at: Windows) -> None:
    """Plan the memory for one image of shape `x` (N, C, H, W) for each thread."""
    kernel.pieces = pieces_of(x[0], x[0] * prod(weight) * prod(at.out), "multiply-adds")
    kernel.options["at"], kernel.options["channels"] = at, x[1]
    kernel.options["direct"] = at.kernel == at.stride == (1, 1) and not at.padded
    if not kernel.options["direct"]:
        threads = MOST if kernel.pieces > 1 else 1
        kernel.room(threads, x[1], *_whole(at))
        kernel.room(threads, x[1] * prod(at.kernel), leading(prod(at.out), kernel.out.dtype.itemsize))


def _at(kernel: Kernel, x: Shape, weight: Shape) -> Windows:
    return windows(x[2:], weight[2:], *_steps(kernel))


def _conv2d(kernel: Kernel) -> None:
    x, w = kernel.inputs[0].shape, kernel.in_order(1).shape
    _convolution(kernel, x, w, _at(kernel, x, w))
    if kernel.options["direct"]:
        kernel.in_order(0)


def _conv2d_input(kernel: Kernel) -> None:
    """As a convolution with the weight turned, which copies where the transpose of one adds, if it copies no more than that."""
    g, w, x = kernel.in_order(0), kernel.in_order(1), kernel.out.shape
    at = _at(kernel, x, w.shape)
    full = turned_windows(at)
    if full is None or w.shape[0] // kernel.options.get("groups", 1) > w.shape[1]:
        _convolution(kernel, x, w.shape, at)
    else:
        kernel.name = "conv2d_turned"
        _convolution(kernel, g.shape, w.shape, full)
        kernel.room(*w.shape)


def _conv2d_weight(kernel: Kernel) -> None:
    kernel.in_order(0)
    x, w = kernel.inputs[1].shape, kernel.out.shape
    _convolution(kernel, x, w, _at(kernel, x, w))
    if kernel.options["direct"]:
        kernel.in_order(1)
    kernel.pieces = min(kernel.pieces, _SUMS)
    kernel.room(kernel.pieces, kernel.out.array.size)


def _pool(kernel: Kernel) -> None:
    for n in range(len(kernel.inputs)):
        kernel.in_order(n)
    kernel.pieces = pieces_of(prod(kernel.out.shape[:-2]), kernel.inputs[-1].array.size)
    kernel.options["at"] = pooling(
        kernel.inputs[-1].shape,
        *(kernel.options.get(k, v) for k, v in (("kernel_size", 1), ("stride", None), ("padding", 0), ("dilation", 1))),
    )


def _fold2d(kernel: Kernel) -> None:
    g = kernel.in_order(0)
    kernel.pieces = pieces_of(prod(kernel.out.shape[:-2]), g.array.size)
    kernel.options["at"] = windows(kernel.out.shape[-2:], g.shape[-4:-2], *_steps(kernel))


def _whole(at: Windows) -> tuple[int, int]:
    return tuple(n + b + a for n, b, a in zip(at.size, at.before, at.after, strict=True))  # type: ignore[return-value]


# -- calls -------------------------------------------------------------------------------------------------------------


def write(kernel: Kernel, emitter: "Emitter") -> None:
    """Write the call of a kernel."""
    if kernel.name == "conv2d_turned":
        _write_turning(kernel, emitter)
    with emitter.job(kernel.pieces):
        WRITERS[kernel.name](kernel, emitter)
    if kernel.name == "conv2d_weight":
        _write_sums(kernel, emitter)


def _numbers(kernel: Kernel) -> str:
    """The tuple that ``runtime_windows`` calls `at`."""
    at: Windows = kernel.options["at"]
    lead = leading(prod(at.out), kernel.out.dtype.itemsize)
    sizes = (*at.size, *at.kernel, *at.stride, *at.dilation, *at.before, *_whole(at), *at.out, lead)
    return _integers(kernel.options.get("channels", 1), *sizes)


def _integers(*numbers: int) -> str:
    """A tuple of integers of the machine: one of literals would have the callee compiled for these very numbers."""
    return f"({_plain(*numbers)})"


def _plain(*numbers: int) -> str:
    return ", ".join(f"i64({int(n)})" for n in numbers)


def _where(emitter: "Emitter", var: Var) -> str:
    return f"{emitter.pointer(var)}, i64({var.offset})"


def _one(kernel: Kernel) -> str:
    return "f32(1.0)" if kernel.out.dtype == np.float32 else "f64(1.0)"


def _images(kernel: Kernel, emitter: "Emitter", out: int) -> tuple[str, str]:
    """(scratch memory, the sizes) that all convolutions, to so many channels, are called with."""
    groups = kernel.options.get("groups", 1)
    sizes = f"{_plain(groups, out // groups)}, {_numbers(kernel)}, {_plain(kernel.options['direct'])}"
    if kernel.options["direct"]:  # then there is none, and any pointer will do
        return f"{_where(emitter, kernel.inputs[0])}, {_where(emitter, kernel.inputs[0])}", sizes
    return ", ".join(emitter.own(v, "place") for v in kernel.scratch[:2]), sizes


def _strides(var: Var) -> str:
    return _integers(*(var.strides or ()))


def _write_conv2d(kernel: Kernel, e: "Emitter") -> None:
    x, w = kernel.inputs[:2]
    rooms, sizes = _images(kernel, e, w.shape[0])
    bias = kernel.inputs[2] if len(kernel.inputs) > 2 else w
    arrays = f"{_where(e, x)}, {_strides(x)}, {_where(e, w)}, {_where(e, bias)}, {_where(e, kernel.out)}, {rooms}"
    along = _plain(bias is not w, kernel.options.get("relu", False))
    e.write(0, f"conv2d({arrays}, {e.range(x.shape[0])}, {sizes}, {along}, {_one(kernel)})")


def _write_conv2d_input(kernel: Kernel, e: "Emitter") -> None:
    g, w = kernel.inputs
    rooms, sizes = _images(kernel, e, w.shape[0])
    arrays = f"{_where(e, g)}, {_where(e, w)}, {_where(e, kernel.out)}, {rooms}"
    e.write(0, f"conv2d_input({arrays}, {e.range(g.shape[0])}, {sizes}, {_one(kernel)})")


def _write_turning(kernel: Kernel, e: "Emitter") -> None:
    w, groups = kernel.inputs[1], kernel.options.get("groups", 1)
    shape = _plain(groups, w.shape[0] // groups, w.shape[1], prod(w.shape[2:]))
    e.write(0, f"turn_weight({_where(e, w)}, {_where(e, kernel.scratch[-1])}, {shape})")


def _write_conv2d_turned(kernel: Kernel, e: "Emitter") -> None:
    g, w = kernel.inputs[0], kernel.scratch[-1]
    groups = kernel.options.get("groups", 1)
    rooms, sizes = _images(kernel, e, w.shape[1] * groups)
    arrays = f"{_where(e, g)}, {_strides(g)}, {_where(e, w)}, {_where(e, w)}, {_where(e, kernel.out)}, {rooms}"
    e.write(0, f"conv2d({arrays}, {e.range(g.shape[0])}, {sizes}, {_plain(0, 0)}, {_one(kernel)})")


def _write_conv2d_weight(kernel: Kernel, e: "Emitter") -> None:
    g, x = kernel.inputs
    rooms, sizes = _images(kernel, e, kernel.out.shape[0])
    arrays = f"{_where(e, g)}, {_where(e, x)}, {_strides(x)}, {e.own(kernel.scratch[-1], 'piece')}, {rooms}"
    e.write(0, f"conv2d_weight({arrays}, {e.range(g.shape[0])}, {sizes}, {_one(kernel)})")


def _write_sums(kernel: Kernel, e: "Emitter") -> None:
    groups = kernel.options.get("groups", 1)
    shape = _plain(kernel.pieces, groups, prod(kernel.out.shape[1:]), kernel.out.shape[0] // groups)
    e.write(0, f"turn_sums({_where(e, kernel.scratch[-1])}, {_where(e, kernel.out)}, {shape})")


def _write_pool(kernel: Kernel, e: "Emitter") -> None:
    arrays = ", ".join(_where(e, v) for v in [*kernel.inputs, kernel.out])
    ones = f", {_one(kernel)}" if len(kernel.inputs) > 1 else ""
    lowest = _one(kernel).replace("1.0", "-math.inf")
    e.write(0, f"{kernel.name}({arrays}, {e.range(prod(kernel.out.shape[:-2]))}, {_numbers(kernel)}, {lowest}{ones})")


def _write_fold2d(kernel: Kernel, e: "Emitter") -> None:
    arrays = f"{_where(e, kernel.inputs[0])}, {_where(e, kernel.out)}"
    e.write(0, f"fold2d({arrays}, {e.range(prod(kernel.out.shape[:-2]))}, {_numbers(kernel)}, {_one(kernel)})")


KERNELS: dict[str, Callable[[Kernel], None]] = {
    "conv2d": _conv2d,
    "conv2d_input": _conv2d_input,
    "conv2d_weight": _conv2d_weight,
    "max_pool2d": _pool,
    "max_pool2d_input": _pool,
    "fold2d": _fold2d,
}
"""What plans the memory of a row."""
WRITERS: dict[str, Callable[[Kernel, "Emitter"], None]] = {
    "conv2d": _write_conv2d,
    "conv2d_input": _write_conv2d_input,
    "conv2d_turned": _write_conv2d_turned,
    "conv2d_weight": _write_conv2d_weight,
    "max_pool2d": _write_pool,
    "max_pool2d_input": _write_pool,
    "fold2d": _write_fold2d,
}


# -- what a convolution takes along ------------------------------------------------------------------------------------


def fuse(rows: Sequence[Instr], outputs: Sequence[Var]) -> list[Instr]:
    """conv2d, the bias that is added to it and nothing else's, and a ReLU of that, as one row."""
    if not any(row.op.__name__ == "conv2d" for row in rows):
        return list(rows)
    readers = readers_of(rows)
    kept = {id(v.root) for v in outputs} | {id(r.out.root) for r in rows if r.in_place}
    made: dict[int, Instr] = {}
    for row in rows:
        if row.op.__name__ != "conv2d":
            continue
        taken, x, w = [row], *row.vars
        bias, relu = [], False
        after = _only_reader(row, readers, kept)
        if after is not None and after.op.__name__ == "add" and _is_bias(after, row):
            taken, bias = [*taken, after], [after.inputs[1]]
            after = _only_reader(after, readers, kept)
        if (
            after is not None
            and after.op.__name__ == "maximum"
            and after.inputs[0] is taken[-1].out
            and after.inputs[1] == 0
        ):
            taken, relu = [*taken, after], True
        last = taken[-1]
        made[id(last)] = Instr(Named("conv2d"), [x, w, *bias], {**row.options, "relu": relu}, last.out, row.phase)  # type: ignore[arg-type]
        made.update({id(gone): None for gone in taken[:-1]})  # type: ignore[misc]
    return [made.get(id(row), row) for row in rows if made.get(id(row), row) is not None]


def _only_reader(row: Instr, readers: dict[int, list[Instr]], kept: set[int]) -> Instr | None:
    found = readers.get(id(row.out), [])
    return found[0] if len(found) == 1 and id(row.out) not in kept and row.out.base is None else None


def _is_bias(add: Instr, row: Instr) -> bool:
    """Whether a row adds one number to each channel."""
    y, bias = add.inputs
    same = y is row.out and add.out.shape == row.out.shape and isinstance(bias, Var) and bias.dtype == row.out.dtype
    return same and bias.shape == (row.out.shape[1], 1, 1) and (bias.strides or (0,))[0] == 1
