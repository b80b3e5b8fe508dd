"""Hypothesis profiles: "ci" gives the same examples in every run, HYPOTHESIS_PROFILE=deep new and many more ones.

The tests run in as many processes as there are cores; each takes one thread for products, since more would wait for each
other. ``pytest -n 0`` runs them in one process, for a debugger.
"""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # before NumPy is imported, which reads it then
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
from hypothesis import HealthCheck, settings

from tinygrad_scratch._blas import numpy_blas
from tinygrad_scratch._team import cores

settings.register_profile("ci", max_examples=12, derandomize=True, deadline=None, database=None)
settings.register_profile(
    "deep", max_examples=500, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(scope="module")
def torch():
    """torch on one thread: two pools of threads on few cores wait for each other, and tiny steps take 50 ms instead of one."""
    torch = pytest.importorskip("torch", reason="torch is not installed: parity with it is not checked")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(before)


@pytest.fixture
def two_threads():
    """NumPy's products, and so the team, on two threads."""
    library = numpy_blas()
    if library is None or library.set_threads is None or cores() < 2:
        pytest.skip("one core, or a BLAS whose threads cannot be set")
    before = library.get_threads()
    library.set_threads(2)
    yield
    library.set_threads(before)


@pytest.fixture
def rng():
    """Random numbers, the same in every run."""
    import numpy as np

    return np.random.default_rng(0)
