"""Results of captured functions have graphs: derivatives of them are those of the plain function, replayed, to any order."""

import numpy as np
import pytest
from capture_graphs import World, inputs, programs, step_of
from capturing import BACKENDS, arrays_of, assert_same, compiled_steps, tolerance_for  # noqa: F401
from hypothesis import given, settings
from test_capture_graphs import FEW

import tinygrad_scratch as tg
from tinygrad_scratch import nn, optim
from tinygrad_scratch.errors import GraphError

X = np.random.default_rng(0).normal(size=(5, 4))
LABELS = np.array([0, 2, 1, 2, 0])


class Encoder(nn.Module):
    """What the captured function is made of."""

    def __init__(self):
        self.first = nn.Linear(4, 6, rng=0, dtype=np.float64)
        self.norm, self.drop = nn.BatchNorm1d(6, dtype=np.float64), nn.Dropout(0.3, rng=np.random.default_rng(5))
        self.second = nn.Linear(6, 3, rng=1, dtype=np.float64)

    def forward(self, x):
        return self.second(self.drop(np.tanh(self.norm(self.first(x)))))


FUNCTIONS = {
    "layers": lambda m: lambda x: np.tanh(m.first(x)),
    "a network": lambda m: m,
    "several results": lambda m: lambda x: (np.tanh(m.first(x)), {"sum": np.sum(m.second.weight * 2), "x": x, "none": None}),
    "a view": lambda m: lambda x: m.first(x).T,
    "a parameter": lambda m: lambda x: m.first.weight,
    "a part of a parameter": lambda m: lambda x: m.first.weight[1:3] * 1,
    "one that is constant": lambda m: lambda x: (m.first(x).detach(), m.first(x) ** 2),
    "gathers": lambda m: lambda x: m.first.weight[np.array([0, 2, 2])] * x[0],
    "derivatives inside": lambda m: lambda x: tg.gradients(np.sum(np.tanh(m.first(x)) ** 2), [m.first.weight], None, True)[0],
    "an outside array": lambda m: lambda x: m.first(x) * X[0, 0] + LABELS[:, None],
}  # fmt: skip


def trained(function, backend, rewrites, calls=8, between=lambda n, m: None):
    """Losses and weights of a model whose function is captured, whose loss, backward and step are eager; and the captured."""
    made = []
    for captured in (False, True):
        m = Encoder()
        f = FUNCTIONS[function](m)
        f = tg.capture(f, backend=backend, rewrites=rewrites) if captured else f
        o, found = optim.SGD(m.parameters(), lr=0.1, momentum=0.5), []
        for n in range(calls):
            between(n, m)
            result = f(tg.as_tensor(X * (n + 1)))
            values = arrays_of(result)
            parts = [t for t in tg.trees.leaves(result) if t.requires_grad]
            loss = sum(np.sum(np.tanh(t) * (k + 1.0)) for k, t in enumerate(parts))
            o.zero_grad()
            loss.backward()
            o.step()
            found.append([*values, loss.numpy(), *m.state_dict().values()])
        made.append((found, f))
    tolerance = tolerance_for(backend, rewrites, np.float64)
    for n, (one, other) in enumerate(zip(made[1][0], made[0][0], strict=True)):
        assert_same(one, other, tolerance, f"call {n}")
    return made[1][1]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_captured_forward_eager_loss(function, backend):
    captured = trained(function, backend, rewrites=backend == "numba")
    assert [plan.calls for plan in captured.plans] == [6]
    pulls = captured.plan.differentiable.pulls
    assert [pull is not None for pull in pulls] == [bool(found) for found in captured.plan.differentiable.leaves]


def test_frozen_and_replaced_parameters():
    def between(n, m):
        m.first.weight.requires_grad_(n not in (4, 5))
        if n == 6:
            m.second.weight.data = m.second.weight.data * 0.5

    trained("a network", "numpy", False, 10, between)


