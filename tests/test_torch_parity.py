"""The same numbers as torch: layers, activations, losses and their gradients, SGD over 20 steps, weights exchanged."""

from itertools import product
from typing import Any

import numpy as np
import pytest

import tinygrad_scratch as tg
from tinygrad_scratch import nn
from tinygrad_scratch.nn import functional

torch = pytest.importorskip("torch", reason="torch is not installed: parity with it is not checked")
pytestmark = pytest.mark.usefixtures("torch")  # which leaves it one thread

RNG = np.random.default_rng(0)
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def both(array: Any) -> tuple[tg.Tensor, Any]:
    """The same leaf for us and for torch."""
    return tg.Tensor(array, requires_grad=True), torch.tensor(array, requires_grad=True)


def twin(module: nn.Module, other: Any) -> None:
    """Give a torch module our module's values."""
    other.load_state_dict({name: torch.from_numpy(array) for name, array in module.state_dict().items()})


def assert_same_gradients(module: nn.Module, other: Any) -> None:
    for (name, p), (other_name, q) in zip(module.named_parameters(), other.named_parameters(), strict=True):
        assert name == other_name
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), **CLOSE)


MODULES = [
    ("Linear", (4, 3), (5, 4)),
    ("Linear", (4, 3), (2, 5, 4)),
    ("Linear", (4, 3), (4,)),
    ("Linear", (4, 3, False), (5, 4)),
    ("ReLU", (), (5, 4)),
    ("LeakyReLU", (), (5, 4)),
    ("LeakyReLU", (0.2,), (5, 4)),
    ("PReLU", (), (5, 4)),
    ("PReLU", (4,), (5, 4)),
    ("PReLU", (4, 0.1), (5, 4, 2, 3)),
    ("Sigmoid", (), (5, 4)),
    ("Tanh", (), (5, 4)),
    ("Softplus", (), (5, 4)),
    ("Softplus", (0.5,), (5, 4)),
    ("Softmax", (1,), (5, 4)),
    ("Softmax", (0,), (5, 4, 2)),
    ("LogSoftmax", (-1,), (5, 4)),
    ("Flatten", (), (5, 4, 2)),
    ("Flatten", (0, 1), (5, 4, 2)),
    ("Identity", (), (5, 4)),
]


@pytest.mark.parametrize(("name", "arguments", "shape"), MODULES, ids=str)
def test_modules(name, arguments, shape):
    options = {"dtype": np.float64} if name in ("Linear", "PReLU") else {}
    ours, theirs = getattr(nn, name)(*arguments, **options), getattr(torch.nn, name)(*arguments).double()
    twin(ours, theirs)
    x, t = both(RNG.normal(size=shape))
    y, u = ours(x), theirs(t)
    np.testing.assert_allclose(y.numpy(), u.detach().numpy(), **CLOSE)
    g = RNG.normal(size=y.shape)
    y.backward(g)
    u.backward(torch.from_numpy(g))
    np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), **CLOSE)
    assert_same_gradients(ours, theirs)


def test_reprs_and_names_are_torchs():
    def make(kit: Any) -> Any:
        inner = kit.Sequential(kit.Linear(4, 3, bias=False), kit.LeakyReLU(0.1))
        return kit.Sequential(kit.Flatten(), inner, kit.Linear(3, 2), kit.Softmax(1))

    ours, theirs = make(nn), make(torch.nn)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [name for name, _ in ours.named_modules()] == [name for name, _ in theirs.named_modules()]


def test_weights_move_both_ways():
    ours, theirs = nn.Linear(5, 3, rng=0), torch.nn.Linear(5, 3)
    x = RNG.normal(size=(4, 5)).astype(np.float32)
    assert ours.load_state_dict(theirs.state_dict()) == ([], [])
    np.testing.assert_allclose(ours(x).numpy(), theirs(torch.from_numpy(x)).detach().numpy(), rtol=1e-5, atol=1e-6)
    nn.init.normal_(ours.weight, rng=1)
    twin(ours, theirs)
    np.testing.assert_allclose(ours(x).numpy(), theirs(torch.from_numpy(x)).detach().numpy(), rtol=1e-5, atol=1e-6)


