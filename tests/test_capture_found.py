"""What random programs found: small steps whose replay once differed from the eager call, or failed."""

import numpy as np
import pytest
from capturing import BACKENDS, arrays_of, assert_same, compiled_steps, needs_numba  # noqa: F401

import tinygrad_scratch as tg


def two_parameters(backend):
    """(u, v, step): a step that forgets both gradients, and whose number of examples says which it makes."""
    u, v = (tg.Tensor([1.0, 2.0], requires_grad=True) for _ in range(2))

    def step(x):
        u.grad = v.grad = None
        loss = np.sum(x * (u if len(x) == 2 else u * v))
        loss.backward()
        return loss

    return u, v, tg.capture(step, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("order", ["sbsbsbsb", "ssbbsbsb", "bbsssbs", "sssbbbsbbs"])
def test_gradients_that_calls_of_another_shape_left(backend, order):
    u, v, step = two_parameters(backend)
    for n, kind in enumerate(order):
        x = np.full((2,) if kind == "s" else (4, 2), n + 1.0)
        step(x)
        assert u.grad.tolist() == ([n + 1.0] * 2 if kind == "s" else [4 * (n + 1.0), 8 * (n + 1.0)])
        assert (v.grad is None) == (kind == "s")
    assert len(step.plans) == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_gradient_that_others_left_is_forgotten_or_kept_as_eagerly(backend):
    for forgets in (True, False):
        u, w = (tg.Tensor([1.0, 2.0], requires_grad=True) for _ in range(2))

        @tg.capture(backend=backend)
        def step(x, forgets=forgets, u=u, w=w):
            if forgets:
                w.grad = None
            return tg.gradients(np.sum(x * u * w), [u])[0]

        for n in range(8):
            if n > 3:
                np.sum(w * 3).backward()
            assert step(np.ones(2)).tolist() == [1.0, 2.0]
            assert w.grad is None if forgets or n <= 3 else w.grad.tolist() == [3.0 * (n - 3)] * 2


@needs_numba
def test_an_epoch_returns_constants_and_empty_arrays():
    step = tg.capture(lambda x: (x * 2, tg.as_tensor(np.arange(3.0)) * 2, x[:, :0]), backend="numba")
    found = step.epoch(np.arange(8.0).reshape(8, 1))
    assert found[0].tolist() == [[2.0 * n] for n in range(8)]
    assert found[1].tolist() == [0.0, 2.0, 4.0] * 8
    assert found[2].shape == (8, 0)


@needs_numba
def test_falling_back_after_rows_were_lowered():
    def step(x, stack):
        outer = x[:, None] @ x[None]
        return np.tanh(outer), stack @ stack

    rng = np.random.default_rng(0)
    captured = tg.capture(step, backend="numba")
    for _ in range(4):
        args = rng.random(3), rng.random((2, 3, 3))
        assert_same(arrays_of(captured(*args)), arrays_of(step(*map(tg.as_tensor, args))), 1e-12)
    assert "product of stacks" in captured.plan.fallback


FUSED = [tg.sigmoid, tg.softmax, tg.log_softmax, tg.logsumexp, tg.softplus, np.mean, np.var, tg.relu,
         lambda x: tg.binary_cross_entropy_with_logits(x, np.full((2, 3), 0.5)),
         lambda x: tg.softmax_cross_entropy(x, np.array([0, 2]))]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int8, np.int32, np.float16])
def test_fused_rows_of_other_dtypes(dtype):
    """Differences of unsigned integers wrap around, booleans have none, and sums of half precision are made in single."""
    x = (np.array([[3, 0, 100], [7, 8, 9]]) % (256 if dtype is not np.float16 else 20)).astype(dtype)

    def step(x):
        return [f(tg.as_tensor(x)) for f in FUSED]

    captured, expected = tg.capture(step, backend="numpy", rewrites=False), arrays_of(step(x))
    for _ in range(4):
        assert_same(arrays_of(captured(x)), expected)


