"""How many threads the products of a captured step take."""

import time
from typing import Any

from tinygrad_scratch._blas import numpy_blas
from tinygrad_scratch._team import cores, products


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
        self.most = min(products() or 1, cores())
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
