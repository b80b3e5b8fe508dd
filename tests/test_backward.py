"""Reverse mode: graphs large, shared, freed, changed in between; accumulation; gradients of gradients; grad mode."""

import gc
import threading
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_scratch as tg
from tinygrad_scratch import Tensor
from tinygrad_scratch.backward import project
from tinygrad_scratch.errors import GraphError
from tinygrad_scratch.testing import check_grad

LARGE = 100_000


def leaf(data):
    return Tensor(data, requires_grad=True)


@pytest.fixture
def no_collector():
    """The garbage collector switched off: what is freed is freed by reference counting."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


# -- shapes of graphs --------------------------------------------------------------------------------------------------


def test_a_long_chain(no_collector):
    x = leaf(1.0)
    y = x
    for _ in range(LARGE):
        y = y + 1.0
    y.backward()
    assert x.grad.item() == 1
    alive = weakref.ref(y)
    del y
    assert alive() is None


def test_a_wide_graph(no_collector):
    x = leaf(1.0)
    parts = [x * float(i % 7) for i in range(LARGE)]
    y = np.sum(np.stack(parts))
    y.backward()
    assert x.grad.item() == sum(i % 7 for i in range(LARGE))
    alive = weakref.ref(parts[0])
    del y, parts
    assert alive() is None


def test_a_long_ladder_counts_every_path_once():
    """Each rung uses the one before twice: 2**60 paths, 60 nodes."""
    x = leaf(1.0)
    y = x
    for _ in range(60):
        y = (y + y) * 0.5
    y.backward()
    assert x.grad.item() == 1


def test_diamonds_and_shared_parts():
    check_grad(lambda x: (s := np.sin(x)) * np.cos(s) + s * x + s, np.array([0.3, 0.7]))
    check_grad(
        lambda x, w: (h := x @ w) @ np.transpose(h) + np.sum(h) * w[0, 0],
        np.ones((2, 3)),
        np.full((3, 2), 0.5),
        order=2,
    )


STEPS = [
    lambda a, b: a + b,
    lambda a, b: a * b,
    lambda a, b: np.sin(a) - b,
    lambda a, b: a / (1 + b * b),
    lambda a, b: np.tanh(a) @ np.broadcast_to(np.ravel(b)[0], (3, 3)) * 0.3,
    lambda a, b: np.mean(a, axis=0) + b,
    lambda a, b: np.sum(a * a) * 0.1,
    lambda a, b: np.flip(a * np.ones(3), axis=-1) * b,
    lambda a, b: tg.softmax(a + b),
]


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=10))
def test_random_programs(program):
    """Operands are taken from all values so far, so that graphs share, skip and join in any way."""

    def run(x, w):
        values = [x, w * np.ones((2, 3))]
        for step, i, j in program:
            values.append(step(values[-1 - i % len(values)] * np.ones(3), values[-1 - j % len(values)]))
        return values[-1] + np.sum(values[len(values) // 2])

    check_grad(
        run, np.array([[0.3, -0.8, 0.5], [0.9, 0.1, -0.4]]), np.array([0.7, -0.2, 0.4]), order=2, rtol=1e-5, atol=1e-7
    )


def test_an_operand_used_on_both_sides():
    for f in (
        lambda x: x * x,
        lambda x: x - x,
        lambda x: x / x,
        lambda x: x**x,
        lambda x: np.maximum(x, x),
        lambda x: x @ x,
    ):
        check_grad(f, np.array([0.4, 1.7]))


def test_parts_that_the_output_does_not_depend_on():
    x, unused = leaf([1.0, 2.0]), leaf(3.0)
    _ = np.exp(unused)
    x.sum().backward()
    assert unused.grad is None


def test_constants_get_no_gradient():
    x, c = leaf([1.0, 2.0]), Tensor([3.0, 4.0])
    (x * c).sum().backward()
    assert c.grad is None
    assert x.grad.tolist() == [3, 4]


def test_rules_run_for_wanted_arguments_only(monkeypatch):
    def refuse(g, y, a, b):
        raise AssertionError("the rule of a constant ran")

    op = tg.OPS["multiply"]
    monkeypatch.setattr(op, "rules", (op.rules[0], refuse))
    (leaf([1.0]) * Tensor([2.0])).sum().backward()
    (leaf([1.0]) * np.array([2.0])).sum().backward()


# -- grad --------------------------------------------------------------------------------------------------------------


def test_gradients_accumulate_until_they_are_cleared():
    x = leaf([1.0, 2.0])
    y = np.sum(x**2)
    y.backward()
    first = x.grad
    y.backward()
    assert first.tolist() == [2, 4]
    assert x.grad.tolist() == [4, 8]
    x.zero_grad()
    assert x.grad is None


def test_backward_of_a_leaf():
    x = leaf(3.0)
    x.backward()
    assert x.grad.item() == 1


def test_gradients_share_no_memory():
    """Rules hand on the cotangent itself, or views of it; what lands in .grad is everybody's own."""
    a, b, c = leaf(np.ones((2, 3))), leaf(np.ones((2, 3))), leaf(np.ones(6))
    given = np.ones((2, 3))
    y = a + b + c.reshape(2, 3)
    y.backward(given)
    arrays = [a.grad.data, b.grad.data, c.grad.data, given, a.data, b.data, c.data, y.data]
    for i, first in enumerate(arrays):
        for second in arrays[i + 1 :]:
            assert not np.shares_memory(first, second)
    assert all(t.grad.data.flags.writeable for t in (a, b, c))
    a.grad.data[...] = 7
    assert b.grad.tolist() == np.ones((2, 3)).tolist()


