"""Every name that NumPy lets be overridden has its answer, errors say what the manifest says, and the page is what it makes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tinygrad_scratch import Tensor, manifest, refusals, registry
from tinygrad_scratch.errors import NotDifferentiableError
from tinygrad_scratch.registry import ANSWERS, VALUES

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "numpy.md").read_text()
ENTRIES = manifest.entries()
MAKE = "python -m tinygrad_scratch.manifest > docs/numpy.md"


def test_no_name_is_forgotten():
    """A name that is new in NumPy is answered by a row or a composition, or refused in refusals.py."""
    assert [entry.name for entry in ENTRIES if entry.answer == "missing"] == []
    assert {entry.answer for entry in ENTRIES} == {"gradient", "zero", "none", "refused"}
    assert len(ENTRIES) > 420


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_the_page_says_so(entry):
    assert manifest.line(entry) in PAGE, f"docs/numpy.md is stale: {MAKE}"


def test_the_page_is_what_is_made():
    if f"NumPy {np.__version__} " not in PAGE:
        pytest.skip("the page was made with another version of NumPy")
    assert manifest.page() == PAGE, f"docs/numpy.md is stale: {MAKE}"


def test_a_new_name_is_noticed(monkeypatch):
    known = manifest.functions()
    monkeypatch.setattr(manifest, "functions", lambda: {**known, "brand_new": lambda x: x})
    assert [entry.name for entry in manifest.entries() if entry.answer == "missing"] == ["brand_new"]


def test_no_refusal_is_about_what_is_answered():
    """Of a name: NumPy has it, and nothing answers for it. Of a family: it says why of some name."""
    functions = manifest.functions()
    families = {"fft.*", "*.at", "lib.recfunctions.*", "lib.scimath.*"}
    for refusal in refusals.REFUSALS:
        for name in set(refusal.names.split()) - families - {"clip", "isnat"}:
            if (function := functions.get(name)) is not None:
                assert function not in ANSWERS
                assert function not in VALUES


def calls(name):
    """Calls of a refused function that reach the protocol, whatever its arguments are."""
    t = Tensor(np.ones((2, 2)))
    function = manifest.functions()[name]
    if isinstance(function, np.ufunc):
        return [lambda: function(*[t] * function.nin)]
    return [
        lambda: function(t), lambda: function(t, t), lambda: function(t, t, t), lambda: function(t, t, t, t),
        lambda: function(2, like=t), lambda: function(lambda i: i, (2,), like=t), lambda: function("1", like=t),
        lambda: function([1.0], float, like=t), lambda: function("x", t), lambda: function([t], 2),
    ]  # fmt: skip


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.answer == "refused"], ids=lambda entry: entry.name)
def test_errors_say_what_the_manifest_says(entry):
    said = []
    for call in calls(entry.name):
        try:
            call()
        except NotDifferentiableError as error:
            said.append(str(error))
        except Exception:  # arguments that NumPy itself does not take
            continue
    assert f"np.{entry.name} is not differentiable here: {entry.how}" in said


def test_answers_that_load_late_leave_a_users_own():
    registry.load_all()
    before = ANSWERS[np.sinc]
    registry.later(lambda: registry.implements(np.sinc)(lambda x: x))
    registry.load_all()
    assert ANSWERS[np.sinc] is before


def test_threads_that_ask_first_all_get_their_answer():
    code = (
        "import threading, numpy as np, tinygrad_scratch as tg; t = tg.Tensor(np.arange(4.0)); done = [];"
        "run = lambda: done.append(np.median(t).item());"
        "threads = [threading.Thread(target=run) for _ in range(8)];"
        "[x.start() for x in threads]; [x.join() for x in threads]; print(done)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str([1.5] * 8)
