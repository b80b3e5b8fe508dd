"""jvp, linearize, vjp, hvp, jacobian and hessian: against each other, differences and closed forms; trees, nesting, modes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_scratch as tg
from tinygrad_scratch import Tensor, batch, nn
from tinygrad_scratch.errors import GraphError
from tinygrad_scratch.registry import OPS
from tinygrad_scratch.testing import op_inputs, samples

X = np.array([0.3, -0.7, 1.1])
ROWS = [row for row, op in OPS.items() if op.differentiable]


def matrix(seed, *shape):
    return np.random.default_rng(seed).uniform(-1, 1, shape)


def field(x):
    """R^3 -> R^2, of elementwise, linear, multilinear and general rows."""
    return np.stack([np.prod(x) + np.sum(np.sin(x)), np.max(x) * tg.logsumexp(x)])


FIELD_SLOPE = np.stack(
    [
        np.prod(X) / X + np.cos(X),
        np.eye(3)[2] * np.log(np.exp(X).sum()) + X[2] * np.exp(X) / np.exp(X).sum(),
    ]
)


# -- jvp and vjp -------------------------------------------------------------------------------------------------------


def test_jvp_and_vjp_are_the_matrix_and_its_transpose():
    t, g = matrix(0, 3), matrix(1, 2)
    value, tangent = tg.jvp(field, (X,), (t,))
    np.testing.assert_allclose(tangent, FIELD_SLOPE @ t)
    same, pull_back = tg.vjp(field, X)
    np.testing.assert_array_equal(value, same)
    np.testing.assert_allclose(pull_back(g)[0], g @ FIELD_SLOPE)
    np.testing.assert_allclose(pull_back(2 * g)[0], 2 * g @ FIELD_SLOPE)


def test_linearize_calls_the_function_once():
    calls = []

    def f(x):
        calls.append(1)
        return field(x)

    value, slope = tg.linearize(f, X)
    for t in np.eye(3):
        np.testing.assert_allclose(slope(t), FIELD_SLOPE @ t)
    assert len(calls) == 1
    assert type(value) is np.ndarray


def test_structures_in_and_out():
    def f(p, x):
        return {"sum": p["w"] * x[0], "parts": [x[1], (p["w"] + p["b"],)]}

    primals = ({"w": np.ones(2), "b": 2.0}, (np.full(2, 3.0), 4.0))
    tangents = ({"b": 0.5, "w": np.array([1.0, 0.0])}, [np.array([0.0, 1.0]), 7.0])
    value, tangent = tg.jvp(f, primals, tangents)
    assert value["sum"].tolist() == [3, 3]
    assert tangent["sum"].tolist() == [3, 1]
    assert tangent["parts"][0] == 7
    assert tangent["parts"][1][0].tolist() == [1.5, 0.5]
    _, pull_back = tg.vjp(f, *primals)
    (p, x) = pull_back({"parts": [1.0, [np.ones(2)]], "sum": np.array([1.0, 10.0])})
    assert p["w"].tolist() == [4, 31]
    assert p["b"] == 2
    assert x[0].tolist() == [1, 10]
    assert x[1] == 1
    assert type(x) is tuple


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tg.jvp(np.sin, (X,), (np.ones(2),)), r"tangents has shape \(2,\).*float64\(3,\)"),
        (lambda: tg.jvp(np.sin, (X,), ()), "tangents must be a tuple of 1"),
        (lambda: tg.vjp(np.sin, X)[1](np.ones((3, 1))), "cotangent has shape"),
        (lambda: tg.vjp(lambda x: {"a": x}, X)[1]({"b": X}), r"dict with the keys \['a'\]"),
        (lambda: tg.jacobian(np.sin, mode="sideways"), "must be 'auto', 'forward' or 'reverse'"),
    ],
)
def test_what_does_not_fit_is_said(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_primals_that_are_no_tuple():
    with pytest.raises(TypeError, match=r"primals must be a tuple.*\(x,\) for one"):
        tg.jvp(np.sin, X, (X,))


@pytest.mark.parametrize(
    "transform", [lambda f: tg.jvp(f, (X,), (X,)), lambda f: tg.vjp(f, X), lambda f: tg.jacobian(f)(X)]
)
def test_a_lost_graph_is_no_silent_zero(transform):
    with pytest.raises(GraphError, match="its graph is lost"):
        transform(lambda x: x.numpy() * 2)


def test_what_does_not_depend_on_the_argument_has_zeros():
    w = Tensor(2.0, requires_grad=True)
    assert tg.jvp(lambda x: w * 3, (X,), (X,))[1] == 0
    assert tg.vjp(lambda x: w * 3, X)[1](1.0)[0].tolist() == [0, 0, 0]
    assert tg.jacobian(lambda x: w * np.ones(2))(X).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_float32_stays_float32():
    x = X.astype(np.float32)
    value, tangent = tg.jvp(field, (x,), (np.ones(3),))
    assert value.dtype == tangent.dtype == np.float32
    assert tg.jacobian(field, mode="forward")(x).dtype == tg.jacobian(field, mode="reverse")(x).dtype == np.float32
    assert tg.hessian(lambda x: np.sum(x**3))(x).dtype == np.float32


def test_results_are_the_callers_own():
    t = np.ones(3)
    tangent = tg.jvp(lambda x: x.reshape(1, 3), (X,), (t,))[1]
    tangent += 1
    assert t.tolist() == [1, 1, 1]


def test_tensors_in_tensors_out():
    tangent = tg.jvp(np.sin, (Tensor(X),), (Tensor(X),))[1]
    assert isinstance(tangent, Tensor)
    assert not tangent.requires_grad
    x = Tensor(X, requires_grad=True)
    t = Tensor(np.ones(3), requires_grad=True)
    np.sum(tg.jvp(np.sin, (x,), (t,))[1]).backward()
    np.testing.assert_allclose(x.grad, -np.sin(X))
    np.testing.assert_allclose(t.grad, np.cos(X))
    g = Tensor(np.ones(3), requires_grad=True)
    np.sum(tg.vjp(np.sin, X)[1](g)[0] ** 2).backward()
    np.testing.assert_allclose(g.grad, 2 * np.cos(X) ** 2)


def test_a_tensor_changed_in_place_is_noticed():
    x, b = Tensor(X, requires_grad=True), Tensor(np.ones(3))
    y = np.sin(x) * b
    with tg.no_grad():
        b += 1.0
    from tinygrad_scratch.forward import push

    with pytest.raises(GraphError, match=r"argument 1 of multiply.*changed in place"):
        push([y], {id(x): np.ones(3)}, False)


# -- nesting -----------------------------------------------------------------------------------------------------------


def test_perturbations_are_not_confused():
    assert tg.jvp(lambda x: x * tg.jvp(lambda y: x + y, (1.0,), (1.0,))[1], (1.0,), (1.0,))[1] == 1
    assert tg.jvp(lambda x: tg.jvp(lambda y: x * y, (3.0,), (1.0,))[1], (5.0,), (1.0,))[1] == 1
    assert tg.grad(lambda x: x * tg.jvp(lambda y: x * y**2, (x,), (1.0,))[1])(2.0) == 24


def test_any_nesting_is_the_same_second_derivative():
    def slope_forward(f):
        return lambda x: tg.jvp(f, (x,), (1.0,))[1]

    def slope_vjp(f):
        return lambda x: tg.vjp(f, x)[1](1.0)[0]

    slopes = [slope_forward, slope_vjp, tg.grad, tg.jacobian]
    for inner in slopes:
        for middle in slopes:
            for outer in slopes:
                assert outer(middle(inner(np.sin)))(0.4) == pytest.approx(-np.cos(0.4))


def test_within_no_grad():
    with tg.no_grad():
        np.testing.assert_allclose(tg.jvp(np.sin, (X,), (X,))[1], X * np.cos(X))
        np.testing.assert_allclose(tg.jacobian(field)(X), FIELD_SLOPE)
        np.testing.assert_allclose(tg.hessian(lambda x: np.sum(x**3))(X), np.diag(6 * X))
        x = Tensor(X, requires_grad=True)
        assert not tg.jvp(np.sin, (x,), (X,))[1].requires_grad


def test_captured():
    f = tg.capture(lambda x, t: tg.jvp(lambda x: np.tanh(x @ x) * tg.softmax(x[0]), (x,), (t,)), backend="numpy")
    for seed in range(4):
        x, t = matrix(seed, 3, 3), matrix(seed + 9, 3, 3)
        expected = tg.jvp(lambda x: np.tanh(x @ x) * tg.softmax(x[0]), (x,), (t,))
        for a, b in zip(f(x, t), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)
    assert f.plan.calls == 2


# -- matrices ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["forward", "reverse", "auto"])
def test_jacobian_of_a_vector_field(mode):
    np.testing.assert_allclose(tg.jacobian(field, mode=mode)(X), FIELD_SLOPE)


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_jacobian_of_structures(mode):
    def f(p, x):
        return {"y": p["w"] @ x + p["b"], "z": np.sum(x)}

    p, x = {"w": matrix(0, 2, 3), "b": 0.5}, matrix(1, 3)
    of_p, of_x = tg.jacobian(f, (0, 1), mode=mode)(p, x)["y"]
    assert of_p["w"].shape == (2, 2, 3)
    np.testing.assert_allclose(of_p["w"], np.einsum("ik,j->ikj", np.eye(2), x))
    np.testing.assert_allclose(of_p["b"], np.ones(2))
    np.testing.assert_allclose(of_x, p["w"])
    only, aux = tg.jacobian(lambda x: (x**2, "seen"), mode=mode, has_aux=True)(x)
    np.testing.assert_allclose(only, np.diag(2 * x))
    assert aux == "seen"


def test_auto_takes_the_smaller_side(monkeypatch):
    from tinygrad_scratch.transforms import matrices

    used = []
    for side in ("_forward", "_reverse"):
        original = getattr(matrices, side)
        monkeypatch.setattr(matrices, side, lambda *a, f=original, side=side: used.append(side) or f(*a))
    tg.jacobian(lambda x: np.sum(x) * x[:2])(X)
    tg.jacobian(lambda x: np.concatenate([x, x]))(X)
    assert used == ["_reverse", "_forward"]


@pytest.mark.parametrize("row", ROWS)
def test_jacobian_of_every_row_both_ways(row):
    """Many tangents at once give what one at a time gives."""
    op = OPS[row]
    for inputs, options in samples(op):
        wanted = [i for i, x in enumerate(inputs) if x.dtype.kind == "f"]

        def f(*xs, inputs=inputs, options=options, wanted=wanted):
            full = dict(enumerate(inputs)) | dict(zip(wanted, xs, strict=True))
            return op(*full.values(), **options)

        primals = [inputs[i] for i in wanted]
        places = tuple(range(len(primals)))
        forward, backward = (tg.jacobian(f, places, mode=mode)(*primals) for mode in ("forward", "reverse"))
        value, slope = tg.linearize(f, *primals)
        for k, primal in enumerate(primals):
            directions = np.eye(primal.size).reshape(primal.size, *primal.shape)
            columns = [slope(*(d if j == k else np.zeros_like(p) for j, p in enumerate(primals))) for d in directions]
            expected = np.stack(columns, -1).reshape(forward[k].shape) if columns else np.zeros(forward[k].shape)
            assert forward[k].shape == backward[k].shape == np.shape(value) + primal.shape
            np.testing.assert_allclose(forward[k], expected, atol=1e-12)
            np.testing.assert_allclose(backward[k], expected, atol=1e-12)


def test_rows_take_many_tangents_in_one_call(monkeypatch):
    """A network's Jacobian needs as many calls of each row, whatever its width."""

    def calls(width):
        w, v = matrix(0, width, 4), matrix(1, 3, width)
        f = lambda x: tg.softmax(v @ np.tanh(w @ x + 1.0)) + np.sum(x * x)  # noqa: E731
        tg.jacobian(f, mode="forward")(matrix(2, 4))  # the ways are known from here on
        count = []
        for name in ("matmul", "multiply", "sum", "subtract", "broadcast_to"):
            op = OPS[name]
            monkeypatch.setattr(op, "apply", lambda *a, f=op.apply, **o: count.append(1) or f(*a, **o))
        tg.jacobian(f, mode="forward")(matrix(2, 4))
        monkeypatch.undo()
        return len(count)

    assert calls(3) == calls(40)


