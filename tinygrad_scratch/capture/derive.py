"""Plans for the derivatives of a captured function's results: what they need of the forward pass, and the backward pass of each.

The recorded rows are run on Tensors, listened to, and differentiated; what the backward rows then read of the forward ones is what
the forward plan has to give as well. The backward rows are recorded once more, on that alone, and become a plan.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tinygrad_scratch.backward import pull
from tinygrad_scratch.capture.derivative import Call, Differentiable, Env, Pull, needed, run_rows, tensors
from tinygrad_scratch.capture.plan import Plan, make_plan
from tinygrad_scratch.capture.recording.reads import Reads
from tinygrad_scratch.capture.recording.record import Recording
from tinygrad_scratch.capture.recording.trace import Instr, Trace, Var
from tinygrad_scratch.context import enable_grad, listening, no_grad
from tinygrad_scratch.errors import CaptureError, GraphError
from tinygrad_scratch.tensor import Tensor, wrap
from tinygrad_scratch.trees import rebuild

Settings = tuple[Any, Any, Any]
"""Back end, rewrites, threads: as for the forward plan."""


def differentiable_of(recording: Recording, ask: Callable[[], None]) -> Differentiable | None:
    """What the derivatives of a recorded call's results follow from; None if none of them has one. ask: for plans."""
    if not any(recording.leaves):
        return None
    return Differentiable(recording.trace.instrs, recording.inputs, recording.outputs, recording.leaves, ask)


def results_of(recording: Recording, differentiable: Differentiable | None) -> Any:
    """What a recorded call returns."""
    draws = [] if differentiable is None else [row.out.array for row in differentiable.random]
    call = Call(recording.given, [np.asarray(getattr(a, "_data", a)) for a in recording.given], draws)
    return rebuild(recording.tree, tensors(recording.values, recording.stale, differentiable, call))


def derive(differentiable: Differentiable, settings: Settings) -> tuple[list[Var], list[Pull | None]]:
    """(answers of the forward pass that are to be kept, for each result how its derivative is replayed).

    None for a result whose derivative is taken eagerly: it is asked for by nobody, or is refused.
    """
    kept: dict[int, Var] = {}
    pulls = [
        _pull(differentiable, k, kept, settings) if leaves else None for k, leaves in enumerate(differentiable.leaves)
    ]
    return list(kept.values()), pulls


def _pull(d: Differentiable, k: int, kept: dict[int, Var], settings: Settings) -> Pull | None:
    try:
        backward = _Backward(d, k)
    except (GraphError, CaptureError):
        return None
    for var in backward.kept:
        kept.setdefault(id(var), var)
    order = list(kept)
    places = [order.index(id(var)) for var in backward.kept]
    plan, numbers = backward.plan(settings), backward.numbers

    def replayed(g: Any, call: Call) -> list[Any]:
        found = plan.run((g, *(call.kept[p] for p in places), *(call.arrays[n] for n in numbers)))
        return [t._data for t in found]

    return replayed


