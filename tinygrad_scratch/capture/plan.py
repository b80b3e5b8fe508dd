"""A plan: one recorded step for one kind of inputs, rewritten, laid out in memory, written as source, ready to run."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np

from tinygrad_scratch._typing import Array
from tinygrad_scratch.capture.emit_numpy import is_view, write
from tinygrad_scratch.capture.memory import Memory, lay_out, of_instrs
from tinygrad_scratch.capture.names import give_names
from tinygrad_scratch.capture.record import Recording, settle_gradients
from tinygrad_scratch.capture.replay import MISS, ONE, write_replay
from tinygrad_scratch.capture.rewrite import PATTERNS, rewrite, share_common
from tinygrad_scratch.capture.threads import Threads
from tinygrad_scratch.capture.trace import Instr, Numbers, Trace, Var
from tinygrad_scratch.tensor import Tensor, next_rank, wrap
from tinygrad_scratch.trees import leaves, rebuild


@dataclass(eq=False)
class Plan:
    """What replays. ``state`` are the arrays read by reference; ``instrs`` the rows in order; ``source`` their NumPy."""

    instrs: list[Instr]
    inputs: list[Var]
    outputs: list[Var]
    state: list[Var]
    numbers: list[Numbers]
    memory: Memory  # that it runs in
    source_memory: Memory  # that its NumPy runs in: compiled code stores less
    fired: dict[str, int]
    tree: Any  # of the result
    present: list[bool]  # which of the result's leaves are Tensors (the others are None)
    grads: list[Tensor]
    updated: list[Tensor]
    backend: str
    key: Any = None
    settings: int = 0
    recorded: int = 0  # operations before the rewrites
    calls: int = 0
    fallback: str = ""  # why the compiled back end was not taken
    threads: Threads | None = None
    _run: Callable[..., tuple[Array, ...]] | None = None
    _lock: Any = field(default_factory=threading.Lock)
    _bound: list[tuple[Tensor, Array]] = field(default_factory=list)
    expected: tuple[Any, ...] | None = (
        None  # type, shape and dtype of each argument, if all are arrays or plain Tensors
    )
    replay: Any = None  # the quick way: the result, or MISS
    _mode: bool = True
    _cleared: list[Tensor] = field(default_factory=list)  # which had no gradient before the calls that were recorded
    leaves: list[Tensor] = field(default_factory=list)
    fates: dict[int, str] = field(default_factory=dict)
    _forgotten: list[Tensor] = field(default_factory=list)  # whose gradients the step forgets

    # -- running ---------------------------------------------------------------------------------------------------

    def current(self) -> bool:
        """Whether what shapes the step (which options are on), and how the state lies, are as recorded."""
        return (
            all(numbers.same_step(numbers.look_up()) for numbers in self.numbers)
            and all(tensor.grad is None for tensor in self._cleared)
            and all(tensor._data is array or _layout(tensor._data) == _layout(array) for tensor, array in self._bound)
        )

    def watch(self, tensors: Iterable[Tensor]) -> None:
        """Tensors of which other calls may leave gradients: one that these calls did not meet is cause to record again."""
        own = {id(t) for t in [*self.grads, *self.updated]}
        others = {id(t): t for t in tensors if id(t) not in own}
        with self._lock:
            self._forgotten = [t for key, t in others.items() if self.fates.get(key) == "forgotten"]
            known = [t for t in self._cleared if id(t) in own]
            self._cleared = [*known, *(t for key, t in others.items() if key not in self.fates)]
            self.replay = self._first

    def run(self, args: tuple[Any, ...]) -> Any:
        """Replay, the careful way. One thread at a time: the buffers are shared by all calls."""
        arrays = _arrays(args)
        with self._lock:
            self.prepare()
            run: Any = self._run
            results = run(*arrays) if self.threads is None else self.threads.run(run, arrays)
            self.finish(1)
            count = len(self.outputs) - len(self.grads)
            for tensor, array in zip(self.grads, results[count:]):
                tensor.grad = wrap(array)
        return self.result(results)

    def can_run_many(self, data: list[Array], batch_size: int) -> bool:
        """Whether an epoch over these arrays can stay in compiled code."""
        compiled: Any = self._run
        if not hasattr(compiled, "table") or compiled.streams is None or self.grads or len(data) != len(self.inputs):
            return False
        wanted = [((batch_size, *a.shape[1:]), a.dtype, a.flags.c_contiguous) for a in data]
        shown = [v.root.kind != "input" and v.root.kind != "external" for v in self.outputs]
        return wanted == [(v.shape, v.dtype, True) for v in self.inputs] and all(shown)

    def prepare(self) -> None:
        """Before a replay: state that was replaced, and numbers that changed. Stale if they change what is computed."""
        for tensor, array in self._bound:
            if tensor._data is not array:
                self.bind()
                break
        for tensor in self._cleared:
            if tensor.grad is not None:
                raise Stale
        for tensor in self._forgotten:
            tensor.grad = None
        if not self.renew():
            raise Stale

    def renew(self) -> bool:
        """Look up the numbers, for they may have changed. False if other ones than before shape the step."""
        now = [numbers.look_up() for numbers in self.numbers]
        if not all(numbers.same_step(values) for numbers, values in zip(self.numbers, now, strict=True)):
            return False
        changed = any(numbers.values != values for numbers, values in zip(self.numbers, now, strict=True))
        for numbers, values in zip(self.numbers, now, strict=True):
            numbers.values = values
            numbers.note()
            for name, var in numbers.variables.items():
                var.array[...] = values[name]
        for instr in self.prologue if changed else ():
            given = (x.array if isinstance(x, Var) else x for x in instr.inputs)
            instr.out.array[...] = instr.op.fn(*given, **instr.options)
        return True

    def finish(self, calls: int) -> None:
        """After replays: graphs that used the old values will notice that they changed."""
        rank = next_rank()
        for tensor in self.updated:
            tensor._rank = rank
            tensor.grad = None
        self.calls += calls

    def result(self, results: Any) -> Any:
        """What the step returns, around these arrays."""
        if self.tree is ONE:
            return wrap(results[0])
        if type(self.tree) is tuple and all(self.present) and len(self.tree) == len(self.present):
            return tuple([wrap(array) for array in results[: len(self.tree)]])
        left = iter(results)
        return rebuild(self.tree, iter([wrap(next(left)) if there else None for there in self.present]))

    def bind(self) -> None:
        """Compile the source around the arrays that the state is in now."""
        for var in self.state:
            if var.tensor is not None:
                if _layout(var.tensor._data) != _layout(var.array):
                    raise Stale
                var.array = var.tensor._data
        self._bound = [(v.tensor, v.array) for v in self.state if v.tensor is not None]
        back_end = import_module(f"tinygrad_scratch.capture.compile_{self.backend}")
        self._run = back_end.compile_plan(self)
        self.replay = self._first

    def _first(self, *args: Any) -> Any:
        """The first replay since anything that the quick way is written for has changed: write it."""
        if self.expected is None:
            self.replay = _miss
        elif tuple((type(a), getattr(a, "shape", None), getattr(a, "dtype", None)) for a in args) == self.expected:
            with self._lock:  # writing it compiles, which takes long enough for another thread to bind the plan anew
                self.replay = write_replay(self, self.expected)
            return self.replay(*args)
        return MISS

    prologue: list[Instr] = field(default_factory=list)  # what depends on the numbers alone

    @cached_property
    def source(self) -> str:
        """The derived forward, backward and update as readable NumPy."""
        return write(self)[0]

    # -- showing ---------------------------------------------------------------------------------------------------

    def explain(self) -> str:
        """Calls, memory and rewrites, in a few lines."""
        statements = sum(not is_view(i) for i in self.instrs)
        lines = [
            f"back end: {self.backend}; inputs: {', '.join(f'{v.name} {v.dtype}{v.shape}' for v in self.inputs) or 'none'}",
            f"operations recorded: {self.recorded}; calls per step: {statements}; views: {len(self.instrs) - statements}",
            f"buffers: {len(self.memory.slabs)} of {self.memory.bytes:,} bytes in all (unshared: {self.memory.asked:,})",
            f"rewrites: {', '.join(f'{name} {n}' for name, n in self.fired.items()) or 'none'}",
            f"replayed: {self.calls} times",
            *([self.fallback] if self.fallback else []),
        ]
        return "\n".join(lines)


def _miss(*_: Any) -> Any:
    return MISS


class Stale(Exception):  # noqa: N818  (a signal, not an error)
    """The numbers, or the layout of the state, changed which operations there are: record again."""


def make_plan(recording: Recording, backend: str, rewrites: bool | Iterable[str], threads: Threads) -> Plan:
    """Rewrite, name, lay out and compile a step that was recorded twice."""
    trace = recording.trace
    settle_gradients(recording)
    outputs = [v for v in recording.outputs if v is not None] + [v for _, v in recording.grads]
    recorded = len(trace.instrs)
    settle_layouts(
        [*recording.inputs, *outputs], trace.instrs
    )  # before arrays are replaced by equal ones that lie elsewhere
    instrs = share_common(list(trace.instrs), outputs)
    prologue = _split_prologue(trace, instrs)
    patterns = tuple(PATTERNS) if rewrites is True else () if rewrites is False else tuple(rewrites)
    instrs, fired = rewrite(instrs, outputs, patterns)
    settle_layouts([*recording.inputs, *outputs], [*prologue, *instrs])
    memory = lay_out(of_instrs(instrs), outputs)
    variables = _variables(instrs, prologue, outputs, recording.inputs, trace)
    give_names(trace, variables, recording.names)
    plan = Plan(
        instrs, recording.inputs, outputs,
        state=[v for v in variables if v.kind in ("external", "constant", "hyper")],
        numbers=trace.numbers, memory=memory, source_memory=memory, fired=fired, tree=_shape_of(recording),
        present=[v is not None for v in recording.outputs], grads=[t for t, _ in recording.grads],
        updated=recording.updated, backend=backend, recorded=recorded, prologue=prologue,
    )  # fmt: skip
    plan.expected = recording.quick
    plan._cleared, plan.leaves, plan.fates = recording.cleared, recording.leaves, recording.fates
    plan._mode = trace.grad
    plan.threads = threads if threads.auto or threads.fixed is not None else None
    for var in {id(v): v for v in [*variables, *trace.vars.values(), *(i.out for i in trace.instrs)]}.values():
        if var.kind == "answer":
            var.array = np.broadcast_to(np.zeros((), var.dtype), var.shape)  # the recorded values have served
    plan.bind()
    return plan


def settle_layouts(variables: list[Var], instrs: list[Instr]) -> None:
    """Note for each Var, in elements, where in its owner's memory it begins, and its strides."""
    changed, shown = {id(i.out.root) for i in instrs if i.in_place}, {id(i.out.base) for i in instrs}
    for var in [*variables, *(v for i in instrs for v in [*i.vars, i.out])]:
        _settle_layout(var, changed, shown)


