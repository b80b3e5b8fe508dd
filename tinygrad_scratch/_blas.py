"""The BLAS that NumPy itself uses: its matrix product by name, and how many threads it takes.

Its threads are the ones that products take, compiled code's too. Two BLAS libraries that fight for the cores, or one whose second
thread waits for a core that another process keeps busy, cost a small step a hundred times its work. (`_team.py` has threads that
share other work; while they do, this library takes one.)
"""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_VARIANTS = (("scipy_", "64_"), ("", "64_"), ("scipy_", ""), ("", ""))


class Blas(NamedTuple):
    """address: of cblas functions, sgemm, dgemm, sgemv, dgemv; bits: of their integers; set_threads, get_threads: or None."""

    path: str
    address: dict[str, int]
    bits: int
    set_threads: Any
    get_threads: Any


@cache
def numpy_blas() -> Blas | None:
    """The BLAS library that NumPy has loaded, if it is one whose C interface can be found by name (OpenBLAS wheels)."""
    here = Path(np.__file__).parent
    folders = (here.parent / "numpy.libs", here / ".dylibs", here / "_core")
    for path in sorted(
        p for folder in folders if folder.is_dir() for p in folder.iterdir() if "blas" in p.name.lower()
    ):
        try:
            library = ctypes.CDLL(str(path))
        except OSError:
            continue
        for before, after in _VARIANTS:
            names = {name: f"{before}cblas_{name}{after}" for name in ("sgemm", "dgemm", "sgemv", "dgemv")}
            if all(hasattr(library, name) for name in names.values()):
                found = {
                    k: ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for k, name in names.items()
                }
                threads = [
                    getattr(library, f"{before}openblas_{verb}_num_threads{after}", None) for verb in ("set", "get")
                ]
                return Blas(str(path), found, 64 if after else 32, *threads)
    return None
