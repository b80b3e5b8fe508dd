"""detect_anomaly names what first went wrong."""

import gc
import threading

import numpy as np
import pytest

import tinygrad_scratch as tg
from tinygrad_scratch import Tensor
from tinygrad_scratch.errors import AnomalyError

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def leaf(data):
    return Tensor(data, requires_grad=True)


def watched(f, *arguments):
    """f under detect_anomaly()."""
    with tg.detect_anomaly():
        return f(*arguments)


def test_nothing_wrong_nothing_said():
    x, w = leaf([1.0, 2.0]), leaf([0.5, 0.5])
    with tg.detect_anomaly():
        y = np.sum(np.log(np.exp(x * w)) ** 2)
        y.backward()
    expected = tg.gradients(np.sum(np.log(np.exp(x * w)) ** 2), [x])[0]
    assert x.grad.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda x: np.sqrt(x - 2), r"sqrt\(float64\(3,\)\) made NaN at 1 of 3 elements, first at \(0,\) from -1\.0"),
        (lambda x: np.log(x - 1), r"log\(float64\(3,\)\) made inf at 1 of 3 elements, first at \(0,\) from 0\.0"),
        (lambda x: np.exp(x * 400), r"exp\(float64\(3,\)\) made inf at 2 of 3 elements, first at \(1,\) from 800\.0"),
        (
            lambda x: 1 / (x - 2),
            r"divide\(1, float64\(3,\)\) made inf at 1 of 3 elements, first at \(1,\) from 1, 0\.0",
        ),
        (lambda x: np.mean(x[:0]), r"mean\(float64\(0,\)\) made NaN"),
        (lambda x: np.prod(x * 1e150), r"prod\(float64\(3,\)\) made inf"),
        (lambda x: (x * 1e10).astype(np.float16), r"astype\(float64\(3,\)\) made inf"),
    ],
)
def test_the_operation_that_made_it(f, message):
    x = leaf([1.0, 2.0, 3.0])
    with pytest.raises(AnomalyError, match=message):
        watched(lambda: np.tanh(f(x)) + 1)


def test_the_first_one_is_named_not_those_it_passed_through():
    x = leaf([0.0, 1.0])
    with pytest.raises(AnomalyError, match="divide"):
        watched(lambda: np.sum(np.exp((x / x) * 2)))


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x + np.array([np.nan, np.inf]),
        lambda x: np.where(np.array([True, False]), x, -np.inf),
        lambda x: np.maximum(x, -np.inf) * np.nan,
        lambda x: np.sum(x * np.array([np.nan, 1.0])),
        lambda x: np.clip(x, -np.inf, np.inf),
        lambda x: tg.softmax(np.where(np.array([True, False]), x, -np.inf)),
    ],
)
def test_what_is_not_finite_in_the_data_is_no_anomaly(f):
    with tg.detect_anomaly():
        f(leaf([1.0, 2.0]))


def test_infinities_may_be_allowed():
    with tg.detect_anomaly(inf=False):
        y = np.log(leaf([0.0]))
        with pytest.raises(AnomalyError, match="subtract"):
            np.subtract(y, y)


def test_a_rule_that_makes_nan_is_named_with_its_line():
    x = leaf([4.0, 0.0])

    def step():
        np.sum(np.where(x.numpy() > 0, np.sqrt(x), 0.0)).backward()

    with pytest.raises(AnomalyError) as caught:
        watched(step)
    message = str(caught.value)
    assert message.startswith("the derivative of sqrt(float64(2,)) at ")
    assert __file__ in message
    assert message.endswith("made NaN at 1 of 2 elements, first at (1,) from cotangent and operands 0.0, 0.0")
    assert x.grad is None


def test_backward_alone_inside():
    x = leaf([4.0, 0.0])
    y = np.sum(np.where(np.array([True, False]), np.sqrt(x), 0.0))
    with pytest.raises(AnomalyError, match=r"the derivative of sqrt\(float64\(2,\)\) by argument 0"):
        watched(y.backward)


def test_an_infinite_derivative_is_no_anomaly():
    x = leaf([0.0])
    with tg.detect_anomaly():
        np.sum(np.sqrt(x)).backward()
        x.grad = None
        np.sum(np.sqrt(x)).backward(create_graph=True)
    assert x.grad.tolist() == [np.inf]


def test_nan_cotangents_are_not_the_rules_fault():
    x = leaf([1.0])
    with tg.detect_anomaly():
        (x * 2).backward([np.nan])
    assert np.isnan(x.grad.item())


def test_an_operand_that_was_overwritten():
    x, data = leaf([1.0, 2.0]), np.array([3.0, 4.0])

    def step():
        y = np.sum(x * data)
        data[0] = 100
        y.backward()

    with pytest.raises(AnomalyError, match=r"argument 1 of multiply\(float64\(2,\), float64\(2,\)\) at .* overwritten"):
        watched(step)
    assert x.grad is None


def test_an_overwritten_operand_that_no_rule_reads_is_no_anomaly():
    x, data = leaf([1.0, 2.0]), np.array([3.0, 4.0])
    with tg.detect_anomaly():
        y = np.sum(x + data)
        data[0] = 100
        y.backward()
    assert x.grad.tolist() == [1, 1]


def test_a_detached_view_of_a_parameter_that_was_changed():
    w = leaf([1.0, 2.0])

    def step():
        y = np.sum(w * w.detach())
        with tg.no_grad():
            w[...] = 1
        y.backward()

    with pytest.raises(AnomalyError, match="overwritten"):
        watched(step)


def test_an_operand_overwritten_through_data():
    x, w = leaf([1.0, 2.0]), leaf([1.0, 2.0])

    def step():
        y = np.sum(x * w)
        w.data[...] = 0
        y.backward()

    with pytest.raises(AnomalyError, match="argument 1 of multiply"):
        watched(step)


def test_updates_between_steps_are_no_anomaly():
    w = leaf([1.0, 2.0])
    with tg.detect_anomaly():
        for _ in range(3):
            w.grad = None
            np.sum(w * w).backward()
            with tg.no_grad():
                w -= 0.1 * w.grad


def test_gradients_of_gradients_inside():
    with tg.detect_anomaly():
        assert tg.grad(tg.grad(lambda x: x**4))(2.0) == 48


def test_nothing_is_kept():
    gc.collect()
    watch = tg.detect_anomaly()
    x = leaf([1.0, 2.0])
    with watch:
        for _ in range(5):
            np.sum(np.exp(x)).backward()
        assert not watch.listener.kept


def test_the_grad_mode_is_kept_and_given_back():
    x = leaf([1.0])
    with tg.no_grad():
        with tg.detect_anomaly():
            assert not (x * 2).requires_grad
            with tg.enable_grad():
                assert (x * 2).requires_grad
        assert not tg.is_grad_enabled()
    assert tg.is_grad_enabled()


def test_one_at_a_time():
    with pytest.raises(RuntimeError, match="inside another one"), tg.detect_anomaly(), tg.detect_anomaly():
        pass
    assert tg.is_grad_enabled()


def test_other_threads_are_not_watched():
    seen = []

    def other():
        with np.errstate(all="ignore"):
            seen.append(np.log(leaf([-1.0])).tolist())

    with tg.detect_anomaly():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert np.isnan(seen).all()
