"""Compiled steps that go through a large batch block by block: the same answers, with memory for one block."""

import numpy as np
import pytest
from capture_graphs import assert_equal_over_calls, programs
from capturing import arrays_of, assert_same, compiled_steps, needs_numba  # noqa: F401
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreted import run_source

import tinygrad_scratch as tg
from tinygrad_scratch import nn
from tinygrad_scratch._blas import numpy_blas
from tinygrad_scratch.capture import blocks, compile_numba
from tinygrad_scratch.capture.blocks import Blocks
from tinygrad_scratch.capture.lower import Product
from tinygrad_scratch.capture.recording.trace import Var

pytestmark = needs_numba
F = nn.functional
LOSSES = {
    "cross-entropy": (F.cross_entropy, lambda rng, n: rng.integers(0, 5, n)),
    "probabilities": (F.cross_entropy, lambda rng, n: rng.dirichlet(np.ones(5), n).astype(np.float32)),
    "squares": (F.mse_loss, lambda rng, n: rng.normal(size=(n, 5)).astype(np.float32)),
    "sum of squares": (tg.squared_error, lambda rng, n: rng.normal(size=(n, 5)).astype(np.float32)),
    "each against the rest": (F.binary_cross_entropy_with_logits, lambda rng, n: (rng.random((n, 5)) < 0.3).astype(np.float32)),
}  # fmt: skip
HIDDEN = {
    "sigmoid": nn.Sigmoid, "relu": nn.ReLU, "layer norm": lambda: nn.LayerNorm(7), "softmax": lambda: nn.Softmax(-1),
    "batch norm": lambda: nn.BatchNorm1d(7), "dropout": lambda: nn.Dropout(0.3, rng=np.random.default_rng(3)),
}  # fmt: skip


@pytest.fixture
def all_in_blocks(monkeypatch):
    """Whatever can be done in blocks is, of two rows and one, however few there are."""
    for name, value in (
        ("LEAST_ROWS", 2),
        ("LEAST_BYTES", 0),
        ("BLOCK_BYTES", 1),
        ("PIECES", 2),
        ("WORTH", 0),
        ("MOST_ITEMS", 64),
    ):
        monkeypatch.setattr(blocks, name, value)
    monkeypatch.setattr("tinygrad_scratch.capture.lower.LEAST_ROWS", 2)


@pytest.fixture
def interpreted(monkeypatch):
    monkeypatch.setattr(compile_numba, "load", run_source)


def training(loss, hidden, seed=0, momentum=0.9):
    rng = np.random.default_rng(seed)
    model = nn.Sequential(nn.Linear(6, 7, rng=rng), HIDDEN[hidden](), nn.Linear(7, 5, rng=rng))
    optimizer = tg.optim.SGD(model.parameters(), lr=0.05, momentum=momentum)

    def step(x, target):
        optimizer.zero_grad()
        value = LOSSES[loss][0](model(x), target)
        value.backward()
        optimizer.step()
        return value

    return model, step


def batches(loss, rows, count=5, seed=1):
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=(rows, 6)).astype(np.float32), LOSSES[loss][1](rng, rows)) for _ in range(count)]


def found(captured):
    return [item for item in captured.plan._run.emitter.items if isinstance(item, Blocks)]


