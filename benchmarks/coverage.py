"""Everyday calls of NumPy on the tensors of several libraries: right, refused, or wrong in silence.

How to read it: every call of `benchmarks/everyday.py` is written with the real `np.`; "right" means that its value is
NumPy's and its gradient is that of differences; "refused" that an exception says so; "wrong" that a value or a gradient
came back that is not the right one: also where the answer is a plain array, whose gradient is lost. "own namespace" runs
the same calls with the library's own functions in the place of np (autograd.numpy, jax.numpy, mygrad). Every library
runs in a process of its own, which is started again after the call that ended it.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.everyday import CALLS

ROOT = Path(__file__).parents[1]
OUTCOMES = ("right", "refused", "wrong")
LIBRARIES = {
    # what is shown: (what has to be installed, the worker's two arguments)
    "ours": ("tinygrad_scratch", "ours", "numpy"),
    "autograd": ("autograd", "autograd", "numpy"),
    "autograd, own namespace": ("autograd", "autograd", "own"),
    "mygrad": ("mygrad", "mygrad", "numpy"),
    "mygrad, own namespace": ("mygrad", "mygrad", "own"),
    "jax": ("jax", "jax", "numpy"),
    "jax, own namespace": ("jax", "jax", "own"),
    "torch": ("torch", "torch", "numpy"),
}
SECONDS = 900.0  # the longest that a library's process may run; all calls take most libraries seconds


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Try, print, write coverage.json; returns the results."""
    parser = measure.parser("coverage", __doc__)
    parser.add_argument(
        "--libraries", nargs="+", choices=LIBRARIES, help="only these (default: all that are installed)"
    )
    options = parser.parse_args(arguments)
    wanted = options.libraries or (["ours"] if options.quick else list(LIBRARIES))
    calls = [call for section in CALLS.values() for call in section]
    results = measure.header("coverage", options, "tinygrad_scratch", "autograd", "mygrad", "jax", "torch")
    results["calls"] = CALLS
    results["outcomes"] = {}
    for name in wanted:
        package, library, namespace = LIBRARIES[name]
        if importlib.util.find_spec(package) is None:
            print(f"{name}: not installed")
            continue
        results["outcomes"][name] = run(library, namespace, calls)
    results["totals"] = {name: totals(found) for name, found in results["outcomes"].items()}
    print(show(results))
    measure.write_json(options.out / "coverage.json", results)
    print(f"\nWritten: {options.out / 'coverage.json'}")
    return results


def run(library: str, namespace: str, calls: Sequence[str]) -> dict[str, dict[str, str]]:
    """{call: {"outcome", "note"}} of one library, whose process is started again after a call that ended it."""
    found: dict[str, dict[str, str]] = {}
    while len(found) < len(calls):
        left = calls[len(found) :]
        command = [sys.executable, "-m", "benchmarks.coverage_worker", library, namespace]
        try:
            done = subprocess.run(
                command, input=json.dumps(left), cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False
            )
            output, note = done.stdout, f"the process ended: {done.stderr[-200:]}"
        except subprocess.TimeoutExpired as error:
            output, note = (error.stdout or b"").decode(), "it took too long"
        for line in output.splitlines():
            answer = json.loads(line)
            found[answer.pop("call")] = answer
        if len(found) < len(calls):
            found[calls[len(found)]] = {"outcome": "wrong", "note": note}
    return found


def totals(found: dict[str, dict[str, str]]) -> dict[str, int]:
    """How many calls had each outcome."""
    count = Counter(answer["outcome"] for answer in found.values())
    return {outcome: count[outcome] for outcome in OUTCOMES}


def show(results: dict[str, Any]) -> str:
    """The table of totals, by section for ours, and what is wrong with ours, if anything is."""
    rows = [[name, *(str(count[outcome]) for outcome in OUTCOMES)] for name, count in results["totals"].items()]
    calls = sum(map(len, results["calls"].values()))
    lines = [f"{calls} everyday calls, value and gradient", "", measure.table(["", *OUTCOMES], rows)]
    for name in ("ours",):
        for call, answer in results["outcomes"].get(name, {}).items():
            if answer["outcome"] != "right":
                lines.append(f"{name}: {answer['outcome']}: {call}: {answer['note']}")
    return "\n".join(lines)
