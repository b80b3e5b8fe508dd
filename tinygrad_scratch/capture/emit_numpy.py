"""The NumPy back end: a plan written as straight-line, readable NumPy, one line a row, every answer into its own buffer."""

import re
from typing import Any

import numpy as np

from tinygrad_scratch.capture.recording.trace import Instr, Var
from tinygrad_scratch.capture.rewrite import CHECKS
from tinygrad_scratch.ops.indexing import ARRAY
from tinygrad_scratch.registry import ANSWERS, Op

REDUCE = {
    "sum": "add",
    "prod": "multiply",
    "max": "maximum",
    "min": "minimum",
    "any": "logical_or",
    "all": "logical_and",
}
VIEWS = frozenset(
    "reshape transpose swapaxes moveaxis expand_dims squeeze flip getitem broadcast_to check_labels check_range".split()
)

HELPERS = {
    "check_labels": '''def check_labels(labels, classes):
    """IndexError unless every label is one of the classes."""
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        raise IndexError(f"a label is out of bounds: there are {classes} classes, 0 to {classes - 1}")
    return labels
''',
    "check_range": '''def check_range(values, low, high, message, kind=ValueError):
    """An error of that kind unless all values lie from low to high."""
    if values.size and not (values.min() >= low and values.max() <= high):
        raise kind(message)
    return values
''',
}
"""Functions that a source may need beside NumPy's."""


def is_view(instr: Instr) -> bool:
    """Whether the answer shows memory that lies elsewhere, so that it need not be computed again while that stays."""
    return instr.out.base is not None


def literal(x: Any) -> str:
    """Python for a number, or for an option of a row."""
    if isinstance(x, np.ndarray):
        return f"np.array({literal(x.tolist())}, {str(x.dtype)!r})"
    if isinstance(x, np.generic):  # which counts in NumPy's promotion, as a Python number does not
        return f"np.{x.dtype}({literal(x.item())})"
    if isinstance(x, (tuple, list)):
        inner = ", ".join(map(literal, x)) + "," * (type(x) is tuple and len(x) == 1)
        return f"({inner})" if isinstance(x, tuple) else f"[{inner}]"
    if isinstance(x, float) and not np.isfinite(x):
        return f"float({str(x)!r})"
    return repr(str(x)) if isinstance(x, np.dtype) else repr(x)


