"""The source of rows that NumPy has no function for, with all that it uses, for files that run with NumPy alone."""

import ast
import builtins
import dis
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from importlib import import_module
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

from tinygrad_scratch import _team
from tinygrad_scratch.errors import CaptureError
from tinygrad_scratch.registry import Op

_INSTEAD: dict[Any, str] = {
    _team.share: '''\
def share(work, pieces):
    """work(0), ..., work(pieces - 1)"""
    for piece in range(pieces):
        work(piece)
'''
}
"""What is written otherwise than it is here: one thread does what the library's threads share."""


def carried(functions: dict[str, Callable[..., Any]]) -> str:
    """Source that defines functions under these names, in a scope of their own. CaptureError for what cannot be carried."""
    scope = _Scope({getattr(f, "__module__", "") for f in functions.values()})
    for name, function in functions.items():
        try:
            scope.add(function, name)
        except _NoSource as reason:
            raise CaptureError(
                f"cannot export {name.removeprefix('row_')}: it needs {reason}; write it as a def of a module, with NumPy, the "
                "standard library and such functions alone"
            ) from None
    names = ", ".join(functions)
    body = "\n".join([*sorted(set(scope.imports)), "", *scope.sources, f"return {names}"])
    return f"\ndef _rows():\n{textwrap.indent(body, '    ')}\n\n\n{names} = _rows()\n"


class _NoSource(Exception):  # noqa: N818  (a signal: says what is in the way)
    """Something that cannot be carried."""


class _Scope:
    """Definitions, each after those that it needs, and imports."""

    def __init__(self, modules: set[str]):
        self.modules = modules  # of the functions themselves: what else of these they use comes along
        self.values: dict[str, Any] = {"np": np}
        self.imports: list[str] = []
        self.sources: list[str] = []

    def add(self, value: Any, name: str) -> None:
        """Have a value under the name by which its user knows it."""
        value = value.fn if isinstance(value, Op) else value
        inner = inspect.unwrap(value)  # of a cache, say, which its source says again
        value = inner if isinstance(inner, FunctionType) and self._ours(inner) else value
        if name in self.values:
            if self.values[name] is not value:
                raise _NoSource(f"two things that are called {name}")
            return
        self.values[name] = value
        if isinstance(value, (FunctionType, type)) and self._ours(value):
            if name == value.__name__:
                self.sources.append(_INSTEAD.get(value) or self._definition(value))
            else:
                self.add(value, value.__name__)
                self.sources.append(f"{name} = {value.__name__}\n")
        elif _is_plain(value):
            self.sources.append(f"{name} = {value!r}\n")
        elif getattr(builtins, name, None) is not value:
            self.imports.append(_import(value, name))

    def _ours(self, value: Any) -> bool:
        return value.__module__ in self.modules or value.__module__.partition(".")[0] == "tinygrad_scratch"

    def _definition(self, value: Any) -> str:
        """The source of a function or class, once all that it uses is there."""
        try:
            source = textwrap.dedent(inspect.getsource(value))
        except OSError:
            raise _NoSource(f"the source of {value.__name__}, which is not to be found") from None
        defined = re.search(rf"^(def|class) {value.__name__}\b", source, re.MULTILINE)
        if not defined or getattr(value, "__closure__", None):
            raise _NoSource(f"{value.__module__}.{value.__qualname__}, which is no def of a module")
        known = vars(builtins) | vars(sys.modules[value.__module__])
        source = _bare(source, known)
        for name in _globals_of(compile(source, value.__name__, "exec")):
            if name in known and name != value.__name__ and not name.startswith("__"):
                self.add(known[name], name)
        return f"{source.rstrip()}\n"


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return isinstance(value, (int, str, type(None))) or (isinstance(value, float) and bool(np.isfinite(value)))


def _is_there(module: str) -> bool:
    """Whether a module can be imported where there is NumPy alone."""
    top = module.partition(".")[0]
    return top == "numpy" or top in sys.stdlib_module_names


def _import(value: Any, name: str) -> str:
    """The line that imports a thing of NumPy or the standard library under a name."""
    module = value.__name__ if isinstance(value, ModuleType) else str(getattr(value, "__module__", None))
    own, top = getattr(value, "__name__", name), module.partition(".")[0]
    if not _is_there(module):
        raise _NoSource(f"{name}, of {top}" if top != "None" else f"{name}, an object of type {type(value).__name__}")
    if isinstance(value, ModuleType):
        return f"import {module}" if module == name else f"import {module} as {name}"
    if getattr(import_module(module), own, None) is not value:
        raise _NoSource(f"{name}, an object of type {type(value).__name__}")
    return f"from {module} import {own}" if own == name else f"from {module} import {own} as {name}"


def _globals_of(code: CodeType) -> Iterator[str]:
    """The names that code takes from its module, or the builtins."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval
        elif instruction.opname == "IMPORT_NAME" and not _is_there(instruction.argval):
            raise _NoSource(f"{instruction.argval}, which it imports")
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _globals_of(inner)


def _bare(source: str, known: dict[str, Any]) -> str:
    """Source without annotations and notes to checkers; what it takes from a module of this library, by that thing's own name.

    `known` are its globals; the names of such things are added.
    """
    text = source.encode()  # whose bytes syntax trees count
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def start(node: Any) -> int:
        return int(starts[node.lineno - 1] + node.col_offset)

    def end(node: Any) -> int:
        return int(starts[node.end_lineno - 1] + node.end_col_offset)

    cuts: dict[int, tuple[int, bytes]] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.arg) and node.annotation:
            after, default = end(node.annotation), text[end(node.annotation) :].startswith(b" = ")
            cuts[start(node) + len(node.arg.encode())] = (after + 3, b"=") if default else (after, b"")
        elif isinstance(node, ast.FunctionDef):
            if node.returns:
                cuts[text.rindex(b" ->", 0, start(node.returns))] = end(node.returns), b""
            marked = [n for n in ast.walk(node) if isinstance(n, ast.AnnAssign) and n.value]
            cuts |= {end(n.target): (end(n.annotation), b"") for n in marked}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = known.get(node.value.id)
            if isinstance(module, ModuleType) and module.__name__.startswith("tinygrad_scratch"):
                known[node.attr] = getattr(module, node.attr)
                cuts[start(node)] = end(node), node.attr.encode()
    kept, at = [], 0
    for first, (last, instead) in sorted(cuts.items()):
        if first >= at:  # and not within what is cut already
            kept += [text[at:first], instead]
            at = last
    return re.sub(r"  # (type|noqa|fmt):.*", "", b"".join([*kept, text[at:]]).decode())
