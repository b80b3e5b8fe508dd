"""Every row of the table, captured: forward, and forward and backward, on both back ends."""

import numpy as np
import pytest
from capturing import BACKENDS, arrays_of, assert_replays, assert_same, compiled_steps, needs_numba, tolerance_for  # noqa: F401
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_scratch as tg
from tinygrad_scratch.registry import OPS
from tinygrad_scratch.testing import op_inputs, samples
from tinygrad_scratch.testing.properties import cotangent_for

ROWS = dict(OPS)
FEW = settings(max_examples=max(2, settings().max_examples // 2))


def differentiated(op, options):
    """A step: the row's answer, and the gradients of its inputs."""

    def step(*xs):
        tensors = [tg.as_tensor(x) for x in xs]
        variables = [x.detach().requires_grad_() if x.dtype.kind == "f" else x for x in tensors]
        answer = op(*variables, **options)
        if not answer.requires_grad:
            return [answer]
        return [answer, *tg.gradients(answer, [v for v in variables if v.requires_grad], cotangent_for(answer))]

    return step


def drawer(op, shapes, options, dtype, seed=0):
    """A function that draws new inputs of these shapes."""
    rng = np.random.default_rng(seed)

    def draw():
        drawn = op.domain.sample(rng, shapes, dict(options))[0]
        return [x.astype(dtype) if x.dtype.kind == "f" else x for x in drawn]

    return draw


def cases(op):
    """(shapes, options) of a row's domain, or of a few shapes that broadcast, empty and 0-d ones among them."""
    return [(tuple(x.shape for x in inputs), options) for inputs, options in samples(op)]


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("rewrites", [False, True])
def test_row_on_numpy(row, rewrites):
    op = ROWS[row]

    @FEW
    @given(op_inputs(op), st.sampled_from([np.float32, np.float64]))
    def replays(drawn, dtype):
        inputs, options = drawn
        draw = drawer(op, tuple(x.shape for x in inputs), options, dtype)
        assert_replays(differentiated(op, options), draw, "numpy", rewrites, tolerance_for("numpy", rewrites, dtype))

    replays()
    for shapes, options in cases(op):
        assert_replays(
            differentiated(op, options), drawer(op, shapes, options, np.float64), "numpy", rewrites, 1e-12 * rewrites
        )


@pytest.mark.parametrize("row", ROWS)
def test_row_forward_only(row):
    op = ROWS[row]
    for shapes, options in cases(op):
        with tg.no_grad():
            assert_replays(
                lambda *xs, o=options: op(*map(tg.as_tensor, xs), **o), drawer(op, shapes, options, np.float32), "numpy"
            )


# -- inputs of every kind ----------------------------------------------------------------------------------------------


def network(x, labels, scale):
    """A step that reads all its inputs in several ways."""
    x, scale = tg.as_tensor(x), tg.as_tensor(scale)
    hidden = np.tanh(x @ np.ones((4, 3), np.float32)) * scale
    picked = hidden[np.arange(3), tg.as_tensor(labels)]
    return (
        np.sum(x.reshape(-1)),
        np.exp(x).T,
        hidden.mean(axis=0),
        picked,
        x[1:, ::2],
        np.max(x, axis=0),
        np.sum(x + scale),
    )


def layouts(x):
    """The same values in every memory layout that NumPy has."""
    spread = np.zeros((6, 8), x.dtype)[::2, ::2]
    spread[...] = x
    frozen = x.copy()
    frozen.flags.writeable = False
    packed = np.zeros(x.size * x.itemsize + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)  # not aligned
    packed[...] = x
    return [
        x,
        np.asfortranarray(x),
        spread,
        x[::-1, ::-1].copy()[::-1, ::-1],
        frozen,
        packed,
        x.astype(">f4"),
        np.asmatrix(x),
    ]


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("first", range(8))
def test_inputs_may_lie_in_memory_as_they_like(backend, first):
    rng = np.random.default_rng(0)
    step = tg.capture(network, backend=backend)
    ways = list(range(8))
    for way in [first, first, *ways, *ways]:
        x, labels, scale = rng.normal(size=(3, 4)).astype(np.float32), rng.integers(0, 3, 3), np.float32(rng.random())
        found = arrays_of(step(layouts(x)[way], labels, scale))
        assert_same(found, arrays_of(network(x, labels, scale)), 1e-5, f"layout {way}")
    assert all(not plan.fallback for plan in step.plans)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i4"])
def test_labels_of_every_integer_dtype(backend, dtype, rng):
    w = tg.Tensor(rng.normal(size=(4, 5)), requires_grad=True)

    def step(x, labels):
        loss = tg.softmax_cross_entropy(tg.as_tensor(x) @ w, labels)
        return loss, *tg.gradients(loss, [w])

    def draw():
        return rng.normal(size=(6, 4)), rng.integers(0, 5, 12).astype(dtype)[::2]

    assert not assert_replays(step, draw, backend, tolerance=1e-12).plan.fallback


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (0, 3), (1,), (1, 1)])
def test_empty_and_0d_inputs(backend, shape, rng):
    def step(x):
        x = tg.as_tensor(x).detach().requires_grad_()
        y = np.tanh(x) * 2 + np.sum(x)
        return y, np.sum(y), np.sum(y, axis=None, keepdims=True), *tg.gradients(np.sum(y * y), [x])

    assert not assert_replays(step, lambda: [rng.normal(size=shape)], backend, tolerance=1e-12).plan.fallback