class Writer:
    """Writes expressions and statements for one plan; collects the NumPy names and helpers that they use."""

    def __init__(self) -> None:
        self.imports: set[str] = set()
        self.helpers: set[str] = set()
        self.objects: dict[str, Any] = {}  # users' own functions and random generators, by name

    def use(self, name: str) -> str:
        self.imports.add(name.split(".")[0])
        return name

    def operand(self, x: Any) -> str:
        if isinstance(x, Var):
            return x.name
        return literal(x)

    def index(self, instr: Instr, arrays: list[Any]) -> str:
        left = iter(arrays)
        return ", ".join(self.operand(next(left)) if i is ARRAY else _slice(i) for i in instr.options["index"]) or "..."

    def object(self, thing: Any, name: str) -> str:
        """The name under which the source knows a function or option that is not NumPy's."""
        name = re.sub(r"\W", "_", name)
        while self.objects.setdefault(name, thing) is not thing:
            name += "_"
        return name

    def option(self, key: str, value: Any) -> str:
        if isinstance(value, (tuple, list)) and not all(isinstance(v, (int, str, float, type(None))) for v in value):
            return self.object(value, f"option_{key}")
        plain = (int, float, str, type(None), np.ndarray, np.generic, np.dtype, tuple, list)
        return literal(value) if isinstance(value, plain) else self.object(value, f"option_{key}")

    # -- statements ------------------------------------------------------------------------------------------------

    def statement(self, instr: Instr) -> list[str]:
        """The line or lines that compute the answer into its buffer (or name a view)."""
        name, out = instr.op.__name__, instr.out.name
        if is_view(instr):
            return [f"{out} = {self.shown(instr)}"]
        args = [self.operand(x) for x in instr.inputs]
        if instr.in_place and name == "replace":
            return [f"{out}[{self.index(instr, instr.inputs[2:])}] = {args[1]}"]
        if instr.in_place:
            return [f"{self.use(name)}({args[0]}, {args[1]}, out={out})"]
        special = getattr(self, f"_{name}", None)
        if special is not None:
            return special(instr, out, args)  # type: ignore[no-any-return]
        if name in REDUCE:
            axis, keep = instr.options.get("axis"), instr.options.get("keepdims", False)
            return [f"{self.use(REDUCE[name])}.reduce({args[0]}, axis={axis}, keepdims={keep}, out={out})"]
        if isinstance(instr.op.fn, np.ufunc):
            known = getattr(np, instr.op.fn.__name__, None) is instr.op.fn
            function = self.use(instr.op.fn.__name__) if known else self.object(instr.op.fn, f"row_{name}")
            return [f"{function}({', '.join(args)}, out={out})"]
        return [f"{out}[...] = {self.call(instr.op, args, instr.options)}"]

    def shown(self, instr: Instr) -> str:
        """The expression of a view."""
        name, options = instr.op.__name__, instr.options
        x = self.operand(instr.inputs[0])
        if name == "getitem":
            return f"{x}[{self.index(instr, instr.inputs[1:])}]"
        if name == "transpose":
            return f"{x}.T" if options.get("axes") is None else f"{x}.transpose({options['axes']})"
        if name == "swapaxes":
            return f"{x}.swapaxes({options['axis1']}, {options['axis2']})"
        if name in ("reshape", "expand_dims", "squeeze"):
            return f"{x}.reshape({instr.out.shape})"
        if name == "broadcast_to":
            return f"{self.use('broadcast_to')}({x}, {instr.out.shape})"
        if name == "check_labels":
            self.helpers.add(name)
            return f"check_labels({x}, {options['classes']})"
        if name == "check_range":
            self.helpers.add(name)
            bounds, kind = (literal(options[key]) for key in ("low", "high")), options.get("kind", "ValueError")
            return f"check_range({x}, {', '.join(bounds)}, {options['message']!r}, {kind})"
        if name == "einsum":
            return f"{self.use('einsum')}({options['subscripts']!r}, {x})"
        return self.call(instr.op, [self.operand(v) for v in instr.inputs], options)

    def call(self, op: Op, args: list[str], options: dict[str, Any]) -> str:
        """A row by its NumPy function; a user's own row by the function that they registered."""
        function = next(
            (f for f, answer in ANSWERS.items() if answer is op and getattr(np, f.__name__, None) is f), None
        )
        name = self.use(function.__name__) if function is not None else self.object(op.fn, f"row_{op.__name__}")
        return f"{name}({', '.join([*args, *(f'{k}={self.option(k, v)}' for k, v in options.items())])})"

    # -- rows that NumPy has no out= for ---------------------------------------------------------------------------

    def _matmul(self, instr: Instr, out: str, args: list[str]) -> list[str]:
        a, b = instr.vars
        if a.array.ndim > 1 and b.array.ndim > 1 and a.shape[-1] == 1 == b.shape[-2]:
            return [f"{self.use('multiply')}({args[0]}, {args[1]}, out={out})"]
        return [f"{self.use('matmul')}({args[0]}, {args[1]}, out={out})"]

    def _where(self, instr: Instr, out: str, args: list[str]) -> list[str]:
        copy, condition = self.use("copyto"), instr.inputs[0]
        truth = (
            args[0]
            if isinstance(condition, Var) and condition.dtype.kind == "b"
            else f"{self.use('not_equal')}({args[0]}, 0)"
        )
        return [f"{copy}({out}, {args[2]})", f"{copy}({out}, {args[1]}, where={truth})"]

    def _clip(self, instr: Instr, out: str, args: list[str]) -> list[str]:
        low, high = literal(instr.options.get("low")), literal(instr.options.get("high"))
        return [f"{self.use('clip')}({args[0]}, {low}, {high}, out={out})"]

    def _broadcast_to(self, instr: Instr, out: str, args: list[str]) -> list[str]:
        return [f"{self.use('copyto')}({out}, {args[0]})"]

    def _reshape(self, instr: Instr, out: str, args: list[str]) -> list[str]:
        return [f"{self.use('copyto')}({out}.reshape({instr.vars[0].shape}), {args[0]})"]

    def _astype(self, instr: Instr, out: str, args: list[str]) -> list[str]:
        return [f"{self.use('copyto')}({out}, {args[0]}, casting='unsafe')"]

    def _getitem(self, instr: Instr, out: str, args: list[str]) -> list[str]:
        taken = f"{args[0]}[{self.index(instr, instr.inputs[1:])}]"
        masked = any(
            v.dtype.kind == "b" for v in instr.vars[1:]
        )  # ValueError, not a broadcast, if the mask has another count now
        return [f"{out}[...] = {taken}{f'.reshape({instr.out.shape})' * masked}"]

    def _scatter(self, instr: Instr, out: str, args: list[str]) -> list[str]:
        index = self.index(instr, instr.inputs[1:])
        if all(v.dtype.kind == "b" for v in instr.vars[1:]):  # no element twice
            return [f"{out}[...] = 0", f"{out}[{index}] = {args[0]}"]
        return [f"{out}[...] = 0", f"{self.use('add')}.at({out}, np.s_[{index}], {args[0]})"]

    def _replace(self, instr: Instr, out: str, args: list[str]) -> list[str]:
        return [f"{self.use('copyto')}({out}, {args[0]})", f"{out}[{self.index(instr, instr.inputs[2:])}] = {args[1]}"]

    def _concatenate(self, instr: Instr, out: str, args: list[str]) -> list[str]:
        axis = instr.options.get("axis", 0)
        return [f"{self.use('concatenate')}(({', '.join(args)},), axis={axis}, out={out})"]

    def _cumsum(self, instr: Instr, out: str, args: list[str]) -> list[str]:
        return [f"{self.use('add')}.accumulate({args[0]}, axis={instr.options.get('axis', 0)}, out={out})"]

    def _pad_zeros(self, instr: Instr, out: str, args: list[str]) -> list[str]:
        inner = ", ".join(
            f"{low}:{low + n}" for (low, _), n in zip(instr.options["pad_width"], instr.vars[0].shape, strict=True)
        )
        return [f"{out}[...] = 0", f"{out}[{inner or '...'}] = {args[0]}"]

    def _einsum(self, instr: Instr, out: str, args: list[str]) -> list[str]:
        way = f", optimize={instr.options['optimize']!r}" if instr.options.get("optimize") else ""
        return [f"{self.use('einsum')}({instr.options['subscripts']!r}, {', '.join(args)}, out={out}{way})"]

    def _zeros_like(self, instr: Instr, out: str, args: list[str]) -> list[str]:
        return [f"{out}[...] = 0"]

    def _ones_like(self, instr: Instr, out: str, args: list[str]) -> list[str]:
        return [f"{out}[...] = 1"]

    def _random(self, instr: Instr, out: str, args: list[str]) -> list[str]:
        rng = instr.options["rng"]
        name = next((k for k, v in self.objects.items() if v is rng), f"generator_{len(self.objects) + 1}")
        self.objects[name] = rng
        return [f"{name}.random(out={out}, dtype={out}.dtype)"]


