"""Lists and dicts of an optimizer that tell when they are changed: a captured step looks again at what it updates, and how."""

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from tinygrad_scratch.context import changes

_next = count(1).__next__


def _telling(kind: type, *names: str) -> Callable[[type], type]:
    """Decorator: methods of `kind` under these names, after which the object's ``_changed`` is called."""

    def make(name: str) -> Any:
        inner = getattr(kind, name)

        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            result = inner(self, *args, **kwargs)
            self._changed()
            return result

        method.__name__, method.__doc__ = name, inner.__doc__
        return method

    def decorate(cls: type) -> type:
        for name in names:
            setattr(cls, name, make(name))
        return cls

    return decorate


@_telling(
    list, "__setitem__", "__delitem__", "__iadd__", "__imul__", "append", "clear", "extend", "insert", "pop", "remove", "reverse",
    "sort",
)  # fmt: skip
class WatchedList(list[Any]):
    """A list of which every change is counted."""

    def _changed(self) -> None:
        changes.note()


@_telling(dict, "__setitem__", "__delitem__", "__ior__", "clear", "pop", "popitem", "update")
class WatchedDict(dict[Any, Any]):
    """A dict of which every change is counted."""

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """What is there under a key; `default`, from then on, if nothing is."""
        if key not in self:
            self[key] = default
        return self[key]

    def _changed(self) -> None:
        changes.note()


class Group(WatchedDict):
    """The options of a group of parameters. A change of one is this group's alone: rates change with every step."""

    version = 0
    _parameters: Any = None

    def _changed(self) -> None:
        self.version = _next()
        if self.get("params") is not self._parameters:
            if not isinstance(self.get("params"), WatchedList) and "params" in self:
                dict.__setitem__(self, "params", WatchedList(self["params"]))
            self._parameters = self.get("params")
            changes.note()


class Groups(WatchedList):
    """The groups of an optimizer."""

    def _changed(self) -> None:
        for i, group in enumerate(self):
            if not isinstance(group, Group):
                list.__setitem__(self, i, group_of(group))
        changes.note()


class State(WatchedDict):
    """What is kept for each parameter."""

    def _changed(self) -> None:
        for parameter, kept in self.items():
            if not isinstance(kept, WatchedDict):
                dict.__setitem__(self, parameter, WatchedDict(kept))
        changes.note()


def group_of(options: Mapping[str, Any]) -> Group:
    """A group with these options."""
    group = Group()
    group.update(options)
    return group
