"""Where Python keeps what a step reads, and what was found there: guards of a captured step are made of the two.

A place is the global of a name, a cell that a function closes over, an attribute of an object, an item of a container, or the
defaults of a function. What was found is remembered as a value (numbers, strings), as which object it is (Tensors, functions),
or, of a container, as what is in it.
"""

import functools
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import BuiltinFunctionType, CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any

import numpy as np

from tinygrad_scratch.errors import CaptureError, describe
from tinygrad_scratch.tensor import Tensor

ABSENT: Any = type("Absent", (), {"__repr__": lambda self: "nothing"})()
"""What is found in a place that there is not (any more)."""

MOST = 4096
"""Items of a container that are remembered, at most."""

PLAIN = (int, float, complex, str, bytes, bool, type(None), type(...), type(NotImplemented), slice, range)
"""Types of values that are compared as values."""


@dataclass(frozen=True, eq=False, slots=True)
class Place:
    """kind: "global" (holder: the dict), "cell", "attribute", "item", "method" (of an object; what is there is what the object
    itself has under the name, and what its class has) or "defaults" (holder: the function)."""

    kind: str
    holder: Any
    name: Any
    text: str

    @property
    def key(self) -> Any:
        """Equal for equal places, while the holder lives."""
        name = self.name if isinstance(self.name, (str, int)) else repr(self.name)
        return self.kind, id(self.holder), name

    def look(self) -> Any:
        """What is there now."""
        try:
            return _LOOK[self.kind](self.holder, self.name)
        except (AttributeError, LookupError, TypeError, ValueError):
            return ABSENT

    def put(self, value: Any) -> None:
        """Have something else there."""
        if self.kind == "cell":
            self.holder.cell_contents = value
        elif self.kind == "attribute":
            setattr(self.holder, self.name, value)
        else:
            self.holder[self.name] = value

    def expression(self, holder: str) -> str:
        """Python for what is there now; `holder` is the name by which it knows the holder."""
        if self.kind == "cell":
            return f"{holder}.cell_contents"
        return f"{holder}.{self.name}" if self.kind == "attribute" else f"{holder}[{self.name!r}]"


_LOOK: dict[str, Callable[[Any, Any], Any]] = {
    "global": lambda holder, name: holder[name],
    "cell": lambda holder, name: holder.cell_contents,
    "attribute": getattr,
    "item": lambda holder, name: holder[name],
    "method": lambda holder, name: (getattr(holder, "__dict__", {}).get(name, ABSENT), getattr(type(holder), name)),
    "defaults": lambda holder, name: (holder.__code__, holder.__defaults__, holder.__kwdefaults__),
}


def attribute(holder: Any, name: str) -> tuple[Place, Any] | None:
    """(place, value) of an attribute that is kept in the object or its class; None for one that code computes, or for none."""
    kind = type(holder)
    described = next((vars(c)[name] for c in kind.__mro__ if name in vars(c)), ABSENT)
    own = holder.__dict__ if isinstance(getattr(holder, "__dict__", None), dict) else {}
    if isinstance(described, MemberDescriptorType):
        place = Place("attribute", holder, name, f"{name!r} of {kind.__name__}")
        value = place.look()
        return None if value is ABSENT else (place, value)
    if hasattr(type(described), "__set__"):  # a property, or its like: its function is looked into when it runs
        return None
    if name in own:
        return Place("attribute", holder, name, f"{name!r} of {kind.__name__}"), own[name]
    if described is ABSENT or isinstance(holder, ModuleType):
        return None
    if isinstance(described, (FunctionType, classmethod, staticmethod)):
        place = Place("method", holder, name, f"the method {name!r} of {kind.__name__}")
        return place, place.look()
    if hasattr(type(described), "__get__"):
        return None
    return Place("attribute", holder, name, f"{name!r} of {kind.__name__}"), described


def is_container(value: Any) -> bool:
    """Whether a value is remembered by what is in it."""
    return isinstance(value, (list, tuple, dict, set, frozenset, deque, functools.partial))


def items_of(value: Any) -> list[Any]:
    """What is in a container, in order; of a dict, the values."""
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    return list(value.values()) if isinstance(value, Mapping) else list(value)


class _Same:
    """An object, equal to itself alone."""

    __slots__ = ("thing",)

    def __init__(self, thing: Any):
        self.thing = thing

    def __eq__(self, other: object) -> bool:
        return type(other) is _Same and other.thing is self.thing

    def __hash__(self) -> int:
        return id(self.thing)

    def __repr__(self) -> str:
        return describe(self.thing)


def shape_of(value: Any, deep: bool = True) -> Any:
    """What a value is remembered by: equal for two that are the same to a program.

    deep: of a container what is in it; otherwise which object it is.
    """
    return _shape(value, deep, [0], ())


def _shape(value: Any, deep: bool, count: list[int], above: tuple[int, ...]) -> Any:
    kind = type(value)
    if kind is float:
        return (kind, repr(value))  # which tells 0.0 from -0.0, and finds nan again
    if kind in PLAIN or isinstance(value, (np.dtype, CodeType)):
        return (kind, repr(value)) if kind in (slice, complex) else (kind, value)
    if isinstance(value, np.generic):
        return (kind, value.tobytes())
    if isinstance(value, BuiltinFunctionType):
        return (kind, value.__qualname__, _Same(value.__self__))
    if isinstance(value, MethodType):
        return (kind, _Same(value.__func__), _Same(value.__self__))
    if not deep or not is_container(value) or id(value) in above:
        return _Same(value)
    inside = items_of(value)
    count[0] += len(inside)
    if count[0] > MOST:
        raise CaptureError(
            f"the step reads a {kind.__name__} of {len(inside)} items from outside, all of which would have to be compared before "
            "each call; pass what it needs of it as an argument, or make one array of it"
        )
    parts = [_shape(item, True, count, (*above, id(value))) for item in inside]
    if isinstance(value, (set, frozenset)):
        return (kind, frozenset(parts))
    keys = [_shape(key, False, count, above) for key in value] if isinstance(value, Mapping) else None
    return (kind, keys, parts)


def is_scalar(value: Any) -> bool:
    """Whether a value is a number, string, flag or the like."""
    return type(value) in PLAIN or isinstance(value, (np.generic, np.dtype))


def is_array(value: Any) -> bool:
    return isinstance(value, (np.ndarray, Tensor)) and not isinstance(value, np.generic)
