"""The papers' networks over 50 steps: a captured step trains just as the eager one does, with every setting of the optimizer."""

from importlib.util import find_spec

import numpy as np
import pytest

import tinygrad_scratch as tg
import tinygrad_scratch.nn as nn
from benchmarks.hand_derived import NETWORKS
from tinygrad_scratch.optim import SGD

NAMES = ["jhu", "ncsu", "lab2-softmax", "ecse4850", "kth-online"]
SETTINGS = {
    "plain": {},
    "momentum": {"momentum": 0.8},
    "dampening": {"momentum": 0.8, "dampening": 0.3},
    "nesterov": {"momentum": 0.8, "nesterov": True},
    "weight decay": {"momentum": 0.5, "weight_decay": 0.01},
}
BATCH = 12


def losses(network):
    if network.loss == "squared_error":
        return lambda z, t: nn.functional.mse_loss(tg.sigmoid(z), t, reduction="sum") * (0.5 / len(t))
    if network.loss == "binary_cross_entropy":
        return lambda z, t: tg.binary_cross_entropy_with_logits(z, t, reduction="sum") * (1 / len(t))
    return tg.softmax_cross_entropy


def trained(network, setting, capture, steps=50):
    """(losses, parameters and velocities) after training, two groups with rates of their own, the rate changed half-way."""
    rng = np.random.default_rng(1)
    layers = [nn.Linear(a, b, rng=rng) for a, b in zip(network.sizes, network.sizes[1:], strict=False)]
    between = nn.Sigmoid if network.hidden == "sigmoid" else nn.ReLU
    model = nn.Sequential(*[m for layer in layers for m in (layer, between())][:-1])
    parameters = list(model.parameters())
    groups = [{"params": parameters[:2], "lr": 0.05}, {"params": parameters[2:]}]
    optimizer = SGD(groups, lr=0.1, **setting)
    loss_of = losses(network)

    def step(x, targets):
        loss = loss_of(model(x), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    step = capture(step)
    batch, found = min(network.batch, BATCH), []
    for n in range(steps):
        if n == steps // 2:
            optimizer.param_groups[0]["lr"] = 0.02
        x, labels = rng.random((batch, network.sizes[0]), np.float32), rng.integers(0, network.sizes[-1], batch)
        one_hot = np.eye(network.sizes[-1], dtype=np.float32)[labels]
        found.append(float(step(x, labels if network.loss == "softmax_cross_entropy" else one_hot)))
    kept = [array for p in parameters for array in optimizer.state.get(p, {}).values()]
    return found, [p.data for p in parameters] + kept


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", NAMES)
def test_numpy_to_the_last_bit(name, setting):
    network, options = NETWORKS[name], SETTINGS[setting]
    eager = trained(network, options, lambda step: step)
    captured = trained(network, options, lambda step: tg.capture(step, backend="numpy", rewrites=False))
    assert eager[0] == captured[0]
    for one, two in zip(eager[1], captured[1], strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("name", NAMES)
def test_rewritten_to_rounding(name):
    network = NETWORKS[name]
    eager = trained(network, {}, lambda step: step)
    captured = trained(network, {}, lambda step: tg.capture(step, backend="numpy"))
    np.testing.assert_allclose(captured[0], eager[0], rtol=1e-3)


@pytest.mark.skipif(find_spec("numba") is None, reason="numba is not installed")
@pytest.mark.parametrize("name", NAMES)
def test_compiled_to_rounding(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TINYGRAD_SCRATCH_CACHE", str(tmp_path))
    network = NETWORKS[name]
    eager = trained(network, SETTINGS["momentum"], lambda step: step)
    captured = trained(network, SETTINGS["momentum"], lambda step: tg.capture(step, backend="numba"))
    np.testing.assert_allclose(captured[0], eager[0], rtol=1e-3)
    for one, two in zip(eager[1], captured[1], strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-2, atol=2e-4)
