"""Loops of the compiled back end: scalar rows as nested loops over memory, in the order in which it lies."""

from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_scratch.capture.lower import Loop
from tinygrad_scratch.capture.recording.trace import Instr, Var
from tinygrad_scratch.capture.rewrite import uniform
from tinygrad_scratch.capture.simplify import Unsupported, c_strides, reduced_axes, strides_along

if TYPE_CHECKING:
    from tinygrad_scratch.capture.emit_numba import Emitter

_INFIX = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/", "matmul": "*"}
_COMPARE = {"greater": ">", "greater_equal": ">=", "less": "<", "less_equal": "<=", "equal": "==", "not_equal": "!="}
_MATH = "log log1p expm1 sqrt sin cos tan tanh sinh cosh exp log2 log10 erf".split()
_WHOLE = "floor ceil trunc rint".split()
_CALLS = {
    **{name: f"math.{name}({{0}})" for name in _MATH},
    **{name: f"np.{name}({{0}})" for name in (*_WHOLE, "cbrt")},
    "arcsin": "math.asin({0})", "arccos": "math.acos({0})", "arctan": "math.atan({0})", "arctan2": "math.atan2({0}, {1})",
    "arcsinh": "math.asinh({0})", "arccosh": "math.acosh({0})", "arctanh": "math.atanh({0})", "hypot": "math.hypot({0}, {1})",
    "negative": "-{0}", "absolute": "abs({0})", "square": "{0} * {0}", "reciprocal": "{one} / {0}", "copy": "{0}", "spread": "{0}",
    "maximum": "larger({0}, {1})", "minimum": "smaller({0}, {1})", "exp2": "math.pow({two}, {0})", "zeros_like": "{zero}",
    "ones_like": "{one}", "logical_and": "({0} and {1})", "logical_or": "({0} or {1})", "logical_xor": "({0} != {1})",
    "logical_not": "(not {0})", "isnan": "math.isnan({0})", "isinf": "math.isinf({0})", "isfinite": "math.isfinite({0})",
    "sign": "({one} if {0} > {zero} else (-{one} if {0} < {zero} else {0}))", "power": "{0} ** {1}",
    "logaddexp": "({0} + {log2} if {0} == {1} else larger({0}, {1}) + math.log1p(math.exp(-abs({0} - {1}))))",
    "floor_divide": "{0} // {1}", "remainder": "{0} % {1}", "bitwise_and": "{0} & {1}", "bitwise_or": "{0} | {1}",
    "bitwise_xor": "{0} ^ {1}", "invert": "~{0}",
}  # fmt: skip
_LOGICAL = {"bitwise_and": "logical_and", "bitwise_or": "logical_or", "bitwise_xor": "logical_xor", "invert": "logical_not",
            "add": "logical_or", "multiply": "logical_and"}  # fmt: skip
"""What operations on integers are for booleans."""
_OF_ANY_KIND = frozenset("where astype copy spread gather zeros_like ones_like maximum minimum".split())
_LOG2 = float(np.log(2))


def literal(x: Any, dtype: np.dtype[Any]) -> str:
    """A number as a constant of `dtype`."""
    if dtype.kind == "b":
        return repr(bool(x))
    if dtype.kind == "f":
        short = "f32" if dtype.itemsize == 4 else "f64"
        if x != x or x in (float("inf"), float("-inf")):
            return f"{short}(math.nan)" if x != x else f"{short}({'-' if x < 0 else ''}math.inf)"
        return f"{short}({float(x)!r})"
    return f"i64({int(x)})"


def in_bounds(where: str, index: str, n: int) -> list[str]:
    """`where` is an index into n elements, from the end if negative; the step ends if there is no such element."""
    return [
        f"{where} = i64({index})",
        f"{where} = {where} + {n} if {where} < 0 else {where}",
        f"if not 0 <= {where} < {n}:",
        "    return -1",
    ]


