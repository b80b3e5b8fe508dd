"""Results of a captured function have a graph, as they have without capture: derivatives follow from the rows that were recorded.

The first time that it is asked for, the rows are run again on Tensors and differentiated eagerly. From then on the forward plan
also gives what the derivative needs of it, and backward is a plan of its own. Derivatives of derivatives run eagerly.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tinygrad_scratch._typing import Array
from tinygrad_scratch.backward import pull
from tinygrad_scratch.capture.recording.trace import Instr, Var
from tinygrad_scratch.capture.rewrite import CHECKS
from tinygrad_scratch.context import enable_grad, is_grad_enabled, set_grad_enabled
from tinygrad_scratch.domains import reals
from tinygrad_scratch.errors import GraphError
from tinygrad_scratch.record import bind
from tinygrad_scratch.registry import Op
from tinygrad_scratch.tensor import Tensor, as_tensor, next_rank, wrap

Env = dict[int, Any]
"""By id of a Var: what it is, an array or a Tensor."""
Pull = Callable[[Any, "Call"], list[Any]]
"""(cotangent of a result, the call that gave it) -> cotangents of the result's leaves."""


def _refuse(g: Any, y: Any) -> Any:
    raise GraphError(
        "this result of a captured step depends on Tensors that the step itself has changed in place since, so its derivative "
        "would be wrong; take it inside the step, before they change"
    )


_STALE = Op(np.empty, (_refuse,), "general", reals, name="captured", variadic=True)


def stale(array: Array) -> Tensor:
    """A Tensor around a result whose graph is there, but of no use any more."""
    made = wrap(array)
    made._requires_grad = True
    made._node = _STALE, (), (), {}
    made._rank = next_rank()
    return made


class Call:
    """One call of a captured function, as its results remember it.

    given: its arguments, of which some may ask for a gradient; arrays: their values; kept: what the derivative needs of the
    forward pass, if there is a plan for that; draws: what it drew, or how the generators stood before it.
    """

    __slots__ = ("arrays", "draws", "given", "kept")

    def __init__(self, given: Sequence[Any], arrays: Sequence[Array], draws: Sequence[Any] = (), kept: Any = None):
        self.given, self.arrays, self.draws, self.kept = given, arrays, draws, kept


