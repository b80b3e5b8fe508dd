"""Threads that share work on large arrays: as many as NumPy's products take, which meanwhile take one each.

They are started when there is work for them, wait for more, and end with the process. OPENBLAS_NUM_THREADS=1, or whatever
else sets NumPy's number of threads (threadpoolctl does), sets this one.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from itertools import count
from queue import SimpleQueue
from typing import Any

from tinygrad_scratch._blas import numpy_blas

PIECE = 1 << 19  # bytes: 50 us and more of a convolution's or a pool's work, of which handing it over costs 5 to 10
RUNS = 32  # that anything is split into, at most


def cores() -> int:
    """The cores that this process may run on now."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


MOST = min(cores(), 8)
"""More threads than this would wait for memory rather than compute."""


def products() -> int | None:
    """How many threads NumPy's products take, or took before products_alone; None where that is not known, or cannot be set."""
    library = numpy_blas()
    if library is None or library.get_threads is None or library.set_threads is None:
        return None
    return _alone.before or int(library.get_threads())


def size() -> int:
    """How many threads share work now, the caller's own among them."""
    return min(products() or 1, cores(), MOST)


class _Alone:
    """How many callers have asked for products on one thread each, and how many threads they took before; 0 if none has."""

    def __init__(self) -> None:
        self.callers, self.before, self.lock = 0, 0, threading.Lock()


_alone = _Alone()


@contextmanager
def products_alone() -> Iterator[None]:
    """Meanwhile each of NumPy's products takes one thread: its others, once woken, look for work for a while, on our cores."""
    library = numpy_blas()
    if library is None or products() is None:
        yield
        return
    with _alone.lock:
        if not _alone.callers:
            _alone.before = int(library.get_threads())
            library.set_threads(1)
        _alone.callers += 1
    try:
        yield
    finally:
        with _alone.lock:
            _alone.callers -= 1
            if not _alone.callers:
                library.set_threads(_alone.before)
                _alone.before = 0


AWAY, WORD, DONE, PART, WORDS = 0, 8, 16, 17, 24
"""Places among the words by which threads find work in compiled code: whether no step runs; the job, as (its number, its kind,
its pieces, the next piece); how many of its pieces are done; the address of the function that does a piece."""


class _Helpers:
    """Threads that do what is put before them; each has a number, from 1."""

    def __init__(self) -> None:
        self.started = 0
        self.tasks: SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...]]] = SimpleQueue()
        self.lock = threading.Lock()

    def call(self, helpers: int, function: Callable[..., Any], *arguments: Any) -> None:
        """Have helpers run function(*arguments, number), whenever each of them comes to it, if ever: they may be late, or none."""
        if self.started < helpers:
            with self.lock, suppress(RuntimeError):  # where the system gives no more threads, there are fewer
                while self.started < helpers:
                    number = self.started + 1
                    threading.Thread(target=self._work, args=(number,), name=f"team {number}", daemon=True).start()
                    self.started = number
        if self.tasks.qsize() <= 4 * self.started:  # more would be done long after their work
            for _ in range(min(helpers, self.started)):
                self.tasks.put((function, arguments))

    def _work(self, number: int) -> None:
        while True:
            function, arguments = self.tasks.get()
            function(*arguments, number)
            del function, arguments  # a thread that waits keeps nothing alive


helpers = _Helpers()


def _renew() -> None:
    """In a forked process there are no threads yet, and nobody has asked for anything."""
    global helpers, _alone
    if (library := numpy_blas()) is not None and _alone.callers:
        library.set_threads(_alone.before)
    helpers, _alone = _Helpers(), _Alone()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


class _Job:
    """Pieces of work, each done by whoever comes first."""

    def __init__(self, work: Callable[[int], Any], pieces: int):
        self.work, self.pieces, self.next, self.done = work, pieces, count(), SimpleQueue[BaseException | None]()

    def run(self) -> None:
        while (piece := next(self.next)) < self.pieces:
            try:
                self.work(piece)
            except BaseException as error:
                self.done.put(error)
            else:
                self.done.put(None)


def share(work: Callable[[int], Any], pieces: int) -> None:
    """work(0), ..., work(pieces - 1) on the threads of the team; raises the first error that one of them met."""
    others = min(size(), pieces) - 1
    if others < 1:
        for piece in range(pieces):
            work(piece)
        return
    job = _Job(work, pieces)
    with products_alone():
        for _ in range(others):  # in a context each, for np.errstate is one's own
            context = copy_context()
            helpers.call(1, lambda _, run=context.run: run(job.run))
        job.run()
        errors = [job.done.get() for _ in range(pieces)]
    for error in errors:
        if error is not None:
            raise error


def runs(number: int, each: int, least: int = PIECE) -> list[slice]:
    """range(number), of things of `each` bytes, in 1, 2, 4, ... runs of `least` bytes or more, each worth a thread's while.

    They depend on the sizes alone, never on the number of threads: what is computed in several runs has the same bits on any.
    What is one run is left to NumPy, whose products may take its threads.
    """
    pieces = 1 << max(1, min(number, RUNS, number * each // least)).bit_length() - 1
    return [slice(number * i // pieces, number * (i + 1) // pieces) for i in range(pieces)]


def share_runs(work: Callable[[slice], Any], number: int, each: int) -> None:
    """work(run) for each of the runs."""
    pieces = runs(number, each)
    share(lambda piece: work(pieces[piece]), len(pieces))
