"""`python -m benchmarks coverage`: none of the everyday calls is wrong, what is refused says why, and lies are noticed."""

import json

import numpy as np
import pytest

from benchmarks import coverage
from benchmarks import coverage_worker as worker
from benchmarks.everyday import CALLS

EVERY = [call for section in CALLS.values() for call in section]
REFUSED = {"np.roots(v[:2])", *CALLS["complex intermediates"]}


@pytest.mark.parametrize("call", EVERY)
def test_no_call_is_wrong(call):
    outcome, note = worker.judge(call, worker.LIBRARIES["ours"]()[0], np)
    assert outcome in ("right", "refused") if call in REFUSED else outcome == "right", note
    if outcome == "refused":
        assert note.startswith("NotDifferentiableError: np.")
        assert "; use" in note


def test_the_list_is_long_and_without_doubles():
    assert len(EVERY) == len(set(EVERY)) > 240


def lies(change):
    """Our answers, spoilt."""
    honest = worker.LIBRARIES["ours"]()[0]
    return lambda *arguments: change(*honest(*arguments))


@pytest.mark.parametrize(
    "change",
    [
        lambda y, g: (y + 1e-3, g),
        lambda y, g: (y[:1], g),
        lambda y, g: (y, [None] * len(g)),
        lambda y, g: (y, [1.001 * part for part in g]),
        lambda y, g: (y, [part[:1] for part in g]),
    ],
)
def test_lies_are_noticed(change):
    assert worker.judge("np.hypot(x, p)", lies(lambda y, g: (y, g)), np)[0] == "right"
    assert worker.judge("np.hypot(x, p)", lies(change), np)[0] == "wrong"


def test_the_command(tmp_path, capsys):
    coverage.main(["--quick", "--out", str(tmp_path)])
    results = json.loads((tmp_path / "coverage.json").read_text())
    assert results["totals"]["ours"]["wrong"] == 0
    assert sum(results["totals"]["ours"].values()) == len(EVERY)
    assert "everyday calls" in capsys.readouterr().out


def test_a_process_that_ends_is_started_again(monkeypatch):
    monkeypatch.setattr(coverage.sys, "executable", "false")  # a program that only fails
    found = coverage.run("ours", "numpy", ["np.exp(x)", "np.log(p)"])
    assert [answer["outcome"] for answer in found.values()] == ["wrong", "wrong"]
    assert all(answer["note"].startswith("the process ended") for answer in found.values())
