"""Memory: how long each answer lives, and which may lie where another lay before."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tinygrad_scratch._memory import LINE, PAGE, placed
from tinygrad_scratch._typing import Array
from tinygrad_scratch.capture.recording.trace import Instr, Var


@dataclass
class Memory:
    """Where every answer lies: a slab of bytes for each, shared by answers whose lives do not overlap."""

    slabs: list[int] = field(default_factory=list)  # bytes of each
    place: dict[int, int] = field(default_factory=dict)  # id of a Var -> its slab
    asked: int = 0  # bytes if nothing were shared

    @property
    def bytes(self) -> int:
        return sum(self.slabs)

    def starts(self) -> list[int]:
        """Where each slab begins if they lie one after the other, no two at the same place of a page; and where the last ends."""
        starts = [0]
        for size in self.slabs:
            starts.append(starts[-1] + -(-size // LINE) * LINE + (LINE if (size + LINE) % PAGE > LINE else 5 * LINE))
        return starts

    def allocate(self) -> list[Array]:
        """The slabs, in one piece of memory."""
        starts = self.starts()
        arena = placed((starts[-1],), np.uint8, 13 * LINE)
        return [arena[start : start + size] for start, size in zip(starts, self.slabs, strict=False)]


@dataclass
class Use:
    """What one step of a program reads and newly writes, and the operand whose memory its answer may take over."""

    reads: Sequence[Var]
    writes: Sequence[Var]
    heirs: Sequence[Var] = ()


def of_instrs(instrs: Sequence[Instr]) -> list[Use]:
    """The uses of a list of rows, run one by one."""
    return [
        Use(
            [*i.vars, i.out],
            [i.out] if i.out.base is None and not i.in_place and i.out.kind == "answer" else [],
            _heirs(i),
        )
        for i in instrs
    ]


def lay_out(uses: Sequence[Use], outputs: Sequence[Var], alone: Sequence[Var] = ()) -> Memory:
    """Give every answer a slab; free it after the last step that reads it or a view of it. Outputs live to the end; what is
    to be alone never shares a slab."""
    memory, free = Memory(), []  # type: Memory, list[int]
    for var in alone:
        memory.place[id(var)] = _take(memory, free, var.array.nbytes)
    last = {id(v.root): n for n, use in enumerate(uses) for v in (*use.reads, *use.writes)}
    last.update({id(v.root): len(uses) for v in outputs})
    for n, use in enumerate(uses):
        dying = {id(v.root): v.root for v in use.reads if id(v.root) in memory.place and last[id(v.root)] == n}
        for out in use.writes:
            if id(out) in memory.place:  # it is changed, or filled part by part
                continue
            memory.asked += out.array.nbytes
            heir = next((v for v in use.heirs if id(v) in dying), None)
            if heir is not None:
                memory.place[id(out)] = memory.place[id(dying.pop(id(heir)))]
            else:
                memory.place[id(out)] = _take(memory, free, max(out.array.nbytes, 1))
            if last[id(out)] == n:
                dying[id(out)] = out
        free.extend(memory.place[key] for key in dying)
    return memory


def _heirs(instr: Instr) -> list[Var]:
    """The operands of a ufunc whose memory the answer can take over element by element."""
    if not isinstance(instr.op.fn, np.ufunc):
        return []
    found = []
    for var in instr.vars:
        same = (var.shape, var.dtype, var.array.strides) == (instr.out.shape, instr.out.dtype, instr.out.array.strides)
        if same and var.base is None and all(v is var or v.root is not var.root for v in instr.vars):
            found.append(var)
    return found


def _take(memory: Memory, free: list[int], nbytes: int) -> int:
    """The smallest free slab that is large enough and not wastefully large, else a new one."""
    fitting = [slab for slab in free if nbytes <= memory.slabs[slab] <= max(4 * nbytes, 4096)]
    if fitting:
        best = min(fitting, key=lambda slab: memory.slabs[slab])
        free.remove(best)
        return best
    memory.slabs.append(nbytes)
    return len(memory.slabs) - 1
