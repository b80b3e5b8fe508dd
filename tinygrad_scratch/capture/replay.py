"""The quick way of a call, written for its plan: what must hold, the replay, what comes after; without a loop.

A step of a small network takes three microseconds; going through lists of arguments, parameters and options would take
as long again. Whatever does not hold sends the call to the careful way (``Plan.run``), which knows why.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from tinygrad_scratch.capture.derivative import Call, stale
from tinygrad_scratch.capture.recording.trace import Var
from tinygrad_scratch.context import changes, state
from tinygrad_scratch.tensor import Tensor, next_rank, wrap

MISS = object()
"""What the quick way answers when the careful way must be taken; then nothing has happened."""


class Unlabelled(IndexError):  # noqa: N818  (a signal: the program itself raises, or does not)
    """Labels that are no classes: the program itself says so, or does something else with them (it may ignore some)."""


def write_replay(plan: Any, expected: tuple[tuple[Any, ...], ...]) -> Callable[..., Any]:
    """``replay(*arguments)``: the step's result, or MISS. expected: type, shape, dtype and strides of each argument."""
    named = Names(
        MISS=MISS, Tensor=Tensor, ndarray=np.ndarray, next_rank=next_rank, wrap=wrap, stale=stale, Unlabelled=Unlabelled,
        changes=changes, state=state, plan=plan, renew=plan.renew, mode=plan._mode, lock=plan._lock, bases=plan.bases,
    )  # fmt: skip
    arguments = [f"a{n}" for n in range(len(expected))]
    arrays = [f"{a}._data" if kind is Tensor else a for a, (kind, *_) in zip(arguments, expected, strict=True)]
    run, made = _run(plan, arrays, named)
    left = iter(made[plan.count : len(made) - plan.kept])
    lines = [
        "def replay(*arguments):",
        f"    if len(arguments) != {len(arguments)}:",
        "        return MISS",
        *([f"    {', '.join(arguments)}, = arguments"] if arguments else []),
        f"    if not ({' and '.join(_call_fits(plan, arguments, arrays, expected, named))}):",
        "        return MISS",
        "    with lock:",
        "        try:",
        f"            if not ({' and '.join(_state_fits(plan, named)) or True}):",
        "                return MISS",
        "        except (AttributeError, LookupError, TypeError, ValueError):  # something is gone",
        "            return MISS",
        *(f"        {line}" for line in run),
        "        rank = next_rank()",
        *(f"        {named('u', [u])[0]}._rank = rank" for u in plan.updated),
        *(f"        {named('t', [t])[0]}._grad = {_final(final, left, named)}" for t, final in plan.gradients),
        "        plan.calls += 1",
        *(f"        {line}" for line in _call(plan, arrays, made, named)),
        f"        return {_built(plan.tree, _wrapped(plan, made), named)}",
    ]
    exec("\n".join(lines), named.known)
    return named.known["replay"]  # type: ignore[no-any-return]


class Names:
    """What the lines of a function call by name."""

    def __init__(self, **known: Any):
        self.known = known
        self._by_id: dict[int, str] = {}

    def __call__(self, stem: str, things: Iterable[Any]) -> list[str]:
        """Names for things: the stem with a number, the same for the same thing."""
        return [self._name(stem, thing) for thing in things]

    def _name(self, stem: str, thing: Any) -> str:
        if id(thing) not in self._by_id:
            name = self._by_id[id(thing)] = f"{stem}{len(self._by_id)}_"
            self.known[name] = thing
        return self._by_id[id(thing)]


def _call_fits(plan: Any, arguments: list[str], arrays: list[str], expected: Any, named: Names) -> list[str]:
    """What must hold of the thread and the arguments."""
    fits = ["state.mode is mode", "not state.transforms", "plan.version == changes.version"]
    fits += ["state.rewriting" if plan.rewriting else "not state.rewriting"]
    owners = named("o", plan.owners)
    for n, (a, array, (kind, shape, dtype, strides)) in enumerate(zip(arguments, arrays, expected, strict=True)):
        fits += [
            f"type({a}) is {kind.__name__}",
            f"{array}.shape == {shape}",
            f"{array}.dtype is {named('d', [dtype])[0]}",
        ]
        fits += [f"not {a}._requires_grad"] if kind is Tensor else []
        fits += [f"{array}.strides == {strides}"] if plan.backend == "numpy" else []
        if plan.changed:
            fits += [f"({array}.base is None or {array}.base is bases[{n}])", *(f"{array} is not {o}" for o in owners)]
    return fits


