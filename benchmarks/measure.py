"""What every benchmark needs: timing by blocks, the machine's description, tables, files written whole or not at all.

How times are taken on a noisy machine: a *block* repeats the code until it has run for tens of milliseconds; the
competitors' blocks are interleaved in many rounds, in a new random order each round; a figure is the median over the
rounds of the ratio to the yardstick's block in the same round, so that what slows a round slows both sides of its
ratio.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

DEFAULT_OUT = Path(__file__).parent / "results"


def parser(command: str, description: str | None) -> argparse.ArgumentParser:
    """A command's parser, with the options that all commands have."""
    text = (description or "").strip()
    result = argparse.ArgumentParser(
        prog=f"python -m benchmarks {command}", description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder for the results (default: %(default)s)")
    result.add_argument("--seed", type=int, default=0, help="seed of the data and the initial weights (default: 0)")
    result.add_argument("--quick", action="store_true", help="a short run that shows only that everything works")
    return result


def add_cores(parser: argparse.ArgumentParser) -> None:
    """The option that `cores` obeys."""
    parser.add_argument("--cores", type=positive, help="keep every competitor on so many cores (default: all)")


def positive(text: str) -> int:
    """An option's whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


# ---- time ------------------------------------------------------------------------------------------------------------


def seconds_per_call(function: Callable[[], Any], count: int) -> float:
    """Mean time of one call over one block of `count` calls."""
    start = time.perf_counter()
    for _ in range(count):
        function()
    return (time.perf_counter() - start) / count


def calls_per_block(run: Callable[[int], float], block: float) -> int:
    """How many calls fill `block` seconds, at least one. `run(count)` returns the mean seconds of one call."""
    count = 1
    while (seconds := run(count)) * count < block / 4 and count < 1_000_000:
        count *= 4
    return max(1, round(block / seconds))


def paired_ratio(
    function: Callable[[], Any], yardstick: Callable[[], Any], rounds: int, block: float
) -> tuple[float, float]:
    """(median over the rounds of function / yardstick, the yardstick's best seconds per call), blocks alternating."""
    counts = [calls_per_block(partial(seconds_per_call, f), block) for f in (function, yardstick)]
    mine, its = [], []
    for _ in range(rounds):
        mine.append(seconds_per_call(function, counts[0]))
        its.append(seconds_per_call(yardstick, counts[1]))
    return float(np.median(np.array(mine) / its)), min(its)


def settle(limit: float = 0.25) -> None:
    """Wait until this process's idle threads (OpenBLAS, OpenMP) have stopped spinning, at most `limit` seconds."""
    deadline = time.perf_counter() + limit
    while time.perf_counter() < deadline:
        before = time.process_time()
        time.sleep(0.003)
        if time.process_time() - before < 0.0005:
            return


def busy_core_seconds() -> float:
    """Core-seconds computed on this machine since it started, for anybody; NaN where the system does not tell."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return float("nan")
    user, nice, system, _, _, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


@contextmanager
def cores(count: int | None) -> Iterator[None]:
    """Processes that are started meanwhile run on `count` cores, and their libraries see no more. None: on all."""
    if count is None:
        yield
        return
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit("--cores: this system cannot keep a process on some of its cores")
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


# ---- where it was measured -------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """CPU, cores, load and BLAS."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.system(),
        "load average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "blas": f"{blas.get('name')} {blas.get('version')}",
        "threads": {name: value for name, value in os.environ.items() if name.endswith("_NUM_THREADS")},
    }


def cpu_model() -> str:
    """The processor's name, as well as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def versions(*packages: str) -> dict[str, str]:
    """Python, NumPy and those of `packages` that are installed."""
    found = {"python": platform.python_version()}
    for package in ("numpy", *packages):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def header(command: str, options: argparse.Namespace, *packages: str) -> dict[str, Any]:
    """What every results file begins with."""
    settings = {name: value for name, value in vars(options).items() if name != "out"}
    return {
        "benchmark": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": settings,
        "machine": machine(),
        "versions": versions(*packages),
    }


# ---- what is shown ---------------------------------------------------------------------------------------------------


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned: the first to the left, the others to the right."""
    columns = list(zip(headings, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(
            cell.ljust(width) if position == 0 else cell.rjust(width)
            for position, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()

    return "\n".join([line(headings), line(["-" * width for width in widths]), *map(line, rows)])


def write_json(path: Path, results: dict[str, Any]) -> None:
    """Write `results`, whole or not at all."""
    write_atomically(path, lambda temporary: temporary.write_text(json.dumps(results, indent=1) + "\n"))


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """`write` fills a temporary file beside `path`, which then takes its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