class LoopWriter:
    """One Loop as nested loops over memory in the order in which it lies."""

    def __init__(self, emitter: "Emitter", loop: Loop):
        self.e, self.loop = emitter, loop
        self.inner = {id(r.out) for r in loop.rows}
        self.value: dict[int, str] = {}  # id of a Var -> the name of its scalar
        self.axes = self._axis_order()
        self.at: list[list[str]] = [[] for _ in range(len(self.axes) + 1)]  # statements by depth
        self.after: list[list[str]] = [[] for _ in range(len(self.axes) + 1)]
        self.joins: list[Instr] = []  # reductions of which each piece had a part

    def _memory_vars(self) -> list[Var]:
        rows = [*self.loop.rows, *self.loop.reductions]
        return [v for r in rows for v in [*r.vars, r.out] if id(v) not in self.inner or id(v) in self.e.kept]

    def _axis_order(self) -> list[int]:
        """Outermost first: by the strides of the first array that fills the shape; in a block, which is of rows, as they are."""
        shape = self.loop.shape
        full = [v for v in self._memory_vars() if v.shape == shape and v.strides and 0 not in v.strides]
        states = [v for v in full if v.kind == "external"] or full
        natural = list(range(len(shape)))
        if not states or self.e.block:
            return natural
        strides: Any = states[0].strides
        return sorted(natural, key=lambda k: (-strides[k] if shape[k] > 1 else -(10**18), k))

    def _strides(self, var: Var) -> list[int]:
        """Strides along the loop's axes."""
        return strides_along(var, self.loop.shape)

    def _flat(self) -> bool:
        """Whether one loop over all elements will do: every array lies alike, or is one number."""
        layouts = set()
        if any(r.op.__name__ == "gather" for r in self.loop.rows):
            return False
        for var in self._memory_vars():
            if any(var is r.out for r in self.loop.reductions):
                continue
            strides = self._strides(var)
            if all(s == 0 or n == 1 for s, n in zip(strides, self.loop.shape, strict=True)):
                continue
            layouts.add(tuple(s if n > 1 else 0 for s, n in zip(strides, self.loop.shape, strict=True)))
        if len(layouts) > 1:
            return False
        expected = 1
        for stride, n in sorted(zip(next(iter(layouts), ()), self.loop.shape, strict=False)):
            if n > 1:
                if stride != expected:
                    return False
                expected *= n
        ndim = len(self.loop.shape)
        return all(len(reduced_axes(r, ndim)) == ndim for r in self.loop.reductions)

    # -- writing ---------------------------------------------------------------------------------------------------

    def write(self) -> None:
        shape = self.loop.shape
        if 0 in shape:
            for row in self.loop.reductions:
                self._empty(row)
            return
        if self._flat():
            self.axes, self.flat = [0] if shape else [], True
            self.lengths = [int(np.prod(shape))] if shape else []
        else:
            self.flat = False
            self.lengths = [shape[k] for k in self.axes]
        self.at = [[] for _ in range(len(self.axes) + 1)]
        self.after = [[] for _ in range(len(self.axes) + 1)]
        with self.e.job(self._pieces()):
            for row in self.loop.rows:
                self._row(row)
            for reduction in self.loop.reductions:
                self._reduce(reduction)
            self._emit()
            pieces = self.e.pieces
        for reduction in self.joins:
            join(self.e, reduction.out, reduction.op.__name__, self.loop.partial[id(reduction.out)], pieces)

    def _pieces(self) -> int:
        """In how many pieces threads do it: parts of the outermost loop. A job cannot end the step, as a bad index does."""
        ends = any(r.op.__name__ == "gather" and not all(r.options["certain"]) for r in self.loop.rows)
        return 1 if ends or not self.lengths else min(self.loop.pieces, self.lengths[0])

    def _empty(self, row: Instr) -> None:
        """A sum or product of nothing: 0 or 1 in each element of the answer."""
        i = self.e.fresh("z")
        self.e.write(0, f"for {i} in range({row.out.array.size}):")
        self.e.write(1, self.e.put(row.out, i, unit_of(row)))

    def _emit(self) -> None:
        for depth in range(len(self.axes) + 1):
            for line in self.at[depth]:
                self.e.write(depth, line)
            if depth < len(self.axes):
                name = "i0" if self.flat else f"i{self.axes[depth]}"
                count = self._length(depth) if depth or self.e.pieces == 1 else self.e.range(self.lengths[0])
                self.e.write(depth, f"for {name} in range({count}):")
        deepest = len(self.axes)
        if deepest and not self.at[deepest]:
            self.e.write(deepest, "pass")
        for depth in range(len(self.axes), -1, -1):
            for line in self.after[depth]:
                self.e.write(depth, line)

    def _length(self, depth: int) -> str:
        """LLVM unrolls a short inner loop whose length it knows, and then makes no vectors of it: a fifth of the speed."""
        length = self.lengths[depth]
        inner = depth and depth == len(self.axes) - 1 and 8 <= length <= 64
        return f"opaque({length})" if inner else str(length)

    def _place(self, var: Var) -> tuple[str, int]:
        """The index of this element in the owner's memory, and the depth from which it is known."""
        strides = self._strides(var)
        if self.flat:
            moving = any(s != 0 and n > 1 for s, n in zip(strides, self.loop.shape, strict=True))
            return (f"i0 + {var.offset}" if var.offset else "i0", 1) if moving else (str(var.offset), 0)
        terms = [
            f"i{k}" if strides[k] == 1 else f"i{k} * {strides[k]}"
            for k in self.axes
            if strides[k] and self.loop.shape[k] > 1
        ]
        depth = max((n + 1 for n, k in enumerate(self.axes) if strides[k] and self.loop.shape[k] > 1), default=0)
        return " + ".join([*terms, *([str(var.offset)] if var.offset or not terms else [])]), depth

    def _depth(self, var: Var) -> int:
        """The depth from which an element's value is known."""
        changing = id(var) in self.inner or any(r.in_place and r.out.root is var.root for r in self.loop.rows)
        return len(self.axes) if changing else self._place(var)[1]

    def _load(self, var: Var) -> str:
        if id(var) in self.value:
            return self.value[id(var)]
        constant = uniform(var)
        if constant is not None:
            return literal(constant, var.dtype)
        place, depth = self._place(var)[0], self._depth(var)
        name = self.e.fresh()
        read = self.e.get(var, place)
        self.at[depth].append(f"{name} = {read} != 0" if var.dtype.kind == "b" else f"{name} = {read}")
        self.value[id(var)] = name
        return name

    def _row(self, row: Instr) -> None:
        name = row.op.__name__
        expression = self._gather(row) if name == "gather" else self._expression(row)
        if row.out.dtype.kind in "iu" and row.out.dtype.itemsize < 8:  # which wraps around, as NumPy's do
            expression = f"{_caster(row.out.dtype)}({expression})"
        result = self.e.fresh()
        deepest = self.at[len(self.axes)]
        deepest.append(f"{result} = {expression}")
        self.value[id(row.out)] = result
        last = [r for r in self.loop.rows if r.out is row.out][-1]
        if row is last and (row.in_place or id(row.out) in self.e.kept):
            place, _ = self._place(row.out)
            deepest.append(self.e.put(row.out, place, result))

    def _expression(self, row: Instr) -> str:
        name, out = row.op.__name__, row.out.dtype
        common = _common(row)
        if common.kind == "b":
            name = _LOGICAL.get(name, name)
        _refuse_integers(name, common)
        if name == "where":
            c, a, b = row.inputs
            return f"({self._cast(a, out)} if {self._cast(c, np.dtype(bool))} else {self._cast(b, out)})"
        if name == "clip":
            low, high = row.options.get("low"), row.options.get("high")
            if any(isinstance(x, (np.ndarray, tuple, list)) and np.ndim(x) for x in (low, high)):
                raise Unsupported("clip to arrays")
            text = self._cast(row.inputs[0], out)
            text = text if low is None else f"larger({text}, {literal(low, out)})"
            return text if high is None else f"smaller({text}, {literal(high, out)})"
        args = [self._cast(x, common) for x in row.inputs]
        if name in _INFIX:
            return f"{args[0]} {_INFIX[name]} {args[1]}"
        if name in _COMPARE:
            return f"{args[0]} {_COMPARE[name]} {args[1]}"
        if name == "exp" and common == np.float32:
            return f"exp_f32({args[0]})"
        if name == "astype":
            return self._cast(row.inputs[0], out)
        constants = {
            "zero": literal(0, common),
            "one": literal(1, common),
            "two": literal(2, common),
            "log2": literal(_LOG2, common),
        }
        text = args[0] if name in _WHOLE and common.kind != "f" else _CALLS[name].format(*args, **constants)
        return f"{_caster(out)}({text})" if out.kind == "f" and name in (*_MATH, "exp2", "power", "logaddexp") else text

    def _cast(self, x: Any, dtype: np.dtype[Any]) -> str:
        if not isinstance(x, Var):
            return literal(x, dtype)
        name = self._load(x)
        if x.dtype == dtype:
            return name
        if dtype.kind == "b":
            return f"({name} != 0)"
        if dtype.kind not in "fi" or dtype.itemsize not in (4, 8):
            raise Unsupported(f"a cast to {dtype}")
        return f"{_caster(dtype)}({name})"

    def _gather(self, row: Instr) -> str:
        source, *indices = row.inputs
        before, moved = row.options["before"], len(row.out.shape) - len(source.shape)
        terms = [str(source.offset)]
        for k, (stride, n) in enumerate(zip(source.strides, source.shape, strict=True)):
            if before <= k < before + len(indices):
                terms.append(f"{self._index(indices[k - before], n, row.options['certain'][k - before])} * {stride}")
            else:
                terms.append(f"i{k if k < before else k + moved} * {stride}")
        return self.e.get(source, " + ".join(terms))

    def _index(self, index: Var, n: int, certain: str) -> str:
        """An index into n elements, which is read (and checked) where it is known: once, not for each element of a row."""
        if certain == "counted":
            return next((f"i{k}" for k, stride in enumerate(self._strides(index)) if stride), "0")
        name = self._load(index)
        if certain:
            return f"i64({name})"
        where = self.e.fresh()
        self.at[self._depth(index)].extend(in_bounds(where, name, n))
        return where

    def _reduce(self, row: Instr) -> None:
        """Ride along: an accumulator outside the axes that are summed, or the answer's own memory where they are outer."""
        name, source, out = row.op.__name__, row.inputs[0], row.out
        value, depth = self._cast(source, out.dtype), len(self.axes)
        gone, inner = reduced_axes(row, len(self.loop.shape)), 0
        while inner < depth and (self.flat or self.axes[depth - 1 - inner] in gone):
            inner += 1
        unit = unit_of(row)
        if len(gone) in (inner, len(self.loop.shape)):
            level = depth - inner
            total = self.e.fresh("s")
            target, before = self._target(row) if not level else (out, "")
            place = before + self._reduced_place(out, gone)
            self.at[level].append(f"{total} = {unit if level or not self.e.block else self.e.get(target, place)}")
            self.at[depth].append(f"{total} = {_combine(name, total, value, out)}")
            self.after[level].append(self.e.put(target, place, total))
            return
        target, before = self._target(row)
        place = before + self._reduced_place(out, gone)
        if not self.e.block:  # where all blocks begin with what those before have left
            i = self.e.fresh("z")
            self.at[0].append(f"for {i} in range({int(np.prod(out.shape))}):")
            self.at[0].append(f"    {self.e.put(target, before + i, unit)}")
        self.at[depth].append(self.e.put(target, place, _combine(name, self.e.get(target, place), value, out)))

    def _target(self, row: Instr) -> tuple[Var, str]:
        """Where a reduction over the outermost loop goes: where threads share that, each piece has memory of its own."""
        if self.e.pieces == 1:
            return row.out, ""
        partial = self.loop.partial[id(row.out)]
        if not self.e.block:
            self.joins.append(row)
        return partial, f"piece * {partial.shape[1]} + "

    def _reduced_place(self, out: Var, gone: set[int]) -> str:
        ndim = len(self.loop.shape)
        keeps = len(out.shape) == ndim
        own: Any = out.strides
        strides = dict(zip(range(ndim) if keeps else [k for k in range(ndim) if k not in gone], own, strict=True))
        terms = [f"i{k} * {strides[k]}" for k in range(ndim) if k not in gone and self.loop.shape[k] > 1]
        return " + ".join([*terms, str(out.offset)])