def assert_trains_alike(loss, hidden, rows):
    """Captured as eager over some steps; returns what was captured."""
    made = []
    for capture in (lambda f: f, tg.capture(backend="numba")):
        model, step = training(loss, hidden)
        run = capture(step)
        losses = arrays_of([run(*batch) for batch in batches(loss, rows)])
        made.append([*losses, *(v.copy() for v in model.state_dict().values())])
    assert_same(made[1], made[0], 2e-4, f"{loss}, {hidden}, {rows} rows")
    assert not run.plan.fallback
    return run


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("loss", LOSSES)
def test_training_as_eager(loss, hidden, all_in_blocks, interpreted):
    for rows in (2, 5, 8):
        assert found(assert_trains_alike(loss, hidden, rows))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_random_graphs(dtype, all_in_blocks, interpreted):
    """In rows of what Python runs, of three or four rows, with views, sums, changes in place and second derivatives."""
    seen = []

    @settings(max_examples=20 * settings().max_examples)
    @given(programs(compiled=True), st.sampled_from([1, 300]), st.sampled_from([4, 64]))
    def holds(program, size, most):
        blocks.BLOCK_BYTES, blocks.MOST_ITEMS = size, most
        captured = assert_equal_over_calls([program], "numba", True, dtype)
        seen.extend([] if captured.plan.fallback else found(captured))

    holds()
    assert len(seen) > 20
    assert any(isinstance(item, Product) for group in seen for item in group.items)
    assert any(group.partial for group in seen)


def test_one_pass_from_the_forward_to_the_backward(two_threads):
    """A large batch, compiled: one group from the first product to the gradient of the first weight, without memory for all rows,
    and the same bits on one thread and on two."""
    made = []
    for threads in (1, 2):
        numpy_blas().set_threads(threads)
        run = assert_trains_alike("cross-entropy", "sigmoid", 60_000)
        made.append([run.plan.memory.bytes, *(p.numpy() for p in run.plan.updated)])
    assert_same(arrays_of(made[1][1:]), arrays_of(made[0][1:]))
    (group,) = found(run)
    assert sum(isinstance(item, Product) for item in group.items) == 5
    assert run.plan.memory.bytes < 60_000 * 4 * 6


def test_a_bad_label_changes_what_it_changes_eagerly(all_in_blocks, interpreted):
    """The loss comes after the layers, whose running statistics have moved by then."""
    (model, step), (twin, plain) = (training("cross-entropy", "batch norm") for _ in range(2))
    captured = tg.capture(step, backend="numba")
    for x, labels in batches("cross-entropy", 8):
        captured(x, labels)
    assert found(captured)
    twin.load_state_dict(model.state_dict())
    labels[-1] = 5
    for do in (captured, plain):
        with pytest.raises(IndexError, match="out of bounds: there are 5 classes"):
            do(x, labels)
    assert_same(list(model.state_dict().values()), list(twin.state_dict().values()))


def test_an_epoch(all_in_blocks, interpreted):
    rng = np.random.default_rng(1)
    x, labels = rng.normal(size=(44, 6)).astype(np.float32), rng.integers(0, 5, 44)
    order, made = rng.permutation(44), []
    for backend in ("numpy", "numba"):
        model, step = training("cross-entropy", "sigmoid")
        captured = tg.capture(step, backend=backend)
        losses = captured.epoch(x, labels, order=order, batch_size=8)
        made.append([losses, *(p.numpy() for p in model.parameters())])
    assert all(isinstance(plan._run.emitter.items[1], Blocks) for plan in captured.plans)
    assert_same(made[1], made[0], 2e-4)


def test_small_batches_are_done_at_once():
    run = assert_trains_alike("cross-entropy", "sigmoid", 64)
    assert not found(run)
    assert not run.plan._run.emitter.jobs


def mean_first(x, y):
    return np.sum(np.exp(x - np.mean(x, axis=0)), axis=1)


def sum_by_row(x, y):
    """A sum over the rows that has as many rows."""
    return (x[:, :2].T @ y).reshape(4, 2) * x[:, :2]


def changed_after(x, y):
    """What a product reads as a whole is changed when it is done."""
    with tg.no_grad():
        z = x * 2
        product = y @ z
        z *= 0.5
    return product, z


def changed_before(x, y):
    with tg.no_grad():
        z = x * 2
        total = np.sum(z * y, axis=0)
        z += total
    return z, total


def one_row_for_all(x, y):
    z = np.exp(x[:, 0])
    return np.tanh(z * y[:, 1]) * z[0]


def one_of_two_axes_for_all(x, y):
    z = np.exp(x)
    return np.tanh(z * y) * z[:1]


