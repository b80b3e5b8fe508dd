"""The Tensor itself: making one, its values, operators, changing it in place, and what is refused."""

import copy
import math
import pickle

import numpy as np
import pytest

import tinygrad_scratch as tg
from tinygrad_scratch import Tensor
from tinygrad_scratch.errors import GraphError


def leaf(data, dtype=None):
    return Tensor(data, dtype=dtype, requires_grad=True)


# -- making one --------------------------------------------------------------------------------------------------------


def test_data_are_copied_and_keep_their_dtype():
    a = np.array([1, 2], np.float32)
    t = Tensor(a)
    a[0] = 9
    assert t.tolist() == [1, 2]
    assert t.dtype == np.float32
    assert Tensor([1.0]).dtype == Tensor(1.0).dtype == np.float64
    assert Tensor([1]).dtype == np.array([1]).dtype
    assert Tensor([1], dtype=np.float32).dtype == np.float32
    assert Tensor(True).dtype == bool


def test_as_tensor_shares_memory():
    a = np.zeros(2)
    t = tg.as_tensor(a)
    a[0] = 1
    assert t.tolist() == [1, 0]
    assert tg.as_tensor(t) is t
    assert tg.as_tensor(t, dtype=np.float32).dtype == np.float32
    assert not t.requires_grad


def test_attributes():
    t = leaf(np.zeros((2, 3), np.float32))
    assert (t.shape, t.ndim, t.size, t.dtype, len(t)) == ((2, 3), 2, 6, np.float32, 2)
    assert t.T.shape == t.mT.shape == (3, 2)
    assert t.is_leaf
    assert not (t * 2).is_leaf
    assert t.grad is None


@pytest.mark.parametrize("data", [1j, [1j, 2], np.zeros(2, np.complex64)])
def test_complex_data_are_refused(data):
    with pytest.raises(TypeError, match="complex numbers are not supported"):
        Tensor(data)
    with pytest.raises(TypeError, match="complex numbers are not supported"):
        tg.as_tensor(data)


@pytest.mark.parametrize("data", ["abc", None, [None, 1], np.array("2020", "M8[D]"), np.array([1, "a"], object), {}])
def test_what_is_no_number_is_refused(data):
    with pytest.raises(TypeError, match="holds real numbers"):
        Tensor(data)


@pytest.mark.parametrize("data", [[1, 2], True, np.zeros(2, np.uint8)])
def test_integers_cannot_require_gradients(data):
    with pytest.raises(TypeError, match="only floating-point Tensors can require gradients"):
        leaf(data)
    with pytest.raises(TypeError, match="only floating-point"):
        Tensor(data).requires_grad_()


def test_integers_cannot_be_marked_behind_its_back():
    t = Tensor([1, 2])
    with pytest.raises(TypeError, match="only floating-point Tensors can require gradients"):
        t.requires_grad = True
    assert not t.requires_grad


def test_requires_grad_can_be_switched_on_a_leaf():
    t = Tensor([1.0]).requires_grad_()
    y = t * 2
    assert t.requires_grad
    assert y.requires_grad
    with pytest.raises(GraphError, match=r"use \.detach"):
        y.requires_grad_(False)
    assert not t.requires_grad_(False).requires_grad


# -- its values --------------------------------------------------------------------------------------------------------


def test_leaving_for_python_just_works():
    t = leaf(2.5)
    assert (float(t), int(t), bool(t), t.item(), t.tolist()) == (2.5, 2, True, 2.5, 2.5)
    assert float(leaf([[2.5]])) == 2.5
    assert math.sqrt(leaf(4.0)) == 2
    assert f"{t:.3f} {t}" == "2.500 2.5"
    assert f"{leaf([1.0, 2.0])}" == "[1. 2.]"
    assert np.float64(t) == 2.5
    assert [10, 20, 30][Tensor(1)] == 20
    assert list(range(Tensor(2))) == [0, 1]


def test_several_values_are_no_number():
    t = leaf([1.0, 2.0])
    for convert in (float, int, bool, Tensor.item):
        with pytest.raises((ValueError, TypeError)):
            convert(t)
    with pytest.raises(TypeError):
        [1, 2][leaf(1.0)]


def test_repr():
    assert repr(Tensor([1.0, 2.0])) == "Tensor([1., 2.])"
    assert repr(leaf(np.ones(2, np.float32))) == "Tensor([1., 1.], dtype=float32, requires_grad=True)"
    assert repr(Tensor(3)) == "Tensor(3)"


def test_numpy_is_a_read_only_view():
    t = leaf([1.0, 2.0])
    values = t.numpy()
    assert np.shares_memory(values, t.data)
    with pytest.raises(ValueError, match="read-only"):
        values[0] = 3


