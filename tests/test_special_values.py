"""Kinks and extremes, each decided and documented: the derivative where mathematics offers a choice, or none."""

import numpy as np
import pytest

import tinygrad_scratch as tg
from tinygrad_scratch import OPS, Tensor

INF, NAN = np.inf, np.nan


def slopes(f, *values):
    """The gradients of sum(f) at the values, as lists; a warning on the way is an error."""
    tensors = [Tensor(np.asarray(v, np.float64), requires_grad=True) for v in values]
    f(*tensors).sum().backward()
    found = [t.grad.tolist() for t in tensors]
    return found[0] if len(found) == 1 else found


# -- kinks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduce", [np.max, np.min, np.amax, np.amin])
def test_tied_maxima_share_evenly(reduce):
    assert slopes(reduce, [1.0, 1.0]) == [0.5, 0.5]
    assert slopes(lambda x: reduce(x, axis=0), [[2.0, 3.0], [2.0, 3.0], [2.0, 3.0]]) == [[1 / 3, 1 / 3]] * 3


def test_max_shares_among_the_tied_alone():
    assert slopes(np.max, [1.0, 5.0, 5.0, 0.0]) == [0, 0.5, 0.5, 0]


@pytest.mark.parametrize("pick", [np.maximum, np.minimum])
def test_maximum_at_a_tie_is_half_each(pick):
    assert slopes(lambda x: pick(x, 0.0), 0.0) == 0.5
    assert slopes(pick, [2.0], [2.0]) == [[0.5], [0.5]]
    assert slopes(lambda x: pick(x, x), [2.0]) == [1.0]


def test_relu_and_its_kin_at_zero():
    assert slopes(tg.relu, [-1.0, 0.0, 1.0]) == [0, 0, 1]
    assert slopes(lambda x: tg.leaky_relu(x, slope=0.1), [-1.0, 0.0, 1.0]) == [0.1, 0.1, 1]
    assert slopes(tg.prelu, [-2.0, 0.0, 2.0], 0.25) == [[0.25, 0.25, 1], -2]
    assert slopes(tg.softplus, [0.0]) == [0.5]


def test_absolute_and_sign_at_zero():
    assert slopes(np.abs, [-2.0, 0.0, -0.0, 2.0]) == [-1, 0, 0, 1]
    assert slopes(np.sign, [-2.0, 0.0, 2.0]) == [0, 0, 0]


def test_clip_at_its_bounds_passes_the_gradient():
    assert slopes(lambda x: np.clip(x, -1, 1), [-2.0, -1.0, 0.0, 1.0, 2.0]) == [0, 1, 1, 1, 0]
    assert slopes(lambda x: np.clip(x, [0.0, 3.0], None), [0.0, 0.0]) == [1, 0]
    assert slopes(lambda x: x.clip(max=1), [0.0, 1.0, 2.0]) == [1, 1, 0]


def test_clip_by_tensors_is_maximum_and_minimum():
    assert slopes(lambda x, low: np.clip(x, low, 9.0), [0.0, 2.0], [1.0, 1.0]) == [[0, 1], [1, 0]]


def test_square_root_of_zero_is_steep_and_silent():
    assert slopes(np.sqrt, [0.0, 4.0]) == [INF, 0.25]
    assert slopes(lambda x: x**0.5, [0.0]) == [INF]


def test_hypotenuse_of_the_zero_vector():
    assert slopes(np.hypot, [0.0, 3.0], [0.0, 4.0]) == [[0, 0.6], [0, 0.8]]


def test_standard_deviation_of_constant_values():
    assert slopes(np.std, [2.0, 2.0, 2.0]) == [0, 0, 0]
    assert slopes(np.std, [0.1, 0.1, 0.1]) == [0, 0, 0]  # whose mean is rounded, so that np.std is 1e-17
    assert slopes(lambda x: np.std(x, axis=1), [[1.0, 1.0], [1.0, 3.0]]) == [[0, 0], [-0.5, 0.5]]
    assert slopes(np.var, [2.0, 2.0]) == [0, 0]


def test_products_with_zeros_are_exact():
    assert slopes(np.prod, [0.0, 2.0, 3.0]) == [6, 0, 0]
    assert slopes(np.prod, [0.0, 0.0, 3.0]) == [0, 0, 0]
    assert slopes(lambda x: np.prod(x, axis=0), [[0.0, 2.0], [5.0, 0.0]]) == [[5, 0], [0, 2]]


