"""Captured equals eager for random steps: DAGs of rows with shared parts, views, reductions, changes in place and updates."""

import numpy as np
import pytest
from capture_graphs import World, assert_equal_over_calls, inputs, programs, step_of
from capturing import BACKENDS, arrays_of, assert_same, compiled_steps, needs_numba, tolerance_for  # noqa: F401
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreted import run_source

import tinygrad_scratch as tg
from tinygrad_scratch.capture import compile_numba

MANY = settings(max_examples=20 * settings().max_examples)
FEW = settings(max_examples=max(2, settings().max_examples // 20))


@pytest.mark.parametrize("rewrites", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_random_graphs_on_numpy(rewrites, dtype):
    @MANY
    @given(programs())
    def holds(program):
        assert_equal_over_calls([program], "numpy", rewrites, dtype)

    holds()


@needs_numba
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_random_graphs_compiled(dtype):
    """Several programs a compilation."""

    @FEW
    @given(st.lists(programs(compiled=True), min_size=2, max_size=3))
    def holds(some):
        assert not assert_equal_over_calls(some, "numba", True, dtype).plan.fallback

    holds()


@needs_numba
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_random_graphs_as_python_runs_what_would_be_compiled(dtype, monkeypatch):
    monkeypatch.setattr(compile_numba, "load", run_source)

    @MANY
    @given(programs(compiled=True))
    def holds(program):
        assert_equal_over_calls([program], "numba", True, dtype)

    holds()


@pytest.mark.parametrize("backend", BACKENDS)
def test_epochs_are_the_same_as_single_steps(backend, monkeypatch):
    monkeypatch.setattr(compile_numba, "load", run_source)

    @MANY
    @given(programs(compiled=True), st.sampled_from([1, 3]))
    def holds(program, batch):
        here, there, rng = World(np.float64), World(np.float64), np.random.default_rng(1)
        single, captured = step_of(program, here), tg.capture(step_of(program, there), backend=backend, rewrites=False)
        count = 5 * batch
        x, y, t = rng.uniform(-1, 1, (count, 4)), rng.uniform(-1, 1, (count, 4)), rng.uniform(-1, 1, count)
        data, order = (x, y, rng.integers(0, batch, count), x > 0, t), rng.permutation(count)
        with np.errstate(all="ignore"):
            parts = [arrays_of(single(*(a[order[i : i + batch]] for a in data))) for i in range(0, count, batch)]
            found = captured.epoch(*data, order=order, batch_size=batch)
        joined = [None if p[0] is None else np.concatenate([a if a.ndim else a[None] for a in p]) for p in zip(*parts)]
        assert_same(arrays_of(found), joined, tolerance_for(backend, False, np.float64))
        assert_same(there.values(), here.values(), tolerance_for(backend, False, np.float64))

    holds()


def test_memory_is_written_before_it_is_read():
    """Slabs full of NaN give the same results: no answer is read before it is made, or after another has taken its place."""

    @MANY
    @given(programs())
    def holds(program):
        world = World(np.float64)
        captured, rng = tg.capture(step_of(program, world), backend="numpy", rewrites=False), np.random.default_rng(1)
        args, before = inputs(np.float64, rng), [v.copy() for v in world.values()]
        for _ in range(2):
            captured(*args)
        plan, results, stream = captured.plan, [], world.rng.bit_generator.state
        for filling in (0, 255):  # zeros, and NaN
            for value, kept in zip(world.values(), before, strict=True):
                value[...] = kept
            world.rng.bit_generator.state = stream
            plan.memory.allocate = lambda filling=filling: [np.full(n, filling, np.uint8) for n in plan.memory.slabs]
            plan.bind()
            with np.errstate(all="ignore"):
                results.append([*arrays_of(captured(*args)), *(v.copy() for v in world.values())])
        assert_same(*results)

    holds()