def test_asarray_is_refused_only_where_a_graph_would_be_lost():
    t = leaf([1.0, 2.0])
    with pytest.raises(TypeError, match=r"t\.detach\(\)"):
        np.asarray(t)
    with tg.no_grad():
        assert np.asarray(t).tolist() == [1, 2]
    shared = np.asarray(Tensor([1.0, 2.0]))
    assert not shared.flags.writeable
    assert np.array(Tensor([1.0])).flags.writeable
    assert np.asarray(Tensor([1.0]), dtype=np.float32).dtype == np.float32


def test_detach_leaves_the_graph():
    t = leaf([1.0, 2.0])
    d = t.detach()
    assert not d.requires_grad
    np.sum(t * d).backward()
    assert t.grad.tolist() == [1, 2]


def test_copy_stays_in_the_graph_and_keeps_the_dtype():
    t = leaf([1.0, 2.0])
    c = t.copy()
    assert not np.shares_memory(c.data, t.data)
    c.sum().backward()
    assert t.grad.tolist() == [1, 1]
    assert Tensor([True]).clone().dtype == bool
    assert np.copy(t).requires_grad


def test_iteration_and_unpacking():
    a, b = leaf([[1.0, 2.0], [3.0, 4.0]])
    assert (a.tolist(), b.tolist()) == ([1, 2], [3, 4])
    assert 2.0 in Tensor([1.0, 2.0])
    with pytest.raises(TypeError, match="0-d"):
        len(leaf(1.0))
    with pytest.raises(TypeError, match="0-d"):
        list(leaf(1.0))


def test_pickle_and_deepcopy_of_leaves():
    t = leaf(np.ones(2, np.float32))
    for other in (pickle.loads(pickle.dumps(t)), copy.deepcopy(t), copy.copy(t)):
        assert other.requires_grad
        assert other.tolist() == [1, 1]
        assert other.dtype == np.float32
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(t * 2)


def test_tensors_are_hashed_by_identity():
    a, b = leaf([1.0]), leaf([1.0])
    assert len({a, b, a}) == 2


# -- operators ---------------------------------------------------------------------------------------------------------

X, Y = np.array([[1.0, -2.0], [3.0, 0.5]]), np.array([[2.0, 3.0], [0.5, 4.0]])
BINARY = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "@": lambda a, b: a @ b,
    "** 2": lambda a, b: a**2 + b**2,
    "**": lambda a, b: abs(a) ** b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}


@pytest.mark.parametrize("symbol", BINARY)
def test_operators_with_arrays_on_either_side(symbol):
    f = BINARY[symbol]
    expected = f(X, Y)
    for a, b in ((Tensor(X), Tensor(Y)), (X, Tensor(Y)), (Tensor(X), Y)):
        answer = f(a, b)
        assert isinstance(answer, Tensor)
        np.testing.assert_array_equal(answer.numpy(), expected)


@pytest.mark.parametrize("symbol", [s for s in BINARY if s != "@"])
@pytest.mark.parametrize("number", [2, 2.5, np.float64(2.5), np.float32(2), np.int64(3), True])
def test_operators_with_numbers_on_either_side(symbol, number):
    f = BINARY[symbol]
    for a, b, expected in ((Tensor(X), number, f(X, number)), (number, Tensor(Y), f(number, Y))):
        answer = f(a, b)
        assert isinstance(answer, Tensor)
        np.testing.assert_array_equal(answer.numpy(), expected)
        assert answer.dtype == expected.dtype


def test_lists_are_operands_too():
    assert (leaf([1.0, 2.0]) * [3, 4]).tolist() == ([3, 4] * leaf([1.0, 2.0])).tolist() == [3, 8]
    assert ([[1.0, 2.0]] @ leaf([1.0, 2.0])).tolist() == [5]


def test_bits_and_truth():
    a, b = np.array([True, True, False]), np.array([True, False, False])
    for f in (lambda a, b: a & b, lambda a, b: a | b, lambda a, b: a ^ b, lambda a, b: ~a & b):
        for x, y in ((Tensor(a), b), (a, Tensor(b)), (Tensor(a), Tensor(b))):
            assert f(x, y).tolist() == f(a, b).tolist()
    assert (Tensor([6]) & Tensor([3])).tolist() == [2]
    assert (~Tensor([6])).tolist() == [-7]
    with pytest.raises(TypeError):
        leaf([1.0]) & 1


def test_unary_operators():
    t = leaf([1.0, -2.0])
    assert ((-t).tolist(), (+t).tolist(), abs(t).tolist()) == ([-1, 2], [1, -2], [1, 2])
    assert (+t).requires_grad