def join(e: "Emitter", out: Var, name: str, partial: Var, pieces: int) -> None:
    """A reduction's answer (or a product's, perhaps added up as its transpose) from those of the pieces, in their order."""
    shape, n, total = partial.shape[1:], e.fresh("n"), e.fresh("s")
    own: Any = out.strides
    strides = (1,) if len(shape) == 1 else own if out.shape == shape else own[::-1]
    places = [e.fresh("z") for _ in shape]
    for depth, (place, length) in enumerate(zip(places, shape, strict=True)):
        e.write(depth, f"for {place} in range({length}):")
    at, to = (_dot(places, s) for s in (c_strides(shape), strides))
    e.write(len(shape), f"{total} = {e.get(partial, at)}")
    e.write(len(shape), f"for {n} in range(1, {pieces}):")
    part = e.get(partial, f"{n} * {int(np.prod(shape))} + {at}")
    e.write(len(shape) + 1, f"{total} = {_combine(name, total, part, out)}")
    e.write(len(shape), e.put(out, to, total))


def _dot(places: list[str], strides: Any) -> str:
    return " + ".join(f"{place} * {stride}" for place, stride in zip(places, strides, strict=True))


def _combine(name: str, total: str, value: str, out: Var) -> str:
    if name == "sum":
        return f"plus({total}, {value})" if out.dtype.kind == "f" else f"{total} + {value}"
    if out.dtype.kind == "b":  # of booleans, the largest is whether any is true
        return f"({total} {'or' if name in ('any', 'max') else 'and'} {value})"
    return {"max": f"larger({value}, {total})", "min": f"smaller({value}, {total})", "prod": f"{total} * {value}"}[name]


