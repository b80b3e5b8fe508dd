"""NumPy meets a Tensor: answered by a row, or refused with the reason; never an object array, never a lost gradient."""

import numpy as np
import pytest

import tinygrad_scratch as tg
from tinygrad_scratch import Tensor, registry
from tinygrad_scratch.errors import GraphError, NotDifferentiableError
from tinygrad_scratch.registry import ANSWERS
from tinygrad_scratch.testing import check_grad

A = np.arange(1.0, 7.0).reshape(2, 3)


@pytest.fixture
def t():
    return Tensor(A, requires_grad=True)


# -- ufuncs and their methods ------------------------------------------------------------------------------------------


def test_reduce_is_along_the_first_axis_unless_told(t):
    assert np.add.reduce(t).tolist() == np.add.reduce(A).tolist()
    assert np.add.reduce(t, axis=None).item() == 21
    assert np.add.reduce(t, None).item() == 21
    assert np.add.reduce(t, 1, keepdims=True).tolist() == [[6], [15]]
    assert np.add.reduce(t, axis=(0, 1)).item() == 21
    assert np.multiply.reduce(t).tolist() == [4, 10, 18]
    assert np.maximum.reduce(t, axis=-1).tolist() == [3, 6]
    assert np.minimum.reduce(t).requires_grad


def test_accumulate(t):
    assert np.add.accumulate(t).tolist() == np.add.accumulate(A).tolist()
    assert np.add.accumulate(t, axis=1).tolist() == np.add.accumulate(A, axis=1).tolist()


@pytest.mark.parametrize("ufunc", [np.add, np.subtract, np.multiply, np.divide, np.maximum, np.power, np.greater])
def test_outer_of_any_row(ufunc):
    a, b = np.array([1.5, 2.0]), np.array([[0.5, 1.0], [3.0, 4.0]])
    for x, y in ((Tensor(a), Tensor(b)), (a, Tensor(b)), (Tensor(a), b), (Tensor(a), 2.5), ([1.5, 2.0], Tensor(b))):
        np.testing.assert_allclose(ufunc.outer(x, y).numpy(), ufunc.outer(np.asarray(x), np.asarray(y)))
    if ufunc is not np.greater:
        check_grad(ufunc.outer, a, b)


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda t: np.exp(t, out=np.zeros((2, 3))), "an array cannot hold a graph"),
        (lambda t: np.add(t, 1, out=np.zeros((2, 3))), "an array cannot hold a graph"),
        (lambda t: np.exp(t, where=A > 2), "does not take where; use np.where"),
        (lambda t: np.exp(t, dtype=np.int64), "does not take dtype"),
        (lambda t: np.greater(t, 1, dtype=np.float32), "does not take dtype"),
        (lambda t: np.exp(t, casting="unsafe"), "does not take casting"),
        (lambda t: np.exp(t, order="F"), "does not take order"),
        (lambda t: np.exp(t, subok=False), "does not take subok"),
        (lambda t: np.add.reduce(t, out=np.zeros(3)), "an array cannot hold a graph"),
        (lambda t: np.add.outer(t, t, dtype=np.float32), "does not take dtype"),
        (lambda t: np.logaddexp.reduce(t, out=np.zeros(3)), "an array cannot hold a graph"),
        (lambda t: np.argmax(t, out=np.zeros((), np.intp)), "an array cannot hold a graph"),
        (lambda t: np.add.at(np.zeros(3), [0], t[0]), r"np\.add\.at .*x\.at\[i\]\.add"),
        (lambda t: np.isnat(t), r"np\.isnat is not differentiable here: it is for dates"),
    ],
)
def test_ufunc_options_and_methods_without_a_rule(t, f, message):
    with pytest.raises(NotDifferentiableError, match=message):
        f(t)


def test_an_answer_into_a_tensor():
    t = Tensor(np.zeros((2, 3)))
    assert np.add([[1.0], [2.0]], [1, 2, 3], out=t) is t
    assert t.tolist() == [[2, 3, 4], [3, 4, 5]]
    assert np.sum(t, axis=0, out=Tensor(np.zeros(3))).tolist() == [5, 7, 9]
    np.exp(t, t)
    np.testing.assert_array_equal(t.numpy(), np.exp([[2.0, 3, 4], [3, 4, 5]]))
    with pytest.raises(TypeError, match=r"out=t.*cannot hold"):
        np.exp(t, out=Tensor([[1, 2, 3], [4, 5, 6]]))
    with pytest.raises(ValueError, match="broadcast"):
        np.exp(t, out=Tensor([1.0]))
    with pytest.raises(GraphError, match="requires a gradient"):
        np.exp(t, out=Tensor(np.zeros((2, 3)), requires_grad=True))
    with pytest.raises(GraphError, match="requires a gradient"):
        np.exp(Tensor(np.zeros((2, 3)), requires_grad=True), out=t)


