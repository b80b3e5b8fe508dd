"""Gradients across captured steps: accumulated, forgotten, clipped, left to others; as eagerly, or said not to be kept."""

import copy
import pickle
import re

import numpy as np
import pytest
from capturing import BACKENDS, arrays_of, assert_same, compiled_steps, tolerance_for  # noqa: F401
from test_capture_truth import LABELS, X, follow, nothing, values_of

import tinygrad_scratch as tg
from tinygrad_scratch import nn, optim
from tinygrad_scratch.errors import CaptureError
from tinygrad_scratch.nn import functional as F


def model():
    return nn.Sequential(nn.Linear(4, 6, rng=0, dtype=np.float64), nn.Tanh(), nn.Linear(6, 3, rng=1, dtype=np.float64))


def accumulated_in_one_step():
    m = model()
    o = optim.SGD(m.parameters(), lr=0.1)

    def step(x):
        o.zero_grad()
        for part, labels in ((x[:2], LABELS[:2]), (x[2:], LABELS[2:])):
            F.cross_entropy(m(part), labels, reduction="sum").backward()
        for p in m.parameters():
            p.grad /= 5.0
        o.step()
        return np.sum(m[0].weight)

    return step, nothing, lambda: (m, o)


def accumulated_over_calls():
    """Four calls add up, then the program itself makes the step."""
    m = model()
    o = optim.Adam(m.parameters(), lr=0.1)

    def step(x):
        loss = F.cross_entropy(m(x), LABELS)
        loss.backward()
        return loss

    def between(n):
        if n and n % 4 == 0:
            o.step()
            o.zero_grad()

    return step, between, lambda: (m, o)


def gradients_that_nobody_forgets():
    m = model()

    def step(x):
        loss = F.cross_entropy(m(x), LABELS)
        loss.backward()
        return loss

    return step, nothing, lambda: (m,)


def forgotten_at_the_end():
    m = model()
    o = optim.SGD(m.parameters(), lr=0.1, momentum=0.9)

    def step(x):
        F.cross_entropy(m(x), LABELS).backward()
        o.step()
        o.zero_grad()
        return np.sum(m[0].weight)

    return step, nothing, lambda: (m, o)


def forgotten_between():
    m = model()
    o = optim.SGD(m.parameters(), lr=0.1)

    def step(x):
        loss = F.cross_entropy(m(x), LABELS)
        loss.backward()
        o.step()
        return loss

    return step, lambda n: o.zero_grad(), lambda: (m, o)


def forgotten_between_now_and_then():
    m = model()
    o = optim.SGD(m.parameters(), lr=0.01)

    def step(x):
        loss = F.cross_entropy(m(x), LABELS)
        loss.backward()
        o.step()
        return loss

    return step, lambda n: o.zero_grad() if n % 3 == 0 else None, lambda: (m, o)


def read_in_the_step():
    m = model()
    o = optim.SGD(m.parameters(), lr=0.1)

    def step(x):
        o.zero_grad()
        F.cross_entropy(m(x), LABELS).backward()
        o.step()
        return [p.grad for p in m.parameters()]

    return step, nothing, lambda: (m, o)


def set_by_hand():
    m = model()
    o = optim.SGD(m.parameters(), lr=0.1)

    def step(x):
        found = tg.gradients(F.cross_entropy(m(x), LABELS), list(m.parameters()))
        for p, g in zip(m.parameters(), found, strict=True):
            p.grad = g * 0.5
        o.step()
        return np.sum(m[0].weight)

    return step, nothing, lambda: (m, o)


def clipped():
    m = model()
    o = optim.SGD(m.parameters(), lr=0.1)

    def step(x):
        o.zero_grad()
        F.cross_entropy(m(x), LABELS).backward()
        norm = nn.utils.clip_grad_norm_(m.parameters(), 0.5, error_if_nonfinite=True)
        o.step()
        return norm

    return step, nothing, lambda: (m, o)