def _shaped(var: Var) -> str:
    """Flat memory as the Var's shape, in the order of axes that it had when recorded (a transposed weight stays so)."""
    long = iter(sorted([i for i, n in enumerate(var.shape) if n > 1], key=lambda i: -(var.strides or var.shape)[i]))
    order = [i if n <= 1 else next(long) for i, n in enumerate(var.shape)]
    if order == list(range(len(var.shape))):
        return f".reshape({var.shape})"
    inverse = tuple(int(i) for i in np.argsort(order))
    return f".reshape({tuple(var.shape[i] for i in order)}).transpose({inverse})"


def _order(var: Var) -> str:
    """In what order a result is copied: as it lies, for that is the order in which sums over it are added up."""
    strides = var.strides or ()
    longer = [s for s, n in zip(strides, var.shape, strict=True) if n > 1]
    return "" if longer == sorted(longer, reverse=True) and min(longer, default=1) > 0 else "'K'"


def _slice(item: Any) -> str:
    if isinstance(item, slice):
        parts = ["" if v is None else str(v) for v in (item.start, item.stop, item.step)]
        return ":".join(parts if parts[2] else parts[:2])
    return "..." if item is Ellipsis else repr(item)


def write(plan: Any, function_name: str = "step") -> tuple[str, Writer]:
    """The source of a plan, and the Writer that says which objects it needs beside NumPy."""
    writer, body, setup = Writer(), [], []
    phase = ""
    late: set[int] = set()  # views that each call makes anew
    for instr in plan.instrs:
        fixed = is_view(instr) and instr.vars[0].root.kind != "input" and instr.op.__name__ not in CHECKS
        late.add(id(instr.out))
        if fixed and all(v.kind != "input" and (v.base is None or id(v) not in late) for v in instr.vars):
            late.discard(id(instr.out))
            setup.append(f"{instr.out.name} = {writer.shown(instr)}")
            continue
        if instr.phase != phase:
            phase = instr.phase
            body.append(f"# {phase}")
        lines = writer.statement(instr)
        lines[-1] = f"{lines[-1]:<88}  # {instr.out.shape}" if len(lines[-1]) < 110 else lines[-1]
        body.extend(lines)
    returned = ", ".join(f"{v.name}.copy({_order(v)})" for v in plan.outputs)
    body.append(f"return ({returned},)" if plan.outputs else "return ()")
    arguments = ", ".join(v.name for v in plan.inputs)
    head = _head(plan, writer)
    helpers = [HELPERS[name] for name in sorted(writer.helpers)]
    lines = [
        *head,
        *setup,
        "",
        *helpers,
        "",
        '@np.errstate(all="ignore")',
        f"def {function_name}({arguments}):",
        *(f"    {line}" for line in body),
        "",
    ]
    return "\n".join(lines), writer


def _head(plan: Any, writer: Writer) -> list[str]:
    lines = [
        '"""Backpropagation as NumPy, written by tinygrad_scratch from a recorded step."""',
        "",
        "import numpy as np",
    ]
    names = sorted(n for n in writer.imports)
    if names:
        lines.append(f"from numpy import {', '.join(names)}")
    lines += ["", "# read, and where the step changes it updated, by every call"]
    for var in plan.state:
        lines.append(f"{var.name} = state[{var.name!r}]  # {var.dtype} {var.shape}")
    lines += ["", f"# memory: {plan.source_memory.bytes:,} bytes for {plan.source_memory.asked:,} bytes of answers"]
    for instr in plan.instrs:
        var = instr.out
        if id(var) in plan.source_memory.place:
            slab = plan.source_memory.place[id(var)]
            count = int(np.prod(var.shape)) * var.dtype.itemsize
            lines.append(f"{var.name} = memory[{slab}][:{count}].view({str(var.dtype)!r}){_shaped(var)}")
    return [*lines, "", "# the same memory seen otherwise"]
