"""Whose code a function is: the user's, which is looked into while it runs, or that of this library, NumPy or Python."""

import sys
import sysconfig
from functools import cache
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

import numpy as np

import tinygrad_scratch

_HERE = str(Path(tinygrad_scratch.__file__).parent)
_STRUCTURE = ("/module.py", "/containers.py", "/hook.py", "/replace.py")
"""Files of nn whose functions say themselves what they read of a module."""
_INSTALLED = tuple({sysconfig.get_path(name) for name in ("purelib", "platlib")})
_NUMPY = str(Path(np.__file__).parent)
_PYTHON = (*{sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}, "<frozen")


@cache
def _of_file(filename: str) -> str:
    """ "library", "layer" (of this library: its modules have options), "opaque" (NumPy's, Python's), "installed" or "user"."""
    if filename.startswith(_HERE):
        return "layer" if filename.startswith(f"{_HERE}/nn/") and not filename.endswith(_STRUCTURE) else "library"
    if filename.startswith(_INSTALLED):
        return "opaque" if filename.startswith(_NUMPY) else "installed"
    return "opaque" if filename.startswith(_PYTHON) else "user"


def kind_of(code: CodeType, variables: dict[str, Any]) -> str:
    """ "library", "layer", "opaque" or "user". An installed package that is written for this library is a user's; one that is
    not is opaque. variables: the globals of the function."""
    kind = _of_file(code.co_filename)
    package = str(variables.get("__name__")).partition(".")[0]
    if kind == "user" and package in (
        "tinygrad_scratch",
        "numpy",
    ):  # code that was written on the way, as a dataclass's is
        return "library" if package == "tinygrad_scratch" else "opaque"
    if kind != "installed":
        return kind
    return "user" if any(_is_of_this_library(value) for value in [*variables.values()]) else "opaque"


def is_users(code: CodeType, variables: dict[str, Any]) -> bool:
    return kind_of(code, variables) == "user"


def kind_of_frame(frame: FrameType) -> str:
    return kind_of(frame.f_code, frame.f_globals)


def is_known(module: Any) -> bool:
    """Whether a thing is a module of NumPy, Python or this library: nobody changes those."""
    if not isinstance(module, ModuleType):
        return False
    file = getattr(module, "__file__", None)
    if file is None:
        return module.__name__.partition(".")[0] in sys.stdlib_module_names
    return _of_file(file) in ("opaque", "library", "layer")


def is_in_row(frame: FrameType | None) -> bool:
    """Whether a function runs within a row's own, which is one of arrays."""
    while frame is not None:
        if frame.f_code.co_name == "apply" and frame.f_code.co_filename == f"{_HERE}/record.py":
            return True
        frame = frame.f_back
    return False


def _is_of_this_library(value: Any) -> bool:
    name = getattr(value, "__name__" if isinstance(value, ModuleType) else "__module__", "")
    return isinstance(name, str) and name.partition(".")[0] == "tinygrad_scratch"
