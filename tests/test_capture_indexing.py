"""Indexing by arrays in captured steps: what is taken and what is added back, as eagerly to the last bit, on both back ends."""

import numpy as np
import pytest
from capturing import BACKENDS, assert_replays, assert_same, compiled_steps, needs_numba, tolerance_for  # noqa: F401
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, broadcastable_shapes
from interpreted import run_source

import tinygrad_scratch as tg
from tinygrad_scratch import nn
from tinygrad_scratch.capture import compile_numba
from tinygrad_scratch.ops.indexing import ARRAY, join_index
from tinygrad_scratch.optim import SGD, Adam
from tinygrad_scratch.registry import OPS

FORMS = {
    # an index, where 4 x 3 x 5 elements lie, and the shapes of its arrays
    "rows": ((ARRAY,), [(6,)]),
    "rows, in a table": ((ARRAY,), [(2, 7)]),
    "one number": ((ARRAY,), [()]),
    "an index of each axis": ((ARRAY, ARRAY, ARRAY), [(4, 2), (2,), (4, 1)]),
    "the last axis": ((Ellipsis, ARRAY), [(6,)]),
    "between slices": ((slice(3, 0, -1), None, ARRAY, slice(None, None, 2)), [(7,)]),
    "two, then a slice": ((ARRAY, ARRAY, slice(1, 4)), [(6,), (6,)]),
}


def taken_and_added_back(index):
    """A step: what is taken from an array, and what its cotangent adds up to."""

    def step(x, g, *arrays):
        x = tg.as_tensor(x).detach().requires_grad_()
        y = x[join_index(index, arrays)]
        return [y * 1, *tg.gradients(y, [x], tg.as_tensor(g) * 1)]

    return step


def drawer(shape, index, arrays, dtype, indices=np.int64, seed=0):
    """A function that draws an array, indices of its elements from either end, often the same one, and a cotangent."""
    rng = np.random.default_rng(seed)
    first, own = index.index(ARRAY), len(shape) - sum(i is ARRAY or isinstance(i, slice) for i in index)
    start = sum(own if i is Ellipsis else isinstance(i, slice) for i in index[:first])
    lowest = 0 if np.dtype(indices).kind == "u" else -1

    def draw():
        x = rng.normal(size=shape).astype(dtype)
        found = [rng.integers(lowest * n, n, s).astype(indices) for n, s in zip(shape[start:], arrays, strict=False)]
        return [x, rng.normal(size=x[join_index(index, tuple(found))].shape).astype(dtype), *found]

    return draw


@st.composite
def forms(draw):
    """(a shape, an index, the shapes of its arrays): arrays one after the other, slices and new axes around them."""
    shape = draw(array_shapes(max_dims=4, max_side=4))
    how_many = draw(st.integers(1, min(3, len(shape))))
    before = draw(st.integers(0, len(shape) - how_many))
    around = [
        draw(st.sampled_from([slice(None), slice(1, None), slice(None, None, -1), slice(-1, None, -2)])) for _ in shape
    ]
    head = [Ellipsis] if draw(st.booleans()) else around[:before]
    tail = around[before + how_many :]
    if not draw(st.booleans()):
        tail = tail if head == [Ellipsis] else draw(st.sampled_from([[], [Ellipsis], [None, *tail], tail[:1]]))
    if head != [Ellipsis] and draw(st.booleans()):
        head = [None, *head]
    whole = draw(array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
    arrays = [whole] + [draw(broadcastable_shapes(whole, max_dims=len(whole), max_side=3)) for _ in range(how_many - 1)]
    return shape, (*head, *[ARRAY] * how_many, *tail), arrays


@needs_numba
@given(
    forms(), st.sampled_from([np.float32, np.float64]), st.sampled_from(["i1", "i4", "i8", "u1", "u4"]), st.booleans()
)
def test_any_index_of_arrays_one_after_the_other(form, dtype, indices, rewrites):
    """The compiled step's source, run by Python."""
    shape, index, arrays = form
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compile_numba, "load", run_source)
        draw = drawer(shape, index, arrays, dtype, indices)
        step = assert_replays(taken_and_added_back(index), draw, "numba", rewrites, calls=4)
    assert not step.plan.fallback


