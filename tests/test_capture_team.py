"""Compiled steps whose work threads share: the same answers, bit for bit, whoever does which piece."""

import threading
import time

import numpy as np
import pytest
from capture_graphs import assert_equal_over_calls, programs
from capturing import arrays_of, assert_same, compiled_steps, needs_numba  # noqa: F401
from hypothesis import given, settings
from interpreted import run_source

import tinygrad_scratch as tg
from tinygrad_scratch import _team, nn
from tinygrad_scratch._blas import numpy_blas
from tinygrad_scratch.capture import blocks, compile_numba, kernels

pytestmark = needs_numba


@pytest.fixture
def all_is_shared(monkeypatch):
    """Every loop, product and kernel is a job, however small, with or without convolutions beside it."""
    monkeypatch.setattr(kernels, "LEAST", dict.fromkeys(kernels.LEAST, 1))

    def shared(items, kept, outputs):
        blocks.share(items)
        return items

    monkeypatch.setattr(compile_numba, "arrange", shared)


def network(seed=0):
    """Convolutions whose gradients go each of the ways that there are, both poolings, a product; and its training step."""
    rng = np.random.default_rng(seed)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, rng=rng), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1, groups=2, rng=rng), nn.MaxPool2d(2),
        nn.Tanh(), nn.Conv2d(4, 6, 2, rng=rng), nn.AvgPool2d(2, 1), nn.Flatten(), nn.Linear(24, 5, rng=rng),
    )  # fmt: skip
    optimizer = tg.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(x, labels):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        return loss

    return model, step


def batch(rng, count=24):
    return rng.normal(size=(count, 2, 20, 20)).astype(np.float32), rng.integers(0, 5, count)


def trained(threads, steps=6):
    """Losses and parameters of a network after some steps with that many threads."""
    numpy_blas().set_threads(threads)
    model, step = network()
    captured, rng = tg.capture(step, backend="numba"), np.random.default_rng(1)
    losses = arrays_of([captured(*batch(rng)) for _ in range(steps)])
    assert not captured.plan.fallback
    return losses, [p.numpy().copy() for p in model.parameters()], captured


def test_equal_to_eager_and_for_any_number_of_threads(all_is_shared, two_threads):
    model, step = network()
    rng = np.random.default_rng(1)
    expected = arrays_of([step(*batch(rng)) for _ in range(6)])
    alone = trained(1)
    assert_same(alone[0], expected, 2e-4)
    assert_same(alone[1], [p.numpy() for p in model.parameters()], 2e-4)
    assert alone[2].plan._run.emitter.jobs
    for _ in range(3):
        both = trained(2)
        assert_same(both[0], alone[0])
        assert_same(both[1], alone[1])


def test_a_helper_does_the_pieces_of_a_job(all_is_shared, two_threads):
    """Posted here as the step posts it, with no step running that could do them."""
    run = trained(2)[2].plan._run
    words = run.table[run.emitter.table_size :]
    job = next(n for n, lines in enumerate(run.emitter.jobs) if "conv2d(" in lines[-1])
    words[_team.DONE], words[_team.AWAY], words[_team.WORD] = 0, 0, 1 << 32 | job << 16 | 3 << 8
    thread = threading.Thread(target=run.team.helper, args=(run.table, 1))
    thread.start()
    end = time.monotonic() + 60
    while words[_team.DONE] < 3 and time.monotonic() < end:
        time.sleep(0.001)
    words[_team.AWAY] = 1
    thread.join(60)
    assert not thread.is_alive()
    assert words[_team.DONE] == 3
    assert words[_team.WORD] == 1 << 32 | job << 16 | 3 << 8 | 3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_random_graphs_as_python_runs_what_would_be_compiled(dtype, all_is_shared, monkeypatch):
    monkeypatch.setattr(compile_numba, "load", run_source)

    @settings(max_examples=10 * settings().max_examples)
    @given(programs(compiled=True))
    def holds(program):
        assert_equal_over_calls([program], "numba", True, dtype)

    holds()


def test_an_epoch(all_is_shared, two_threads):
    rng = np.random.default_rng(1)
    x, labels = batch(rng, 24 * 8)
    found = []
    for threads in (1, 2):
        numpy_blas().set_threads(threads)
        model, step = network()
        losses = tg.capture(step, backend="numba").epoch(x, labels, batch_size=24)
        found.append([losses, *(p.numpy().copy() for p in model.parameters())])
    assert_same(found[1], found[0])


def test_a_bad_label_ends_the_step_and_no_more(all_is_shared, two_threads):
    _, step = network()
    captured, rng = tg.capture(step, backend="numba"), np.random.default_rng(1)
    x, labels = batch(rng)
    for _ in range(4):
        captured(x, labels)
    with pytest.raises(IndexError, match="out of bounds: there are 5 classes"):
        captured(x, np.full_like(labels, 5))
    assert np.isfinite(captured(x, labels).item())
    assert numpy_blas().get_threads() == 2


def test_two_steps_at_once(all_is_shared, two_threads):
    """Each has its own words and memory; helpers go from one to the other."""
    alone, found = trained(2)[0], {}

    def work(name):
        _, step = network()
        captured, rng = tg.capture(step, backend="numba"), np.random.default_rng(1)
        found[name] = arrays_of([captured(*batch(rng)) for _ in range(6)])

    threads = [threading.Thread(target=work, args=(name,)) for name in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for losses in found.values():
        assert_same(losses, alone)
    assert numpy_blas().get_threads() == 2
