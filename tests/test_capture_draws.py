"""Epochs of steps that draw: the same numbers as one step after the other, and the generators stand at the same place."""

import numpy as np
import pytest
from capturing import compiled_steps, needs_numba  # noqa: F401
from hypothesis import given
from hypothesis import strategies as st
from interpreted import run_source

import tinygrad_scratch as tg
from tinygrad_scratch.capture import compile_numba, draws, epoch
from tinygrad_scratch.capture.draws import Stream, streams
from tinygrad_scratch.random import uniform

BLOCK = 600
SOURCES = [np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64]


def same_state(one, other):
    np.testing.assert_equal(one.bit_generator.state, other.bit_generator.state)


@given(
    st.sampled_from(SOURCES),
    st.sampled_from([np.float32, np.float64]),
    st.lists(st.integers(0, 9), min_size=1, max_size=4),
    st.integers(0, 3),
    st.lists(st.integers(1, 7), min_size=1, max_size=4),
)
def test_numbers_drawn_at_once_are_those_drawn_step_by_step(source, dtype, sizes, before, blocks):
    once, single = np.random.Generator(source(1)), np.random.Generator(source(1))
    once.random(before, np.float32), single.random(before, np.float32)  # which may leave half a word
    arrays = [np.empty(size, dtype) for size in sizes]
    stream = Stream(once, arrays)
    for steps in blocks:
        steps = min(steps, stream.rows)
        rows = stream.draw(steps)[: steps * stream.width].reshape(steps, stream.width)
        for row in rows:
            for start, array in zip(stream.starts, arrays, strict=True):
                np.testing.assert_array_equal(row[start : start + array.size], single.random(array.shape, dtype))
        same_state(once, single)
    state = once.bit_generator.state
    stream.draw(5)
    stream.rewind(2)
    once_again = np.random.Generator(source(1))
    once_again.bit_generator.state = state
    for _ in range(2):
        once_again.random(stream.width, dtype)
    same_state(once, once_again)


def test_two_dtypes_of_one_source_are_drawn_in_turn():
    rng, other = np.random.default_rng(0), np.random.default_rng(1)
    single, double = np.empty(3, np.float32), np.empty(3)
    assert streams([(rng, single), (rng, double)]) is None
    assert streams([(rng, single), (np.random.Generator(rng.bit_generator), double)]) is None
    assert len(streams([(rng, single), (other, double)])) == 2
    (stream,) = streams([(rng, single), (np.random.Generator(rng.bit_generator), single.copy())])
    assert stream.width == 6


class World:
    """A step that teaches a layer behind some dropouts, and refuses labels that are too large."""

    def __init__(self, dtype, kind):
        self.w = tg.Tensor(np.linspace(-1, 1, 12).reshape(4, 3).astype(dtype), requires_grad=True)
        self.rngs = [np.random.default_rng(n) for n in range(2)]
        self.kind = kind
        self.step = tg.capture(self.learn, backend="numba")

    def dropped(self, x, rng, dtype=None):
        rng = self.rngs[rng]
        return np.where(uniform(x.shape, rng, dtype or x.dtype) < 0.3, x.dtype.type(0), x)

    def learn(self, x, labels):
        if self.kind == "mixed":
            x = self.dropped(self.dropped(x, 0, np.float32), 0, np.float64)
        elif self.kind == "several":
            x = self.dropped(self.dropped(x, 0), 0)
        elif self.kind == "two":
            x = self.dropped(self.dropped(self.dropped(x, 0), 1), 0)
        uniform((3,), self.rngs[1], x.dtype)  # which nothing reads, and which is drawn all the same
        outputs = self.dropped(x @ self.w, 0, np.float32 if self.kind == "mixed" else None)
        loss = np.mean(tg.nn.functional.cross_entropy(outputs, labels))
        self.w.zero_grad()
        loss.backward()
        with tg.no_grad():
            self.w.__isub__(self.w.dtype.type(0.1) * self.w.grad)
        return loss

    def one_by_one(self, x, labels, batch):
        return np.array([self.step(x[i : i + batch], labels[i : i + batch]).data for i in range(0, len(x), batch)])

    def assert_as(self, other):
        np.testing.assert_array_equal(self.w.data, other.w.data)
        for one, two in zip(self.rngs, other.rngs, strict=True):
            same_state(one, two)


def examples(dtype, count=41):
    rng = np.random.default_rng(5)
    return rng.random((count, 4)).astype(dtype), rng.integers(0, 3, count)


@pytest.fixture
def blocks(monkeypatch):
    """How many steps each block of an epoch has, of which only some fit."""
    monkeypatch.setattr(draws, "BLOCK", BLOCK)
    monkeypatch.setattr(epoch, "CHUNK_SECONDS", 10.0)
    found, run_block = [], epoch._run_block

    def run(plan, start, stop, *more):
        found.append(stop - start)
        return run_block(plan, start, stop, *more)

    monkeypatch.setattr(epoch, "_run_block", run)
    return found


def assert_epochs_are_single_steps(dtype, kind, batch):
    x, labels = examples(dtype)
    here, there = World(dtype, kind), World(dtype, kind)
    for _ in range(2):
        losses = here.step.epoch(x, labels, batch_size=batch)
        np.testing.assert_array_equal(losses, there.one_by_one(x, labels, batch))
        here.assert_as(there)
        loss = here.step(x[:batch], labels[:batch])  # whose numbers lie elsewhere
        np.testing.assert_array_equal(loss.data, there.step(x[:batch], labels[:batch]).data)
        here.assert_as(there)
    assert not here.step.plan.fallback


@needs_numba
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["one", "several", "two", "mixed"])
def test_epochs_that_draw(dtype, kind, batch, blocks, monkeypatch):
    monkeypatch.setattr(compile_numba, "load", run_source)
    assert_epochs_are_single_steps(dtype, kind, batch)
    assert (kind == "mixed") == (not blocks)
    assert kind == "mixed" or 1 < max(blocks) <= BLOCK // (3 * batch * dtype().itemsize)


@needs_numba
def test_epochs_that_draw_compiled(blocks):
    assert_epochs_are_single_steps(np.float32, "two", 3)
    assert max(blocks) > 1


@needs_numba
def test_what_is_not_done_is_not_drawn(blocks, monkeypatch):
    """A progress that stops the epoch, and a label that a step in the middle of a block refuses."""
    monkeypatch.setattr(compile_numba, "load", run_source)
    x, labels = examples(np.float32)
    here, there = World(np.float32, "two"), World(np.float32, "two")
    losses = here.step.epoch(x, labels, progress=lambda done, steps, made: done >= 12)
    assert 12 <= len(losses) < len(x)
    np.testing.assert_array_equal(losses, there.one_by_one(x[: len(losses)], labels, 1))
    here.assert_as(there)
    labels[17] = 3
    with pytest.raises(IndexError, match="label 3 is out of bounds: there are 3 classes"):
        here.step.epoch(x, labels)
    calls = there.step.plan.calls
    with pytest.raises(IndexError, match="label 3 is out of bounds: there are 3 classes"):
        there.one_by_one(x, labels, 1)
    here.assert_as(there)
    assert max(blocks) > 1
    assert there.step.plan.calls - calls == 17
