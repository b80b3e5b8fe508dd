"""What computes the steps of `models`: eager, captured as NumPy or compiled, they learn the same and resume exactly."""

import importlib.util
import os
from dataclasses import replace

import numpy as np
import pytest
from test_models import assert_same_run

import tinygrad_scratch as tg
from models.checkpoint import load_checkpoint, save_checkpoint
from models.data import Mnist, load_mnist
from models.files import RunError
from models.settings import Settings
from models.training import Run, new_run, prepare, train

NUMBA = pytest.param(
    "numba", marks=pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is not installed")
)
CAPTURED = ("numpy", NUMBA)
NETWORK = Settings(sizes=(784, 16, 10), examples=3000, validation=500, batch_size=50, epochs=3, lr=0.02)
UNEVEN = replace(NETWORK, examples=500, validation=200, batch_size=60, epochs=2, dampening=0.5)  # 9 steps an epoch


@pytest.fixture(scope="session", autouse=True)
def compiled_code(tmp_path_factory):
    """Compiled steps are kept for the other tests, and not among the user's, unless the variable is set already."""
    with pytest.MonkeyPatch.context() as patch:
        if "TINYGRAD_SCRATCH_CACHE" not in os.environ:
            patch.setenv("TINYGRAD_SCRATCH_CACHE", str(tmp_path_factory.mktemp("compiled")))
        yield


@pytest.fixture(scope="module")
def mnist() -> Mnist:
    return load_mnist()


def trained(settings: Settings, mnist: Mnist, **capture: object) -> Run:
    """A run to its end; with `capture`, its step is captured with these options."""
    run = new_run(settings)
    if capture:
        run.step = tg.capture(run.step, **capture)
    assert train(run, *prepare(settings, mnist))
    return run


def curve(run: Run) -> list[list[float]]:
    """Losses and accuracies of all epochs."""
    return [
        [epoch.train_loss, epoch.validation_loss, epoch.train_accuracy, epoch.validation_accuracy]
        for epoch in run.history
    ]


@pytest.mark.parametrize("backend", CAPTURED)
@pytest.mark.parametrize(
    ("loss", "activation"),
    [
        ("cross_entropy", "relu"),
        ("cross_entropy", "prelu"),
        ("bce", "tanh"),
        ("bce", "leaky_relu"),
        ("squared_error", "sigmoid"),
    ],
)
def test_the_learning_curve_is_the_eager_one(mnist, loss, activation, backend):
    settings = replace(NETWORK, loss=loss, activation=activation)
    eager, captured = (trained(replace(settings, backend=name), mnist) for name in ("eager", backend))
    assert captured.settings.backend == backend
    assert [plan.fallback for plan in captured.step.plans] == [""]
    assert sum(plan.calls for plan in captured.step.plans) >= 3 * 60 - 1
    np.testing.assert_allclose(curve(captured), curve(eager), rtol=1e-3)
    weights = eager.model.state_dict()
    for name, array in captured.model.state_dict().items():
        np.testing.assert_allclose(array, weights[name], atol=1e-3 * np.abs(weights[name]).max())


@pytest.mark.parametrize(
    "settings", [NETWORK, UNEVEN, replace(UNEVEN, dampening=0.0, nesterov=True, weight_decay=0.01)]
)
def test_without_rewrites_every_bit_is_the_eager_one(mnist, settings):
    eager = replace(settings, backend="eager")
    assert_same_run(trained(eager, mnist, backend="numpy", rewrites=False), trained(eager, mnist))


@pytest.mark.parametrize("backend", ["eager", *CAPTURED])
@pytest.mark.parametrize("stop_after", [1, 2, 7, 8, 9, 10])
def test_stopped_after_any_step_it_goes_on_bit_for_bit(mnist, tmp_path, stop_after, backend):
    settings = replace(UNEVEN, backend=backend)
    examples = prepare(settings, mnist)
    run, shown = new_run(settings), []

    def steps() -> int:
        return 9 * len(run.history) + run.partial.steps

    assert not train(run, *examples, stop=lambda: steps() >= stop_after, show=lambda partial: shown.append(steps()))
    assert stop_after <= steps() < 18
    if backend != "numba":  # whose steps are done many at a time
        assert shown == list(range(1, stop_after + 1))
    save_checkpoint(tmp_path / "run", run)
    resumed = load_checkpoint(tmp_path / "run")
    assert train(resumed, *examples)
    assert_same_run(resumed, trained(settings, mnist))


@pytest.mark.parametrize("backend", ["eager", *CAPTURED])
def test_stopped_again_and_again_it_goes_on_bit_for_bit(mnist, tmp_path, backend):
    settings = replace(UNEVEN, backend=backend)
    examples = prepare(settings, mnist)
    run, done = new_run(settings), False
    while not done:
        done = train(run, *examples, stop=lambda: True)
        save_checkpoint(tmp_path / "run", run)
        run = load_checkpoint(tmp_path / "run")
    assert_same_run(run, trained(settings, mnist))


@pytest.mark.parametrize("backend", ["eager", *CAPTURED])
def test_divergence_is_said_and_ends_the_run(mnist, backend):
    settings = replace(NETWORK, lr=1e30, backend=backend)
    with pytest.raises(RunError, match="loss of epoch 1 is not finite: training diverged; a smaller"):
        train(new_run(settings), *prepare(settings, mnist))


@pytest.mark.parametrize("backend", ["eager", *CAPTURED])
def test_one_step_an_epoch(mnist, backend):
    settings = replace(NETWORK, examples=50, validation=0, epochs=4, backend=backend)
    run = trained(settings, mnist)
    assert run.history[-1].train_loss < run.history[0].train_loss


class TestBackEnd:
    def test_auto_is_what_is_installed(self, monkeypatch):
        expected = "numpy" if importlib.util.find_spec("numba") is None else "numba"
        assert new_run(NETWORK).settings.backend == expected
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        assert new_run(NETWORK).settings.backend == "numpy"

    def test_a_run_goes_on_with_its_own(self, tmp_path):
        for backend in ("numpy", "eager"):
            save_checkpoint(tmp_path / "run", new_run(replace(NETWORK, backend=backend)))
            assert load_checkpoint(tmp_path / "run").settings.backend == backend

    def test_numba_that_is_not_installed_is_refused(self, tmp_path, monkeypatch):
        run = new_run(replace(NETWORK, backend="numpy"))
        run.settings = replace(NETWORK, backend="numba")
        save_checkpoint(tmp_path / "run", run)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        for attempt in (lambda: new_run(run.settings), lambda: load_checkpoint(tmp_path / "run")):
            with pytest.raises(RunError, match=r"backend numba: numba is not installed: pip .* choose --backend numpy"):
                attempt()
        assert load_checkpoint(tmp_path / "run", backend="numpy").settings == replace(NETWORK, backend="numpy")