def test_gradients_of_a_leaf_that_is_the_output_share_no_memory():
    x = leaf([1.0, 2.0])
    given = np.ones(2)
    x.backward(given)
    assert not np.shares_memory(x.grad.data, given)


def test_gradients_are_writable_where_a_rule_broadcasts():
    x = leaf(np.ones((100, 100)))
    x.sum().backward()
    x.grad.data[0, 0] = 5
    assert x.grad.sum().item() == 100 * 100 + 4


def test_gradients_have_the_dtype_and_shape_of_their_leaf():
    x, w = Tensor(np.ones((5, 1, 3), np.float32), requires_grad=True), leaf(np.ones((4, 3)))
    np.sum(x * w).backward()
    assert (x.grad.dtype, x.grad.shape) == (np.float32, (5, 1, 3))
    assert (w.grad.dtype, w.grad.shape) == (np.float64, (4, 3))


def test_the_seed():
    x = leaf([1.0, 2.0])
    for gradient in ([1.0, 10.0], (1, 10), np.array([1, 10]), np.float32([1, 10]), Tensor([1.0, 10.0])):
        x.grad = None
        (x * x).backward(gradient)
        assert x.grad.tolist() == [2, 40]
        assert x.grad.dtype == np.float64
    x.grad = None
    np.sum(x, keepdims=True).backward()
    assert x.grad.tolist() == [1, 1]


def test_what_backward_refuses():
    x = leaf([1.0, 2.0])
    with pytest.raises(GraphError, match="only for one element"):
        (x * 2).backward()
    for gradient in (1.0, [1.0], [[1.0, 2.0]], np.ones(3), Tensor(1.0)):
        with pytest.raises(ValueError, match=r"must be equal"):
            (x * 2).backward(gradient)
    with pytest.raises(TypeError, match="complex"):
        (x * 2).backward([1j, 1])
    with pytest.raises(GraphError, match="has no graph"):
        Tensor([1.0]).backward()
    with tg.no_grad():
        y = np.sum(x * 2)
    with pytest.raises(GraphError, match="made under no_grad"):
        y.backward()
    assert x.grad is None


