"""What must hold for a recorded step to be what the program would do now; each guard says in words what it stands for.

Most of what programs change is counted where it is changed (``context.changes``: attributes of modules, frozen parameters,
groups of optimizers): a call compares one number, and only where that differs looks at these guards. The others (globals, cells,
attributes of other objects, items of containers) are compared in every call, by ``expression``.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import numpy as np

from tinygrad_scratch._typing import Array
from tinygrad_scratch.capture.recording.places import Place, is_container, is_scalar, shape_of
from tinygrad_scratch.capture.recording.reads import Found, Reads, structure_of
from tinygrad_scratch.tensor import Tensor

LARGE = 1 << 20
"""Bytes of arrays that are compared in every call from which on the user is told."""


@dataclass(eq=False)
class Guard:
    """text: what it compares. holds: whether that is as it was. expression: Python that is true only if so, given a function
    that finds names for things; None where ``context.changes`` tells of every change. always: whether it must be asked in every
    call."""

    text: str
    holds: Callable[[], bool]
    always: bool = False
    expression: Callable[[Callable[[Any], str]], str] | None = None


def guards_of(reads: Reads) -> list[Guard]:
    """Guards of all that a call has read, as it was found."""
    kept = [f for f in reads.found.values() if not (f.counted and is_scalar(f.value))]
    modules = [_structure(module, before) for module, before in reads.modules.values()]
    return [*map(_of_place, kept), *modules, *_contents(reads)]


def _of_place(found: Found) -> Guard:
    place, expected, deep = found.place, found.shape, found.deep

    def holds() -> bool:
        return bool(shape_of(place.look(), deep) == expected)

    def expression(name: Callable[[Any], str]) -> str:
        if place.kind == "defaults":
            return _of_function(found.value, name(place.holder), name, holds)
        if place.kind == "method":
            return _of_method(place, found.value[1], name, holds)
        now = place.expression(name(place.holder))
        if found.deep and is_container(found.value) and found.value != ():
            return f"{name(holds)}()"
        same = f"{now} is {name(found.value)}"
        return f"({same} or {name(holds)}())" if is_scalar(found.value) else same

    counted = place.kind == "attribute" and hasattr(place.holder, "named_modules") and not is_container(found.value)
    return Guard(place.text, holds, not counted, None if counted else expression)


def _of_method(place: Place, function: Any, name: Callable[[Any], str], holds: Any) -> str:
    """Whether a method is still the class's, and that the same."""
    holder = name(place.holder)
    if not isinstance(function, FunctionType) or not hasattr(place.holder, "__dict__"):
        return f"{name(holds)}()"
    own = "" if hasattr(place.holder, "named_modules") else f" and {place.name!r} not in {holder}.__dict__"
    return f"{holder}.__class__.{place.name} is {name(function)}{own}"


def _of_function(value: Any, holder: str, name: Callable[[Any], str], holds: Any) -> str:
    """Whether a function is still the same code with the same defaults; where one of these can be changed itself, a look at it."""
    code, defaults, named = value
    if any(is_container(v) for v in (*(defaults or ()), *(named or {}).values())):
        return f"{name(holds)}()"
    rest = f" and {holder}.__kwdefaults__ is {name(named)}" if named else ""
    return f"{holder}.__code__ is {name(code)} and {holder}.__defaults__ is {name(defaults)}{rest}"


def _structure(module: Any, before: Any) -> Guard:
    return Guard(f"the parts of {type(module).__name__}", lambda: bool(structure_of(module) == before))


def _contents(reads: Reads) -> Iterable[Guard]:
    """Arrays that the program reads by NumPy alone: what they hold is compared in every call."""
    for memory in reads.outside.values():
        for array, before, where in memory.arrays.values() if memory.is_read else ():
            yield _content(
                array, before, f"the elements of {array.dtype}{array.shape}, {where}, which NumPy alone reads"
            )


def _content(array: Array, before: Array, text: str) -> Guard:
    def holds() -> bool:
        return array.shape == before.shape and array.dtype == before.dtype and same_bytes(array, before)

    return Guard(text, holds, True, lambda name: f"{name(holds)}()")


def same_bytes(one: Array, other: Array) -> bool:
    """Whether two arrays of one shape and dtype hold the same bits: NaN is NaN, and 0.0 not -0.0."""
    if one.dtype.kind != "f":
        return bool(np.array_equal(one, other))
    kind = f"u{one.dtype.itemsize}"
    return bool(np.array_equal(_bits(one, kind), _bits(other, kind)))


def _bits(array: Array, kind: str) -> Array:
    return (array if array.ndim else array.reshape(1)).view(kind)


def frozen(tensor: Tensor) -> Guard:
    """Whether a Tensor requires a gradient, as it did."""
    before = tensor._requires_grad
    return Guard(f"requires_grad of {tensor.dtype}{tensor.shape}", lambda: tensor._requires_grad is before)


def optimizer(thing: Any) -> Guard:
    """The groups of an optimizer, their parameters, and the arrays that are kept for each."""

    def shape() -> Any:
        groups = [(id(group), tuple(group["params"])) for group in thing.param_groups]
        return shape_of(groups), shape_of([(p, *kept.values()) for p, kept in thing.state.items()])

    before = shape()
    return Guard(f"the groups, parameters or state of {type(thing).__name__}", lambda: bool(shape() == before))


def mask_count(mask: Array, before: int) -> Guard:
    """How many elements a mask from outside takes."""
    text = f"how many elements of a mask, {mask.dtype}{mask.shape}, are True"
    holds = lambda: bool(np.count_nonzero(mask) == before)  # noqa: E731
    return Guard(text, holds, True, lambda name: f"{name(holds)}()")
