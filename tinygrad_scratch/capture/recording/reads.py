"""What a call reads of Python while it is recorded, in the user's own functions: found out, not guessed at.

The interpreter tells of every instruction that they run (``frames``). Each load of a global, a closed-over variable, an attribute
or an item of a container is noted here with what it found, before the step itself put something there.

An array from outside is read by reference where it is handed to this library, which is given a Tensor around it, so that whatever
it does with it is a row. Where the program also does something else with it (``1 - mask``: NumPy alone computes that), later
calls compare what it holds.
"""

import gc
from collections.abc import Callable, Iterator
from types import CodeType, FrameType, FunctionType, MethodType
from typing import Any

import numpy as np

from tinygrad_scratch._typing import Array
from tinygrad_scratch.capture.recording.owners import is_users
from tinygrad_scratch.capture.recording.places import ABSENT, Place, is_container, is_scalar, items_of, shape_of
from tinygrad_scratch.tensor import Tensor, wrap


class Outside:
    """Memory of an array that was found outside: how often the program took it, and how often it handed it on as it is."""

    def __init__(self) -> None:
        self.arrays: dict[int, tuple[Array, Array, str]] = {}  # by id: the array, what it held, and where it was found
        self.taken = self.handed = 0
        self.read = False  # by the library itself, as values

    @property
    def is_read(self) -> bool:
        """Whether the program, or the library, may have read its elements other than by rows."""
        return self.read or self.taken > self.handed


class Found:
    """What was found in a place when it was read first. deep: the program may have looked at what is in it; counted: it only
    added to it (``n += 1``)."""

    def __init__(self, place: Place, value: Any, deep: bool, counted: bool):
        self.place, self.value, self.deep, self.counted = place, value, deep, counted
        self.shape = shape_of(value, deep)

    def again(self, deep: bool, counted: bool) -> None:
        """It was read once more."""
        self.counted = self.counted and counted
        if deep and not self.deep:
            self.deep, self.shape = True, shape_of(self.value)