def _settle_layout(var: Var, changed: set[int], shown: set[int]) -> None:
    """An owner's memory has no gaps. What was broadcast into memory of its own needs none, if nothing tells it from a view:
    neither it nor its source is changed in place, and there are no views of it."""
    if var.strides is not None:
        return
    size = var.dtype.itemsize
    owner = var.base is None and var.kind == "answer"
    if owner and var.maker is not None and var.maker.op.__name__ == "broadcast_to":
        source = var.maker.inputs[0]
        if id(var) not in changed | shown and id(source.root) not in changed:
            _settle_layout(source, changed, shown)
            var.base, var.offset = source, source.offset
            lead = (0,) * (len(var.shape) - len(source.shape))
            var.strides = lead + tuple(0 if n == 1 else s for n, s in zip(source.shape, source.strides, strict=True))
            return
    var.strides = tuple(s // size for s in var.array.strides)
    if owner and not _compact(var):
        var.strides, var.compact = _c_strides(var.shape), False
    if var.base is not None:
        _settle_layout(var.base, changed, shown)
        var.offset = (var.array.ctypes.data - var.root.array.ctypes.data) // size


def _compact(var: Var) -> bool:
    expected = 1
    for stride, n in sorted(zip(var.strides or (), var.shape, strict=True)):
        if n != 1 and stride != expected:
            return False
        expected *= n
    return True


def _c_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))