def test_second_derivative_of_a_product_with_zeros():
    hessian_row = tg.grad(lambda x: tg.grad(np.prod)(x)[0])(np.array([0.0, 2.0, 0.0]))
    assert hessian_row.tolist() == [0, 0, 2]


def test_powers_at_zero():
    assert slopes(lambda x: x**x, 0.0) == 0
    assert slopes(np.power, [0.0, 0.0], [0.0, 2.0]) == [[0, 0], [0, 0]]
    assert slopes(lambda x: x**0, [0.0, 3.0]) == [0, 0]
    assert slopes(lambda x: x**1, [0.0, 3.0]) == [1, 1]
    assert slopes(lambda x: x**2, [0.0, 3.0]) == [0, 6]
    assert slopes(lambda x: x**3, [-2.0]) == [12]
    assert slopes(lambda x: 0.0**x, [2.0]) == [0]


def test_piecewise_constant_functions_are_flat():
    for f in (np.floor, np.ceil, np.rint, np.trunc, lambda x: x // 2):
        assert slopes(f, [0.0, 1.0, -1.5]) == [0, 0, 0]


def test_remainder_is_that_of_floor_division():
    assert slopes(lambda x, d: x % d, [7.0, -7.0], [3.0, 3.0]) == [[1, 1], [-2, 3]]


# -- extremes: no warning for a finite result, and no NaN --------------------------------------------------------------


def test_sigmoid_far_out():
    x = Tensor([-1000.0, -750.0, 0.0, 750.0, 1000.0], requires_grad=True)
    assert tg.sigmoid(x).tolist() == [0, 0, 0.5, 1, 1]
    assert slopes(tg.sigmoid, x.numpy()) == [0, 0, 0.25, 0, 0]
    small = tg.sigmoid(np.float64(-700.0))
    assert small == pytest.approx(np.exp(-700.0), rel=1e-12)


@pytest.mark.parametrize("f", [np.tanh, tg.softplus, tg.sigmoid, tg.relu, np.arctan])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_activations_far_out(f, dtype):
    x = Tensor(np.array([-1000, -100, -20, 0, 20, 100, 1000], dtype), requires_grad=True)
    y = f(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == dtype
    assert np.isfinite(y.numpy()).all()
    assert np.isfinite(x.grad.numpy()).all()


def test_softmax_and_its_logarithm_far_out():
    assert tg.softmax(np.array([1000.0, 0.0, -1000.0])).tolist() == [1, 0, 0]
    assert tg.log_softmax(np.array([1000.0, 0.0])).tolist() == [0, -1000]
    assert slopes(lambda x: tg.log_softmax(x)[1], [1000.0, 0.0]) == [-1, 1]
    assert np.isfinite(slopes(tg.softmax, [1e300, -1e300])).all()


def test_softmax_with_masked_logits():
    assert tg.softmax(np.array([0.0, -INF, 0.0])).tolist() == [0.5, 0, 0.5]
    assert slopes(lambda x: tg.softmax(x)[0], [0.0, -INF, 0.0]) == [0.25, 0, -0.25]


def test_log_sum_exp_far_out():
    assert tg.logsumexp(np.array([1000.0, 1000.0])) == 1000 + np.log(2)
    assert tg.logsumexp(np.array([-INF, -INF])) == -INF
    assert tg.logsumexp(np.array([INF, 0.0])) == INF
    assert tg.logsumexp(np.array([-INF, 0.0])) == 0
    assert slopes(tg.logsumexp, [1000.0, 1000.0]) == pytest.approx([0.5, 0.5])
    assert slopes(tg.logsumexp, [-INF, 0.0]) == [0, 1]


def test_log_add_exp_far_out():
    assert np.logaddexp(Tensor(1000.0), 1000.0).item() == 1000 + np.log(2)
    left, right = slopes(np.logaddexp, [1000.0, -1000.0], [1000.0, 1000.0])
    assert left == pytest.approx([0.5, 0])
    assert right == pytest.approx([0.5, 1])


def test_sums_of_nothing_in_logarithms():
    """log(0 + 0) does not move with its zeros: no NaN, as recursions over impossible states need."""
    assert slopes(tg.logsumexp, [-INF, -INF]) == [0, 0]
    assert slopes(lambda x: tg.logsumexp(x, axis=1), [[-INF, -INF], [0.0, -INF]]) == [[0, 0], [1, 0]]
    assert slopes(np.logaddexp, [-INF, -INF], [-INF, 0.0]) == [[0, 0], [0, 1]]


def test_cross_entropy_far_out():
    labels = OPS["cross_entropy_labels"]
    x = Tensor([[1000.0, 0.0]], requires_grad=True)
    loss = labels(x, np.array([1]))
    loss.sum().backward()
    assert loss.tolist() == [1000]
    assert x.grad.tolist() == [[1, -1]]
    assert labels(Tensor([[1000.0, 0.0]]), np.array([0])).tolist() == [0]
    probabilities = OPS["cross_entropy_probabilities"]
    assert slopes(lambda z: probabilities(z, np.array([[0.0, 1.0]])), [[1000.0, 0.0]]) == [[1, -1]]


def test_binary_cross_entropy_far_out():
    bce = OPS["bce_with_logits"]
    assert bce(Tensor([1000.0, -1000.0, 1000.0, -1000.0]), np.array([0.0, 1.0, 1.0, 0.0])).tolist() == [
        1000,
        1000,
        0,
        0,
    ]
    assert slopes(lambda x: bce(x, np.array([0.0, 1.0])), [1000.0, -1000.0]) == [1, -1]


def test_inverse_functions_at_the_ends_of_their_domain():
    assert slopes(np.arcsin, [1.0]) == [INF]
    assert slopes(np.arccos, [1.0]) == [-INF]
    assert slopes(np.arccosh, [1.0]) == [INF]
    with np.errstate(all="ignore"):
        assert slopes(np.log, [0.0]) == [INF]
        assert slopes(np.arctanh, [1.0]) == [INF]


def test_small_arguments_keep_their_digits():
    x = 1e-18
    assert slopes(np.expm1, x) == 1
    assert np.expm1(Tensor(x)).item() == np.log1p(Tensor(x)).item() == x
    assert tg.sigmoid(Tensor(-40.0)).item() == pytest.approx(np.exp(-40.0), rel=1e-15)


# -- NaN ---------------------------------------------------------------------------------------------------------------


def test_where_hides_a_value_but_not_an_infinite_slope():
    """0 * inf: the derivative of the branch that was not taken. As in every library that multiplies cotangents ..."""
    assert np.isnan(slopes(lambda x: np.where(x > 0, np.sqrt(x), 0.0), [0.0, 4.0])[0])


def test_where_twice_is_the_remedy():
    """... and what to write instead: a harmless argument where the branch is not taken."""

    def safe_sqrt(x):
        return np.where(x > 0, np.sqrt(np.where(x > 0, x, 1.0)), 0.0)

    assert slopes(safe_sqrt, [0.0, 4.0]) == [0, 0.25]


def test_where_passes_nan_by():
    x = Tensor([NAN, 1.0], requires_grad=True)
    y = np.where(np.isnan(x), 0.0, x)
    y.sum().backward()
    assert y.tolist() == [0, 1]
    assert x.grad.tolist() == [0, 1]


def test_nan_in_is_nan_out():
    assert np.isnan(slopes(np.max, [NAN, 1.0])).all()
    assert np.isnan(np.max(Tensor([NAN, 1.0])).item())
    assert np.isnan(np.maximum(Tensor([NAN]), 0.0).item())
    assert np.isnan(tg.relu(Tensor([NAN])).item())


def test_negative_zero():
    assert np.signbit(np.sqrt(Tensor(-0.0)).numpy())
    assert np.signbit((Tensor(-0.0) * 2).numpy())
    assert np.signbit(np.negative(Tensor(0.0)).numpy())
    assert slopes(lambda x: tg.relu(x) + np.abs(x), [-0.0]) == [0]


# -- empty arrays ------------------------------------------------------------------------------------------------------


def test_reductions_of_nothing():
    nothing = np.zeros((0, 3))
    assert slopes(np.sum, nothing) == []
    assert np.prod(Tensor(nothing)).item() == 1
    assert slopes(lambda x: np.prod(x, axis=0), nothing) == []
    assert np.sum(Tensor(nothing), axis=0).tolist() == [0, 0, 0]
    assert tg.logsumexp(Tensor(nothing), axis=1).shape == (0,)
    assert np.max(Tensor(nothing), axis=1).shape == (0,)
    assert tg.softmax(Tensor(nothing)).shape == (0, 3)


@pytest.mark.parametrize("reduce", [np.max, np.min])
def test_maximum_of_nothing_is_numpys_error(reduce):
    with pytest.raises(ValueError, match="zero-size array to reduction operation") as caught:
        reduce(Tensor(np.zeros((0, 3))), axis=0)
    assert "(float64(0, 3), axis=0)" in caught.value.__notes__[0]


@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_mean_of_nothing_is_nan():
    assert np.isnan(np.mean(Tensor(np.zeros(0))).item())


def test_products_of_nothing():
    a, b = Tensor(np.zeros((2, 0)), requires_grad=True), Tensor(np.zeros((0, 3)), requires_grad=True)
    y = a @ b
    y.sum().backward()
    assert y.tolist() == np.zeros((2, 3)).tolist()
    assert (a.grad.shape, b.grad.shape) == ((2, 0), (0, 3))


# -- dtypes ------------------------------------------------------------------------------------------------------------


def test_unsigned_integers_do_not_wrap_around():
    x = np.array([1, 3], np.uint8)
    for f in (tg.sigmoid, tg.softmax, tg.log_softmax, tg.logsumexp, tg.softplus):
        np.testing.assert_allclose(f(Tensor(x)).numpy(), f(x.astype(np.float64)), rtol=1e-3)
    np.testing.assert_allclose(np.mean(Tensor(x)).item(), 2)
    np.testing.assert_allclose(np.var(Tensor(x)).item(), 1)
    assert np.sum(Tensor(np.array([255, 255], np.uint8))).item() == 510


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i4", "u8", "i8", ">i8", ">u2"])
def test_labels_of_any_integer_dtype(dtype):
    logits = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    expected = OPS["cross_entropy_labels"](logits, np.array([2, 0]))
    assert OPS["cross_entropy_labels"](Tensor(logits), np.array([2, 0], dtype)).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (np.array([0, 3]), IndexError, "label 3 is out of bounds"),
        (np.array([0, -1]), IndexError, "label -1 is out of bounds"),
        (np.array([0, 255], np.uint8), IndexError, "label 255 is out of bounds"),
        (np.array([0.0, 1.0]), TypeError, "integers"),
        (np.array([True, False]), TypeError, "integers"),
        (np.array([0, 1, 2]), ValueError, "one for each row"),
        (np.array([[0], [1]]), ValueError, "one for each row"),
    ],
)
def test_labels_that_are_wrong(labels, error, message):
    with pytest.raises(error, match=message):
        OPS["cross_entropy_labels"](Tensor(np.zeros((2, 3))), labels)


