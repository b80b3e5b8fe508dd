"""The papers' networks, trained by a captured step: 50 steps, every setting of the optimizer, all that is kept as eagerly."""

from dataclasses import replace

import numpy as np
import pytest
from capturing import BACKENDS, assert_same, compiled_steps, needs_numba, tolerance_for  # noqa: F401

import tinygrad_scratch as tg
from benchmarks.hand_derived import NETWORKS, STEPS, Network, Preallocated, initial_parameters, random_batch
from tinygrad_scratch import nn
from tinygrad_scratch.optim import SGD

NAMES = ["jhu", "ncsu", "lab2-softmax", "ecse4850", "kth-online"]
LOSSES = {
    "squared_error": lambda z, t: nn.functional.mse_loss(tg.sigmoid(z), t, reduction="sum") * (0.5 / len(t)),
    "binary_cross_entropy": lambda z, t: tg.binary_cross_entropy_with_logits(z, t, reduction="sum") * (1 / len(t)),
    "softmax_cross_entropy": tg.softmax_cross_entropy,
}
OPTIONS = {
    "plain": {"lr": 0.1},
    "momentum": {"lr": 0.1, "momentum": 0.9},
    "dampening": {"lr": 0.1, "momentum": 0.9, "dampening": 0.3},
    "nesterov": {"lr": 0.05, "momentum": 0.8, "nesterov": True},
    "weight decay": {"lr": 0.1, "weight_decay": 0.01},
    "all": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "dampening": 0.1},
    "groups": {"lr": 0.1, "groups": lambda p: [{"params": p[:2], "lr": 0.3}, {"params": p[2:], "momentum": 0.5}]},
}
SMALL = Network("small", (9, 6, 4), "sigmoid", "softmax_cross_entropy", 7, 0.1)


class Training:
    """A network of one of the papers and its optimizer; ``step`` trains it by a batch."""

    def __init__(self, network, dtype, groups=lambda parameters: parameters, **options):
        rng, layers = np.random.default_rng(0), []
        for size in zip(network.sizes, network.sizes[1:], strict=False):
            between = nn.Sigmoid() if network.hidden == "sigmoid" else nn.ReLU()
            layers += [nn.Linear(*size, dtype=dtype, rng=rng), between]
        self.model, self.loss = nn.Sequential(*layers[:-1]), LOSSES[network.loss]
        options = options or {"lr": network.lr, "momentum": network.momentum}
        self.optimizer = SGD(groups(list(self.model.parameters())), **options)

    def step(self, x, targets):
        loss = self.loss(self.model(x), targets)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss

    def values(self):
        kept = self.optimizer.state_dict()["state"]
        return [*self.model.state_dict().values(), *(array for number in kept for array in kept[number].values())]


def smaller(name, batch=12):
    """A network with a batch that a test can afford."""
    return replace(NETWORKS[name], batch=min(NETWORKS[name].batch, batch))


def assert_trains_alike(network, dtype, backend, rewrites, between=lambda n, optimizer: None, steps=50, **options):
    eager, other = (Training(network, dtype, **options) for _ in range(2))
    captured = tg.capture(other.step, backend=backend, rewrites=rewrites)
    rng, tolerance = np.random.default_rng(1), tolerance_for(backend, rewrites, dtype)
    for n in range(steps):
        batch = random_batch(network, rng, dtype)
        between(n, eager.optimizer)
        between(n, other.optimizer)
        loss, found = eager.step(*batch), captured(*batch)
        assert_same([found.numpy()], [loss.numpy()], tolerance, f"loss of step {n}")
    assert_same(other.values(), eager.values(), tolerance)
    assert not captured.plan.fallback
    return captured


@pytest.mark.parametrize("setting", OPTIONS)
@pytest.mark.parametrize("name", NAMES)
def test_bit_for_bit_on_numpy(name, setting):
    assert_trains_alike(smaller(name), np.float32, "numpy", rewrites=False, **OPTIONS[setting])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
def test_within_rounding(name, backend):
    captured = assert_trains_alike(smaller(name), np.float64, backend, rewrites=True)
    assert len(captured.plans) == 1


@needs_numba
@pytest.mark.parametrize(("batch", "settings"), [(1, ["nesterov"]), (7, ["all", "groups"])])
def test_settings_of_the_optimizer_compiled(batch, settings):
    """Several in one step: one compilation."""
    network = replace(SMALL, batch=batch)
    eager, others = ([Training(network, np.float64, **OPTIONS[setting]) for setting in settings] for _ in range(2))
    captured = tg.capture(lambda x, t: [training.step(x, t) for training in others], backend="numba")
    rng = np.random.default_rng(1)
    for _ in range(50):
        batch = random_batch(network, rng, np.float64)
        captured(*batch)
        for training in eager:
            training.step(*batch)
    assert not captured.plan.fallback
    for setting, one, other in zip(settings, eager, others, strict=True):
        assert_same(other.values(), one.values(), 1e-9, setting)


def assign(**options):
    return lambda optimizer: [group.update(options) for group in optimizer.param_groups]


CHANGES = {
    "learning rate": lambda n, o: assign(lr=0.1 / (n + 1))(o),
    "learning rate of a group": lambda n, o: o.param_groups[0].update(lr=0.5 if n > 9 else 0.1),
    "learning rate 0 for a while": lambda n, o: assign(lr=0.0 if 9 < n < 15 else 0.1)(o),
    "momentum on": lambda n, o: assign(momentum=0.9 if n > 9 else 0.0)(o),
    "momentum of another size": lambda n, o: assign(momentum=0.9 if n > 9 else 0.5)(o),
    "momentum on and off": lambda n, o: assign(momentum=0.5 * (n // 9 % 2))(o),
    "weight decay on": lambda n, o: assign(weight_decay=0.1 * (n > 9))(o),
}


@pytest.mark.parametrize(
    ("change", "backend"),
    [*((c, "numpy") for c in CHANGES), *(pytest.param(c, "numba", marks=needs_numba) for c in list(CHANGES)[1:4:2])],
)
def test_options_that_change_between_calls(change, backend):
    rewrites = backend == "numba"
    captured = assert_trains_alike(SMALL, np.float64, backend, rewrites, between=CHANGES[change])
    shapes = {
        "momentum on": 2,
        "momentum on and off": 3,
        "weight decay on": 2,
    }  # of the step: each is a plan that is kept
    assert len(captured.plans) == shapes.get(change, 1)


@pytest.mark.parametrize("name", STEPS)
def test_memory_is_what_hand_written_code_needs(name):
    network = smaller(name, 64)
    training = Training(network, np.float32)
    by_hand = Preallocated(network, initial_parameters(network, np.random.default_rng(0)))
    lists = [value for value in vars(by_hand).values() if isinstance(value, (list, np.ndarray))]
    arrays = [
        a for value in lists for a in (value if isinstance(value, list) else [value]) if isinstance(a, np.ndarray)
    ]
    own = {id(a) for a in (*by_hand.parameters, *by_hand.velocities)}  # which the captured step has from the optimizer
    needed = sum(a.nbytes for a in arrays if id(a) not in own)
    captured = tg.capture(training.step, backend="numpy")
    for _ in range(2):
        captured(*random_batch(network, np.random.default_rng(0)))
    assert captured.plan.memory.bytes <= 1.1 * needed
