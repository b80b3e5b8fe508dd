"""Hypothesis profiles: "ci" gives the same examples in every run, HYPOTHESIS_PROFILE=deep new and many more ones."""

import os

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("ci", max_examples=12, derandomize=True, deadline=None, database=None)
settings.register_profile(
    "deep", max_examples=500, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture
def rng():
    """Random numbers, the same in every run."""
    import numpy as np

    return np.random.default_rng(0)
