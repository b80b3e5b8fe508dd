"""Looking into the user's functions while they run: Python tells of each instruction (``sys.settrace``).

Functions of NumPy, the standard library and this one are not looked into; where one of this library's is entered from a user's, it
is given Tensors for arrays. Of the layers of ``nn``, the options of their modules are noted (``self.p``).
"""

import sys
from types import FrameType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from tinygrad_scratch.capture.recording.instructions import Load, loads
from tinygrad_scratch.capture.recording.owners import is_in_row, is_known, is_users, kind_of_frame
from tinygrad_scratch.capture.recording.places import ABSENT, Place, attribute, is_container, is_scalar, items_of
from tinygrad_scratch.capture.recording.reads import Reads, is_module
from tinygrad_scratch.tensor import Tensor

_LOOKS_ANYWHERE = frozenset({"getattr", "hasattr", "vars", "dir"})
"""What a function can read attributes by that do not stand in its code."""
_FILLS = frozenset("append appendleft extend extendleft add insert update setdefault discard remove clear".split())
"""Methods that change a container without looking at what is in it."""
_ABOUT = frozenset("shape dtype ndim size nbytes itemsize strides flags".split())
"""Attributes of an array that say nothing of its elements."""


class watching:  # noqa: N801
    """Context manager: what this thread's functions read is noted. A tracer that is there, a debugger's, goes on hearing."""

    def __init__(self, reads: Reads):
        self.reads = reads
        self.before: Any = None
        self.functions: list[_Function] = []

    def __enter__(self) -> None:
        self.before = sys.gettrace()
        sys._getframe().f_trace_opcodes = True  # or Python 3.12 tells of no instructions at all
        sys.settrace(self._called)

    def __exit__(self, *_: Any) -> None:
        sys.settrace(self.before)
        for function in self.functions:
            function.close()

    def _called(self, frame: FrameType, event: str, argument: Any) -> Any:
        """Python's own call: a function begins."""
        theirs = None if self.before is None else self.before(frame, event, argument)
        kind = kind_of_frame(frame)
        if kind in ("library", "layer"):
            self._enter(frame)
        elif kind == "user":
            self.reads.hand_on(frame)
            self.reads.makers.update({c: frame.f_code for c in frame.f_code.co_consts if hasattr(c, "co_code")})
        if kind not in ("user", "layer"):
            return theirs
        function = (_Function if kind == "user" else _Layer)(self.reads, frame, theirs)
        self.functions.append(function)
        frame.f_trace = function  # and not only as what is returned, or Python 3.13 tells of no instructions
        frame.f_trace_opcodes = True
        return function

    def _enter(self, frame: FrameType) -> None:
        """A function of the library begins. If a user's calls it, it is given Tensors for arrays, around the same memory."""
        caller = frame.f_back
        while caller is not None and kind_of_frame(caller) == "opaque":
            caller = caller.f_back
        if caller is None or kind_of_frame(caller) != "user" or is_in_row(caller):
            return
        self.reads.hand_on(frame)
        for name, value in [*frame.f_locals.items()]:
            lifted = self.reads.lift(value)
            if lifted is not value:
                frame.f_locals[name] = lifted


