"""A plan: one recorded step for one kind of inputs, rewritten, laid out in memory, written as source, ready to run."""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np

from tinygrad_scratch._typing import Array
from tinygrad_scratch.capture.derivative import Call, Differentiable, needed, tensors
from tinygrad_scratch.capture.emit_numpy import is_view, write
from tinygrad_scratch.capture.memory import Memory, lay_out, of_instrs
from tinygrad_scratch.capture.recording.guards import Guard
from tinygrad_scratch.capture.recording.names import give_names
from tinygrad_scratch.capture.recording.places import Place
from tinygrad_scratch.capture.recording.reads import owner_of
from tinygrad_scratch.capture.recording.record import Recording, refuse_alias
from tinygrad_scratch.capture.recording.trace import Instr, Numbers, Slot, Trace, Var
from tinygrad_scratch.capture.replay import MISS, Unlabelled, write_replay
from tinygrad_scratch.capture.rewrite import PATTERNS, rewrite, share_common
from tinygrad_scratch.capture.threads import Threads
from tinygrad_scratch.context import changes
from tinygrad_scratch.tensor import Tensor, next_rank, wrap
from tinygrad_scratch.trees import leaves, rebuild


@dataclass(eq=False)
class Plan:
    """What replays. ``state`` are the arrays read by reference; ``instrs`` the rows in order; ``source`` their NumPy.

    inputs: the arguments' arrays, then the gradients that earlier calls left and that the step adds to. outputs: the results, then
    the gradients that it leaves, then the Tensors that it stores, then what derivatives need.
    """

    instrs: list[Instr]
    inputs: list[Var]
    outputs: list[Var]
    state: list[Var]
    numbers: list[Numbers]
    memory: Memory  # that it runs in
    source_memory: Memory  # that its NumPy runs in: compiled code stores less
    fired: dict[str, int]
    tree: Any  # of the result
    count: int  # of the result's Tensors
    backend: str
    slots: list[Slot]  # gradients that it looks at before it sets them
    gradients: list[tuple[Tensor, Any]]  # that it sets: to a Var of the outputs, None or NOT_KEPT
    stored: list[Place]
    updated: list[Tensor]
    changed: list[Var]  # arrays from outside that it changes in place
    guards: list[Guard]
    stale: set[int] = field(default_factory=set)  # results whose graphs are of no use after the step
    differentiable: Differentiable | None = None  # what derivatives of the results follow from
    kept: int = 0  # of the outputs, at their end: what replayed derivatives need
    key: Any = None
    version: int = -1  # of context.changes when all guards held
    recorded: int = 0  # operations before the rewrites
    calls: int = 0
    used: int = 0  # when it was taken last: a number that grows
    fallback: str = ""  # why the compiled back end was not taken
    threads: Threads | None = None
    _run: Callable[..., tuple[Array, ...]] | None = None
    _lock: Any = field(default_factory=threading.Lock)
    _bound: list[tuple[Tensor, Array]] = field(default_factory=list)
    expected: tuple[Any, ...] | None = (
        None  # type, shape, dtype and strides of each argument, if all are arrays or plain Tensors
    )
    replay: Any = None  # the quick way: the result, or MISS
    bases: list[Any] = field(
        default_factory=list
    )  # for each argument, an array whose views share nothing with what changes
    rewriting: bool = False
    labelled: bool = False  # whether it checks labels
    checked: bool = False  # whether it does that before anything else
    _mode: bool = True

    # -- running ---------------------------------------------------------------------------------------------------

    def failing(self) -> str:
        """What is not as it was recorded, in words; "" if a replay does what the program would."""
        if not all(numbers.same_step(numbers.look_up()) for numbers in self.numbers):
            return "an option of an optimizer"
        if not all(tensor._data is array or _layout(tensor._data) == _layout(array) for tensor, array in self._bound):
            return "how a parameter lies in memory"
        if not all(map(_is_as_before, self.slots)):
            return "which Tensors have gradients"
        return next((guard.text for guard in self.guards if not guard.holds()), "")

    def fits(self) -> str:
        """As `failing`; if nothing is, that is known until something changes."""
        version = changes.version  # before looking: what changes meanwhile is looked at again
        why = self.failing()
        if not why and self.version != version:
            self.version = version
        return why

    def run(self, args: tuple[Any, ...]) -> Any:
        """Replay, the careful way. One thread at a time: the buffers are shared by all calls."""
        given = arguments(args)
        arrays = [native(a) for a in given]
        with self._lock:
            self.prepare(arrays)
            run: Any = self._run
            added = [slot.tensor._grad._data for slot in self.slots if isinstance(slot.before, Var)]  # type: ignore[union-attr]
            states = self.differentiable.states() if self.differentiable is not None else ()
            all_arrays = [*arrays, *added]
            try:
                results = run(*all_arrays) if self.threads is None else self.threads.run(run, all_arrays)
            except Unlabelled:
                if not self.checked:
                    raise
                raise Unfit from None
            self.finish(1, results)
        return self.result(results, Call(given, arrays, states))

    def can_run_many(self, data: list[Array], batch_size: int) -> bool:
        """Whether an epoch over these arrays can stay in compiled code."""
        compiled: Any = self._run
        if not hasattr(compiled, "table") or compiled.streams is None or len(data) != len(self.inputs):
            return False
        if self.stored or any(isinstance(final, Var) for _, final in self.gradients):
            return False
        wanted = [((batch_size, *a.shape[1:]), a.dtype, a.flags.c_contiguous) for a in data]
        shown = [v.root.kind != "input" and v.root.kind != "external" for v in self.outputs]
        return wanted == [(v.shape, v.dtype, True) for v in self.inputs] and all(shown)

    def prepare(self, arrays: list[Array]) -> None:
        """Before a replay: state that was replaced, and numbers that changed. Stale if they change what is computed.

        CaptureError if an argument shares memory with what the step changes.
        """
        if any(tensor._data is not array for tensor, array in self._bound):
            self.bind()
        for n, array in enumerate(arrays):
            self._refuse_alias(n, array)
        if not self.renew():
            raise Stale

    def _refuse_alias(self, n: int, argument: Array) -> None:
        """CaptureError if an argument shares memory with what the step changes; if no view of its owner does, that is noted."""
        owner = argument if argument.base is None else argument.base
        if isinstance(owner, np.ndarray) and not any(np.may_share_memory(owner, v.array) for v in self.changed):
            if n < len(self.bases):
                self.bases[n] = owner
            return
        for var in self.changed:
            refuse_alias(argument, var.array)

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

    def finish(self, calls: int, results: Any = ()) -> None:
        """After replays: graphs that used the old values will notice that they changed; gradients, and what is stored."""
        rank = next_rank()
        for tensor in self.updated:
            tensor._rank = rank
        left = iter(results[self.count : len(results) - self.kept])
        for tensor, final in self.gradients:
            tensor._grad = wrap(next(left)) if isinstance(final, Var) else final
        for place in self.stored:
            place.put(wrap(next(left)))
        self.calls += calls

    def result(self, results: Any, call: Call) -> Any:
        """What the step returns, around these arrays, which a call computed."""
        call.kept = results[len(results) - self.kept :] if self.kept else None
        return rebuild(self.tree, tensors(results[: self.count], self.stale, self.differentiable, call))

    def bind(self) -> None:
        """Compile the source around the arrays that the state is in now."""
        for var in self.state:
            if var.tensor is not None:
                if _layout(var.tensor._data) != _layout(var.array):
                    raise Stale
                var.array = var.tensor._data
        self._bound = [(v.tensor, v.array) for v in self.state if v.tensor is not None]
        self.bases = [None] * len(self.inputs)
        back_end = import_module(f"tinygrad_scratch.capture.compile_{self.backend}")
        self._run = back_end.compile_plan(self)
        self.replay = self._first

    def _first(self, *args: Any) -> Any:
        """The first replay since anything that the quick way is written for has changed: write it."""
        added = any(isinstance(slot.before, Var) for slot in self.slots)
        redrawn = self.differentiable is not None and self.differentiable.random
        if self.expected is None or added or self.stored or redrawn:
            self.replay = _miss
        elif [(type(a), getattr(a, "shape", 0), getattr(a, "dtype", 0)) for a in args] == [
            e[:3] for e in self.expected
        ]:
            with self._lock:  # writing it compiles, which takes long enough for another thread to bind the plan anew
                self.replay = write_replay(self, self.expected)
            return self.replay(*args)
        return MISS

    prologue: list[Instr] = field(default_factory=list)  # what depends on the numbers alone

    @property
    def owners(self) -> list[Any]:
        """Arrays that own memory which the step changes, and that a program can pass as they are."""
        return [o for o in (owner_of(v.array) for v in self.changed) if type(o) is np.ndarray]

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
            f"guards: {len(self.guards)}, of which {sum(g.always for g in self.guards)} are compared in every call",
            f"replayed: {self.calls} times",
            *([self.fallback] if self.fallback else []),
        ]
        return "\n".join(lines)


