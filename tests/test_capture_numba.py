"""The compiled back end: rows and graphs in one function, what falls back, accuracy, the cache of compiled code."""

from types import SimpleNamespace

import numpy as np
import pytest
from capturing import arrays_of, assert_replays, assert_same, compiled_steps, needs_numba  # noqa: F401
from hypothesis import settings
from test_capture_rows import FALL_BACK, ROWS, cases, differentiated, drawer

import tinygrad_scratch as tg

pytestmark = needs_numba


@pytest.fixture
def uncompiled(monkeypatch):
    """Plans are lowered and written, but not compiled: to see which would fall back."""
    from tinygrad_scratch.capture import compile_numba

    monkeypatch.setattr(compile_numba, "load", lambda source: SimpleNamespace(step=None))


def falls_back(step, draw):
    """Why a step runs on NumPy though compiled code was asked for; "" if it does not. Needs `uncompiled`."""
    captured = tg.capture(step, backend="numba")
    for _ in range(2):
        captured(*draw())
    return captured.plan.fallback


# -- rows --------------------------------------------------------------------------------------------------------------

DEEP = settings().max_examples > 100
PARTS = 4


def steps_of(row, every=True):
    """(step, draw, tolerance) for each case of a row, in float32 and float64; or for two cases, in one dtype each."""
    some = cases(ROWS[row])[: None if every else 2]
    for n, (shapes, options) in enumerate(some):
        for dtype in (np.float64, np.float32) if every else ((np.float64, np.float32)[n % 2],):
            step, draw = differentiated(ROWS[row], options), drawer(ROWS[row], shapes, options, dtype)
            yield step, draw, 1e-5 if dtype is np.float32 else 1e-11


def test_which_rows_fall_back(uncompiled):
    assert {row for row in ROWS for step, draw, _ in steps_of(row) if falls_back(step, draw)} == FALL_BACK


@pytest.mark.parametrize("part", range(PARTS))
def test_rows_compiled(part):
    """Many rows in one function, because compiling takes its time."""
    steps = [(row, *rest) for row in ROWS if row not in FALL_BACK for rest in steps_of(row, every=DEEP)][part::PARTS]

    def all_of_them(arrays):
        return [step(*x) for (_, step, _, _), x in zip(steps, arrays, strict=True)]

    captured = tg.capture(all_of_them, backend="numba")
    for call in range(5):
        args = [draw() for _, _, draw, _ in steps]
        with np.errstate(all="ignore"):
            expected, found = all_of_them(args), captured(args)
        for (row, _, _, tolerance), e, f in zip(steps, expected, found, strict=True):
            assert_same(arrays_of(f), arrays_of(e), tolerance, f"call {call} of {row}")
    assert captured.plan.calls == 3
    assert not captured.plan.fallback


@pytest.mark.parametrize("row", sorted(FALL_BACK))
def test_rows_that_fall_back_are_right_too(row):
    for step, draw, _ in steps_of(row):
        assert_replays(step, draw, "numba", tolerance=1e-5)