def views_of_one_vector():
    flat = np.random.default_rng(0).normal(size=27)
    w, b = nn.Parameter(np.zeros((3, 4))), nn.Parameter(np.zeros(3))
    w.data, b.data = flat[:12].reshape(3, 4), flat[12:15]
    o = optim.Adam([w, b], lr=0.1)

    def step(x):
        loss = F.cross_entropy(x @ w.T + b, LABELS)
        o.zero_grad()
        loss.backward()
        o.step()
        return loss

    return step, nothing, lambda: (w, b, flat, o)


def a_new_leaf_in_every_call():
    def step(x):
        w = tg.Tensor(x[0], requires_grad=True)
        loss = np.sum(np.tanh(w * x))
        loss.backward()
        return loss, w.grad

    return step, nothing, lambda: ()


PROGRAMS = [
    accumulated_in_one_step, accumulated_over_calls, gradients_that_nobody_forgets, forgotten_at_the_end, forgotten_between,
    forgotten_between_now_and_then, read_in_the_step, set_by_hand, clipped, views_of_one_vector, a_new_leaf_in_every_call,
]  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_gradients(program, backend):
    follow(program, backend, calls=14)


class Gan:
    """The usual loop: two steps, of which the generator's leaves gradients in the discriminator."""

    def __init__(self, backend, critics=1):
        self.critics = critics
        self.g = nn.Sequential(
            nn.Linear(2, 8, rng=0, dtype=np.float64), nn.Tanh(), nn.Linear(8, 2, rng=1, dtype=np.float64)
        )
        self.d = nn.Sequential(
            nn.Linear(2, 8, rng=2, dtype=np.float64), nn.Tanh(), nn.Linear(8, 1, rng=3, dtype=np.float64)
        )
        self.og, self.od = optim.Adam(self.g.parameters(), lr=0.01), optim.Adam(self.d.parameters(), lr=0.01)
        self.steps = [self.discriminate, self.generate]
        if backend is not None:
            self.steps = [tg.capture(step, backend=backend, rewrites=False) for step in self.steps]

    def discriminate(self, real, noise):
        self.od.zero_grad()
        fake = self.g(noise).detach()
        loss = F.binary_cross_entropy_with_logits(self.d(real), np.ones((4, 1)))
        loss = loss + F.binary_cross_entropy_with_logits(self.d(fake), np.zeros((4, 1)))
        loss.backward()
        self.od.step()
        return loss

    def generate(self, noise):
        self.og.zero_grad()
        loss = F.binary_cross_entropy_with_logits(self.d(self.g(noise)), np.ones((4, 1)))
        loss.backward()
        self.og.step()
        return loss

    def run(self, rounds=10):
        rng, losses = np.random.default_rng(4), []
        for _ in range(rounds):
            for _ in range(self.critics):
                losses.append(float(self.steps[0](rng.normal(size=(4, 2)), rng.normal(size=(4, 2)))))
            losses.append(float(self.steps[1](rng.normal(size=(4, 2)))))
        return losses, [*self.g.state_dict().values(), *self.d.state_dict().values()]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("critics", [1, 3, 5])
def test_a_generator_leaves_gradients_in_the_discriminator(backend, critics):
    (plain, weights), gan = Gan(None, critics).run(), Gan(backend, critics)
    losses, found = gan.run()
    np.testing.assert_allclose(losses, plain, rtol=1e-9)
    assert_same(found, weights, 1e-9)
    assert all(step.plan.calls > 4 for step in gan.steps)


