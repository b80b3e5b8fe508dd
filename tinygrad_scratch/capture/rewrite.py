"""Passes over the flat list: what is constant, what is the same, what nobody needs, and what is cheaper said otherwise.

Each pattern is one function from the list to the list; tests run both sides. ``scale_the_smaller`` reorders roundings (the
result differs in the last bits); all others keep every bit.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_scratch.capture.recording.trace import Instr, Var, option_key
from tinygrad_scratch.registry import OPS

Pass = Callable[[list[Instr], list[Var]], list[Instr]]
CHECKS = frozenset({"check_labels", "check_range"})
"""Rows that answer what they are given, once they have looked at it."""
EFFECTS = CHECKS | {"random"}
"""Rows that do more than give an answer: they check, or draw from a stream."""


def is_number(x: Any) -> bool:
    """A Python number, or a Var of one element without axes that does not change within the step."""
    return isinstance(x, (int, float)) or (isinstance(x, Var) and x.shape == () and x.kind in ("hyper", "constant"))


def uniform(x: Any) -> Any:
    """The one value of a constant array whose elements are all equal, as a Python number; None for anything else."""
    if not isinstance(x, Var) or x.kind != "constant" or not x.array.size or x.array.dtype.kind != "f":
        return None
    first = x.array.flat[0]
    return float(first) if bool(np.all(x.array == first)) else None


def uses(instrs: list[Instr], outputs: list[Var]) -> dict[int, int]:
    """How many instructions (or outputs) read each Var."""
    count: dict[int, int] = {}
    for var in [v for i in instrs for v in i.vars] + outputs:
        count[id(var)] = count.get(id(var), 0) + 1
    return count


def replace_uses(instrs: list[Instr], outputs: list[Var], swap: dict[int, Any]) -> None:
    """Read `swap[id(var)]` wherever `var` was read."""
    for instr in instrs:
        instr.inputs = [swap.get(id(x), x) if isinstance(x, Var) else x for x in instr.inputs]
        if instr.out.base is not None and id(instr.out.base) in swap:
            instr.out.base = swap[id(instr.out.base)]
    outputs[:] = [swap.get(id(v), v) for v in outputs]


def changed_in_place(instrs: list[Instr]) -> set[int]:
    """Ids of the owners of memory that some row changes: equal values there stay equal only for a while."""
    return {id(instr.out.root) for instr in instrs if instr.in_place}


def fold_constants(instrs: list[Instr], outputs: list[Var]) -> list[Instr]:
    """What depends on constants alone is computed once: its value is the trace's."""
    kept, changed = [], changed_in_place(instrs)
    for instr in instrs:
        alone = all(v.kind == "constant" for v in instr.vars) and id(instr.out.root) not in changed
        if alone and not instr.in_place and instr.op.__name__ not in EFFECTS:
            instr.out.kind = "constant"
        else:
            kept.append(instr)
    return kept


def plain_numbers(instrs: list[Instr], outputs: list[Var]) -> list[Instr]:
    """A constant array of equal elements is a number where the other operand has the answer's shape and dtype."""
    for instr in instrs:
        if not isinstance(instr.op.fn, np.ufunc) or len(instr.inputs) != 2 or instr.in_place:
            continue
        for i, other in ((0, instr.inputs[1]), (1, instr.inputs[0])):
            value = uniform(instr.inputs[i])
            if (
                value is not None
                and isinstance(other, Var)
                and (other.shape, other.dtype) == (instr.out.shape, instr.out.dtype)
            ):
                instr.inputs[i] = value
    return instrs


def drop_ones(instrs: list[Instr], outputs: list[Var]) -> list[Instr]:
    """x * 1 is x, if it is of the same dtype and lies alike (or its sum would be of another order), and no view of the product
    or change of x tells them apart."""
    swap: dict[int, Any] = {}
    kept, changed, shown = [], changed_in_place(instrs), {id(i.out.base) for i in instrs}
    for instr in instrs:
        instr.inputs = [swap.get(id(x), x) if isinstance(x, Var) else x for x in instr.inputs]
        apart = id(instr.out) in shown | changed
        alike = [x for x in instr.vars if (x.dtype, x.strides) == (instr.out.dtype, instr.out.strides)]
        same = [x for x in alike if id(x.root) not in changed and not apart]
        if (
            instr.op.__name__ == "multiply"
            and not instr.in_place
            and same
            and 1.0 in [x for x in instr.inputs if isinstance(x, float)]
        ):
            swap[id(instr.out)] = same[0]
        else:
            kept.append(instr)
    replace_uses(kept, outputs, swap)
    return kept