class _Function:
    """One function that runs: what Python calls at each of its instructions."""

    def __init__(self, reads: Reads, frame: FrameType, theirs: Any):
        self.reads, self.theirs = reads, theirs
        self.code, self.loads = frame.f_code, loads(frame.f_code)
        self.seen: dict[int, Any] = {}  # objects by id, whose attributes it may read in ways that are not seen
        self.anywhere = False  # whether it does

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "opcode":
            for load in self.loads.get(frame.f_lasti, ()):
                self.load(load, frame)
        elif self.theirs is not None:
            self.theirs = self.theirs(frame, event, argument)
        return self

    def close(self) -> None:
        """The call is over: of what it read in ways that are not seen, all is noted."""
        for thing in self.seen.values() if self.anywhere else ():
            for name in [*getattr(thing, "__dict__", {})]:
                self._attribute(thing, name)

    # -- one load --------------------------------------------------------------------------------------------------

    def load(self, load: Load, frame: FrameType) -> None:
        """What an instruction loads is noted, link by link."""
        if load.root == "unknown":
            self._anything(load, frame)
            return
        place, value = self._root(load, frame)
        if load.use == "written" and not load.links:
            if place is not None:
                self.reads.wrote(place)
        elif value is not ABSENT and not is_known(value):
            if place is not None:
                self.reads.note(place, value, self._is_deep(load, 0, value), load.use == "counted" and not load.links)
            self._follow(load, value)

    def _root(self, load: Load, frame: FrameType) -> tuple[Place | None, Any]:
        """(where a path begins, what is there); no place for what the call made itself."""
        name, here = load.name, frame.f_locals
        if load.root == "global" and (here is frame.f_globals or name not in here):  # not a name in the body of a class
            place = Place("global", frame.f_globals, name, f"the global {name!r}")
            self.anywhere = self.anywhere or name in _LOOKS_ANYWHERE
            known = name in frame.f_globals or load.use == "written"
            return (place, frame.f_globals.get(name, ABSENT)) if known else (None, ABSENT)
        if load.root == "cell" and name in self.code.co_freevars:
            found = self.reads.cell_of(self.code, name, here)
            if found is not None:
                cell, whose = found
                return Place("cell", cell, name, f"{name!r}, which {whose} closes over"), here.get(name, ABSENT)
        return None, sys.modules.get(name, ABSENT) if load.root == "import" else here.get(name, ABSENT)

    def _follow(self, load: Load, value: Any) -> None:
        """Note the rest of a path."""
        self._see(value)
        for n, (kind, key) in enumerate(load.links, 1):
            last = n == len(load.links)
            if last and load.use == "written":
                self._wrote(value, kind, key)
                return
            if isinstance(value, (np.ndarray, Tensor, np.generic)):
                if kind == "attribute" and key in _ABOUT:
                    return
                break
            found = (self._attribute if kind == "attribute" else self._item)(
                value, key, self._is_deep(load, n, None), last and load.use == "counted"
            )
            if found is ABSENT or is_known(found):
                return
            value = found
            self._see(value)
        if load.use not in ("kept", "about"):
            self.reads.take(value)

    @staticmethod
    def _is_deep(load: Load, n: int, value: Any) -> bool:
        """Whether the program may look at what is in the thing that is found after `n` links: not where the next one takes an
        attribute or one item of it, or only puts something into it."""
        if n == len(load.links):
            return load.use != "written"
        kind, key = load.links[n]
        return kind == "attribute" and key not in _FILLS and (value is None or is_container(value))

    def _attribute(self, holder: Any, name: str, deep: bool = True, counted: bool = False) -> Any:
        """Note an attribute; what it is, or ABSENT."""
        if isinstance(holder, ModuleType):
            place, value = (
                Place("global", vars(holder), name, f"{name!r} of {holder.__name__}"),
                vars(holder).get(name, ABSENT),
            )
        else:
            found = attribute(holder, name)
            if found is None:
                return ABSENT
            place, value = found
        if value is ABSENT:
            return ABSENT
        if place.kind == "method":
            if _is_users_method(value[1]):
                self.reads.note(place, value, True)
            return ABSENT
        self.reads.note(place, value, deep, counted)
        return value

    def _item(self, holder: Any, key: Any, deep: bool, counted: bool) -> Any:
        """Note an item of a container; what it is, or ABSENT."""
        if not isinstance(holder, (list, tuple, dict)):
            return ABSENT
        place = Place("item", holder, key, f"[{key!r}] of a {type(holder).__name__}")
        value = place.look()
        self.reads.note(place, value, deep, counted)
        return value

    def _wrote(self, holder: Any, kind: str, key: Any) -> None:
        if kind == "attribute" and not isinstance(holder, (Tensor, np.ndarray)):
            self.reads.wrote(Place("attribute", holder, key, f"{key!r} of {type(holder).__name__}"))
        elif kind == "item" and isinstance(holder, (list, dict)):
            self.reads.wrote(Place("item", holder, key, f"[{key!r}] of a {type(holder).__name__}"))

    # -- what does not stand in the code ---------------------------------------------------------------------------

    def _see(self, value: Any) -> None:
        """An object, and those in it if it is a container, whose attributes may be read in ways that are not seen."""
        for thing in items_of(value) if is_container(value) else (value,):
            if hasattr(thing, "__dict__") and not isinstance(thing, (type, ModuleType, FunctionType, np.ndarray)):
                self.seen[id(thing)] = thing

    def _anything(self, load: Load, frame: FrameType) -> None:
        """An attribute of what an expression gave: of whatever the function has seen that has one of that name."""
        name = load.links[0][1]
        for value in [*frame.f_locals.values()]:
            self._see(value)
        things = [*self.seen.values()]
        for thing in things:  # which grows: parts of modules, and theirs
            if is_module(thing):
                things += [v for v in vars(thing).values() if is_module(v) and all(v is not t for t in things)]
        for thing in things:
            if name in getattr(thing, "__dict__", {}) or name in vars(type(thing)):
                self._attribute(thing, name, self._is_deep(load, 1, None))


class _Layer(_Function):
    """A function of one of the library's own layers: what it loads of its module, ``self``, is noted."""

    def load(self, load: Load, frame: FrameType) -> None:
        value = frame.f_locals.get(load.name)
        if load.name in _LOOKS_ANYWHERE and is_module(here := frame.f_locals.get("self")):
            for name in [*vars(here)]:
                self._attribute(here, name)
        if load.root != "local" or load.use == "written" or not is_module(value):
            return
        for _, name in load.links:
            value = self._attribute(value, name)
            if value is ABSENT or is_scalar(value) or isinstance(value, (Tensor, np.ndarray)):
                return


def _is_users_method(value: Any) -> bool:
    """Whether an attribute of a class may be another one later: not a method of a class of somebody else's."""
    function = value.__func__ if isinstance(value, MethodType) else value
    return not isinstance(function, FunctionType) or is_users(function.__code__, function.__globals__)