def test_a_way_that_is_wrong_is_not_taken(monkeypatch):
    """Options that were moved wrongly are noticed, and each tangent is taken alone."""
    monkeypatch.setattr(batch, "_KNOWN", {})
    monkeypatch.setitem(batch._MOVED, "axis", lambda axis, *_: axis)
    monkeypatch.setitem(batch._MOVED, "index", lambda index, *_: index)
    x = matrix(0, 3, 3)
    for f in (
        lambda x: np.flip(x, axis=0),
        lambda x: np.cumsum(x, axis=0),
        lambda x: x[1],
        lambda x: np.sum(x, axis=0),
    ):
        expected = np.stack([f(e) for e in np.eye(9).reshape(9, 3, 3)], -1)
        np.testing.assert_allclose(tg.jacobian(f, mode="forward")(x).reshape(expected.shape), expected)


def test_batches_of_bounded_size(monkeypatch):
    from tinygrad_scratch.transforms import matrices

    whole = [tg.jacobian(field, mode=mode)(X) for mode in ("forward", "reverse")]
    monkeypatch.setattr(matrices, "_AT_ONCE", 1)
    for mode, expected in zip(("forward", "reverse"), whole, strict=True):
        np.testing.assert_array_equal(tg.jacobian(field, mode=mode)(X), expected)