@pytest.mark.parametrize("backend", BACKENDS)
def test_several_calls_before_backward(backend):
    """As in a siamese network: each call keeps what its own derivative needs."""
    m = Encoder().eval()
    f = tg.capture(lambda x: np.tanh(m.first(x)), backend=backend)
    for n in range(6):
        x, y = X * (n + 1), X - n
        gradients = []
        for g in (f, lambda x: np.tanh(m.first(x))):
            m.zero_grad()
            (np.sum(g(x) * g(y)) + np.sum(g(x) ** 2)).backward()
            gradients.append([p.grad.numpy() for p in m.first.parameters()])
        assert_same(gradients[0], gradients[1], 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_input_that_asks_for_a_gradient(backend):
    m = Encoder().eval()
    f = tg.capture(lambda x, y: np.tanh(m.first(x)) * np.sum(y), backend=backend)
    for n in range(6):
        found = []
        for g in (f, f.function):
            x = tg.Tensor(X * (n + 1), requires_grad=True)
            y = tg.Tensor(X, requires_grad=n % 2 == 1)
            m.zero_grad()
            np.sum(g(x, y) ** 2).backward()
            found.append([x.grad.numpy(), *([y.grad.numpy()] if n % 2 else []), m.first.weight.grad.numpy()])
        assert_same(found[0], found[1], 1e-12)


def test_dropout_drops_the_same_backward():
    drop = nn.Dropout(0.5, rng=0)
    w = tg.Tensor(np.ones(200), requires_grad=True)
    f = tg.capture(lambda: drop(w * 1.0), backend="numpy")
    for _ in range(6):
        w.grad = None
        y = f()
        np.sum(y).backward()
        assert w.grad.tolist() == y.tolist()


def test_what_was_drawn_is_drawn_again_and_the_stream_goes_on():
    rng, other = np.random.default_rng(3), np.random.default_rng(3)
    w = tg.Tensor(np.ones(50), requires_grad=True)
    f = tg.capture(lambda: w * tg.random.uniform((50,), rng, np.float64), backend="numpy")
    for n in range(6):
        y = f()
        expected = other.random(50)
        assert y.tolist() == expected.tolist()
        if n == 4:  # a derivative by Tensors, which the plan does not give
            w.grad = None
            y.backward(np.ones(50), create_graph=True)
            assert w.grad.tolist() == expected.tolist()


@pytest.mark.parametrize("calls", [1, 2, 3, 6])
def test_higher_orders(calls):
    w = tg.Tensor(np.array([0.3, -0.7]), requires_grad=True)
    f = tg.capture(lambda x: np.sin(w * x), backend="numpy")
    for n in range(calls):
        x = np.array([1.0, 2.0]) + n
        for g in (f, f.function):
            y = np.sum(g(x) ** 3)
            (first,) = tg.gradients(y, [w], create_graph=True)
            (second,) = tg.gradients(np.sum(first**2), [w], create_graph=True)
            (third,) = tg.gradients(np.sum(second), [w])
            if g is f:
                found = [first.numpy(), second.numpy(), third.numpy()]
        assert_same(found, [first.numpy(), second.numpy(), third.numpy()], 1e-10)


def test_transforms_of_captured_functions():
    m = Encoder().eval()
    plain = lambda x: np.sum(np.tanh(m.first(x)) ** 2)  # noqa: E731
    f = tg.capture(plain, backend="numpy")
    with tg.no_grad():
        for _ in range(4):
            f(X)
    for _ in range(4):
        f(X)
    for transform in (
        lambda f: tg.grad(f)(X), lambda f: tg.value_and_grad(f)(X)[1], lambda f: tg.jacobian(f)(X), lambda f: tg.hessian(f)(X),
        lambda f: tg.jvp(f, (X,), (X,))[1], lambda f: tg.hvp(f, (X,), (X,)), lambda f: tg.vjp(f, X)[1](np.array(1.0))[0],
        lambda f: tg.grad(tg.grad(lambda t: f(X * t)))(2.0),
    ):  # fmt: skip
        assert_same(arrays_of(transform(f)), arrays_of(transform(plain)), 1e-12)
    y = f(X)
    assert y.requires_grad
    (found,) = tg.gradients(y * y, [m.first.weight])
    (expected,) = tg.gradients(plain(tg.as_tensor(X)) ** 2, [m.first.weight])
    assert_same([found.numpy()], [expected.numpy()], 1e-12)


def test_a_captured_method_in_a_transform():
    class Net(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(4, 2, rng=0, dtype=np.float64)

        @tg.capture
        def predict(self, x):
            return np.tanh(self.layer(x))

    net = Net()
    with tg.no_grad():
        for _ in range(4):
            net.predict(X)
    found = tg.grad(lambda m: np.sum(m.predict(X)))(net)
    expected = tg.grad(lambda m: np.sum(np.tanh(m.layer(X))))(net)
    assert_same([*arrays_of(found)], [*arrays_of(expected)], 1e-12)


def test_a_parameter_that_was_changed_since_is_refused():
    w = tg.Tensor(np.ones(4), requires_grad=True)
    f = tg.capture(lambda x: np.sum(x * w**2), backend="numpy")
    for n in range(5):
        y = f(X)
        with tg.no_grad():
            w -= 0.1
        with pytest.raises(GraphError, match="changed in place"):
            y.backward()
        if n > 1:
            f(X).backward()


def test_a_result_that_depends_on_what_is_changed_in_place():
    w, h = tg.Tensor(np.ones(4), requires_grad=True), tg.Tensor(np.zeros(4))

    @tg.capture(backend="numpy")
    def f(x):
        with tg.no_grad():
            h[...] = h + x[0]
        return np.sum(w * h)

    for _ in range(4):
        y = f(X)
        assert y.requires_grad
        with pytest.raises(GraphError, match="take it inside the captured function"):
            y.backward()


def test_what_a_training_step_returns_has_no_graph_that_could_be_used():
    w = tg.Tensor(np.ones(4), requires_grad=True)
    o = optim.SGD([w], lr=0.1)

    @tg.capture(backend="numpy")
    def step(x):
        loss = np.sum((x * w) ** 2)
        o.zero_grad()
        loss.backward()
        o.step()
        return loss

    for _ in range(4):
        loss = step(X)
        with pytest.raises(GraphError):
            loss.backward()
    assert step.plan.differentiable is None


def test_within_no_grad_there_is_no_graph():
    w = tg.Tensor(np.ones(4), requires_grad=True)
    f = tg.capture(lambda x: x * w, backend="numpy")
    for _ in range(4):
        with tg.no_grad():
            assert not f(X).requires_grad
        assert f(X).requires_grad
    assert len(f.plans) == 2


def test_gradients_that_a_step_left_are_not_touched_by_its_result():
    w = tg.Tensor(np.ones(4), requires_grad=True)

    @tg.capture(backend="numpy")
    def f(x):
        loss = np.sum(np.tanh(x * w))
        loss.backward()
        return loss

    plain = tg.Tensor(np.ones(4), requires_grad=True)
    for _ in range(6):
        f(X).backward()
        loss = np.sum(np.tanh(X * plain))
        loss.backward()
        loss.backward()
        np.testing.assert_allclose(w.grad.numpy(), plain.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("compiled", [False, True])
def test_random_programs(compiled):
    """The derivatives of random programs' results are those of the plain programs."""
    if compiled:
        pytest.importorskip("numba")

    @(FEW if compiled else settings(max_examples=4 * settings().max_examples))
    @given(programs(compiled=compiled, lines=8))
    def holds(program):
        here, there = World(np.float64), World(np.float64)
        plain = step_of(program, here)
        captured = tg.capture(step_of(program, there), backend="numba" if compiled else "numpy", rewrites=False)
        rng = np.random.default_rng(1)
        for n in range(5):
            args = inputs(np.float64, rng)
            with np.errstate(all="ignore"):
                results = [tg.trees.leaves(step(*args)) for step in (plain, captured)]
            made = [n for n, t in enumerate(results[0]) if t.requires_grad and not t.is_leaf]  # not a parameter itself
            gradients = [derivatives([r[n] for n in made], w) for r, w in zip(results, (here, there), strict=True)]
            if made and all(gradients):
                assert_same(*gradients, 1e-9 if compiled else 1e-11, f"call {n}")

    holds()


def derivatives(results, world):
    """Of all results together, for the parameters; None where that is refused."""
    try:
        with np.errstate(all="ignore"):
            return arrays_of(tg.gradients(sum(np.sum(np.tanh(t)) for t in results), world.parameters))
    except (GraphError, AttributeError):
        return None