def _split_prologue(trace: Trace, instrs: list[Instr]) -> list[Instr]:
    """Take out what depends on hyper-parameters and constants alone: computed when they change, not in every call."""
    prologue = []
    for instr in list(instrs):
        kinds = {v.kind for v in instr.vars}
        if "hyper" in kinds and kinds <= {"hyper", "constant"} and not instr.in_place:
            instr.out.kind, instr.out.base, instr.out.name = "hyper", None, instr.vars[0].name
            instr.out.array, instr.out.strides, instr.out.offset = np.array(instr.out.array), None, 0
            prologue.append(instr)
            instrs.remove(instr)
    return prologue


def _variables(
    instrs: list[Instr], prologue: list[Instr], outputs: list[Var], inputs: list[Var], trace: Trace
) -> list[Var]:
    found: dict[int, Var] = {id(v): v for v in inputs}
    for instr in instrs:
        for var in [*instr.vars, instr.out]:
            found.setdefault(id(var), var)
    for var in outputs:
        found.setdefault(id(var), var)
    return list(found.values())


def _layout(array: Array) -> tuple[Any, ...]:
    return array.shape, array.dtype, array.strides


def _shape_of(recording: Recording) -> Any:
    return ONE if isinstance(recording.result, Tensor) else recording.result


def _arrays(args: tuple[Any, ...]) -> list[Array]:
    arrays = [
        getattr(leaf, "_data", leaf)
        for leaf in leaves(args, nodes=False)
        if isinstance(leaf, (Tensor, np.ndarray, np.generic))
    ]
    return [np.asarray(a, a.dtype.newbyteorder("=")) for a in arrays]