def test_options_at_their_defaults_are_no_options(t):
    assert np.exp(t, out=None, where=True, dtype=None).requires_grad
    assert np.add.reduce(t, axis=0, dtype=None, out=None, initial=np._NoValue).requires_grad


def test_arrays_take_tensors_in_place_where_no_graph_is_lost(t):
    target = np.zeros((2, 3))
    with pytest.raises(NotDifferentiableError, match=r"write y = x \+ t instead of x \+= t"):
        target += t
    assert not target.any()
    target += t.detach()
    with tg.no_grad():
        target += t
        np.multiply(target, t, out=target)
    np.testing.assert_array_equal(target, 2 * A * A)
    assert type(target) is np.ndarray


# -- functions ---------------------------------------------------------------------------------------------------------


def test_arguments_by_keyword_and_by_position(t):
    assert np.sum(a=t).item() == 21
    assert np.sum(t, 0).tolist() == np.sum(t, axis=0).tolist() == [5, 7, 9]
    assert np.sum(t, 0, None, None, True).shape == (1, 3)
    assert np.transpose(a=t, axes=(1, 0)).shape == (3, 2)
    assert np.transpose(t, (1, 0)).shape == (3, 2)
    assert np.var(t, axis=0, ddof=1).shape == (3,)
    assert np.swapaxes(t, 0, 1).shape == np.moveaxis(t, 0, -1).shape == (3, 2)
    assert np.expand_dims(t, 0).shape == (1, 2, 3)
    assert np.squeeze(np.expand_dims(t, (0, -1))).shape == (2, 3)
    assert np.argmax(t, 1).tolist() == [2, 2]
    assert np.zeros_like(t, dtype=np.float32).dtype == np.float32
    assert np.broadcast_to(t, (4, 2, 3)).shape == (4, 2, 3)
    assert np.permute_dims(t).shape == (3, 2)


def test_three_argument_where(t):
    assert np.where(t > 3, t, 0).tolist() == np.where(A > 3, A, 0).tolist()
    assert np.where([True, False, True], t, -t).requires_grad
    assert [list(i) for i in np.where(A > 3)] == [i.tolist() for i in np.where(t > 3)]
    with pytest.raises(NotDifferentiableError, match="3 arrays, not 2"):
        np.where(t > 3, t)


def test_methods_of_numpy_that_call_back(t):
    """Functions that NumPy implements by others, and that hand on the Tensor by duck typing."""
    assert np.abs(t) is not None
    assert sum([t, t]).tolist() == (2 * A).tolist()
    assert max(Tensor(1.0), Tensor(2.0)).item() == 2
    assert sorted([Tensor(2.0), Tensor(1.0)])[0].item() == 1


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda t: np.sum(t, out=np.zeros(())), r"np\.sum\(out=\.\.\.\) of a Tensor"),
        (lambda t: np.sum(t, 0, None, np.zeros(3)), r"np\.sum\(out=\.\.\.\) of a Tensor"),
        (lambda t: np.concatenate([t, t], out=np.zeros((4, 3))), "an array cannot hold a graph"),
        (lambda t: np.einsum("ij->", t, out=np.zeros(())), "an array cannot hold a graph"),
        (lambda t: np.dot(t, t.T, out=np.zeros((2, 2))), "an array cannot hold a graph"),
        (lambda t: np.median(t, out=np.zeros(())), "an array cannot hold a graph"),
        (lambda t: np.median(t, None, np.zeros(())), "an array cannot hold a graph"),
        (lambda t: np.quantile(t, t[0, 0] / 8), "q has no gradient here"),
        (lambda t: np.roots(t[0]), r"np\.roots is not differentiable here: .* may be complex"),
        (lambda t: np.linalg.eig(t), r"np\.linalg\.eig is not differentiable here: .* complex"),
        (lambda t: np.fft.fft(t), r"np\.fft\.fft is not differentiable here: complex numbers"),
        (lambda t: np.copyto(np.zeros((2, 3)), t), r"np\.copyto .* x\.at\[\.\.\.\]\.set\(v\)"),
        (lambda t: np.put(t, [0], 1), r"np\.put .*x\.at\[i\]\.set\(v\)"),
        (lambda t: np.save("/nowhere", t), r"np\.save\(file, t\.numpy\(\)\)"),
        (lambda t: np.zeros(3, like=t), r"np\.zeros is not differentiable here: `like`"),
    ],
)
def test_functions_and_options_without_a_rule(t, f, message):
    with pytest.raises(NotDifferentiableError, match=message) as caught:
        f(t)
    assert isinstance(caught.value, TypeError)


