"""Many runs: which are missing, on which processes they are done, and how their records are kept.

A record is a file named by the hash of its task, written whole or not at all. So what was done is not done again, an
interrupted reproduction goes on with the runs that are missing, and two reproductions may share a folder.
"""

import contextlib
import importlib
import json
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from models.data import Array
from models.files import RunError, finite, read_json, save_arrays, write_atomically
from models.papers.run import Record, run
from models.papers.tasks import Task

THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "OMP_NUM_THREADS")
WEIGHTS = "weights of a reproduced run, version 1"
TRIES, SCHEDULER_SECONDS = 3, 10.0
"""How often a run is begun whose process was killed; how long a scheduler is waited for."""

_told: Any = None


def record_path(folder: Path, task: Task) -> Path:
    """Where the task's record is kept."""
    return folder / f"{task.key}.json"


def load(folder: Path, task: Task) -> Record | None:
    """The task's record, if it was done and is readable."""
    path = record_path(folder, task)
    try:
        return read_json(path) if path.is_file() else None
    except RunError:
        return None  # cut short by something stronger than a rename: done again


def keep(folder: Path, task: Task, record: Record, weights: Mapping[str, Array]) -> None:
    """Write the record, after the weights that belong to it."""
    folder.mkdir(parents=True, exist_ok=True)
    if weights:
        save_arrays(folder / f"{task.key}.safetensors", dict(weights), WEIGHTS, task.to_json())
    write_atomically(record_path(folder, task), json.dumps(finite(record), allow_nan=False).encode())


def do(task: Task, data_dir: str | None, backend: str) -> tuple[Record, dict[str, Array]]:
    """The run, in whichever process; it tells how far it is if somebody listens there."""
    last = 0.0

    def show(done: float) -> None:
        nonlocal last
        if _told is not None and time.monotonic() - last > 0.3:
            last = time.monotonic()
            with contextlib.suppress(queue.Full):
                _told.put_nowait((task.key, done))

    return run(task, data_dir=data_dir, backend=backend, show=show)


def _begin(told: Any) -> None:
    """What a new process does first: Ctrl-C is the parent's to answer, and it tells the parent how far it is.

    When the parent is killed, it ends too: nobody waits for what it does.
    """
    global _told
    _told = told
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def processes(jobs: int) -> Iterator[tuple[Executor, Any]]:
    """A pool of processes with one BLAS thread each, and the queue of what they tell; all are gone at the end."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    context = multiprocessing.get_context("spawn")
    told = context.Queue(1000)
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(told,))
    try:
        yield pool, told
    except BaseException:  # what is under way is not waited for
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        told.close()
        told.cancel_join_thread()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


@contextlib.contextmanager
def cluster(address: str) -> Iterator[tuple[Executor, None]]:
    """The workers of a Dask scheduler, as an executor. It begins a run anew elsewhere if a worker is lost."""
    try:
        dask: Any = importlib.import_module("distributed")
    except ImportError:
        raise RunError("--dask needs Dask: pip install 'tinygrad_scratch[cluster]'") from None
    try:
        client = dask.Client(address, timeout=SCHEDULER_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise RunError(f"--dask {address}: no scheduler answers there: {error}") from None
    with client, client.get_executor(pure=False) as executor:
        yield executor, None


@dataclass
class Work:
    """What is to be done: tasks by name, and where their records are kept.

    quiet: print nothing. say: where a line for each finished run goes.
    """

    folder: Path
    tasks: Mapping[str, Task]
    data_dir: str | None = None
    backend: str = "auto"
    failures: dict[str, str] = field(default_factory=dict)
    say: Callable[[str], None] = lambda line: print(line, flush=True)

    def missing(self) -> dict[str, tuple[str, Task]]:
        """Name and task, by key, of each run that has no record and no reason for it, the longest first."""
        found: dict[str, tuple[str, Task]] = {}
        for name, task in sorted(self.tasks.items(), key=lambda item: -item[1].cost):
            if task.key not in found and task.key not in self.failures and load(self.folder, task) is None:
                found[task.key] = name, task
        return found

    def do(self, begin: Callable[[], contextlib.AbstractContextManager[tuple[Executor, Any]]]) -> None:
        """Do all that is missing. RunError if processes keep dying."""
        for _ in range(TRIES):
            todo = self.missing()
            if not todo:
                return
            with contextlib.suppress(BrokenProcessPool), begin() as (executor, told):
                self._do(executor, told, todo)
        if left := self.missing():
            name, _ = next(iter(left.values()))
            raise RunError(f"{name}: its process was killed {TRIES} times; is there enough memory? try --jobs 1")

    def _do(self, executor: Executor, told: Any, todo: Mapping[str, tuple[str, Task]]) -> None:
        futures = {executor.submit(do, task, self.data_dir, self.backend): key for key, (_, task) in todo.items()}
        unfinished: set[Future[Any]] = set(futures)
        shares: dict[str, float] = {}
        with tqdm(total=len(futures), unit=" runs", dynamic_ncols=True, disable=None) as bar:
            while unfinished:
                finished, unfinished = wait(unfinished, timeout=0.3, return_when=FIRST_COMPLETED)
                for future in finished:
                    key = futures[future]
                    shares.pop(key, None)
                    bar.update()
                    self._finish(*todo[key], future, f"{bar.n or len(futures) - len(unfinished)}/{len(futures)}")
                for key, share in _heard(told):
                    if any(futures[future] == key for future in unfinished):
                        shares[key] = share
                bar.set_postfix_str("; ".join(f"{todo[key][0]} {share:.0%}" for key, share in shares.items()))

    def _finish(self, name: str, task: Task, future: "Future[Any]", place: str) -> None:
        try:
            record, weights = future.result()
        except RunError as error:
            self.failures[task.key] = str(error)
            self.say(f"[{place}] {name}: not run: {error}")
            return
        keep(self.folder, task, record, weights)
        accuracy = 100 * record["final"]["test"]["accuracy"]
        self.say(f"[{place}] {name}: test accuracy {accuracy:.2f} %, {record['seconds']['all']:.1f} s")


def _heard(told: Any) -> Iterator[tuple[str, float]]:
    """All that processes have told since it was last asked."""
    while told is not None:
        try:
            yield told.get_nowait()
        except (queue.Empty, OSError):
            return


def say_to_bar(line: str) -> None:
    """A line above the bar, where there is one."""
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()
