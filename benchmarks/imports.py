"""How long `import tinygrad_scratch` takes over NumPy's own import, and how large the wheel is.

How to read it: every figure is from fresh interpreters, one import each, in a new random order every round; "over
NumPy" is the median over the rounds of the difference to `import numpy` in the same round. At most 30 ms is wanted,
and a wheel below 1 MB. Other libraries stand beside it where they are installed. All are imported from byte code, as
installed packages are, also where the environment keeps Python from writing it beside the sources.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure

ROOT = Path(__file__).parents[1]
OURS = "tinygrad_scratch"
WITH_NN = f"{OURS}, {OURS}.nn, {OURS}.optim"
PEERS = ("torch", "jax", "autograd", "mygrad")
LIMIT_SECONDS, LIMIT_BYTES = 0.030, 1_000_000


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Measure, print, write import.json; returns the results."""
    parser = measure.parser("import", __doc__)
    parser.add_argument(
        "--rounds", type=measure.positive, default=15, help="fresh interpreters for each import (default: 15)"
    )
    parser.add_argument("--no-wheel", action="store_true", help="do not build the wheel")
    options = parser.parse_args(arguments)
    peers = [] if options.quick else [name for name in PEERS if importlib.util.find_spec(name)]
    if options.quick:
        options.rounds = 2
    results = measure.header("import", options, OURS, *PEERS)
    results["imports"] = measure_imports(["numpy", OURS, WITH_NN, *peers], options.rounds, options.seed)
    results["wheel"] = {"note": "not asked for"} if options.no_wheel else wheel()
    print(show(results))
    measure.write_json(options.out / "import.json", results)
    print(f"\nWritten: {options.out / 'import.json'}")
    return results


def measure_imports(names: Sequence[str], rounds: int, seed: int) -> dict[str, dict[str, float]]:
    """Median and least seconds of each import, and the median of what it takes over NumPy's."""
    order = np.random.default_rng(seed)
    times: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as byte_code:
        for name in names:
            import_seconds(name, byte_code)  # writes the byte code, fills the system's cache of files
        for _ in range(rounds):
            for name in map(str, order.permutation(names)):
                times[name].append(import_seconds(name, byte_code))
    numpy = np.array(times["numpy"])
    return {
        name: {
            "median_s": float(np.median(found)),
            "best_s": min(found),
            "over_numpy_s": float(np.median(np.array(found) - numpy)),
        }
        for name, found in times.items()
    }


def import_seconds(names: str, byte_code: str) -> float:
    """Seconds of ``import <names>`` in a fresh interpreter that keeps its byte code in the folder `byte_code`."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = byte_code
    code = f"import time; start = time.perf_counter(); import {names}; print(time.perf_counter() - start)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def wheel() -> dict[str, Any]:
    """Build the wheel from a copy of the sources; {"bytes", "name"}, or {"note"} saying why there is none."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source", Path(folder) / "wheel"
        source.mkdir()
        for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"):
            if (ROOT / name).exists():
                shutil.copy(ROOT / name, source)
        shutil.copytree(ROOT / OURS, source / OURS, ignore=shutil.ignore_patterns("__pycache__"))
        command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(target), str(source)]
        for isolation in (["--no-build-isolation"], []):  # the build tool that is installed, else pip fetches one
            done = subprocess.run([*command, *isolation], capture_output=True, text=True, check=False)
            if built := list(target.glob("*.whl")):
                return {"name": built[0].name, "bytes": built[0].stat().st_size}
        return {"note": f"could not be built: {' '.join((done.stderr or done.stdout).split())[-300:]}"}


def show(results: dict[str, Any]) -> str:
    """The table and the verdicts."""
    rows = [
        [f"import {name}", *(f"{1e3 * found[key]:.1f}" for key in ("median_s", "best_s", "over_numpy_s"))]
        for name, found in results["imports"].items()
    ]
    lines = [measure.table(["", "median ms", "best ms", "over NumPy ms"], rows)]
    over = results["imports"][OURS]["over_numpy_s"]
    limit = f"{verdict(over <= LIMIT_SECONDS)} {1e3 * LIMIT_SECONDS:.0f} ms"
    lines.append(f"over NumPy's own: {1e3 * over:.1f} ms, {limit}")
    built = results["wheel"]
    if "note" in built:
        lines.append(f"wheel: {built['note']}")
    else:
        limit = f"{verdict(built['bytes'] < LIMIT_BYTES)} {LIMIT_BYTES / 1e6:g} MB"
        lines.append(f"wheel {built['name']}: {built['bytes'] / 1000:.0f} kB, {limit}")
    return "\n".join(lines)


def verdict(within: bool) -> str:
    """Whether a limit is kept, in words."""
    return "within" if within else "OVER"
