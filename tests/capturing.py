"""What the tests of capture share: comparing a captured step with the same step run eagerly."""

import os
from importlib.util import find_spec

import numpy as np
import pytest

import tinygrad_scratch as tg
from tinygrad_scratch.trees import leaves

needs_numba = pytest.mark.skipif(find_spec("numba") is None, reason="numba, of the extra 'jit', is not installed")
BACKENDS = ["numpy", pytest.param("numba", marks=needs_numba)]


@pytest.fixture(scope="module", autouse=True)
def compiled_steps(tmp_path_factory):
    """Compiled steps are kept in a folder of this run of the tests."""
    before = os.environ.get("TINYGRAD_SCRATCH_CACHE")
    os.environ["TINYGRAD_SCRATCH_CACHE"] = os.environ.get("WARM") or str(tmp_path_factory.getbasetemp() / "compiled")
    yield
    del os.environ["TINYGRAD_SCRATCH_CACHE"]
    if before is not None:
        os.environ["TINYGRAD_SCRATCH_CACHE"] = before


def arrays_of(tree):
    """The arrays of what a step returned; None where it returned None."""
    return [None if t is None else np.array(getattr(t, "_data", t)) for t in leaves(tree)]


def assert_same(found, expected, tolerance=0.0, what=""):
    """Lists of arrays: equal shapes and dtypes, and values bit for bit, or within a relative and absolute tolerance."""
    assert len(found) == len(expected), what
    for n, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert (a is None) == (b is None), f"{what} value {n}: {a} instead of {b}"
        if a is None:
            continue
        assert (a.shape, a.dtype) == (b.shape, b.dtype), (
            f"{what} value {n}: {a.dtype}{a.shape} instead of {b.dtype}{b.shape}"
        )
        if tolerance:
            close = np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)
        else:
            close = np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        assert close, f"{what} value {n}:\n{a}\ninstead of\n{b}"


def tolerance_for(backend, rewrites, dtype):
    """How far captured may be from eager: not at all, or by rounding."""
    if backend == "numpy" and not rewrites:
        return 0.0
    return 2e-4 if dtype == np.float32 else 1e-9


def assert_replays(step, draw, backend, rewrites=False, tolerance=0.0, calls=5):
    """Captured equals eager, with new arguments in every call; returns the captured step."""
    captured = tg.capture(step, backend=backend, rewrites=rewrites)
    for call in range(calls):
        args = draw()
        with np.errstate(all="ignore"):
            expected, found = arrays_of(step(*args)), arrays_of(captured(*args))
        assert_same(found, expected, tolerance, f"call {call}")
    assert [plan.calls for plan in captured.plans] == [calls - 2]
    return captured