def _state_fits(plan: Any, named: Names) -> list[str]:
    """What must hold of gradients, of the options of optimizers, and of what the program reads otherwise."""

    def name(thing: Any) -> str:
        return named("g", [thing])[0]

    return [
        *(f"{name(slot.tensor)}._grad is {name(slot.before)}" for slot in plan.slots),
        *(f"({name(n.options)}.version == {name(n)}.version or renew())" for n in plan.numbers),
        *(guard.expression(name) for guard in plan.guards if guard.expression is not None),
    ]


def _final(final: Any, left: Iterator[str], named: Names) -> str:
    """The gradient that a Tensor has afterwards."""
    if isinstance(final, Var):
        return f"wrap({next(left)})"
    return "None" if final is None else named("k", [final])[0]


def _call(plan: Any, arrays: list[str], made: list[str], named: Names) -> list[str]:
    """What results that have a derivative remember of the call."""
    if plan.differentiable is None:
        return []
    kept = f"[{', '.join(made[len(made) - plan.kept :])}]" if plan.kept else "None"
    return [f"call = {named('x', [Call])[0]}((), ({''.join(f'{a}, ' for a in arrays)}), (), {kept})"]


def _wrapped(plan: Any, made: list[str]) -> Iterator[str]:
    """Tensors around the results."""
    for k, array in enumerate(made[: plan.count]):
        if k in plan.stale:
            yield f"stale({array})"
        else:
            has_graph = plan.differentiable is not None and plan.differentiable.leaves[k]
            yield f"plan.differentiable.result({k}, {array}, call)" if has_graph else f"wrap({array})"


def _built(tree: Any, made: Iterator[str], named: Names) -> str:
    """The result, of these arrays."""
    if tree is ...:
        return next(made)
    if tree is None:
        return "None"
    if isinstance(tree, dict):
        inside = ", ".join(f"{named('k', [key])[0]}: {_built(value, made, named)}" for key, value in tree.items())
        return f"{{{inside}}}"
    inside = "".join(f"{_built(value, made, named)}, " for value in tree)
    if type(tree) is list:
        return f"[{inside}]"
    if type(tree) is tuple:
        return f"({inside})"
    kind = named("k", [type(tree)])[0]
    return f"{kind}({inside})" if hasattr(tree, "_fields") else f"{kind}([{inside}])"


def _run(plan: Any, arrays: list[str], named: Names) -> tuple[list[str], list[str]]:
    """Lines that run the step, and what each of its results is then."""
    run, given = plan._run, "".join(f"{a}, " for a in arrays)
    straight = plan.threads is None and hasattr(run, "table") and not run.draws
    if straight and all(isinstance(r, np.ndarray) for r in run.results):
        step, table, refuse = (named("x", [thing])[0] for thing in (run.step, run.table, run.refuse))
        lines = [
            "try:",
            f"    code = {step}({table}, {given})",
            "except TypeError:  # not in C order",
            "    return MISS",
        ]
        return [*lines, "if code > 0 and plan.checked:", "    return MISS", "if code:", f"    {refuse}(code)"], [
            f"{r}.copy()" for r in named("r", run.results)
        ]
    if plan.threads is None:
        call = f"{named('x', [run])[0]}({given})"
    else:
        threads, code = named("x", [plan.threads.run, run])
        call = f"{threads}({code}, ({given}))"
    lines = [
        "try:",
        f"    made = {call}",
        "except Unlabelled:",
        "    if not plan.checked:",
        "        raise",
        "    return MISS",
    ]
    return lines if plan.labelled else [f"made = {call}"], [f"made[{n}]" for n in range(len(plan.outputs))]
