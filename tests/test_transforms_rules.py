"""checkpoint, stop_gradient, custom_vjp and optimize.flat."""

import tracemalloc

import numpy as np
import pytest

import tinygrad_scratch as tg
from tinygrad_scratch import Tensor, nn
from tinygrad_scratch.domains import positive
from tinygrad_scratch.testing import check_grad, check_op

X = np.array([0.3, -0.7, 1.1])


@pytest.fixture(autouse=True)
def _no_new_rows():
    before = set(tg.OPS)
    yield
    for name in set(tg.OPS) - before:
        del tg.OPS[name]


# -- stop_gradient -----------------------------------------------------------------------------------------------------


def test_stop_gradient_stops_both_modes():
    f = lambda x: np.sum(x * tg.stop_gradient(np.sin(x)))  # noqa: E731
    np.testing.assert_allclose(tg.grad(f)(X), np.sin(X))
    assert tg.jvp(f, (X,), (np.ones(3),))[1] == pytest.approx(np.sin(X).sum())
    tree = tg.stop_gradient({"a": [Tensor(X, requires_grad=True), 2.0]})
    assert not tree["a"][0].requires_grad
    assert tree["a"][1] == 2.0


# -- checkpoint --------------------------------------------------------------------------------------------------------


def deep(x, w):
    for _ in range(6):
        x = np.tanh(x @ w)
    return x


def test_checkpoint_changes_no_number():
    w, x = np.random.default_rng(0).standard_normal((3, 3)), X[None]
    plain = lambda x, w: np.sum(deep(x, w) ** 2)  # noqa: E731
    kept = lambda x, w: np.sum(tg.checkpoint(deep)(x, w) ** 2)  # noqa: E731
    for a, b in zip(tg.grad(plain, (0, 1))(x, w), tg.grad(kept, (0, 1))(x, w), strict=True):
        np.testing.assert_array_equal(a, b)
    check_grad(kept, x, w, order=2)
    np.testing.assert_allclose(tg.jvp(plain, (x, w), (x, w))[1], tg.jvp(kept, (x, w), (x, w))[1])
    np.testing.assert_allclose(tg.hessian(plain)(x, w), tg.hessian(kept)(x, w))


def test_checkpoint_of_a_module_and_of_structures():
    layer, x = nn.Linear(3, 3, rng=0), X[None].astype(np.float32)
    two = tg.checkpoint(lambda p: {"a": layer(p[0]), "b": p[1] * layer.bias})
    found = two((x, 2.0))
    np.sum(found["a"] * found["b"]).backward()
    got = [p.grad for p in layer.parameters()]
    layer.zero_grad()
    np.sum(layer(x) * (2.0 * layer.bias)).backward()
    for g, p in zip(got, layer.parameters(), strict=True):
        np.testing.assert_allclose(g, p.grad, rtol=1e-6)
    assert not tg.checkpoint(np.sin)(Tensor(X)).requires_grad
    with tg.no_grad():
        assert not two((x, 2.0))["a"].requires_grad
    v = Tensor(X, requires_grad=True)
    np.sum(tg.checkpoint(lambda x: x)(v)).backward()
    assert v.grad.tolist() == [1, 1, 1]


def test_checkpoint_draws_the_same_again():
    x = Tensor(np.ones((50, 4)), requires_grad=True)
    drop = nn.Dropout(0.5, rng=3)
    y = tg.checkpoint(drop)(x)
    next_one = drop(x)
    np.sum(y).backward()
    np.testing.assert_array_equal(x.grad, y.numpy())
    again = nn.Dropout(0.5, rng=3)
    again(x)
    np.testing.assert_array_equal(again(x).numpy(), next_one.numpy())
    np.testing.assert_array_equal(again(x).numpy(), drop(x).numpy())  # backward has left the stream where it was


def test_checkpoint_within_a_captured_step_is_the_function():
    layer = nn.Linear(3, 3, rng=0)

    def step(x):
        layer.zero_grad()
        loss = np.sum(tg.checkpoint(lambda x: np.tanh(layer(x)))(x) ** 2)
        loss.backward()
        return loss.detach(), layer.weight.grad

    captured, x = tg.capture(step, backend="numpy", rewrites=False), X[None].astype(np.float32)
    for _ in range(4):
        for a, b in zip(captured(x), step(x), strict=True):
            np.testing.assert_array_equal(a, b)


def test_checkpoint_keeps_less():
    """Peak memory of a deep chain: with checkpoints of 10 layers, less than half."""
    x = Tensor(np.ones((200, 200)), requires_grad=True)

    def block(y):
        for _ in range(10):
            y = np.sin(y) * 0.5
        return y

    def peak(piece):
        tracemalloc.start()
        y = x
        for _ in range(10):
            y = piece(y)
        tg.gradients(y.sum(), [x])
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(tg.checkpoint(block)) < 0.35 * peak(block)


# -- custom_vjp --------------------------------------------------------------------------------------------------------


def length(x):
    size = np.sqrt(np.sum(x * x))
    return size, (x, size)


def pull_length(g, y, saved, x):
    x, size = saved
    return g * x / size