def test_a_rule_of_the_wrong_shape_is_named():
    with pytest.raises(ValueError, match=r"cotangent of shape \(2, 3\) for an input of shape \(3, 2\)"):
        project(np.ones((2, 3)), (3, 2), np.dtype(float))
    with pytest.raises(ValueError, match="does not broadcast to it"):
        project(np.ones(()), (1, 1), np.dtype(float))
    assert project(np.ones((1, 4, 3)), (1, 3), np.dtype(float)).tolist() == [[4, 4, 4]]
    assert project(np.ones((1, 1, 3)), (3,), np.dtype(float)).shape == (3,)
    assert project(np.ones((0, 3)), (3,), np.dtype(np.float32)).tolist() == [0, 0, 0]


# -- changed between forward and backward ------------------------------------------------------------------------------


def change(t):
    with tg.no_grad():
        t += 10.0


def test_a_change_in_between_is_caught():
    x, w = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    y = np.sum(x * w)
    change(w)
    with pytest.raises(
        GraphError, match=r"argument 1 of multiply\(float64\(2,\), float64\(2,\)\) was changed in place"
    ):
        y.backward()
    assert x.grad is None


def test_a_change_of_a_constant_is_caught():
    x, c = leaf([1.0, 2.0]), Tensor([3.0, 4.0])
    y = np.sum(x * c)
    c[0] = 9
    with pytest.raises(GraphError, match="changed in place"):
        y.backward()


def test_a_change_under_a_view_is_caught():
    x = leaf([1.0, 2.0])
    row = x.reshape(1, 2)
    y = np.sum(row * row)
    change(x)
    with pytest.raises(GraphError, match="changed in place"):
        y.backward()


def test_a_change_of_an_operand_of_a_variadic_row_is_caught():
    a, b = leaf(np.ones((2, 2))), leaf(np.ones((2, 2)))
    y = np.sum(np.einsum("ij,jk", a, b))
    change(a)
    with pytest.raises(GraphError, match="argument 0 of einsum"):
        y.backward()


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x * 2,
        lambda x: x + 1,
        lambda x: np.exp(x),
        lambda x: np.concatenate([x, x]),
        lambda x: np.mean(x + x),
        lambda x: x[[0, 1]],
        lambda x: x.at[0].set(1.0),
    ],
)
def test_a_change_that_no_rule_sees_is_no_error(f):
    x = leaf([1.0, 2.0])
    y = np.sum(f(x))
    expected = tg.gradients(y, [x])[0].tolist()
    change(x)
    y.backward()
    assert x.grad.tolist() == expected


def test_a_change_after_backward_and_before_the_next_forward_is_no_error():
    x = leaf([1.0, 2.0])
    for _ in range(3):
        x.grad = None
        np.sum(x * x).backward()
        with tg.no_grad():
            x -= 0.1 * x.grad


def test_a_change_before_a_second_backward_is_caught():
    x = leaf([1.0, 2.0])
    y = np.sum(x**3)
    y.backward()
    change(x)
    with pytest.raises(GraphError, match="changed in place"):
        y.backward()


# -- gradients of gradients --------------------------------------------------------------------------------------------


def test_create_graph_to_third_order():
    x = leaf(2.0)
    (x**4).backward(create_graph=True)
    first = x.grad
    assert first.item() == 32
    x.grad = None
    first.backward(create_graph=True)
    second = x.grad
    assert second.item() == 48
    x.grad = None
    second.backward()
    assert x.grad.item() == 48
    assert not x.grad.requires_grad


def test_a_gradient_penalty():
    x, w = np.array([[0.3, -0.2], [0.5, 0.9]]), leaf([[0.4], [-0.7]])
    inputs = leaf(x)
    (slope,) = tg.gradients(np.sum(np.tanh(inputs @ w)), [inputs], create_graph=True)
    np.sum(slope**2).backward()

    def penalty(w):
        inputs = leaf(x)
        return np.sum(tg.gradients(np.sum(np.tanh(inputs @ w)), [inputs], create_graph=True)[0] ** 2)

    check_grad(penalty, w.numpy())
    np.testing.assert_allclose(w.grad.numpy(), tg.grad(penalty)(w.numpy()))