def test_a_gradient_that_was_not_kept_says_so():
    m = model()
    o = optim.SGD(m.parameters(), lr=0.1)

    @tg.capture(backend="numpy")
    def step(x):
        loss = F.cross_entropy(m(x), LABELS)
        o.zero_grad()
        loss.backward()
        o.step()
        return loss

    for n in range(4):
        step(X)
        p = m[0].weight
        if n < 2:
            assert p.grad.shape == (6, 4)
    with pytest.raises(CaptureError, match=r"gradient of float64\(6, 4\) was not kept.*return p\.grad"):
        _ = p.grad
    with pytest.raises(CaptureError, match="was not kept"):
        o.step()
    F.cross_entropy(m(X), LABELS).backward()  # something is added to it: unknown still
    with pytest.raises(CaptureError, match="was not kept"):
        _ = p.grad
    assert tg.gradients(F.cross_entropy(m(X), LABELS), [p])[0].shape == (6, 4)
    copy.deepcopy(m), pickle.loads(pickle.dumps(m))
    m.zero_grad()
    assert p.grad is None
    F.cross_entropy(m(X), LABELS).backward()
    assert p.grad is not None


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_norm_that_is_not_finite(backend):
    w = nn.Parameter(np.ones(3))
    o = optim.SGD([w], lr=0.1)

    @tg.capture(backend=backend)
    def step(x):
        loss = np.sum(w * x)
        o.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([w], 1.0, error_if_nonfinite=True)
        o.step()
        return loss

    for n in range(4):
        step(np.array([1.0, 2.0, 3.0]) + n)
    before = w.data.copy()
    with pytest.raises(RuntimeError, match=r"norm of order 2\.0 is not finite"):
        step(np.array([1.0, np.inf, 0.0]))
    np.testing.assert_array_equal(w.data, before)
    step(np.array([1.0, 2.0, 3.0]))
    assert not np.array_equal(w.data, before)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("calls", [1, 4])
def test_a_label_that_is_ignored_for_the_first_time_in_a_replay(backend, calls):
    results = []
    for captured in (False, True):
        m = model()
        o = optim.SGD(m.parameters(), lr=0.1, momentum=0.9)

        def step(x, labels, m=m, o=o):
            loss = F.cross_entropy(m(x), labels)
            o.zero_grad()
            loss.backward()
            o.step()
            return loss

        run = tg.capture(step, backend=backend) if captured else step
        found = []
        for n in range(12):
            labels = LABELS.copy()
            if n >= calls and n % 3 == 0:
                labels[n % 5] = -100
            found.append(float(run(X * (n + 1), labels)))
        results.append((found, m.state_dict()))
        if captured:
            with pytest.raises(IndexError, match="label 7 is out of bounds"):
                run(X, np.array([0, 7, 1, 1, 1]))
            assert_same([*m.state_dict().values()], [*results[1][1].values()])
    np.testing.assert_allclose(results[1][0], results[0][0], rtol=1e-9)
    assert_same([*results[1][1].values()], [*results[0][1].values()], 1e-9)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [(0.0, TypeError, "a gradient is a Tensor or None, not 0.0"), (np.ones(3), TypeError, "write tg.Tensor"),
     (tg.Tensor([1.0]), ValueError, r"v has shape \(1,\), but the Tensor has shape \(3,\)")],
)  # fmt: skip
def test_what_can_be_a_gradient(value, error, message):
    w = tg.Tensor(np.ones(3), requires_grad=True)
    with pytest.raises(error, match=message):
        w.grad = value


def test_the_gradient_of_an_argument_is_refused():
    def step(x):
        np.sum(x * x).backward()
        return np.sum(x)

    with pytest.raises(CaptureError, match=r"leaves a gradient in its input x: return it instead"):
        tg.capture(step, backend="numpy")(tg.Tensor(X, requires_grad=True))


def test_all_values_are_compared():
    """The comparison itself: a model's parameters, buffers and gradients, an optimizer's state, Tensors and arrays."""
    m = model()
    o = optim.SGD(m.parameters(), lr=0.1, momentum=0.9)
    F.cross_entropy(m(X), LABELS).backward()
    o.step()
    assert len(values_of(m, o, m[0].weight, X)) == 4 + 4 + 4 + 2 + 1
    assert not re.search("x", "y")
    assert len(arrays_of([m[0].weight])) == 1
    assert tolerance_for("numpy", False, np.float64) == 0