def test_numpy_scalars_are_strong_and_python_numbers_weak():
    x = Tensor(np.ones(2, np.float32), requires_grad=True)
    assert (x * 2.0).dtype == (2 * x).dtype == (x * True).dtype == (x * np.float32(2)).dtype == np.float32
    assert (x * np.float64(2)).dtype == (np.float64(2) * x).dtype == (x * np.ones(2)).dtype == np.float64
    for y in (x * np.float64(2), np.float64(2) * x, x * np.ones(2), x * np.arange(2)):
        assert tg.gradients(y.sum(), [x])[0].dtype == np.float32


def test_half_precision():
    x = Tensor(np.array([1, 2, 3], np.float16), requires_grad=True)
    y = np.sum(np.exp(x) * x) / 3
    y.backward()
    assert y.dtype == x.grad.dtype == np.float16
    np.testing.assert_allclose(x.grad.numpy(), np.exp([1.0, 2, 3]) * [2, 3, 4] / 3, rtol=1e-2)


def test_big_endian_data_become_native():
    x = Tensor(np.array([1.0, 2.0], ">f4"), requires_grad=True)
    np.sum(x * x).backward()
    np.sum(x * x).backward()
    assert x.dtype.isnative
    assert x.grad.dtype == x.dtype == np.float32
    assert x.grad.tolist() == [4, 8]
