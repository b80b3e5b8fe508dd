"""The compiled back end: which rows it has, and that they are right, interpreted one by one and compiled many at a time."""

from functools import cache

import numpy as np
import pytest
from capturing import arrays_of, assert_replays, assert_same, compiled_steps, needs_numba  # noqa: F401
from hypothesis import settings
from interpreted import run_source
from test_capture_rows import ROWS, cases, differentiated, drawer

import tinygrad_scratch as tg
from tinygrad_scratch.capture import compile_numba, emit_products
from tinygrad_scratch.capture.lower import REDUCTIONS, SCALAR
from tinygrad_scratch.capture.recording.expand import EXPANSIONS

pytestmark = needs_numba


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


@cache
def falling():
    """Rows that, in some form, run on NumPy though compiled code was asked for. All are right, as Python runs their source."""
    found = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compile_numba, "load", run_source)
        for row in ROWS:
            for step, draw, tolerance in steps_of(row):
                if assert_replays(step, draw, "numba", tolerance=tolerance, calls=4).plan.fallback:
                    found.add(row)
    return found


def test_which_rows_are_compiled():
    wanted = (SCALAR | REDUCTIONS | set(EXPANSIONS)) & set(ROWS)
    assert not falling() & (wanted)


@pytest.mark.parametrize("part", range(PARTS))
def test_rows_compiled(part):
    """Many rows in one function, because compiling takes its time."""
    steps = [(row, *rest) for row in ROWS if row not in falling() for rest in steps_of(row, every=DEEP)][part::PARTS]

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


@pytest.mark.parametrize("interpreted", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_with_a_vector(dtype, interpreted, monkeypatch):
    """Of every layout, into answers and into state: by gemv where they are large, and here wherever."""
    monkeypatch.setattr(emit_products, "_LARGE_VECTOR", 1)
    monkeypatch.setattr(emit_products, "_SMALL_PRODUCT", 0)
    if interpreted:
        monkeypatch.setattr(compile_numba, "load", run_source)
    column, row, turned = state = [tg.Tensor(np.zeros(n, dtype), requires_grad=True) for n in ((5, 1), (1, 5), (5, 1))]

    def step(a, wide, x, y, z, u):
        a, wide, x, y, z, u = map(tg.as_tensor, (a, wide, x, y, z, u))
        made = [a @ x, a.T @ y, y.T @ a, x.T @ a.T, a @ wide[:, 2:3], wide[:, 1] @ a.T, a @ x[:, 0], y[:, 0] @ a]
        with tg.no_grad():
            column.__isub__(0.5 * (a.T @ z))
            row.__iadd__(z.T @ a)
            turned.__imul__(0.9)
            turned.__iadd__(a.T @ u)
        return [*made, column + 0, row + 0, turned + 0]

    rng = np.random.default_rng(0)
    args = [rng.normal(size=shape).astype(dtype) for shape in ((7, 5), (5, 4), (5, 1), (7, 1), (7, 1), (7, 1))]
    expected = [arrays_of(step(*args)) for _ in range(5)]
    for tensor in state:
        tensor.data[...] = 0
    captured = tg.capture(step, backend="numba")
    for wanted in expected:
        assert_same(arrays_of(captured(*args)), wanted, 1e-5 if dtype is np.float32 else 1e-12)
    assert captured.plan._run.emitter.function("core", direct=False).count("gemv(") >= 10
