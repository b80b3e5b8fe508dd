"""Values and derivatives against 50 digits, as ``python -m benchmarks precision`` prints them."""

import pytest

pytest.importorskip("mpmath", reason="compares with mpmath")

from benchmarks import precision

CASES = precision.cases()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_derivative_is_within_its_bound(case):
    found = precision.measure_case(case)
    assert found.derivative <= case.bound, f"{found.derivative:.3g} ulps at {found.at}"
    assert case.bound <= 6 or case.why


def test_a_rule_that_cancels_is_noticed():
    """The measure itself: a derivative that loses half of its digits."""
    import mpmath
    import numpy as np

    import tinygrad_scratch as tg

    def careless(x):
        return x - np.sin(x)

    case = precision.Case("x - sin(x)", careless, lambda x: x - mpmath.sin(x), lambda x: 1 - mpmath.cos(x), [(1e-4,)])
    assert precision.measure_case(case).derivative > 1e6
    assert tg.grad(careless)(1e-4) > 0