@needs_numba
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_indices_compiled(dtype):
    """All forms in one function, for compiling takes its time."""
    steps = [taken_and_added_back(index) for index, _ in FORMS.values()]
    draws = [drawer((4, 3, 5), index, arrays, dtype) for index, arrays in FORMS.values()]

    def all_of_them(inputs):
        return [step(*given) for step, given in zip(steps, inputs, strict=True)]

    step = assert_replays(all_of_them, lambda: [[draw() for draw in draws]], "numba")
    assert not step.plan.fallback


@pytest.mark.parametrize("index", [(ARRAY, slice(None), ARRAY), (ARRAY, 0, ARRAY), (0, ARRAY, slice(None))])
@pytest.mark.parametrize("backend", BACKENDS)
def test_other_forms_run_on_numpy(index, backend):
    rng = np.random.default_rng(0)

    def draw():
        arrays = tuple(rng.integers(0, 3, 4) for i in index if i is ARRAY)
        x = rng.normal(size=(3, 4, 3))
        return [x, rng.normal(size=x[join_index(index, arrays)].shape), *arrays]

    step = assert_replays(taken_and_added_back(index), draw, backend)
    assert ("no lowering for indexing by arrays" in step.plan.fallback) == (backend == "numba")


@pytest.mark.parametrize("backend", BACKENDS)
def test_repeated_indices_are_added_in_their_order(backend):
    """Numbers whose sum depends on the order; one element, named from either end."""
    step = tg.capture(lambda g, i: OPS["scatter"](g, i, index=(ARRAY,), shape=(3,)), backend=backend)
    for _ in range(4):
        sums = step(np.array([1e8, 1.0, -1e8, 1.0], np.float32), np.array([2, -1, 2, -1]))
        np.testing.assert_array_equal(sums.numpy(), np.array([0, 0, 1], np.float32))
    assert not step.plan.fallback


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [[0, 3], [-4, 0]])
def test_an_index_out_of_bounds_is_an_error(backend, bad):
    """In what takes and in what adds back; a state that would be changed later is as it was."""
    w = tg.Tensor(np.ones((3, 2)), requires_grad=True)

    def train(indices):
        (grad,) = tg.gradients(np.sum(w[indices] ** 2), [w])
        with tg.no_grad():
            w.__isub__(0.25 * grad)
        return grad

    def add(indices):
        return OPS["scatter"](np.ones((2, 2)), tg.as_tensor(indices), index=(ARRAY,), shape=(3, 2))

    for function in (train, add):
        step = tg.capture(function, backend=backend)
        for _ in range(3):
            step(np.array([2, -3]))
        before = w.numpy().copy()
        with pytest.raises(IndexError, match="out of bounds"):
            step(np.array(bad))
        assert not step.plan.fallback
        np.testing.assert_array_equal(w.numpy(), before)


class Words:
    """Documents as the mean of their words' vectors, told apart by a linear layer."""

    def __init__(self, optimizer, padding, dtype):
        rng = np.random.default_rng(0)
        self.words = nn.Embedding(30, 4, padding, dtype=dtype, rng=rng)
        self.classes = nn.Linear(4, 3, dtype=dtype, rng=rng)
        self.parameters = [*self.words.parameters(), *self.classes.parameters()]
        self.optimizer = optimizer(self.parameters)

    def step(self, documents, labels):
        loss = nn.functional.cross_entropy(self.classes(self.words(documents).mean(axis=1)), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss


OPTIMIZERS = {"SGD": lambda p: SGD(p, lr=0.5, momentum=0.9), "Adam": lambda p: Adam(p, lr=0.05)}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "padding", "dtype"), [("SGD", None, np.float64), ("Adam", 0, np.float32)])
def test_an_embedding_is_trained_as_eagerly(backend, name, padding, dtype):
    eager, other = (Words(OPTIMIZERS[name], padding, dtype) for _ in range(2))
    captured, rng = tg.capture(other.step, backend=backend), np.random.default_rng(1)
    tolerance = tolerance_for(backend, True, dtype)
    for n in range(20):
        batch = rng.integers(0, 30, (6, 5)), rng.integers(0, 3, 6)
        assert_same([captured(*batch).numpy()], [eager.step(*batch).numpy()], tolerance, f"loss of step {n}")
    found, expected = ([p.numpy() for p in each.parameters] for each in (other, eager))
    assert_same(found, expected, tolerance)
    assert captured.plan.calls == 18
    assert not captured.plan.fallback
