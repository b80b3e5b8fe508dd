"""NumPy's functions where mathematics leaves a choice, or formulas lose their accuracy: ties, kinks, NaN, zeros, by hand."""

import numpy as np
import pytest

import tinygrad_scratch as tg
from tinygrad_scratch import Tensor


def grad(f, x):
    return tg.grad(lambda v: np.sum(f(v)))(np.asarray(x, float)).tolist()


WEIGHTS = np.array([1.0, 2.0, 3.0])
NAN = np.nan
GRADIENTS = {
    "sort keeps the order of equals": (lambda x: np.sort(x) * WEIGHTS, [1, 0, 0], [3, 1, 2]),
    "the median of three": (np.median, [5, 1, 3], [0, 0, 1]),
    "the median of an even number": (np.median, [5, 1, 3, 4], [0, 0, 0.5, 0.5]),
    "the median of equals": (np.median, [2, 2, 2], [0, 1, 0]),
    "a quantile between two": (lambda x: np.quantile(x, 0.25), [0, 10, 20, 30, 41], [0, 1, 0, 0, 0]),
    "a quantile at a share": (lambda x: np.quantile(x, 0.3), [0, 10], [0.7, 0.3]),
    "unique takes the first of equals": (lambda x: np.unique(x) * [1, 10], [3, 2, 3], [10, 1, 0]),
    "histogram's edges around one value": (lambda x: np.histogram(x, 2)[1], [5, 5], [1.5, 1.5]),
    "ptp of ties": (np.ptp, [1, 3, 3], [-1, 0.5, 0.5]),
    "NaN left out of a sum": (np.nansum, [1, NAN, 2], [1, 0, 1]),
    "NaN left out of a mean": (np.nanmean, [1, NAN, 2], [0.5, 0, 0.5]),
    "NaN left out of a deviation": (np.nanstd, [1, NAN, 3], [-0.5, 0, 0.5]),
    "NaN left out of a maximum": (np.nanmax, [1, NAN, 2], [0, 0, 1]),
    "NaN left out of a median": (np.nanmedian, [1, NAN, 2], [0.5, 0, 0.5]),
    "nan_to_num": (np.nan_to_num, [1, NAN, np.inf, -np.inf], [1, 0, 0, 0]),
    "fmax beside NaN": (lambda x: np.fmax(x, [NAN, 0, 5.0]), [1, NAN, 2], [1, 0, 0]),
    "fmax of a tie": (lambda x: np.fmax(x, 1.0), [1.0], [0.5]),
    "std with where= of constant values": (lambda x: np.std(x, where=[True, True, False]), [2, 2, 9], [0, 0, 0]),
    "heaviside": (lambda x: np.heaviside(x, 0.5), [-1, 0, 1], [0, 0, 0]),
    "round": (np.round, [0.2, 0.5, 1.7], [0, 0, 0]),
    "interp at a node: the slope to its right": (lambda x: np.interp(x, [0, 1, 2], [0, 1, 5]), [1.0], [4]),
    "interp at the last node: the slope to its left": (lambda x: np.interp(x, [0, 1, 2], [0, 1, 5]), [2.5, -1], [0, 0]),
    "cumprod with a zero": (lambda x: np.cumprod(x), [2, 0, 3], [1, 2 + 6, 0]),
    "piecewise keeps infinite slopes apart": (lambda x: np.piecewise(x, [x > 0], [np.sqrt, 0.0]), [4, 0], [0.25, 0]),
    "running maxima share a tie": (np.maximum.accumulate, [1, 1, 0], [1 + 0.5 + 0.5, 1, 0]),
    "take counts an element as often as it is taken": (lambda x: np.take(x, [0, 0, 2]), [1, 2, 3], [2, 0, 1]),
    "resize repeats": (lambda x: np.resize(x, 5), [1, 2], [3, 2]),
    "corrcoef of two points": (lambda x: np.corrcoef(x, [0.0, 1.0, 3.0])[0, 0], [1, 2, 4], [0, 0, 0]),
}  # fmt: skip


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradient_by_hand(name):
    f, x, expected = GRADIENTS[name]
    np.testing.assert_allclose(grad(f, x), expected, atol=1e-12)


def test_sinc_to_third_order_near_zero():
    """sinc(x) = 1 - (pi x)**2 / 6 + (pi x)**4 / 120 - ..."""
    f = np.sinc
    for order, at_zero in ((1, 0.0), (2, -(np.pi**2) / 3), (3, 0.0)):
        f = tg.grad(f)
        assert float(f(0.0)) == pytest.approx(at_zero, abs=1e-14), order
    x = np.array([1e-8, 1e-5, 0.01, 0.499999, 0.500001])
    slope = np.array([-(np.pi**2) * v / 3 + np.pi**4 * v**3 / 30 for v in x[:2]])
    np.testing.assert_allclose(grad(np.sinc, x)[:2], slope, rtol=1e-13)
    left, right = grad(np.sinc, x)[-2:]
    assert left == pytest.approx(right, abs=1e-4)


def test_i0_by_its_series():
    """I0'(x) = I1(x) = sum of (x/2)**(2k+1) / (k! (k+1)!), Abramowitz & Stegun 9.6.10; I0'' = I0 - I1 / x, 9.6.28."""
    x = np.array([1e-6, 0.3, 2.0, 8.5, 30.0])
    term = x / 2
    total = term.copy()
    for k in range(1, 200):
        term = term * (x / 2) ** 2 / (k * (k + 1))
        total += term
    np.testing.assert_allclose(grad(np.i0, x), total, rtol=1e-13)
    second = tg.grad(lambda v: np.sum(tg.grad(lambda u: np.sum(np.i0(u)))(v)))(x)
    np.testing.assert_allclose(second, np.i0(x) - total / x, rtol=1e-8)


def test_infinities_that_take_no_part():
    x = Tensor([-np.inf, 1.0, 2.0, np.inf], requires_grad=True)
    y = np.quantile(x, [1 / 3, 2 / 3]) + np.median(x)
    np.sum(y).backward()
    assert y.tolist() == [2.5, 3.5]
    np.testing.assert_allclose(x.grad.numpy(), [0, 2, 2, 0])


def test_without_elements():
    empty = Tensor(np.zeros((0, 3)), requires_grad=True)
    total, gaps = (lambda x: np.sum(x, initial=2.0)), (lambda x: np.diff(x, axis=0))
    for f in (np.sort, np.cumprod, np.tril, np.unique, np.logaddexp.reduce, total, gaps):
        np.testing.assert_array_equal(f(empty).numpy(), f(np.zeros((0, 3))))
    assert np.isnan(np.median(empty, axis=0).numpy()).all()