def beside(x, y):
    """What other rows need is made between, of what is there before."""
    z = np.exp(x)
    scale = np.sum(y) * 2
    return z * scale + y @ np.tanh(z)


def sum_of_nothing(x, y):
    z = np.tanh(x)
    q = z * (np.sum(y[:, :0], axis=1)[:, None] + 2)
    return q @ y, np.sum(q * q, axis=0)


def in_two_groups(x, y):
    """The second waits for a sum of the first."""
    z = np.tanh(x @ y)
    return np.sum(np.exp(z - np.sum(z, axis=0)) @ y, axis=1)


@pytest.mark.parametrize(
    ("function", "groups"),
    [(mean_first, 0), (sum_by_row, 0), (changed_after, 0), (changed_before, 0), (one_row_for_all, 0),
     (one_of_two_axes_for_all, 0), (beside, 2), (sum_of_nothing, 1), (in_two_groups, 2)],
)  # fmt: skip
def test_what_needs_other_rows_waits_for_them(function, groups, all_in_blocks, interpreted):
    captured, rng = tg.capture(function, backend="numba"), np.random.default_rng(0)
    for _ in range(4):
        x, y = rng.normal(size=(2, 4, 4))
        expected = function(tg.as_tensor(x), tg.as_tensor(y))
        assert_same(arrays_of(captured(x, y)), arrays_of(expected), 1e-12, function.__name__)
    assert not captured.plan.fallback
    assert len(found(captured)) == groups


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_])
def test_products_over_rows_of_two_dtypes_are_left_to_numpy(dtype, all_in_blocks, interpreted):
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(6, 3)) > 0.3).astype(dtype), rng.normal(size=(6, 5))
    captured = tg.capture(lambda x, y: (x.T @ np.tanh(y), np.sum(np.tanh(y) * y, axis=0)), backend="numba")
    for _ in range(4):
        made = captured(x, y)
    np.testing.assert_allclose(made[0].numpy(), x.T @ np.tanh(y), rtol=1e-12)
    assert "NumPy instead of compiled code" in captured.explain()


@pytest.mark.parametrize("function", [lambda x, k: np.tanh(np.exp(x)[k]) * x, lambda x, k: np.tanh(x[k]) @ np.eye(3)])
def test_indices_that_may_be_wrong(function, all_in_blocks, interpreted):
    """They are looked at before it is too late, and found again when they are right."""
    captured, rng = tg.capture(function, backend="numba"), np.random.default_rng(0)
    x, k = rng.normal(size=(4, 3)), rng.integers(0, 4, 4)
    for _ in range(4):
        np.testing.assert_allclose(captured(x, k).numpy(), function(x, k), rtol=1e-12)
    assert not captured.plan.fallback
    with pytest.raises(IndexError, match="out of bounds"):
        captured(x, np.array([0, 1, 2, 4]))


@settings(max_examples=50 * settings().max_examples)
@given(st.data())
def test_what_lies_by_row(data):
    """Each element that a view has for a row lies in that part of the owner's memory."""
    rows, width = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6))
    shape, axis = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)), 0
    strides = data.draw(st.lists(st.integers(-2, 7), min_size=len(shape), max_size=len(shape)))
    axis = data.draw(st.integers(0, len(shape) - 1))
    owner = Var("answer", np.zeros(rows * width))
    view = Var(
        "answer", np.zeros(shape), base=owner, offset=data.draw(st.integers(0, rows * width)), strides=tuple(strides)
    )
    places = view.offset + sum(np.array(strides)[:, None] * np.indices(shape).reshape(len(shape), -1))
    owns = (places // width == np.indices(shape)[axis].reshape(-1)).all()
    found = blocks.lies_by_row(view, axis, rows)
    assert (owns and shape[axis] == rows) or not found
    if owns and shape[axis] == rows and strides[axis] == width and min(strides) >= 0:
        assert found