@needs_numba
@pytest.mark.parametrize("view", [lambda b: np.flip(b), lambda b: b[0], lambda b: b[1:2], lambda b: b])
def test_changes_in_place_that_read_what_they_change(view):
    mine, theirs = (tg.Tensor([1.0, 2.0, 3.0, 4.0]) for _ in range(2))

    def step_of(b):
        def step(x):
            b.__iadd__(view(b))
            b.__imul__(x)
            return b * 1

        return step

    captured, eager = tg.capture(step_of(mine), backend="numba"), step_of(theirs)
    for _ in range(4):
        assert captured(np.array(0.5)).tolist() == eager(np.array(0.5)).tolist()
    assert not captured.plan.fallback


def test_a_product_with_one_that_lies_otherwise_keeps_its_order():
    """Sums are of the order in which memory lies, and 1 * x of another one than x."""
    weight = tg.as_tensor(np.asfortranarray(np.random.default_rng(0).random((40, 30))))

    def step(x):
        return np.sum(np.ones((40, 30)) * np.tanh(weight * x))

    captured = tg.capture(step, backend="numpy", rewrites=False)
    for n in range(20):
        x = np.array(n / 7)
        assert captured(x).tolist() == step(tg.as_tensor(x)).tolist()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_detached_parameter_is_followed_when_it_is_replaced(backend):
    w, u = (tg.Tensor([1.0, 2.0], requires_grad=True) for _ in range(2))
    step = tg.capture(lambda x: (w.detach() * x, u.detach()[:1] + x), backend=backend)
    for n in range(6):
        if n > 2:
            w.data, u.data = np.full(2, n * 1.0), np.full(2, n * 2.0)
        product, total = step(np.array(2.0))
        assert product.tolist() == (w.data * 2).tolist()
        assert total.tolist() == [u.data[0] + 2]


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_of_parameters_that_the_step_only_forgets(backend):
    w, unused = (tg.Tensor([1.0, 2.0], requires_grad=True) for _ in range(2))
    optimizer = tg.optim.SGD([w, unused], lr=0.1)

    @tg.capture(backend=backend)
    def step(x):
        loss = np.sum(w * x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    for n in range(8):
        if n in (3, 5, 6):
            np.sum(unused * 2).backward()
        step(np.ones(2))
        assert unused.grad is None


@needs_numba
@pytest.mark.parametrize(
    "function",
    [
        lambda z: np.broadcast_to(z, (4, 5)) @ np.broadcast_to(z, (4, 5)).T,
        lambda z: np.broadcast_to(z, (5, 5)) + np.broadcast_to(z, (5, 5)).T,
    ],
)
def test_one_broadcast_twice_and_a_view_of_one_of_them(function):
    """One has memory of its own, for the view; the other is a view itself."""
    captured, rng = tg.capture(lambda b: function(np.tanh(b)), backend="numba"), np.random.default_rng(0)
    for _ in range(4):
        b = rng.normal(size=5)
        np.testing.assert_allclose(captured(b).numpy(), function(np.tanh(b)), rtol=1e-12)
    assert not captured.plan.fallback


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_axis_of_a_number(backend):
    captured = tg.capture(lambda x: tg.softmax(np.sum(x), axis=-1) + np.sum(x), backend=backend)
    assert [captured(np.ones(3) * n).item() for n in range(4)] == [1, 4, 7, 10]


@needs_numba
def test_an_epoch_keeps_its_plan_when_another_thread_finds_another():
    def step(x):
        return np.sum(np.square(x))

    captured, x = tg.capture(step, backend="numba"), np.arange(24.0)
    expected = [np.sum(x[i : i + 4] ** 2) for i in range(0, 24, 4)]
    for count in (3, 3, 4, 4):
        captured(x[:count])
    other, plan = captured.plans
    fits = plan.can_run_many

    def can_run_many(*given):
        answer = fits(*given)
        captured._last = other  # as a call in another thread would
        return answer

    plan.can_run_many = can_run_many
    assert captured.epoch(x, batch_size=4).tolist() == expected


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_generator_that_is_replaced_is_drawn_from(backend):
    drop = tg.nn.Dropout(0.5, rng=np.random.default_rng(0))
    captured, x = tg.capture(lambda x: drop(x), backend=backend), np.ones(50)
    for _ in range(4):
        captured(x)
    made = []
    for forward in (captured, drop):
        drop.rng = np.random.default_rng(7)
        made.append([forward(x).tolist() for _ in range(4)])
    assert made[0] == made[1]