def test_a_row_of_ones_own_keeps_all_promises():
    runs = []

    def forward(x):
        runs.append(type(x))
        return length(x)

    op = tg.custom_vjp(forward, pull_length, name="length", domain=positive.with_cases((((2, 3),), {}), (((4,),), {})))
    check_op(op)
    runs.clear()
    tg.grad(op)(X)
    assert runs == [np.ndarray]  # what it saved is used
    np.testing.assert_allclose(tg.hessian(op)(X), tg.hessian(lambda x: np.sqrt(np.sum(x * x)))(X))


def test_several_arrays_and_options():
    def forward(a, b, power=1):
        return a * b**power, b

    def pull(g, y, b, a, _, power=1):
        return g * b**power, g * a * power * b ** (power - 1)

    op = tg.custom_vjp(forward, pull, domain=positive.with_cases((((3,), (3,)), {"power": 2})))
    assert tg.OPS["forward"] is op
    check_op(op)
    assert op(2.0, 3.0, power=2) == 18
    with pytest.raises(ValueError, match="already registered"):
        tg.custom_vjp(forward, pull)


def test_a_wrong_rule_is_caught():
    op = tg.custom_vjp(length, lambda g, y, saved, x: g * x, domain=positive.with_cases((((3,),), {})))
    with pytest.raises(AssertionError, match="elements are wrong, worst at"):
        check_op(op)


def test_captured():
    op = tg.custom_vjp(length, pull_length)
    step = lambda x: tg.grad(lambda x: np.sin(op(x)))(x)  # noqa: E731
    captured = tg.capture(step, backend="numpy")
    for seed in range(4):
        x = np.random.default_rng(seed).uniform(1, 2, 3)
        np.testing.assert_allclose(captured(x), step(x))


# -- optimize ----------------------------------------------------------------------------------------------------------


def test_flat_gives_what_differences_give():
    params = {"w": np.ones((2, 3), np.float32), "b": (0.5, X)}
    loss = lambda p, k: k * np.sum(np.sin(p["w"] @ p["b"][1]) * p["b"][0] ** 2)  # noqa: E731
    problem = tg.optimize.flat(loss, params, 2.0)
    assert problem.x0.dtype == np.float64
    assert problem.x0.shape == (10,)
    x = problem.x0 * 1.25
    assert problem.unravel(x)["w"].dtype == np.float32
    assert problem.fun(x) == pytest.approx(float(loss(problem.unravel(x), 2.0)))
    exact = tg.optimize.flat(loss, {"w": np.ones((2, 3)), "b": (0.5, X)}, 2.0)
    step = 1e-6
    columns = [(exact.jac(x + step * e) - exact.jac(x - step * e)) / (2 * step) for e in np.eye(10)]
    slopes = [(exact.fun(x + step * e) - exact.fun(x - step * e)) / (2 * step) for e in np.eye(10)]
    np.testing.assert_allclose(exact.jac(x), slopes, atol=1e-8)
    np.testing.assert_allclose([exact.hessp(x, e) for e in np.eye(10)], columns, atol=1e-7)


def test_value_and_slope_at_one_place_cost_one_run():
    runs = []
    problem = tg.optimize.flat(lambda p: runs.append(1) or np.sum(p**2), X)
    problem.fun(X)
    problem.jac(X)
    problem.fun(X.copy())
    assert len(runs) == 1
    problem.jac(X)[:] = 7
    np.testing.assert_array_equal(problem.jac(X), 2 * X)
    with pytest.raises(ValueError, match=r"vector of residuals, not float64\(1, 3\)"):
        tg.optimize.flat(lambda p: p[None], X).fun(X)


def test_a_module_fitted_by_newton_and_by_bfgs():
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (60, 2))
    y = np.sin(2 * x[:, :1]) * x[:, 1:]
    model = nn.Sequential(nn.Linear(2, 5, rng=0), nn.Tanh(), nn.Linear(5, 1, rng=1))
    loss = lambda model, x, y: np.mean((model(x) - y) ** 2)  # noqa: E731
    problem = tg.optimize.flat(loss, model, x, y)
    for method, more in (("BFGS", {}), ("trust-ncg", {"hessp": problem.hessp})):
        found = optimize.minimize(
            problem.fun, problem.x0, jac=problem.jac, method=method, options={"maxiter": 40}, **more
        )
        fitted = problem.unravel(found.x)
        assert isinstance(fitted, nn.Sequential)
        assert loss(fitted, x, y).item() < 0.005 * loss(model, x, y).item()


def test_least_squares_of_residuals():
    optimize = pytest.importorskip("scipy.optimize")
    t = np.linspace(0, 4, 40)
    truth = {"rate": 0.7, "size": 2.5, "offset": -0.3}
    curve = lambda p: p["size"] * np.exp(-p["rate"] * t) + p["offset"]  # noqa: E731
    noisy = curve(truth) + np.random.default_rng(0).normal(0, 0.01, t.shape)
    problem = tg.optimize.flat(lambda p: curve(p) - noisy, {"rate": 0.1, "size": 1.0, "offset": 0.0})
    found = optimize.least_squares(problem.fun, problem.x0, jac=problem.jac)
    fitted = problem.unravel(found.x)
    for name, value in truth.items():
        assert float(fitted[name]) == pytest.approx(value, abs=0.05)
    jacobian = problem.jac(found.x)
    v = np.array([1.0, -2.0, 0.5])
    np.testing.assert_allclose(problem.hessp(found.x, v), jacobian.T @ (jacobian @ v))