def test_gradients_without_touching_grad():
    x, w, unused = leaf([1.0, 2.0]), leaf(3.0), leaf([1.0])
    h = x * w
    y = np.sum(h * h)
    to_h, to_w, to_nothing, again = tg.gradients(y, [h, w, unused, h])
    assert to_h.tolist() == [6, 12]
    assert to_w.item() == 30
    assert to_nothing.tolist() == [0]
    assert again.tolist() == to_h.tolist()
    assert not np.shares_memory(again.data, to_h.data)
    assert x.grad is w.grad is None
    with pytest.raises(GraphError, match="requires no gradient"):
        tg.gradients(y, [Tensor([1.0])])


def test_a_cotangent_may_be_differentiated_too():
    x, v = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    (product,) = tg.gradients(x**2, [x], v, create_graph=True)
    product.sum().backward()
    assert v.grad.tolist() == [2, 4]
    assert x.grad.tolist() == [6, 8]


# -- grad mode ---------------------------------------------------------------------------------------------------------


def test_no_grad_and_enable_grad_nest():
    x = leaf(1.0)
    with tg.no_grad():
        assert not (x * 2).requires_grad
        with tg.enable_grad():
            assert (x * 2).requires_grad
            assert tg.is_grad_enabled()
        assert not tg.is_grad_enabled()
    assert (x * 2).requires_grad


def test_grad_mode_is_restored_after_an_error():
    with pytest.raises(RuntimeError, match="boom"), tg.no_grad():
        raise RuntimeError("boom")
    assert tg.is_grad_enabled()


def test_grad_mode_decorates_functions_recursive_ones_too():
    @tg.no_grad()
    def count_down(n):
        """Of n."""
        assert not tg.is_grad_enabled()
        return n and count_down(n - 1)

    assert count_down(3) == 0
    assert count_down.__doc__ == "Of n."
    assert tg.is_grad_enabled()


def test_set_grad_enabled():
    with tg.set_grad_enabled(False):
        assert not tg.is_grad_enabled()


def test_grad_mode_is_per_thread():
    x = leaf(np.ones(3))
    seen, errors = [], []
    inside, done = threading.Event(), threading.Event()

    def other():
        try:
            inside.wait(10)
            seen.append((tg.is_grad_enabled(), (x * 2).requires_grad))
            done.set()
        except Exception as error:  # pragma: no cover
            errors.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    with tg.no_grad():
        inside.set()
        assert done.wait(10)
        assert not tg.is_grad_enabled()
    thread.join()
    assert (seen, errors) == ([(True, True)], [])


def test_threads_differentiate_side_by_side():
    results = {}

    def work(n):
        w = leaf(np.full(4, float(n)))
        for _ in range(50):
            w.grad = None
            np.sum(np.tanh(w) * w).backward()
        results[n] = w.grad.tolist()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n in range(4):
        assert results[n] == tg.grad(lambda w: np.sum(np.tanh(w) * w))(np.full(4, float(n))).tolist()


# -- memory ------------------------------------------------------------------------------------------------------------


def test_a_training_loop_leaves_nothing_behind(no_collector):
    x, w = np.ones((3, 4)), leaf(np.ones((4, 2)))
    alive = []
    for _ in range(3):
        hidden = np.tanh(x @ w)
        loss = np.sum(hidden**2)
        loss.backward()
        alive += [weakref.ref(hidden), weakref.ref(loss), weakref.ref(w.grad)]
        with tg.no_grad():
            w -= 0.1 * w.grad
        w.grad = None
        del hidden, loss
    assert [ref() for ref in alive] == [None] * 9


def test_values_without_a_graph_keep_nothing_alive(no_collector):
    x = leaf(np.ones(3))
    big = np.exp(x)
    alive = weakref.ref(big)
    value = np.sum(big).detach()
    del big
    assert alive() is None
    assert value.item() == pytest.approx(3 * np.e)