def unit_of(row: Instr) -> str:
    """What a reduction starts from."""
    name, dtype = row.op.__name__, row.out.dtype
    if name not in ("max", "min") or dtype.kind == "b":
        return literal(name in ("prod", "all", "min"), dtype)
    if dtype.kind != "f":
        raise Unsupported(f"{name} of {dtype}")
    return literal(-np.inf if name == "max" else np.inf, dtype)


def _refuse_integers(name: str, common: np.dtype[Any]) -> None:
    """Unsupported where compiled arithmetic of integers or booleans is not NumPy's."""
    known = name in _OF_ANY_KIND or name in _COMPARE or name.startswith(("logical", "is"))
    if (common.kind == "u" and not known) or (common.kind == "b" and not known):
        raise Unsupported(f"{name} of {common}")
    if common.kind == "i" and name in ("power", "reciprocal", "floor_divide", "remainder"):
        raise Unsupported(f"{name} of integers")


def _common(row: Instr) -> np.dtype[Any]:
    """The dtype in which a row computes: NumPy's promotion of its operands (Python numbers are weak)."""
    operands = [x.dtype if isinstance(x, Var) else x for x in row.inputs]
    if row.op.__name__ in ("gather", "copy", "spread"):
        return row.out.dtype
    if row.op.__name__.startswith("logical"):
        return np.dtype(bool)
    common = np.result_type(*operands)
    return common if row.out.dtype.kind in "b" or common.kind == row.out.dtype.kind else row.out.dtype


def _caster(dtype: np.dtype[Any]) -> str:
    return {"float32": "f32", "float64": "f64", "int64": "i64"}.get(str(dtype), f"np.{dtype}")