class Differentiable:
    """The rows of a recorded call, and of which leaves (Tensors from outside, or inputs) each of its results is a function.

    leaves: for each result Vars; none for one that has no derivative. pulls: for each result how its derivative is replayed,
    once there are plans for that. ask: called when a derivative is taken without.
    """

    def __init__(self, instrs: Sequence[Instr], inputs: list[Var], outputs: list[Var], leaves: list[list[Var]],
                 ask: Callable[[], None]):  # fmt: skip
        self.rows = [Instr(i.op, list(i.inputs), i.options, i.out, i.phase, i.in_place) for i in instrs]
        self.inputs, self.outputs, self.leaves = inputs, list(outputs), leaves
        self.pulls: list[Pull | None] | None = None
        self.ask = ask
        self.random = [row for row in self.rows if row.op.__name__ == "random"]
        self._ops = [self._row(k) for k in range(len(outputs))]
        # a leaf is found, in a call, among the arguments (by number), or is a Tensor from outside
        self.sources: list[list[Any]] = [
            [inputs.index(v) if v in inputs else v.tensor for v in found] for found in leaves
        ]

    def states(self) -> list[Any]:
        """How the generators stand that a call will draw from."""
        return [row.options["rng"].bit_generator.state for row in self.random]

    def result(self, k: int, array: Array, call: Call) -> Tensor:
        """A Tensor around result k of a call, with a graph if it has a derivative."""
        made, sources = wrap(array), self.sources[k]
        if sources:
            parents = tuple([call.given[s] if type(s) is int else s for s in sources])
            if any(p._requires_grad for p in parents):
                made._requires_grad = True
                made._node = self._ops[k], parents, tuple([p._data for p in parents]), {"call": call}
                made._rank = next_rank()
        return made

    def _row(self, k: int) -> Op:
        """The row that result k is the answer of; its inputs are the leaves."""

        def rule(g: Any, y: Any, *values: Any, call: Call) -> Callable[[int], Any]:
            if not all(isinstance(v, (np.ndarray, Tensor)) for v in values):  # one was changed since: it may be read
                raise TypeError("the derivative of a captured function may read all that the result depends on")
            found = self._cotangents(k, g, values, call)
            return lambda i: found[i]

        op = Op(lambda *inputs, call: np.empty(0), (rule,), "general", reals, name="captured", variadic=True)
        bind(op)
        return op

    def _cotangents(self, k: int, g: Any, values: Sequence[Any], call: Call) -> list[Any]:
        """Of the leaves of result k, given as arrays or as Tensors, for a cotangent of it."""
        lift, plan = isinstance(g, Tensor), None if self.pulls is None or call.kept is None else self.pulls[k]
        if plan is not None and not lift:
            return plan(g, call)
        self.ask()
        keep = is_grad_enabled()
        with enable_grad(), np.errstate(all="ignore"):
            variables = [_variable(v) for v in values]
            env: Env = {id(v): a for v, a in zip(self.inputs, call.arrays, strict=False)}
            env |= {id(leaf): v for leaf, v in zip(self.leaves[k], variables, strict=True)}
            env |= self._drawn(call)
            run_rows(needed(self.rows, [self.outputs[k]]), env)
        root = env[id(self.outputs[k])]
        with set_grad_enabled(keep and lift), np.errstate(all="ignore"):
            found = pull(root, g, lift, stop={id(v) for v in variables})
        zeros = [np.zeros(v.shape, v.dtype) for v in variables]
        return [
            found[id(v)][1] if id(v) in found else wrap(zero) if lift else zero
            for v, zero in zip(variables, zeros, strict=True)
        ]

    def _drawn(self, call: Call) -> Env:
        """The random numbers of a call: those that it drew, or drawn again."""
        again: dict[int, np.random.Generator] = {}
        env: Env = {}
        for row, draw in zip(self.random, call.draws, strict=True):
            if isinstance(draw, np.ndarray):
                env[id(row.out)] = draw
                continue
            rng = row.options["rng"]
            if id(rng) not in again:
                again[id(rng)] = np.random.Generator(type(rng.bit_generator)())
                again[id(rng)].bit_generator.state = draw
            env[id(row.out)] = row.op.fn(**{**row.options, "rng": again[id(rng)]})
        return env


def _variable(value: Any) -> Tensor:
    """A leaf of the graph that is made; a Tensor that is to be differentiated in again is one already."""
    if isinstance(value, Tensor) and value._requires_grad:
        return value
    variable = wrap(getattr(value, "_data", value))
    variable._requires_grad = True
    return variable


def tensors(
    arrays: Sequence[Array], old: set[int], differentiable: Differentiable | None, call: Call
) -> Iterator[Tensor]:
    """Tensors around the results of a call. old: those whose graphs are stale."""
    for k, array in enumerate(arrays):
        if k in old:
            yield stale(array)
        else:
            yield wrap(array) if differentiable is None else differentiable.result(k, array, call)


# -- rows, run again -----------------------------------------------------------------------------------------------------


def needed(rows: Sequence[Instr], outputs: Iterable[Var]) -> list[Instr]:
    """The rows that outputs depend on, in order; among them those that change in place what is read."""
    wanted = {id(v) for v in outputs}
    memory = {id(v.root) for v in outputs}
    kept = []
    for row in reversed(rows):
        if id(row.out) in wanted or (row.in_place and id(row.out.root) in memory):
            wanted.update(id(v) for v in row.vars)
            memory.update(id(v.root) for v in row.vars)
            kept.append(row)
    return kept[::-1]


def run_rows(rows: Sequence[Instr], env: Env) -> None:
    """Run rows on what `env` holds, arrays and Tensors, and put their answers there, as Tensors.

    GraphError for a row that changes something in place: what was read of it before is not known any more.
    """
    for row in rows:
        if id(row.out) in env:  # drawn
            continue
        if row.in_place:
            raise GraphError(
                "the derivative of a captured function whose result depends on what the function changes in place is not kept; "
                "take it inside the captured function (tg.gradients, loss.backward()), or call the plain function"
            )
        given = [
            env.get(id(x), x.array if x.tensor is None else x.tensor) if isinstance(x, Var) else x for x in row.inputs
        ]
        checked = row.op.__name__ in CHECKS
        env[id(row.out)] = as_tensor(given[0] if checked else row.op(*given, **row.options))