class Reads:
    """What a call reads. ``found``: the places; ``outside``: the arrays' memory; ``modules``: those whose parts were looked for."""

    def __init__(self, function: Callable[..., Any] | None):
        self.found: dict[Any, Found] = {}
        self.written: dict[Any, Place] = {}
        self.outside: dict[int, Outside] = {}
        self.modules: dict[int, tuple[Any, Any]] = {}
        self.lifted: dict[int, Array] = {}  # arrays that the library was given Tensors for
        self.values: list[Array] = []  # what the library read of them as values
        self.makers: dict[
            CodeType, CodeType
        ] = {}  # of a function's code: that of the function of this call that it stands in
        self._functions: dict[CodeType, list[FunctionType]] = {}
        self.meet(function, "the captured function")

    # -- places ----------------------------------------------------------------------------------------------------

    def note(self, place: Place, value: Any, deep: bool = True, counted: bool = False) -> None:
        """A place was read, and this found there."""
        if place.key in self.written:
            return
        known = self.found.get(place.key)
        if known is None:
            self.found[place.key] = Found(place, value, deep, counted)
            self.meet(value, place.text)
        else:
            known.again(deep, counted)

    def wrote(self, place: Place) -> None:
        """The call puts something into a place: what it reads there from now on is its own."""
        self.written.setdefault(place.key, place)

    def meet(self, value: Any, where: str) -> None:
        """Something from outside that the program may use from now on: arrays and functions, in containers too."""
        if isinstance(value, np.ndarray) and not isinstance(value, np.generic):
            memory = self.outside.setdefault(id(owner_of(value)), Outside())
            if id(value) not in memory.arrays:
                memory.arrays[id(value)] = value, value.copy(), where
        elif isinstance(value, MethodType):
            self.meet(value.__func__, where)
        elif isinstance(value, FunctionType):
            self._meet_function(value)
        elif is_container(value):
            for item in items_of(value):
                if not is_scalar(item):
                    self.meet(item, where)

    def _meet_function(self, function: FunctionType) -> None:
        """A function that the program may call: its defaults are read when it is."""
        known = self._functions.setdefault(function.__code__, [])
        if is_users(function.__code__, function.__globals__) and not any(f is function for f in known):
            known.append(function)
            place = Place("defaults", function, None, f"the code and the defaults of {function.__qualname__}")
            self.note(place, place.look())

    def looked_through(self, module: Any) -> None:
        """The library looks which parts, parameters and hooks a module has."""
        if id(module) not in self.modules:
            self.modules[id(module)] = module, structure_of(module)

    def cell_of(self, code: CodeType, name: str, values: dict[str, Any]) -> tuple[Any, str] | None:
        """(the cell, whose it is) that a function of this code closes over under a name; None if it was made within this call.

        values: what the function's names stand for, by which it is told from others of the same code.
        """
        own = code
        while name in code.co_freevars and code in self.makers:
            code = self.makers[code]
        if name not in code.co_freevars:
            return None
        for function in self._functions.get(code) or [f for f in gc.get_referrers(code) if isinstance(f, FunctionType)]:
            cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
            if code is not own or all(_holds(cells[n], values.get(n, ABSENT)) for n in code.co_freevars):
                return cells[name], function.__qualname__
        return None

    # -- arrays ----------------------------------------------------------------------------------------------------

    def take(self, value: Any) -> None:
        """The program takes an array (or a container of some), to do something with its elements."""
        for memory in self._known_in(value):
            memory.taken += 1

    def hand_on(self, frame: FrameType) -> None:
        """Arrays are given, as they are, to a function: of the user's, whose own loads are seen, or of the library."""
        for memory in self._known_in([*frame.f_locals.values()]):
            memory.handed += 1

    def _known_in(self, value: Any) -> Iterator[Outside]:
        if self.outside:
            for array in arrays_in(value):
                memory = self.outside.get(id(owner_of(array)))
                if memory is not None:
                    yield memory

    def lift(self, value: Any) -> Any:
        """Tensors for the arrays in an argument, in lists, tuples and dicts too; itself if there are none."""
        if type(value) is np.ndarray and value.dtype.kind in "fiub":
            self.lifted[id(value)] = value
            return wrap(value)
        if type(value) in (list, tuple):
            parts = [*map(self.lift, value)]
            return type(value)(parts) if any(a is not b for a, b in zip(parts, value, strict=True)) else value
        if type(value) is dict:
            values = {key: self.lift(part) for key, part in value.items()}
            return values if any(values[key] is not part for key, part in value.items()) else value
        return value

    def read_values(self, array: Array) -> None:
        """The library reads the elements of an array that it was given a Tensor for: numbers that shape what it does."""
        self.values.append(array.copy())
        memory = self.outside.get(id(owner_of(array)))
        if memory is not None:
            memory.read = True
            memory.arrays.setdefault(id(array), (array, array.copy(), "an array that was passed on"))


def structure_of(module: Any) -> Any:
    """What a module consists of, as the library sees it: which parameters, buffers, parts and hooks it has, under which names."""
    parts = {name: value for name, value in vars(module).items() if isinstance(value, Tensor) or is_module(value)}
    return shape_of([parts, module._persistent, dict(module._hooks), vars(module).get("forward")])


def is_module(value: Any) -> bool:
    return hasattr(value, "named_modules") and not isinstance(value, type)


def _holds(cell: Any, value: Any) -> bool:
    try:
        return cell.cell_contents is value
    except ValueError:  # empty
        return value is ABSENT


def owner_of(array: Any) -> Any:
    """What owns the memory that an array shows."""
    while isinstance(getattr(array, "base", None), np.ndarray):
        array = array.base
    return array


def arrays_in(value: Any, depth: int = 4) -> Iterator[Array]:
    """Arrays in arguments, in containers too."""
    if isinstance(value, np.ndarray):
        yield value
    elif depth and is_container(value):
        for item in items_of(value):
            if not is_scalar(item):
                yield from arrays_in(item, depth - 1)