def share_common(instrs: list[Instr], outputs: list[Var]) -> list[Instr]:
    """The same row of the same inputs is computed once, unless one of them was changed in between."""
    versions: dict[int, int] = {}
    seen: dict[Any, Var] = {}
    swap: dict[int, Any] = {}
    kept, changed = [], changed_in_place(instrs)
    for instr in instrs:
        instr.inputs = [swap.get(id(x), x) if isinstance(x, Var) else x for x in instr.inputs]
        if instr.in_place:
            versions[id(instr.out.root)] = versions.get(id(instr.out.root), 0) + 1
            kept.append(instr)
            continue
        key = (instr.op.__name__, option_key(instr.options), *(_operand_key(x, versions) for x in instr.inputs))
        if instr.op.__name__ == "random" or id(instr.out) in changed:  # drawn anew; to be changed by itself
            kept.append(instr)
        elif key in seen and seen[key].strides == instr.out.strides:  # views know where they begin in what they show
            swap[id(instr.out)] = seen[key]
        else:
            seen[key] = instr.out
            kept.append(instr)
    replace_uses(kept, outputs, swap)
    return kept


def _operand_key(x: Any, versions: dict[int, int]) -> Any:
    if not isinstance(x, Var):
        return (type(x).__name__, repr(x))
    if x.kind == "constant":
        return ("constant", x.dtype.str, x.shape, x.array.tobytes()) if x.array.size < 4096 else id(x)
    return (id(x), versions.get(id(x.root), 0))


def drop_unused(instrs: list[Instr], outputs: list[Var]) -> list[Instr]:
    """Keep what an output, a change in place or a check needs."""
    needed = {id(v) for v in outputs}
    kept = []
    for instr in reversed(instrs):
        if instr.in_place or instr.op.__name__ in EFFECTS or id(instr.out) in needed:
            needed.update(id(v) for v in instr.vars)
            kept.append(instr)
    return kept[::-1]


def scale_the_smaller(instrs: list[Instr], outputs: list[Var]) -> list[Instr]:
    """(a @ b) * s is a @ (b * s): the learning rate scales the cotangent, not the (larger) weight gradient."""
    counts, apart = uses(instrs, outputs), changed_in_place(instrs) | {id(i.out.base) for i in instrs}
    result = list(instrs)
    for instr in instrs:
        if instr.op.__name__ != "multiply" or instr.in_place:
            continue
        product, number = instr.inputs if is_number(instr.inputs[1]) else instr.inputs[::-1]
        if not isinstance(product, Var) or not is_number(number) or product.dtype != instr.out.dtype:
            continue
        maker = product.maker
        while maker is not None and maker.out.base is not None and counts.get(id(maker.out)) == 1:
            maker = maker.inputs[0].maker if isinstance(maker.inputs[0], Var) else None
        if maker is None or maker.op.__name__ != "matmul" or counts.get(id(maker.out)) != 1 or maker not in result:
            continue
        small = min(maker.vars, key=lambda v: v.array.size)
        if small.array.size * 2 > instr.out.array.size or counts.get(id(product)) != 1 or id(instr.out) in apart:
            continue
        scaled = Var("answer", np.multiply(small.array, 1, dtype=small.dtype))
        step = Instr(OPS["multiply"], [small, number], {}, scaled, instr.phase)
        scaled.maker = step
        maker.inputs = [scaled if x is small else x for x in maker.inputs]
        result.insert(result.index(maker), step)
        result.remove(instr)
        replace_uses(result, outputs, {id(instr.out): product})
    return result


EXACT: tuple[Pass, ...] = (fold_constants, plain_numbers, drop_ones, share_common, drop_unused)
PATTERNS: dict[str, Pass] = {"scale_the_smaller": scale_the_smaller}


def rewrite(instrs: list[Instr], outputs: list[Var], patterns: tuple[str, ...]) -> tuple[list[Instr], dict[str, int]]:
    """Run the exact passes and the named patterns. Returns the new list and how many instructions each pass removed or moved."""
    fired: dict[str, int] = {}
    for run in (*EXACT, *(PATTERNS[name] for name in patterns)):
        before = [(id(i), tuple(map(id, i.inputs))) for i in instrs]
        instrs = run(instrs, outputs)
        after = {(id(i), tuple(map(id, i.inputs))) for i in instrs}
        changed = sum(b not in after for b in before)
        if changed:
            fired[run.__name__] = changed
    return instrs, fired
