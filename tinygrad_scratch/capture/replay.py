"""The quick way of a call, written for its plan: what must hold, the replay, what comes after; without a loop.

A step of a small network takes three microseconds; going through lists of arguments, parameters and options would take
as long again. Whatever does not hold sends the call to the careful way (``Plan.run``), which knows why.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from tinygrad_scratch.context import settings, state
from tinygrad_scratch.tensor import Tensor, next_rank, wrap

ONE = object()
"""The tree of a result that is one Tensor."""
MISS = object()
"""What the quick way answers when the careful way must be taken; then nothing has happened."""


def write_replay(plan: Any, expected: tuple[tuple[Any, ...], ...]) -> Callable[..., Any]:
    """``replay(*arguments)``: the step's result, or MISS. expected: type, shape and dtype of each argument."""
    named = Names(
        MISS=MISS, Tensor=Tensor, ndarray=np.ndarray, next_rank=next_rank, wrap=wrap, settings=settings, state=state,
        plan=plan, renew=plan.renew, result=plan.result, mode=plan._mode, lock=plan._lock,
    )  # fmt: skip
    arguments = [f"a{n}" for n in range(len(expected))]
    arrays = [f"{a}._data" if kind is Tensor else a for a, (kind, _, _) in zip(arguments, expected, strict=True)]
    run, made = _run(plan, arrays, named)
    shown = made[: len(made) - len(plan.grads)]
    lines = [
        "def replay(*arguments):",
        f"    if len(arguments) != {len(arguments)}:",
        "        return MISS",
        *([f"    {', '.join(arguments)}, = arguments"] if arguments else []),
        f"    if not ({' and '.join(_call_fits(arguments, expected, named))}):",
        "        return MISS",
        "    with lock:",
        f"        if not ({' and '.join(_state_fits(plan, named)) or True}):",
        "            return MISS",
        *(f"        {f}.grad = None" for f in named("f", plan._forgotten)),
        *(f"        {line}" for line in run),
        "        rank = next_rank()",
        *(f"        {u}._rank = rank; {u}.grad = None" for u in named("u", plan.updated)),
        *(f"        {g}.grad = wrap({m})" for g, m in zip(named("g", plan.grads), made[len(shown) :], strict=True)),
        "        plan.calls += 1",
        f"        return wrap({shown[0]})" if plan.tree is ONE else f"        return result([{', '.join(shown)}])",
    ]
    exec("\n".join(lines), named.known)
    return named.known["replay"]  # type: ignore[no-any-return]


class Names:
    """What the lines of a function call by name."""

    def __init__(self, **known: Any):
        self.known = known

    def __call__(self, stem: str, things: Iterable[Any]) -> list[str]:
        """Names for some more things: the stem with a number."""
        more = {f"{stem}{n}": thing for n, thing in enumerate(things)}
        self.known.update(more)
        return list(more)


def _call_fits(arguments: list[str], expected: tuple[tuple[Any, ...], ...], named: Names) -> list[str]:
    """What must hold of the thread and the arguments."""
    shapes, dtypes = named("shape", [e[1] for e in expected]), named("dtype", [e[2] for e in expected])
    fits = ["state.mode is mode", "not state.transforms", "plan.settings == settings.version"]
    for a, (kind, _, _), shape, dtype in zip(arguments, expected, shapes, dtypes, strict=True):
        fits += [f"type({a}) is {kind.__name__}", f"{a}.shape == {shape}", f"{a}.dtype is {dtype}"]
        fits += [f"not {a}.requires_grad"] if kind is Tensor else []
    return fits


def _state_fits(plan: Any, named: Names) -> list[str]:
    """What must hold of parameters, their gradients and the options of optimizers."""
    tensors, arrays = named("t", [t for t, _ in plan._bound]), named("s", [s for _, s in plan._bound])
    options, numbers = named("o", [n.options for n in plan.numbers]), named("n", plan.numbers)
    return [
        *(f"{t}._data is {s}" for t, s in zip(tensors, arrays, strict=True)),
        *(f"{c}.grad is None" for c in named("c", plan._cleared)),
        *(f"({o} == {n}.seen or renew())" for o, n in zip(options, numbers, strict=True)),
    ]


def _run(plan: Any, arrays: list[str], named: Names) -> tuple[list[str], list[str]]:
    """Lines that run the step, and what each of its results is then."""
    run, given = plan._run, "".join(f"{a}, " for a in arrays)
    straight = plan.threads is None and hasattr(run, "table") and not run.draws
    if straight and all(isinstance(r, np.ndarray) for r in run.results):
        step, table, refuse = named("x", [run.step, run.table, run.refuse])
        lines = [
            "try:",
            f"    code = {step}({table}, {given})",
            "except TypeError:  # not in C order",
            "    return MISS",
        ]
        return [*lines, "if code:", f"    {refuse}(code)"], [f"{r}.copy()" for r in named("r", run.results)]
    if plan.threads is None:
        call = f"{named('x', [run])[0]}({given})"
    else:
        threads, code = named("x", [plan.threads.run, run])
        call = f"{threads}({code}, ({given}))"
    return [f"made = {call}"], [f"made[{n}]" for n in range(len(plan.outputs))]
