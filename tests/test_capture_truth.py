"""A captured step does what the plain function would, whatever changed since it was recorded, or says why it cannot.

Each program is built twice: one copy runs plainly, one captured; between calls both are changed alike. After each call the
results and all that the program keeps are compared, bit for bit on NumPy without rewrites.
"""

import re

import numpy as np
import pytest
from capturing import BACKENDS, arrays_of, assert_same, compiled_steps, tolerance_for  # noqa: F401

import tinygrad_scratch as tg
from tinygrad_scratch import nn, optim
from tinygrad_scratch.errors import CaptureError
from tinygrad_scratch.nn import functional as F

CALLS = 8
X = np.random.default_rng(0).normal(size=(5, 4))
LABELS = np.array([0, 2, 1, 2, 0])


def values_of(*things):
    """All that is kept in models, optimizers, Tensors and arrays, gradients included."""
    found = []
    for thing in things:
        if isinstance(thing, nn.Module):
            found += [*thing.state_dict().values()]
            found += [None if p._grad is None else kept(p) for p in thing.parameters()]
        elif isinstance(thing, optim.Optimizer):
            state = thing.state_dict()["state"]
            found += [array for number in state for array in state[number].values()]
        elif isinstance(thing, tg.Tensor):
            found += [thing._data, None if thing._grad is None else kept(thing)]
        else:
            found.append(np.asarray(thing))
    return found


def kept(tensor):
    """A gradient; where a captured step did not keep it, that is said when it is looked at, and it is compared no further."""
    try:
        return tensor.grad._data
    except CaptureError:
        return "not kept"


def follow(build, backend="numpy", calls=CALLS, args=lambda n: (X * (n + 1),), refused=None):
    """Run a program plainly and captured; `refused` is what the captured one may say instead."""
    (plain, change, things), (step, change_too, things_too) = build(), build()
    captured = tg.capture(step, backend=backend, rewrites=False)
    tolerance = tolerance_for(backend, False, np.float64)
    for n in range(calls):
        change(n)
        change_too(n)
        expected = arrays_of(plain(*args(n)))
        try:
            found = arrays_of(captured(*args(n)))
        except CaptureError as error:
            if refused is None or not re.search(refused, str(error)):
                raise
            return captured
        assert_same(found, expected, tolerance, f"call {n}, result")
        for a, b in zip(values_of(*things_too()), values_of(*things()), strict=True):
            if isinstance(a, str) or isinstance(b, str):
                continue
            assert_same([a], [b], tolerance, f"call {n}, state")
    assert refused is None, "it was to be refused"
    return captured


def nothing(n):
    """No change between calls."""


# -- writes --------------------------------------------------------------------------------------------------------------


def a_tensor_is_written():
    t = tg.Tensor(np.zeros(3))

    def step(x):
        with tg.no_grad():
            t[...] = x[0, 0]
        return np.sum(t) / 3

    return step, nothing, lambda: (t,)


def a_part_is_written():
    t = tg.Tensor(np.zeros((3, 4)))

    def step(x):
        with tg.no_grad():
            t[1] = x[0]
            t[:, ::2] = x[1:4, :2] * 2
            t[2, 3] = 7.0
        return t * 1

    return step, nothing, lambda: (t,)


def places_are_written():
    t, k = tg.Tensor(np.zeros((3, 4))), np.array([2, 0])

    def step(x):
        with tg.no_grad():
            t[k] = x[:2]
            t[k, k + 1] = x[0, :2]
        return np.sum(t)

    return step, nothing, lambda: (t,)


def a_mask_is_written():
    t, mask = tg.Tensor(np.zeros((5, 4))), X > 0

    def step(x):
        with tg.no_grad():
            t[mask] = 3.0
            t[np.greater(x, 2.0)] = -1.0
        return np.sum(t * x)

    return step, nothing, lambda: (t,)


def a_parameter_is_written():
    m = nn.Linear(4, 3, rng=0, dtype=np.float64)

    def step(x):
        with tg.no_grad():
            m.weight[...] = x[:3] * 0.5
            m.bias[1:] = 0.25
        return m(x)

    return step, nothing, lambda: (m,)


def a_target_network_follows():
    online, target = (nn.Linear(4, 2, rng=s, dtype=np.float64) for s in (0, 1))
    o = optim.SGD(online.parameters(), lr=0.1)

    def step(x):
        loss = F.mse_loss(online(x), target(x).detach())
        o.zero_grad()
        loss.backward()
        o.step()
        target.load_state_dict(online.state_dict())
        return loss

    return step, nothing, lambda: (online, target, o)


def weights_are_averaged():
    online, average = (nn.Linear(4, 2, rng=s, dtype=np.float64) for s in (0, 1))

    def step(x):
        with tg.no_grad():
            for p, q in zip(online.parameters(), average.parameters(), strict=True):
                q *= 0.9
                q += 0.1 * p
                p += x[0, 0] * 0.01
        return average(x)

    return step, nothing, lambda: (online, average)


def initialisers():
    m = nn.Linear(4, 3, rng=0, dtype=np.float64)

    def step(x):
        nn.init.constant_(m.bias, 0.5)
        nn.init.xavier_uniform_(m.weight, rng=7)
        y = m(x)
        with tg.no_grad():
            m.weight *= x[0, 0]
        return y

    return step, nothing, lambda: (m,)


def carried_state():
    h = tg.Tensor(np.zeros(4))

    def step(x):
        with tg.no_grad():
            h[...] = np.tanh(0.5 * h + x[0])
        return h * 2

    return step, nothing, lambda: (h,)


def a_buffer_is_filled_in_a_loop():
    out = tg.Tensor(np.zeros((5, 4)))

    def step(x):
        with tg.no_grad():
            for i in range(5):
                out[i] = np.sin(x[i]) + (out[i - 1] if i else 0.0)
        return np.sum(out, axis=0)

    return step, nothing, lambda: (out,)


def writing_under_rewriting():
    t = tg.Tensor(np.zeros(4))

    def step(x):
        with tg.rewriting(), tg.no_grad():
            t[1] = x[0, 1]
            y = x[0] * 2
            y[0] = 5.0
        return y + t

    return step, nothing, lambda: (t,)


def an_answer_into_a_tensor():
    t = tg.Tensor(np.zeros((5, 4)))

    def step(x):
        with tg.no_grad():
            np.multiply(x, 2.0, out=t)
            np.exp(t * 0.01, out=t)
        return np.sum(t)

    return step, nothing, lambda: (t,)


WRITES = [
    a_tensor_is_written, a_part_is_written, places_are_written, a_mask_is_written, a_parameter_is_written, a_target_network_follows,
    weights_are_averaged, initialisers, carried_state, a_buffer_is_filled_in_a_loop, writing_under_rewriting,
    an_answer_into_a_tensor,
]  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("program", WRITES)
def test_writes_are_done_in_every_call(program, backend):
    follow(program, backend)


@pytest.mark.parametrize("value", [lambda x: np.ones(4), lambda x: x[0]])
def test_other_memory_for_a_tensor_is_refused(value):
    t = tg.Tensor(np.zeros(4))

    def step(x):
        t.data = value(x)
        return t * 2

    with pytest.raises(CaptureError, match=r"\.data|reads the value"):
        tg.capture(step, backend="numpy")(X)