@pytest.mark.parametrize("backend", BACKENDS)
def test_integers_and_booleans_are_computed_as_numpy_does(backend, rng):
    def step(i, b, small):
        i, b, small = map(tg.as_tensor, (i, b, small))
        total = np.sum(b) + np.sum(i * 3 - 1)
        return (
            i / 2,
            i + b,
            b & ~b,
            b + b,
            i * 0.5,
            np.sum(b, axis=0),
            i > 1,
            (i > 1) ^ b,
            total,
            small * small,
            -small,
            np.any(b),
            i % 3.0,
        )

    def draw():
        return rng.integers(-9, 9, (3, 4)), rng.random((3, 4)) < 0.5, rng.integers(-128, 128, 5).astype(np.int8)

    assert not assert_replays(step, draw, backend, tolerance=1e-12).plan.fallback


@pytest.mark.parametrize("backend", BACKENDS)
def test_special_values(backend, rng):
    def step(x, y):
        x, y = tg.as_tensor(x), tg.as_tensor(y)
        unary = [np.exp, np.log, np.sqrt, np.abs, np.sign, np.floor, np.ceil, np.trunc, np.rint, np.isnan, np.isinf, np.isfinite,
                 np.tanh, tg.sigmoid, tg.relu, tg.softplus, np.reciprocal, np.square, np.log1p, np.expm1, np.cbrt]  # fmt: skip
        binary = [np.add, np.divide, np.maximum, np.minimum, np.logaddexp, np.hypot, np.greater, np.equal, np.arctan2]
        return [
            *(f(x) for f in unary),
            *(f(x, y) for f in binary),
            np.max(x),
            np.sum(x),
            tg.logsumexp(y),
            np.where(x > 0, x, -np.inf),
        ]

    values = np.array([0.0, -0.0, 1.5, -2.5, 0.5, np.inf, -np.inf, np.nan, 1e-310, 1e300, -1e300])
    for dtype, tolerance in ((np.float64, 1e-14), (np.float32, 1e-6)):
        some = (
            [np.resize(v, 121).astype(dtype) for v in (values, np.repeat(values, 11))] if dtype is np.float64 else None
        )
        with np.errstate(over="ignore"):
            some = some or [np.resize(v, 121).astype(dtype) for v in (values, np.repeat(values, 11))]
        captured = assert_replays(step, lambda some=some: some, backend, tolerance=tolerance)
        assert not captured.plan.fallback