def test_every_function_that_dispatches_is_answered_or_refused(t):
    """All of NumPy's public functions: a Tensor in front gives Tensors, numbers, or a TypeError; never an array."""
    t = t[:, :2]
    registry.load_all()
    refused = answered = 0
    for name in sorted(set(dir(np)) - {"save", "savez", "savez_compressed", "savetxt"}):
        function = getattr(np, name)
        if (
            not callable(function)
            or isinstance(function, type)
            or not (hasattr(function, "nin") or hasattr(function, "_implementation"))
        ):
            continue
        try:
            with np.errstate(all="ignore"):
                answer = function(*[t] * getattr(function, "nin", 1))
        except (TypeError, ValueError):  # ValueError: an argument of a shape that the function does not take
            refused += 1
            continue
        answered += 1
        parts = answer if isinstance(answer, (list, tuple)) else [answer]
        assert all(isinstance(part, (Tensor, int, str, type, np.dtype)) for part in parts), (
            f"np.{name} gives {type(answer)}"
        )
        assert function in ANSWERS or function in registry.VALUES, name
    assert refused > 60
    assert answered > 150


# -- never an object array ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "f",
    [
        lambda t: np.array([t, t]),
        lambda t: np.array([t[0, 0], t[0, 1]]),
        lambda t: np.array([t, None], dtype=object),
        lambda t: np.asarray(t),
        lambda t: np.asarray([[t]]),
        lambda t: np.array(t, dtype=object),
        lambda t: np.asanyarray(t),
        lambda t: np.ascontiguousarray(t),
        lambda t: np.sum([t, t]),
        lambda t: np.mean([t[0, 0], 1.0]),
        lambda t: np.full(3, t[0, 0]),
        lambda t: np.zeros((2, 3)).__setitem__(slice(None), t),
        lambda t: np.vectorize(float)(t),
        lambda t: np.random.default_rng(0).normal(t),
        lambda t: np.ones(3)[t],
        lambda t: Tensor([t[0, 0], 1.0]),
        lambda t: tg.as_tensor([t, t]),
        lambda t: t * [t, t],
        lambda t: np.array([1, 2, 3], object) * t,
        lambda t: t + np.array([None, 1, 2]),
        lambda t: np.array(1j) * t,
        lambda t: np.power(t, np.array([1j, 0, 0])),
    ],
)
def test_no_way_into_an_object_array(t, f):
    with pytest.raises((TypeError, IndexError)):
        f(t)


def test_object_arrays_that_a_user_makes_hold_tensors_and_their_graph(t):
    box = np.empty(2, object)
    box[0], box[1] = t[0], t[1]
    (box * 2)[0].sum().backward()
    assert t.grad.tolist() == [[2, 2, 2], [0, 0, 0]]


def test_lists_of_tensors_without_gradients_are_data():
    assert Tensor([Tensor(1.0), Tensor(2.0)]).tolist() == [1, 2]
    assert np.array([Tensor([1.0]), Tensor([2.0])]).dtype == np.float64
    assert np.sum([Tensor(1.0), Tensor(2.0)]) == 3
    with tg.no_grad():
        parameter = Tensor(1.0, requires_grad=True)
        assert np.array([parameter, parameter]).tolist() == [1, 1]


def test_tensors_index_and_count():
    assert np.arange(3.0)[Tensor([2, 0])].tolist() == [2, 0]
    assert np.arange(Tensor(3)).tolist() == [0, 1, 2]
    assert [1, 2, 3][: Tensor(2)] == [1, 2]
    assert np.reshape(Tensor(A), (Tensor(3), 2)).shape == (3, 2)


# -- arrays in, arrays out ---------------------------------------------------------------------------------------------


def test_rows_fed_arrays_give_arrays():
    assert type(tg.sigmoid(A)) is np.ndarray
    assert type(tg.softmax(A, axis=0)) is np.ndarray
    assert isinstance(tg.relu(-1.0), np.floating)
    assert type(tg.OPS["add"](A, 1)) is np.ndarray


def test_the_listing_of_rows():
    assert tg.tanh is tg.OPS["tanh"]
    assert repr(tg.tanh) == "<op tanh: elementwise, 1 argument>"
    assert repr(tg.OPS["add"]) == "<op add: elementwise, 2 arguments>"
    with pytest.raises(AttributeError, match="no attribute 'tanhh'"):
        tg.tanhh  # noqa: B018


def test_a_users_row():
    name = "cube of tests"
    cube = tg.elementwise(lambda x: x**3, lambda g, y, x: g * 3 * x**2, name=name)
    try:
        check_grad(cube, A, order=2)
        with pytest.raises(ValueError, match="already registered"):
            tg.elementwise(lambda x: x, None, name=name)
    finally:
        del tg.OPS[name]


def test_a_users_answer_for_a_numpy_function():
    registry.load_all()
    ours = ANSWERS[np.sinc]
    try:

        @tg.implements(np.sinc)
        def sinc(x):
            return 2 * np.sin(np.pi * x) / (np.pi * x)

        assert np.sinc(Tensor(0.5)).item() == 2 * np.sinc(0.5)
        check_grad(np.sinc, A / 5)
    finally:
        ANSWERS[np.sinc] = ours