@given(st.sampled_from(ROWS).flatmap(lambda row: op_inputs(OPS[row]).map(lambda drawn: (OPS[row], *drawn))))
def test_hessian_is_that_of_differences(drawn):
    op, inputs, options = drawn
    wanted = [i for i, x in enumerate(inputs) if x.dtype.kind == "f"]
    primals = [inputs[i] for i in wanted]

    def f(*xs):
        full = dict(enumerate(inputs)) | dict(zip(wanted, xs, strict=True))
        return np.sum(np.sin(op(*full.values(), **options)))

    places = tuple(range(len(primals)))
    whole = tg.hessian(f, places)(*primals)
    directions = [matrix(k, *p.shape) for k, p in enumerate(primals)]
    products = tg.hvp(f, primals, directions)
    for i, product in enumerate(products if len(primals) > 1 else [products]):
        expected = sum(np.tensordot(whole[i][k], d, d.ndim) for k, d in enumerate(directions))
        np.testing.assert_allclose(product, expected, rtol=1e-8, atol=1e-9)
        for k in places:
            back = np.moveaxis(whole[k][i], range(primals[k].ndim), range(-primals[k].ndim, 0))
            np.testing.assert_allclose(whole[i][k], back, rtol=1e-8, atol=1e-9)


def test_hessian_of_rosenbrock():
    def rosenbrock(x):
        return np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

    rosen_hess = pytest.importorskip("scipy.optimize").rosen_hess
    x = matrix(0, 6)
    np.testing.assert_allclose(tg.hessian(rosenbrock)(x), rosen_hess(x))