def _is_as_before(slot: Slot) -> bool:
    """Whether the gradient of a Tensor is there, or not, as it was."""
    now = slot.tensor._grad
    if isinstance(slot.before, Var):
        return isinstance(now, Tensor) and (now.shape, now.dtype) == (slot.before.shape, slot.before.dtype)
    return now is slot.before


def _miss(*_: Any) -> Any:
    return MISS


class Unfit(Exception):  # noqa: N818
    """Nothing was done: the program itself is to do this call."""


class Stale(Exception):  # noqa: N818  (a signal, not an error)
    """The numbers, or the layout of the state, changed which operations there are: record again."""


def make_plan(
    recording: Recording, backend: str, rewrites: bool | Iterable[str], threads: Threads, kept: Sequence[Var] = ()
) -> Plan:
    """Rewrite, name, lay out and compile a step that was recorded twice. kept: answers that are wanted as well."""
    trace = recording.trace
    slots = [slot for slot in recording.slots if slot.read]
    inputs = [*recording.inputs, *(slot.before for slot in slots if isinstance(slot.before, Var))]
    left = [v for _, v in [*recording.gradients, *recording.stored] if isinstance(v, Var)]
    outputs = [*recording.outputs, *left, *kept]
    guards, changed = recording.guards(), {id(i.out.root): i.out.root for i in trace.instrs if i.in_place}
    recorded = len(trace.instrs)
    labelled = any(i.op.__name__ == "check_labels" for i in trace.instrs)
    checked = labelled and check_first(trace.instrs)
    settle_layouts([*inputs, *outputs], trace.instrs)  # before arrays are replaced by equal ones that lie elsewhere
    instrs = share_common(list(trace.instrs), outputs)
    prologue = _split_prologue(trace, instrs)
    patterns = tuple(PATTERNS) if rewrites is True else () if rewrites is False else tuple(rewrites)
    instrs, fired = rewrite(instrs, outputs, patterns)
    settle_layouts([*inputs, *outputs], [*prologue, *instrs])
    memory = lay_out(of_instrs(instrs), outputs)
    variables = _variables(instrs, prologue, outputs, inputs, trace)
    give_names(trace, variables, recording.names)
    plan = Plan(
        instrs, inputs, outputs,
        state=[v for v in variables if v.kind in ("external", "constant", "hyper")],
        numbers=trace.numbers, memory=memory, source_memory=memory, fired=fired, tree=recording.tree,
        count=len(recording.outputs), backend=backend, slots=slots, gradients=recording.gradients,
        stored=[place for place, _ in recording.stored], updated=recording.updated,
        changed=[v for v in changed.values() if v.kind == "external"], guards=guards, recorded=recorded, prologue=prologue,
    )  # fmt: skip
    plan.labelled, plan.checked = labelled, checked
    plan.expected, plan.kept, plan.stale = recording.quick, len(kept), recording.stale
    plan._mode = trace.grad
    plan.threads = threads if threads.auto or threads.fixed is not None else None
    for var in {id(v): v for v in [*variables, *trace.vars.values(), *(i.out for i in trace.instrs)]}.values():
        if var.kind == "answer":
            var.array = np.broadcast_to(np.zeros((), var.dtype), var.shape)  # the recorded values have served
    plan.bind()
    return plan


def check_first(instrs: list[Instr]) -> bool:
    """Move checks of labels, and what they are computed from, to the front; False if something else must come before."""
    checks = [i for i in instrs if i.op.__name__ == "check_labels"]
    first = needed(instrs, [i.out for i in checks])
    if any(i.in_place or i.op.__name__ == "random" for i in first):
        return False
    moved = set(map(id, first))
    instrs[:] = [*first, *(i for i in instrs if id(i) not in moved)]
    return True


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


def arguments(args: tuple[Any, ...]) -> list[Any]:
    """The arrays and Tensors among arguments."""
    return [leaf for leaf in leaves(args, nodes=False) if isinstance(leaf, (Tensor, np.ndarray, np.generic))]


def native(leaf: Any) -> Array:
    """The array of an argument, in the machine's byte order."""
    array = getattr(leaf, "_data", leaf)
    return np.asarray(array, array.dtype.newbyteorder("="))