LOGITS = RNG.normal(size=(6, 4))
LABELS = RNG.integers(0, 4, 6)
PROBABILITIES = RNG.dirichlet(np.ones(4), 6)
IMAGES, IMAGE_LABELS = RNG.normal(size=(2, 4, 3, 5)), RNG.integers(0, 4, (2, 3, 5))

LOSSES = {
    "labels": ("cross_entropy", LOGITS, LABELS),
    "probabilities": ("cross_entropy", LOGITS, PROBABILITIES),
    "one label": ("cross_entropy", LOGITS[0], LABELS[0]),
    "labels of images": ("cross_entropy", IMAGES, IMAGE_LABELS),
    "probabilities of images": ("cross_entropy", IMAGES, np.eye(4)[IMAGE_LABELS].transpose(0, 3, 1, 2)),
    "bce": ("binary_cross_entropy_with_logits", LOGITS, PROBABILITIES),
    "bce at extremes": ("binary_cross_entropy_with_logits", LOGITS * 1000, np.round(PROBABILITIES)),
    "mse": ("mse_loss", LOGITS, PROBABILITIES),
}


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(("name", "logits", "target"), LOSSES.values(), ids=list(LOSSES))
def test_losses(name, logits, target, reduction):
    x, t = both(logits)
    ours = getattr(functional, name)(x, target, reduction=reduction)
    theirs = getattr(torch.nn.functional, name)(t, torch.tensor(target), reduction=reduction)
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), **CLOSE)
    g = RNG.normal(size=ours.shape)
    ours.backward(g)
    theirs.backward(torch.tensor(g))
    np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), **CLOSE)


@pytest.mark.parametrize(
    ("module", "target"),
    [("CrossEntropyLoss", LABELS), ("BCEWithLogitsLoss", PROBABILITIES), ("MSELoss", PROBABILITIES)],
)
def test_loss_modules(module, target):
    for reduction in ("mean", "sum"):
        ours = getattr(nn, module)(reduction=reduction)(LOGITS, target)
        theirs = getattr(torch.nn, module)(reduction=reduction)(torch.tensor(LOGITS), torch.tensor(target))
        np.testing.assert_allclose(ours, theirs.numpy(), **CLOSE)


def network(dtype: Any) -> tuple[nn.Sequential, Any]:
    ours = nn.Sequential(nn.Linear(6, 5, dtype=dtype, rng=0), nn.Tanh(), nn.Linear(5, 4, dtype=dtype, rng=1))
    theirs = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 4))
    twin(ours, theirs := theirs.to(torch.float64 if dtype == np.float64 else torch.float32))
    return ours, theirs


def train(ours: Any, theirs: Any, optimizers: tuple[Any, Any], steps: int, schedule: bool = False) -> None:
    """The same steps on the same batches for both."""
    rng = np.random.default_rng(5)
    dtype = next(ours.parameters()).dtype
    for step in range(steps):
        x, labels = rng.normal(size=(8, 6)).astype(dtype), rng.integers(0, 4, 8)
        for model, optimizer, kit, convert in (
            (ours, optimizers[0], functional, np.asarray),
            (theirs, optimizers[1], torch.nn.functional, torch.from_numpy),
        ):
            if schedule:
                for group in optimizer.param_groups:
                    group["lr"] = 0.3 / (step + 1)
            optimizer.zero_grad()
            kit.cross_entropy(model(convert(x)), convert(labels)).backward()
            optimizer.step()


def assert_same_weights(ours: Any, theirs: Any, **tolerance: Any) -> None:
    for name, array in ours.state_dict().items():
        np.testing.assert_allclose(array, theirs.state_dict()[name].numpy(), **tolerance)


SETTINGS: list[dict[str, Any]] = [
    {"lr": 0.1, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov}
    for momentum, dampening, weight_decay, nesterov in product((0.0, 0.5, 0.9), (0.0, 0.3), (0.0, 0.05), (False, True))
    if not nesterov or (momentum and not dampening)
]