def test_jacobians_are_differentiable():
    def f(x):
        return np.sum(tg.jacobian(field)(x) ** 2)

    tg.testing.check_grad(lambda x: np.sum(tg.jacobian(field, mode="forward")(x) ** 2), X)
    tg.testing.check_grad(lambda x: np.sum(tg.jacobian(field, mode="reverse")(x) ** 2), X)
    np.testing.assert_allclose(tg.grad(f)(X), tg.jacobian(f)(X))


# -- modules and trees -------------------------------------------------------------------------------------------------


def network():
    return nn.Sequential(nn.Linear(3, 4, rng=0), nn.Tanh(), nn.Linear(4, 1, rng=1))


def test_gradients_of_a_modules_parameters():
    model, x = network(), matrix(0, 5, 3).astype(np.float32)

    def loss(model, x):
        return np.mean(model(x) ** 2) + 0.1 * sum(np.sum(p**2) for p in model.parameters())

    value, (slopes, of_x) = tg.value_and_grad(loss, argnums=(0, 1))(model, x)
    assert all(p.grad is None for p in model.parameters())
    assert list(slopes) == [name for name, _ in model.named_parameters()]
    assert not any(g.requires_grad for g in slopes.values())
    total = loss(model, x)
    total.backward()
    assert value.item() == total.item()
    for name, p in model.named_parameters():
        np.testing.assert_array_equal(slopes[name], p.grad)
    assert of_x.shape == x.shape


