"""Optimizers and clipping: the same numbers as torch over 20 steps, and state that moves both ways."""

from itertools import product
from typing import Any

import numpy as np
import pytest

import tinygrad_scratch as tg
from tinygrad_scratch import nn

torch = pytest.importorskip("torch", reason="torch is not installed: parity with it is not checked")
pytestmark = pytest.mark.usefixtures("torch")  # which leaves it one thread

CLOSE = {"rtol": 1e-11, "atol": 1e-12}


def combinations(**choices: Any) -> list[dict[str, Any]]:
    return [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]


SETTINGS = [
    *(("Adam", o) for o in combinations(weight_decay=[0.0, 0.1], amsgrad=[False, True], maximize=[False, True])),
    ("Adam", {"lr": 0.1, "betas": (0.5, 0.8), "eps": 1e-2}),
    *(("AdamW", o) for o in combinations(lr=[0.1], weight_decay=[0.01, 0.3], amsgrad=[False, True])),
    *(("RMSprop", o) for o in combinations(momentum=[0.0, 0.9], centered=[False, True], weight_decay=[0.0, 0.1])),
    ("RMSprop", {"alpha": 0.5, "eps": 1e-2, "maximize": True}),
    *(("Adagrad", o) for o in combinations(lr_decay=[0.0, 0.1], weight_decay=[0.0, 0.1])),
    ("Adagrad", {"initial_accumulator_value": 0.5, "eps": 1e-3, "maximize": True}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "maximize": True}),
]
each = pytest.mark.parametrize(("name", "options"), SETTINGS, ids=str)


class Pair:
    """The same parameters, with the same gradients, for us and for torch."""

    def __init__(self, name: str, options: dict[str, Any], dtype: Any = np.float64):
        rng = np.random.default_rng(0)
        arrays = [rng.normal(size=shape).astype(dtype) for shape in ((4, 3), (3,))]
        self.ours = [nn.Parameter(a) for a in arrays]
        self.theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
        self.optimizer = getattr(tg.optim, name)(self.groups(self.ours), **options)
        self.other = getattr(torch.optim, name)(self.groups(self.theirs), **options)
        self.rng = np.random.default_rng(1)

    @staticmethod
    def groups(params: Any) -> Any:
        return [{"params": params[:1], "lr": 0.02}, {"params": params[1:], "weight_decay": 0.05}]

    def train(self, steps: int) -> None:
        for _ in range(steps):
            for p, q in zip(self.ours, self.theirs, strict=True):
                g = self.rng.normal(size=p.shape).astype(p.dtype)
                p.grad, q.grad = tg.Tensor(g), torch.tensor(g)
            self.optimizer.step()
            self.other.step()

    def assert_same(self, **tolerance: Any) -> None:
        for p, q in zip(self.ours, self.theirs, strict=True):
            np.testing.assert_allclose(p.numpy(), q.detach().numpy(), **tolerance)
        mine, its = self.optimizer.state_dict()["state"], self.other.state_dict()["state"]
        assert {i: list(kept) for i, kept in mine.items()} == {i: list(kept) for i, kept in its.items()}
        for i, kept in mine.items():
            for name, array in kept.items():
                np.testing.assert_allclose(array, its[i][name].numpy(), **tolerance)


@each
def test_twenty_steps(name, options):
    pair = Pair(name, options)
    pair.train(20)
    pair.assert_same(**CLOSE)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "RMSprop", "Adagrad"])
def test_single_precision(name):
    pair = Pair(name, {}, np.float32)
    pair.train(20)
    pair.assert_same(rtol=1e-4, atol=1e-5)


@each
def test_state_moves_both_ways(name, options):
    pair, twin = Pair(name, options), Pair(name, options)
    pair.train(5)
    # theirs goes on from our state, ours from theirs
    for p, q, mine, its in zip(twin.ours, twin.theirs, pair.ours, pair.theirs, strict=True):
        p.data = its.detach().numpy().copy()
        with torch.no_grad():
            q.copy_(torch.tensor(mine.numpy()))
    saved = pair.optimizer.state_dict()
    state = {i: {k: torch.tensor(v) for k, v in kept.items()} for i, kept in saved["state"].items()}
    twin.other.load_state_dict({"state": state, "param_groups": saved["param_groups"]})
    twin.optimizer.load_state_dict(pair.other.state_dict())
    twin.rng = pair.rng
    twin.train(5)
    twin.assert_same(**CLOSE)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"])
def test_defaults_are_torchs(name):
    mine = getattr(tg.optim, name)([nn.Parameter([1.0])]).defaults
    its = getattr(torch.optim, name)([torch.zeros(1)]).defaults
    assert mine == {key: its[key] for key in mine}


@pytest.mark.parametrize("order", [1.0, 2.0, 3.5, float("inf")])
def test_clipping(order):
    pair = Pair("SGD", {})
    pair.train(1)
    for most in (100.0, 0.3):
        norm = nn.utils.clip_grad_norm_(pair.ours, most, order)
        other = torch.nn.utils.clip_grad_norm_(pair.theirs, most, order)
        assert float(norm) == pytest.approx(float(other), rel=1e-12)
    nn.utils.clip_grad_value_(pair.ours, 0.05)
    torch.nn.utils.clip_grad_value_(pair.theirs, 0.05)
    for p, q in zip(pair.ours, pair.theirs, strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), **CLOSE)
