"""Convolution and pooling in the compiled back end: which rows they are, the memory they work in, the calls that do them.

A convolution takes a bias and a ReLU that follow it along, while its answer is in cache.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_scratch._typing import Shape
from tinygrad_scratch.capture.memory import Use
from tinygrad_scratch.capture.simplify import Named, Unsupported, c_strides, copied, readers_of
from tinygrad_scratch.capture.trace import Instr, Var
from tinygrad_scratch.ops.convolution import leading
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

    def use(self, kept: set[int]) -> Use:
        return Use([*self.inputs, *self.scratch, self.out], [self.out.root, *self.scratch])

    def room(self, *shape: int) -> Var:
        """More memory, in the answer's dtype."""
        local = Var("answer", np.broadcast_to(np.zeros((), self.out.dtype), shape))
        local.strides = c_strides(shape)
        self.scratch.append(local)
        return local

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
    KERNELS[kernel.name][0](kernel)
    return kernel


# -- memory ------------------------------------------------------------------------------------------------------------


def _steps(kernel: Kernel) -> list[Any]:
    options = kernel.options
    return [options.get("stride", 1), options.get("padding", 0), options.get("dilation", 1)]


def _convolution(kernel: Kernel, x: Shape, weight: Shape) -> None:
    """Plan the memory for one image of shape `x` (C, H, W)."""
    at = windows(x[1:], weight[2:], *_steps(kernel))
    kernel.options["at"], kernel.options["channels"] = at, x[0]
    kernel.options["direct"] = at.kernel == at.stride == (1, 1) and not at.padded
    if not kernel.options["direct"]:
        kernel.room(x[0], *_whole(at))
        kernel.room(x[0] * prod(at.kernel), leading(prod(at.out), kernel.out.dtype.itemsize))


def _conv2d(kernel: Kernel) -> None:
    kernel.in_order(1)
    _convolution(kernel, kernel.inputs[0].shape[1:], kernel.inputs[1].shape)
    if kernel.options["direct"]:
        kernel.in_order(0)


def _conv2d_input(kernel: Kernel) -> None:
    kernel.in_order(0)
    kernel.in_order(1)
    _convolution(kernel, kernel.out.shape[1:], kernel.inputs[1].shape)


def _conv2d_weight(kernel: Kernel) -> None:
    kernel.in_order(0)
    _convolution(kernel, kernel.inputs[1].shape[1:], kernel.out.shape)
    if kernel.options["direct"]:
        kernel.in_order(1)
    kernel.room(kernel.out.array.size)


def _pool(kernel: Kernel) -> None:
    for n in range(len(kernel.inputs)):
        kernel.in_order(n)
    kernel.options["at"] = pooling(
        kernel.inputs[-1].shape,
        *(kernel.options.get(k, v) for k, v in (("kernel_size", 1), ("stride", None), ("padding", 0), ("dilation", 1))),
    )


def _fold2d(kernel: Kernel) -> None:
    g = kernel.in_order(0)
    kernel.options["at"] = windows(kernel.out.shape[-2:], g.shape[-4:-2], *_steps(kernel))


def _whole(at: Windows) -> tuple[int, int]:
    return tuple(n + b + a for n, b, a in zip(at.size, at.before, at.after, strict=True))  # type: ignore[return-value]


# -- calls -------------------------------------------------------------------------------------------------------------


def write(kernel: Kernel, emitter: "Emitter") -> None:
    """Write the call of a kernel."""
    KERNELS[kernel.name][1](kernel, emitter)


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


def _images(kernel: Kernel, emitter: "Emitter", weight: Shape) -> tuple[str, str]:
    """(scratch memory, the sizes) that all convolutions are called with."""
    groups = kernel.options.get("groups", 1)
    sizes = f"{_plain(groups, weight[0] // groups)}, {_numbers(kernel)}, {_plain(kernel.options['direct'])}"
    rooms = kernel.scratch[:2] if not kernel.options["direct"] else [kernel.out, kernel.out]
    return ", ".join(_where(emitter, v) for v in rooms), sizes


def _strides(var: Var) -> str:
    return _integers(*(var.strides or ()))


def _write_conv2d(kernel: Kernel, e: "Emitter") -> None:
    x, w = kernel.inputs[:2]
    rooms, sizes = _images(kernel, e, w.shape)
    bias = kernel.inputs[2] if len(kernel.inputs) > 2 else w
    arrays = f"{_where(e, x)}, {_strides(x)}, {_where(e, w)}, {_where(e, bias)}, {_where(e, kernel.out)}, {rooms}"
    along = _plain(bias is not w, kernel.options.get("relu", False))
    e.write(0, f"conv2d({arrays}, {_plain(0, x.shape[0])}, {sizes}, {along}, {_one(kernel)})")


def _write_conv2d_input(kernel: Kernel, e: "Emitter") -> None:
    g, w = kernel.inputs
    rooms, sizes = _images(kernel, e, w.shape)
    arrays = f"{_where(e, g)}, {_where(e, w)}, {_where(e, kernel.out)}, {rooms}"
    e.write(0, f"conv2d_input({arrays}, {_plain(0, g.shape[0])}, {sizes}, {_one(kernel)})")


def _write_conv2d_weight(kernel: Kernel, e: "Emitter") -> None:
    g, x = kernel.inputs
    rooms, sizes = _images(kernel, e, kernel.out.shape)
    sums, groups = _where(e, kernel.scratch[-1]), kernel.options.get("groups", 1)
    arrays = f"{_where(e, g)}, {_where(e, x)}, {_strides(x)}, {sums}, {rooms}"
    e.write(0, f"conv2d_weight({arrays}, {_plain(0, g.shape[0])}, {sizes}, {_one(kernel)})")
    shape = _plain(groups, prod(kernel.out.shape[1:]), kernel.out.shape[0] // groups)
    e.write(0, f"turn_sums({sums}, {_where(e, kernel.out)}, {shape})")


def _write_pool(kernel: Kernel, e: "Emitter") -> None:
    arrays = ", ".join(_where(e, v) for v in [*kernel.inputs, kernel.out])
    ones = f", {_one(kernel)}" if len(kernel.inputs) > 1 else ""
    lowest = _one(kernel).replace("1.0", "-math.inf")
    e.write(0, f"{kernel.name}({arrays}, {_plain(0, prod(kernel.out.shape[:-2]))}, {_numbers(kernel)}, {lowest}{ones})")


def _write_fold2d(kernel: Kernel, e: "Emitter") -> None:
    arrays = f"{_where(e, kernel.inputs[0])}, {_where(e, kernel.out)}"
    e.write(0, f"fold2d({arrays}, {_plain(0, prod(kernel.out.shape[:-2]))}, {_numbers(kernel)}, {_one(kernel)})")


KERNELS: dict[str, tuple[Callable[[Kernel], None], Callable[[Kernel, "Emitter"], None]]] = {
    "conv2d": (_conv2d, _write_conv2d),
    "conv2d_input": (_conv2d_input, _write_conv2d_input),
    "conv2d_weight": (_conv2d_weight, _write_conv2d_weight),
    "max_pool2d": (_pool, _write_pool),
    "max_pool2d_input": (_pool, _write_pool),
    "fold2d": (_fold2d, _write_fold2d),
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