def test_methods_are_the_rows():
    t = leaf(np.arange(6.0).reshape(2, 3))
    assert t.sum(0).tolist() == t.sum(axis=0).tolist() == [3, 5, 7]
    assert t.mean(axis=1, keepdims=True).shape == (2, 1)
    assert t.var(ddof=1).item() == pytest.approx(np.var(t.numpy(), ddof=1))
    assert t.max().item() == 5
    assert t.argmax(axis=1).tolist() == [2, 2]
    assert t.reshape(3, 2).shape == t.reshape((3, 2)).shape == t.reshape(-1, 2).shape == (3, 2)
    assert t.transpose(1, 0).shape == t.transpose((1, 0)).shape == t.transpose().shape == (3, 2)
    assert t.flatten().shape == t.ravel().shape == (6,)
    assert t.squeeze().shape == (2, 3)
    assert t.swapaxes(0, 1).shape == (3, 2)
    assert t.astype(np.float32).dtype == np.float32
    assert t.clip(1, 2).tolist() == np.clip(t.numpy(), 1, 2).tolist()
    assert t.cumsum().tolist() == np.cumsum(t.numpy()).tolist()
    assert t.take([0, 2], axis=1).shape == (2, 2)
    assert t.repeat(2, axis=0).shape == (4, 3)
    assert t.trace().item() == 4
    assert t.dot(np.ones(3)).tolist() == [3, 12]
    assert t.exp().log().tanh().sigmoid().relu().requires_grad


def test_methods_refuse_what_they_do_not_take():
    t = leaf([1.0, 2.0])
    with pytest.raises(TypeError, match="at most 2"):
        t.sum(0, False, 5)
    with pytest.raises(TypeError) as caught:
        t.sum(dim=0)
    assert "in sum(float64(2,), dim=0)" in caught.value.__notes__
    with pytest.raises(ValueError, match="cannot reshape"):
        t.reshape(3)
    with pytest.raises(np.exceptions.AxisError):
        t.sum(axis=1)


def test_astype_to_integers_ends_the_graph():
    t = leaf([1.5, 2.5])
    assert not t.astype(np.int64).requires_grad
    assert t.astype(np.float32).requires_grad


# -- indexing ----------------------------------------------------------------------------------------------------------

GRID = np.arange(24.0).reshape(2, 3, 4)
INDICES = [
    0, -1, np.int64(1), (0, 1), (0, 1, 2), slice(None), slice(None, None, -1), slice(5, 9), None, Ellipsis, (),
    (Ellipsis, 0), (None, 0, Ellipsis, None), (slice(None), 1), (slice(None), [0, 2, 0]), [1, 0, 1], [[0, 1], [1, 0]],
    [], ([0, 1], [1, 2]), (0, [0, 2]), ([0, 1], slice(None), [2, 3]), (slice(1), [True, False, True]),
    GRID > 7, GRID[:, 0, 0] > 3, True, False,
    np.array(1), (np.array(0), 1), (slice(np.int64(1), None), -1), range(2), (Ellipsis, [0], [1]),
]  # fmt: skip


@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_every_index_of_numpy(index):
    expected = GRID[index]
    t = leaf(GRID)
    y = t[index]
    np.testing.assert_array_equal(y.numpy(), expected)
    weights = np.arange(1.0, expected.size + 1).reshape(expected.shape)
    if y.size:
        np.sum(y * weights).backward()
        by_hand = np.zeros_like(GRID)
        np.add.at(by_hand, index, weights)
        np.testing.assert_array_equal(t.grad.numpy(), by_hand)


def test_index_by_tensors():
    t = leaf(GRID)
    assert t[Tensor([1, 0])].tolist() == GRID[[1, 0]].tolist()
    assert t[t > 20].tolist() == [21, 22, 23]
    assert t[0, Tensor(1)].tolist() == GRID[0, 1].tolist()


@pytest.mark.parametrize("index", [1.5, 2, (0, 0, 0, 0), [0.5], (Ellipsis, Ellipsis)])
def test_wrong_indices_are_numpys_errors(index):
    with pytest.raises(IndexError):
        leaf(GRID)[index]


def test_functional_updates():
    t, v = leaf([1.0, 2.0, 3.0]), leaf([10.0, 20.0])
    y = t.at[[0, 2]].set(v)
    assert y.tolist() == [10, 2, 20]
    np.sum(y * [1, 2, 3]).backward()
    assert t.grad.tolist() == [0, 2, 0]
    assert v.grad.tolist() == [1, 3]
    z = t.at[[0, 0]].add(v)
    assert z.tolist() == [31, 2, 3]
    assert t.at[t > 1].set(0.0).tolist() == [1, 0, 0]
    assert t.at[1].add(5).tolist() == [1, 7, 3]