def test_forward_mode_and_matrices_of_a_module():
    model, x = network(), matrix(0, 5, 3).astype(np.float32)
    direction = {name: np.ones(p.shape, np.float32) for name, p in model.named_parameters()}
    loss = lambda model: np.sum(np.sin(model(x)))  # noqa: E731
    slopes = tg.grad(loss)(model)
    tangent = tg.jvp(loss, (model,), (direction,))[1]
    assert tangent.item() == pytest.approx(sum(np.sum(g).item() for g in slopes.values()), rel=1e-5)
    whole = tg.hessian(loss)(model)
    assert whole["0.weight"]["2.bias"].shape == (4, 3, 1)
    product = tg.hvp(loss, (model,), (direction,))
    rows = sum(np.sum(block, axis=tuple(range(2, block.ndim))) for block in whole["0.weight"].values())
    np.testing.assert_allclose(product["0.weight"], rows, rtol=1e-4, atol=1e-5)


def test_parameters_that_are_shared_are_one():
    class Tied(nn.Module):
        def __init__(self):
            self.a = self.b = nn.Linear(2, 2, bias=False, rng=0)

        def forward(self, x):
            return self.b(self.a(x))

    model, x = Tied(), np.ones((1, 2), np.float32)
    slopes = tg.grad(lambda m: np.sum(m(x)))(model)
    np.sum(model(x)).backward()
    assert list(slopes) == ["a.weight"]
    np.testing.assert_array_equal(slopes["a.weight"], model.a.weight.grad)


def test_with_parameters_leaves_the_module_alone():
    model = network()
    before = model.state_dict()
    other = nn.with_parameters(model, {"0.bias": np.full(4, 7, np.float32)})
    assert model[0].bias.tolist() != other[0].bias.tolist() == [7, 7, 7, 7]
    assert other[2].weight is model[2].weight
    assert isinstance(other[0].bias, nn.Parameter)
    assert all(np.array_equal(model.state_dict()[k], v) for k, v in before.items())
    with pytest.raises(KeyError, match=r"no parameter '1.bias'; it has 0.weight"):
        nn.with_parameters(model, {"1.bias": 0})
    with pytest.raises(ValueError, match=r"0.bias has shape \(4,\)"):
        nn.with_parameters(model, {"0.bias": np.ones(3)})


def test_ravel_and_unravel():
    tree = {"w": np.ones((2, 2), np.float32), "rest": (3.0, [np.zeros(0), None])}
    vector, back = tg.trees.ravel(tree)
    assert vector.tolist() == [1, 1, 1, 1, 3]
    again = back(vector * 2)
    assert again["w"].dtype == np.float32
    assert again["rest"][0] == 6
    assert again["rest"][1][1] is None
    with pytest.raises(ValueError, match=r"has shape \(4,\); these leaves make \(5,\)"):
        back(vector[1:])
    with pytest.raises(TypeError, match="a leaf is int64"):
        tg.trees.ravel([np.arange(2)])
    slope = tg.grad(lambda tree: np.sum(tg.trees.ravel(tree)[0] ** 2))([X, 2.0])
    np.testing.assert_allclose(slope[0], 2 * X)


def test_auxiliary_results():
    (_, aux), slope = tg.value_and_grad(lambda x: (np.sum(x**2), {"x": x, "note": "n"}), has_aux=True)(X)
    assert type(aux["x"]) is np.ndarray
    assert aux["note"] == "n"
    slope_again, aux = tg.grad(lambda x: (np.sum(x**2), x * 2), has_aux=True)(X)
    np.testing.assert_array_equal(slope, slope_again)
    np.testing.assert_array_equal(aux, 2 * X)
    with pytest.raises(TypeError, match=r"must return \(value, aux\)"):
        tg.grad(lambda x: np.sum(x), has_aux=True)(X)
