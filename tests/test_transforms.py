"""grad and value_and_grad: structures, argument numbers, nesting, closures."""

from collections import namedtuple

import numpy as np
import pytest

import tinygrad_scratch as tg
from tinygrad_scratch import Tensor
from tinygrad_scratch.errors import GraphError

Layer = namedtuple("Layer", "weight bias")


def test_arrays_in_arrays_out():
    value, slope = tg.value_and_grad(lambda x: np.sum(x**3))(np.array([1.0, 2.0]))
    assert type(value) is np.float64
    assert type(slope) is np.ndarray
    assert (float(value), slope.tolist()) == (9, [3, 12])


def test_numbers_in_numbers_out():
    slope = tg.grad(lambda x: x**2)(3.0)
    assert type(slope) is np.float64
    assert slope == 6


def test_float32_stays_float32():
    value, slope = tg.value_and_grad(lambda x: np.sum(x * 2.0))(np.ones(2, np.float32))
    assert value.dtype == slope.dtype == np.float32


def test_tensors_in_tensors_out():
    slope = tg.grad(lambda x: np.sum(x**2))(Tensor([1.0, 2.0]))
    assert isinstance(slope, Tensor)
    assert not slope.requires_grad
    x = Tensor([1.0, 2.0], requires_grad=True)
    slope = tg.grad(lambda x: np.sum(x**3))(x)
    slope.sum().backward()
    assert x.grad.tolist() == [6, 12]


def test_the_arguments_are_left_alone():
    x = Tensor([1.0, 2.0], requires_grad=True)
    a = np.array([1.0, 2.0])
    tg.grad(lambda x, a: np.sum(x * a), argnums=(0, 1))(x, a)
    assert x.grad is None
    assert a.tolist() == [1, 2]


def test_structures_of_arrays():
    parameters = {"layers": [Layer(np.ones((2, 2)), np.zeros(2)), Layer(np.ones((2, 1)), np.zeros(1))], "scale": 2.0}

    def loss(p, x):
        for layer in p["layers"]:
            x = np.tanh(x @ layer.weight + layer.bias)
        return np.sum(x) * p["scale"]

    value, slopes = tg.value_and_grad(loss)(parameters, np.ones((3, 2)))
    assert list(slopes) == ["layers", "scale"]
    assert type(slopes["layers"][0]) is Layer
    assert [layer.weight.shape for layer in slopes["layers"]] == [(2, 2), (2, 1)]
    assert slopes["scale"] == pytest.approx(value / 2)
    assert tg.grad(lambda t: t[0] * t[1])((2.0, 5.0)) == (5, 2)
    assert tg.grad(lambda t: t[0] * t[1])([2.0, 5.0]) == [5, 2]


def test_argument_numbers():
    def f(a, b, c):
        return a * b**2 * c**3

    assert tg.grad(f)(2.0, 3.0, 1.0) == 9
    assert tg.grad(f, argnums=1)(2.0, 3.0, 1.0) == 12
    assert tg.grad(f, argnums=-1)(2.0, 3.0, 1.0) == 54
    assert tg.grad(f, argnums=(2, 0))(2.0, 3.0, 1.0) == (54, 9)
    assert tg.grad(f, argnums=[0])(2.0, 3.0, 1.0) == (9,)
    for wrong in (3, -4):
        with pytest.raises(IndexError, match="argnums"):
            tg.grad(f, argnums=wrong)(2.0, 3.0, 1.0)
    with pytest.raises(ValueError, match="repeated"):
        tg.grad(f, argnums=(0, 0))(2.0, 3.0, 1.0)


def test_keywords_are_passed_on():
    assert tg.grad(lambda x, *, power: x**power)(3.0, power=2) == 6


def test_to_any_order():
    f = np.sin
    for order, expected in enumerate([np.cos(0.3), -np.sin(0.3), -np.cos(0.3), np.sin(0.3), np.cos(0.3)], start=1):
        f = tg.grad(f)
        assert f(0.3) == pytest.approx(expected), order


def test_a_variable_of_an_outer_function_is_a_constant_of_the_inner_one():
    """Pearlmutter and Siskind's perturbation confusion: d/dx (x * d/dy (x + y)) is 1, not 2."""
    assert tg.grad(lambda x: x * tg.grad(lambda y: x + y)(1.0))(1.0) == 1
    assert tg.grad(lambda x: tg.grad(lambda y: x * y)(3.0))(5.0) == 1
    assert tg.grad(lambda x: x * tg.grad(lambda y: x * y**2)(x))(2.0) == 24


def test_closures_over_tensors_that_require_gradients():
    w = Tensor([1.0, 2.0], requires_grad=True)
    slope = tg.grad(lambda x: np.sum(w * x**2))(np.array([3.0, 4.0]))
    assert slope.tolist() == [6, 16]
    assert w.grad is None
    own = tg.grad(lambda v: np.sum(v * w))(w)
    assert own.tolist() == [1, 2]


def test_a_hessian_row_by_row():
    def f(x):
        return np.sum(np.sin(x) * x[::-1] ** 2)

    x = np.array([0.2, 0.5, -0.4])
    rows = [tg.grad(lambda x, i=i: tg.grad(f)(x)[i])(x) for i in range(3)]
    np.testing.assert_allclose(rows, np.transpose(rows), atol=1e-12)


def test_within_no_grad():
    with tg.no_grad():
        assert tg.grad(tg.grad(lambda x: x**3))(2.0) == 12
        x = Tensor(2.0, requires_grad=True)
        assert not tg.grad(lambda x: x**3)(x).requires_grad


def test_no_grad_within():
    def f(x):
        with tg.no_grad():
            constant = np.exp(x)
        return x * constant

    assert tg.grad(f)(1.0) == pytest.approx(np.e)


def test_functions_of_several_elements_are_refused():
    with pytest.raises(GraphError, match="one element"):
        tg.grad(lambda x: x * 2)(np.ones(3))


@pytest.mark.parametrize(
    "lost", [lambda x: float(np.sum(x)), lambda x: np.sum(x).item(), lambda x: np.sum(x.numpy()), lambda x: 3.0]
)
def test_a_lost_graph_is_no_silent_zero(lost):
    with pytest.raises(GraphError, match="its graph is lost"):
        tg.grad(lost)(np.ones(3))


def test_an_output_that_does_not_depend_on_the_argument():
    w = Tensor(2.0, requires_grad=True)
    assert tg.grad(lambda x: w * 3)(np.ones(2)).tolist() == [0, 0]


@pytest.mark.parametrize("argument", [3, np.arange(3), True, [1, 2]])
def test_integer_arguments_are_refused(argument):
    with pytest.raises(TypeError, match="floating-point"):
        tg.grad(lambda x: np.sum(x) if not isinstance(x, list) else x[0])(argument)
