"""What the instructions of a function load, read off its code before it runs: ``self.layers.scale`` is one load, of a path."""

import dis
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from types import CodeType, SimpleNamespace
from typing import Any

Link = tuple[str, Any]
"""("attribute", name), or ("item", key) with a key that stands in the code."""


@dataclass(frozen=True, slots=True)
class Load:
    """A path that an instruction begins to load.

    root: "global", "cell", "local", "import" (of a module, by name), or "unknown" (an attribute of what an expression gave).
    use: what becomes of it: "" (anything), "kept" (put under a local name), "about" (``len(x)``, which reads no elements),
        "counted" (``n += 1``), or "written".
    """

    root: str
    name: str
    links: tuple[Link, ...]
    use: str = ""


_ROOTS = {
    "LOAD_GLOBAL": "global", "LOAD_NAME": "global", "LOAD_FROM_DICT_OR_GLOBALS": "global", "LOAD_DEREF": "cell",
    "LOAD_CLASSDEREF": "cell", "LOAD_FROM_DICT_OR_DEREF": "cell", "LOAD_FAST": "local", "LOAD_FAST_CHECK": "local",
    "LOAD_FAST_AND_CLEAR": "local",
    "LOAD_FAST_BORROW": "local", "LOAD_FAST_LOAD_FAST": "local", "LOAD_FAST_BORROW_LOAD_FAST_BORROW": "local",
    "STORE_FAST_LOAD_FAST": "local",
}  # fmt: skip
_STORES = {"STORE_GLOBAL": "global", "STORE_NAME": "global", "STORE_DEREF": "cell", "DELETE_GLOBAL": "global"}
_ATTRIBUTE = frozenset({"LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR"})
_CONSTANT = frozenset({"LOAD_CONST", "LOAD_SMALL_INT"})
_KEPT = frozenset(
    {"STORE_FAST", "STORE_DEREF", "STORE_NAME", "STORE_GLOBAL", "STORE_FAST_LOAD_FAST", "STORE_FAST_STORE_FAST"}
)
_ABOUT = ("len", "isinstance", "type", "id", "shape", "ndim", "size")
"""What is loaded just before the argument of a call that reads no elements of an array."""
_WITHOUT_MEANING = frozenset({"CACHE", "EXTENDED_ARG", "NOP", "PUSH_NULL", "PRECALL", "NOT_TAKEN"})


@cache
def loads(code: CodeType) -> dict[int, tuple[Load, ...]]:
    """The loads of a function's code, by the offset of the instruction that begins each."""
    steps: list[Any] = [i for i in dis.get_instructions(code) if i.opname not in _WITHOUT_MEANING]
    end = SimpleNamespace(opname="", argval=None, argrepr="", offset=-1)
    found: dict[int, tuple[Load, ...]] = {}
    inside: set[int] = set()  # numbers of instructions that go on with a path
    padded = [*steps, end, end, end]
    for n, step in enumerate(steps):
        made = tuple(_at(padded, n, inside))
        if made:
            found[step.offset] = made
    return found


def _at(steps: list[Any], n: int, inside: set[int]) -> Iterator[Load]:
    """The loads that instruction `n` begins."""
    step = steps[n]
    if step.opname in _STORES:
        yield Load(_STORES[step.opname], step.argval, (), "written")
    elif step.opname in _ROOTS:
        names = step.argval if isinstance(step.argval, tuple) else (step.argval,)
        if step.opname != "STORE_FAST_LOAD_FAST":
            yield from (Load("local", name, ()) for name in names[:-1])
        path = _path(_ROOTS[step.opname], names[-1], steps, n + 1, inside)
        yield replace(path, use="about") if n and not path.use and steps[n - 1].argval in _ABOUT else path
    elif step.opname == "IMPORT_FROM":
        module = next((s.argval for s in reversed(steps[:n]) if s.opname == "IMPORT_NAME"), "")
        yield Load("import", module, (("attribute", step.argval),))
    elif step.opname in _ATTRIBUTE and n not in inside:
        yield _path("unknown", "", steps, n, inside)


def _path(root: str, name: str, steps: list[Any], n: int, inside: set[int]) -> Load:
    """The path that goes on at instruction `n`, and what becomes of it."""
    links: list[Link] = []
    while True:
        here = steps[n]
        again = _past_copies(steps, n)  # ``x.n += 1`` keeps x, to store into it later
        key = _past_copies(steps, n + 1)
        if steps[again].opname in _ATTRIBUTE:
            links.append(("attribute", steps[again].argval))
            inside.add(again)
            n = again + 1
        elif here.opname in _CONSTANT and _is_subscript(steps[key]):
            links.append(("item", here.argval))
            n = key + 1
        else:
            break
    if here.opname in ("STORE_ATTR", "DELETE_ATTR"):
        return Load(root, name, (*links, ("attribute", here.argval)), "written")
    if here.opname in _CONSTANT and steps[n + 1].opname in ("STORE_SUBSCR", "DELETE_SUBSCR"):
        return Load(root, name, (*links, ("item", here.argval)), "written")
    if here.opname in _KEPT:
        return Load(root, name, tuple(links), "kept")
    return Load(root, name, tuple(links), "counted" if _counts(root, name, links, steps, n) else "")


def _past_copies(steps: list[Any], n: int) -> int:
    while steps[n].opname == "COPY":
        n += 1
    return n


def _is_subscript(step: Any) -> bool:
    return bool(step.opname == "BINARY_SUBSCR" or (step.opname == "BINARY_OP" and step.argrepr == "[]"))


def _counts(root: str, name: str, links: list[Link], steps: list[Any], n: int) -> bool:
    """Whether what follows is ``path += something simple``, which puts the sum back where it was."""
    if len(steps) < n + 3 or not (steps[n].opname in _CONSTANT or steps[n].opname in _ROOTS):
        return False
    if steps[n + 1].opname != "BINARY_OP" or not steps[n + 1].argrepr.endswith("="):
        return False
    last = next(s for s in steps[n + 2 :] if s.opname != "SWAP")
    if not links:
        return bool(_STORES.get(last.opname) == root and last.argval == name)
    kind, key = links[-1]
    return bool(last.opname == "STORE_SUBSCR" if kind == "item" else last.opname == "STORE_ATTR" and last.argval == key)
