"""The BLAS that NumPy itself uses: its matrix product by name, and how many threads it takes.

There is one pool of threads in the process, NumPy's own. Two pools that fight for the cores, or one pool whose second thread
waits for a core that another process keeps busy, cost a small step a hundred times its work.
"""

import ctypes
import os
import time
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_VARIANTS = (("scipy_", "64_"), ("", "64_"), ("scipy_", ""), ("", ""))


class Blas(NamedTuple):
    """sgemm, dgemm: addresses of cblas functions; bits: of their integers; set_threads, get_threads: or None."""

    path: str
    sgemm: int
    dgemm: int
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
            names = [f"{before}cblas_{kind}gemm{after}" for kind in "sd"]
            if all(hasattr(library, name) for name in names):
                single, double = (ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for name in names)
                threads = [
                    getattr(library, f"{before}openblas_{verb}_num_threads{after}", None) for verb in ("set", "get")
                ]
                return Blas(str(path), single, double, 64 if after else 32, *threads)
    return None


class Threads:
    """How many threads the products of a plan take: None, as NumPy is set; a number; or "auto", what is faster now.

    "auto" times both ways now and then. Products split over threads may differ in their last bits from products that are
    not, so only the fixed ways give the same bits in every run.

    None is the default, for OpenBLAS itself gives small products to one thread, and gives the others to two where that pays:
    measured with NumPy 2.4's, up to half a million multiplications (all of a step of 784-300-100-10 with one example) one
    thread and two take the same time and give the same bits; with a million two gain nothing, with 1.25 million a third. Of
    4,608 products of up to 128 rows, the smallest that gave other bits on two threads had 614,400 multiplications.
    """

    EVERY = 0.25  # seconds between two looks at the way not taken
    TRIALS = 5  # calls of each way in a look

    def __init__(self, wanted: int | str | None):
        if wanted is not None and wanted != "auto" and (isinstance(wanted, (bool, str)) or wanted < 1):
            raise ValueError(f"threads is {wanted!r}: it must be None (as NumPy is set), 'auto' or a number from 1")
        library = numpy_blas()
        self.set: Any = library.set_threads if library else None
        self.most = int(library.get_threads()) if library and library.get_threads else 1
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.most = min(self.most, cores)
        self.auto = wanted == "auto" and self.most > 1 and self.set is not None
        self.fixed = None if wanted in (None, "auto") or self.set is None else int(wanted)
        self.now, self.next_look, self.trial = 1, 0.0, 0
        self.best = {1: float("inf"), self.most: float("inf")}

    def run(self, function: Any, arrays: Any) -> Any:
        """function(*arrays) with the chosen number of threads."""
        if self.fixed is not None:
            return self._with(self.fixed, function, arrays)
        began = time.perf_counter()
        if not self.trial and began > self.next_look:
            self.trial, self.best = 2 * self.TRIALS, dict.fromkeys(self.best, float("inf"))
        count = self.now if not self.trial else (1 if self.trial % 2 else self.most)
        result = self._with(count, function, arrays)
        ended = time.perf_counter()
        if self.trial:
            self.best[count] = min(self.best[count], ended - began)
            self.trial -= 1
            if ended - began > 20 * min(self.best.values()):  # a core is busy: look no further
                self.trial = 0
            if not self.trial:
                self.now = min(self.best, key=lambda n: self.best[n])
                self.next_look = ended + self.EVERY
        return result

    def steady(self, function: Any, arrays: Any) -> Any:
        """function(*arrays), for a call of many steps, whose time says little about one."""
        return self._with(self.now if self.fixed is None else self.fixed, function, arrays)

    def _with(self, count: int, function: Any, arrays: Any) -> Any:
        self.set(count)
        try:
            return function(*arrays)
        finally:
            self.set(self.most)