class TestSGD:
    @pytest.mark.parametrize("grouped", [False, True], ids=["one group", "two groups"])
    @pytest.mark.parametrize("options", SETTINGS, ids=lambda options: " ".join(f"{v:g}" for v in options.values()))
    def test_twenty_steps(self, options, grouped):
        ours, theirs = network(np.float64)

        def params(model: Any) -> Any:
            if not grouped:
                return model.parameters()
            return [
                {"params": model[0].parameters(), "lr": 0.02},
                {"params": model[2].parameters(), "weight_decay": 0.01},
            ]

        optimizers = tg.optim.SGD(params(ours), **options), torch.optim.SGD(params(theirs), **options)
        train(ours, theirs, optimizers, 20)
        assert_same_weights(ours, theirs, **CLOSE)
        state, other = (optimizer.state_dict()["state"] for optimizer in optimizers)
        for index in range(4):
            buffer = other.get(index, {}).get("momentum_buffer")
            assert (index in state) == (buffer is not None)
            if buffer is not None:
                np.testing.assert_allclose(state[index]["momentum_buffer"], buffer.numpy(), **CLOSE)

    def test_single_precision(self):
        ours, theirs = network(np.float32)
        options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True}
        optimizers = tg.optim.SGD(ours.parameters(), **options), torch.optim.SGD(theirs.parameters(), **options)
        train(ours, theirs, optimizers, 20)
        assert_same_weights(ours, theirs, rtol=1e-4, atol=1e-5)

    def test_a_learning_rate_that_changes(self):
        ours, theirs = network(np.float64)
        options = {"lr": 0.1, "momentum": 0.9, "dampening": 0.2}
        optimizers = tg.optim.SGD(ours.parameters(), **options), torch.optim.SGD(theirs.parameters(), **options)
        train(ours, theirs, optimizers, 20, schedule=True)
        assert_same_weights(ours, theirs, **CLOSE)

    def test_going_on_from_torchs_state(self):
        ours, theirs = network(np.float64)
        options = {"lr": 0.1, "momentum": 0.9, "dampening": 0.2}
        optimizers = tg.optim.SGD(ours.parameters(), **options), torch.optim.SGD(theirs.parameters(), **options)
        train(ours, theirs, optimizers, 5)
        fresh, _ = network(np.float64)
        fresh.load_state_dict(theirs.state_dict())
        restored = tg.optim.SGD(fresh.parameters(), lr=1)
        restored.load_state_dict(optimizers[1].state_dict())
        train(fresh, theirs, (restored, optimizers[1]), 5)
        assert_same_weights(fresh, theirs, **CLOSE)

    def test_the_default_learning_rate_and_errors(self):
        parameter = nn.Parameter([1.0])
        assert tg.optim.SGD([parameter]).defaults["lr"] == torch.optim.SGD([torch.zeros(1)]).defaults["lr"]
        for make, p in ((tg.optim.SGD, parameter), (torch.optim.SGD, torch.zeros(1))):
            with pytest.raises(ValueError, match="Nesterov momentum requires a momentum and zero dampening"):
                make([p], lr=0.1, nesterov=True)
            with pytest.raises(ValueError, match="optimizer got an empty parameter list"):
                make([], lr=0.1)


@pytest.mark.parametrize("nonlinearity", ["linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"])
def test_gains(nonlinearity):
    assert nn.init.calculate_gain(nonlinearity) == pytest.approx(torch.nn.init.calculate_gain(nonlinearity))


@pytest.mark.parametrize("name", ["xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_"])
def test_initialisers_have_torchs_spread(name):
    ours, theirs = nn.Parameter(np.zeros((200, 100, 3))), torch.zeros(200, 100, 3)
    getattr(nn.init, name)(ours, rng=0)
    getattr(torch.nn.init, name)(theirs, generator=torch.Generator().manual_seed(0))
    assert ours.numpy().std() == pytest.approx(float(theirs.std()), rel=0.02)
    if "uniform" in name:
        assert ours.numpy().max() == pytest.approx(float(theirs.max()), rel=0.001)


def test_linear_starts_as_torchs():
    ours, theirs = nn.Linear(300, 200, rng=0), torch.nn.Linear(300, 200)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert p.numpy().std() == pytest.approx(float(q.detach().std()), rel=0.15)
        assert np.abs(p.numpy()).max() == pytest.approx(float(q.detach().abs().max()), rel=0.05)