def test_of_an_element_set_twice_only_the_last_value_counts():
    v = leaf([1.0, 2.0, 3.0])
    y = Tensor(np.zeros(3)).at[[1, 0, 1]].set(v)
    assert y.tolist() == [2, 3, 0]
    np.sum(y * [5, 7, 9]).backward()
    assert v.grad.tolist() == [0, 5, 7]


def test_integers_do_not_swallow_a_real_value():
    with pytest.raises(TypeError, match="integers cannot hold"):
        Tensor([1, 2]).at[0].set(leaf(2.5))
    assert Tensor([1, 2]).at[0].set(7).tolist() == [7, 2]


# -- changing it -------------------------------------------------------------------------------------------------------


def test_in_place_on_leaves_under_no_grad():
    t = leaf(np.ones(2, np.float32))
    array = t.data
    with tg.no_grad():
        t -= 0.5
        t += np.float32(1)
        t *= np.array([2.0, 4.0], np.float32)
        t /= 2
        t[0] = 9
        t **= 2
        t //= 2
        t %= 7
    assert t.tolist() == [40 % 7, 4]
    assert t.data is array
    assert t.dtype == np.float32


def test_in_place_keeps_the_dtype():
    t = Tensor([1, 2])
    with pytest.raises(TypeError, match="same_kind"):
        t += 0.5
    assert t.tolist() == [1, 2]


def test_in_place_is_refused_where_a_graph_would_be_wrong():
    t = leaf([1.0, 2.0])
    y = t * 2
    with pytest.raises(GraphError, match=r"write x = x \+ v"):
        t += 1
    with pytest.raises(GraphError, match=r"x\.at\[i\]\.set\(v\)"):
        t[0] = 1
    with tg.no_grad(), pytest.raises(GraphError, match="has a graph"):
        y += 1
    c, d = Tensor([1.0, 2.0]), t.detach()
    with pytest.raises(GraphError, match="requires a gradient"):
        c += t
    with tg.no_grad(), pytest.raises(GraphError, match="view of another array"):
        d += 1


def test_data_can_be_replaced_on_a_leaf():
    t = leaf([1.0, 2.0])
    y = t * t
    t.data = [3.0, 4.0]
    assert t.tolist() == [3, 4]
    with pytest.raises(GraphError, match="changed in place"):
        y.sum().backward()
    with pytest.raises(TypeError, match="cannot hold int"):
        t.data = np.array([1, 2])
    with pytest.raises(GraphError, match="has a graph"):
        y.data = [1.0, 2.0]


# -- errors teach ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("f", "error", "note"),
    [
        (lambda: leaf(np.ones((2, 3))) @ np.ones((4, 5)), ValueError, r"must equal the second to last axis .* \(4\)"),
        (lambda: leaf(np.ones((2, 3))) + np.ones(4), ValueError, r"\(2, 3\), \(4,\)\] do not broadcast"),
        (lambda: tg.OPS["affine"](leaf(np.ones((2, 3))), np.ones((5, 4)), np.ones(5)), ValueError, "takes 4 features"),
        (
            lambda: np.concatenate([leaf(np.ones((2, 3))), np.ones((2, 4))]),
            ValueError,
            r"in concatenate\(float64\(2, 3\), float",
        ),
        (lambda: leaf(np.ones(3)).reshape(2, 2), ValueError, r"in reshape\(float64\(3,\), shape=\(2, 2\)\)"),
        (lambda: leaf(np.ones((2, 3))).sum(axis=2), np.exceptions.AxisError, r"in sum\(float64\(2, 3\), axis=2\)"),
    ],
)
def test_errors_keep_their_type_and_say_where_and_how(f, error, note):
    with pytest.raises(error) as caught:
        f()
    import re

    assert re.search(note, "\n".join(caught.value.__notes__))


@pytest.mark.parametrize("other", [1j, np.array(1j), np.array([1j, 2j])])
def test_complex_operands_are_refused(other):
    for f in (lambda a, b: a * b, lambda a, b: b * a):
        with pytest.raises(TypeError, match="complex numbers"):
            f(leaf([1.0, 2.0]), other)


@pytest.mark.parametrize("other", ["a", None, {}, object(), np.array([1, 2], object), ["a"]])
def test_operands_that_are_no_numbers_are_refused(other):
    with pytest.raises(TypeError):
        leaf([1.0, 2.0]) * other


def test_masked_arrays_are_refused():
    with pytest.raises(TypeError, match="mask"):
        leaf([1.0, 2.0]) * np.ma.array([1.0, 2.0], mask=[True, False])