class _Backward:
    """The backward rows of one result. kept: answers of the forward pass (Vars of the recording) that they read; numbers: of the
    inputs that they read."""

    def __init__(self, d: Differentiable, k: int):
        self.d, self.k = d, k
        self.trace = Trace(Reads(None))
        env = self._forward()
        boundary = len(self.trace.instrs)
        self.seed = self.trace.add_input(wrap(np.ones_like(d.outputs[k].array)), "cotangent")
        with listening(self.trace), no_grad(), np.errstate(all="ignore"):
            self.trace.phase = "backward"
            found = pull(env[id(d.outputs[k])], self.seed.tensor, True, stop={id(v) for v in self.leaves})
            zeros = [np.zeros(v.shape, v.dtype) for v in self.leaves]
            answers = [found[id(v)][1] if id(v) in found else wrap(z) for v, z in zip(self.leaves, zeros, strict=True)]
            self.outputs = [self.trace.known(t._data) or self.trace.outside(t) for t in answers]
        rows = needed(self.trace.instrs[boundary:], self.outputs)
        self.rows = [*self._views(rows), *rows]
        origin = {id(self.trace.known(env[id(row.out)]._data)): row.out for row in d.rows if id(row.out) in env}
        made = {id(row.out) for row in self.rows}
        read = {id(v): v for row in self.rows for v in row.vars if id(v) not in made}
        read |= {id(v): v for v in self.outputs if id(v) not in made}
        self.read = [v for v in read.values() if v.kind == "answer"]
        self.kept = [origin[id(v)] for v in self.read]
        self.numbers = [n for n, v in enumerate(self.inputs) if id(v) in read]

    def _forward(self) -> Env:
        """Run the forward rows on Tensors, with a graph, listened to."""
        d, leaves = self.d, {id(v) for v in self.d.leaves[self.k]}
        tensors = []
        for var in d.inputs:
            tensor = wrap(np.array(var.array))
            tensor._requires_grad = id(var) in leaves
            tensors.append(tensor)
        self.inputs = [self.trace.add_input(t, v.name) for t, v in zip(tensors, d.inputs, strict=True)]
        env: Env = {id(v): t for v, t in zip(d.inputs, tensors, strict=True)}
        env |= {id(row.out): wrap(row.out.array.copy()) for row in d.random}
        for row in d.random:
            self.trace.add_input(env[id(row.out)], "drawn").kind = "answer"
        for var in d.leaves[self.k]:
            env.setdefault(id(var), var.tensor)
        self.leaves = [env[id(v)] for v in d.leaves[self.k]]
        with listening(self.trace), enable_grad(), np.errstate(all="ignore"):
            run_rows(needed(d.rows, [d.outputs[self.k]]), env)
        return env

    def _views(self, rows: Iterable[Instr]) -> list[Instr]:
        """Forward rows that only show memory which the backward rows read: they are made again, not kept."""
        found: dict[int, Instr] = {}

        def look(var: Var) -> None:
            if var.kind == "answer" and var.base is not None and var.maker is not None and id(var.maker) not in found:
                for other in var.maker.vars:
                    look(other)
                found[id(var.maker)] = var.maker

        made = {id(row.out) for row in rows}
        for var in [*(v for row in rows for v in row.vars), *self.outputs]:
            if id(var) not in made:
                look(var)
        return list(found.values())

    def plan(self, settings: Settings) -> Plan:
        """The plan of (cotangent, what was kept, inputs): the rows, recorded on these alone."""
        trace, env = Trace(Reads(None)), {}
        given = [self.seed, *self.read, *(self.inputs[n] for n in self.numbers)]
        for n, var in enumerate(given):
            tensor = wrap(var.array.copy(order="K" if settings[0] == "numpy" else "C"))
            env[id(var)] = tensor
            trace.add_input(tensor, var.name or f"kept_{n}")
        inputs = [trace.known(env[id(v)]._data) for v in given]
        trace.grad, trace.phase = False, "backward"
        with listening(trace), np.errstate(all="ignore"):
            run_rows(self.rows, env)
        outputs = [_answer(trace, v, env) for v in self.outputs]
        constant = {id(v.array) for v in self.trace.vars.values() if v.kind == "external" and self._is_made(v)}
        for var in trace.vars.values():
            if var.kind == "external" and id(var.array) in constant:
                var.kind = "constant"
        recording = Recording(trace, inputs, outputs, tree=[...] * len(outputs))  # type: ignore[arg-type]
        return make_plan(recording, *settings)

    def _is_made(self, var: Var) -> bool:
        """Whether an array was made by the rules, and is none that the step reads from outside."""
        outside = [v for row in self.d.rows for v in row.vars if v.kind == "external"]
        return not any(v.array is var.array or v.tensor is var.tensor is not None for v in outside)


def _answer(trace: Trace, var: Var, env: Env) -> Var:
    tensor = env.get(id(var))
    if tensor is None:
        tensor = wrap(var.array) if var.tensor is None else var.tensor
    assert isinstance(tensor, Tensor)
    return trace.known(tensor._data) or trace.outside(tensor)


__all__: Sequence[str] = ["derive", "differentiable_of", "results_of"]
