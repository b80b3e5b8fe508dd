"""The cache of compiled steps: a second process loads what a first has compiled, and nothing that it does not need."""

import os
import subprocess
import sys

import numpy as np
from capturing import compiled_steps, needs_numba  # noqa: F401

import tinygrad_scratch as tg

pytestmark = needs_numba

PROGRAM = """
import sys
import numpy as np
import tinygrad_scratch as tg

w = tg.Tensor(np.linspace(0, 1, 40).reshape(5, 8), requires_grad=True)

@tg.capture(backend="numba")
def step(x, y):
    loss = np.mean(np.square(np.tanh(w @ x) @ np.ones((4, 3)) - y))
    w.zero_grad()
    loss.backward()
    with tg.no_grad():
        w.__isub__(0.1 * w.grad)
    return loss

rng = np.random.default_rng(0)
found = []
for n in range(6):
    x = rng.random((8, 4))
    found.append(float(step(np.asfortranarray(x) if n % 2 else x, rng.random((5, 3)))))
def mean(x, y):
    return np.mean(x * y)

found += tg.capture(mean, backend="numba").epoch(rng.random((30, 4)), rng.random((30, 4)), batch_size=3).tolist()
light = "numba.np.arraymath" not in sys.modules
other = tg.capture(lambda x: np.exp(x) - 1, backend="numba")  # compiled after others were loaded
for n in range(4):
    found.append(float(np.sum(other(rng.random(3 + len(sys.argv))).numpy())))
import numba
assert numba.njit(lambda a, b: np.sum(a * b))(np.ones(3), np.ones(3)) == 3.0
print(light, found)
"""


def run(folder, *arguments):
    """(whether numba was not made ready to compile, the results) of a process with this cache."""
    environment = {**os.environ, "TINYGRAD_SCRATCH_CACHE": str(folder)}
    made = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], env=environment, capture_output=True, text=True, check=True
    )
    light, found = made.stdout.split(maxsplit=1)
    return light == "True", eval(found)


def test_a_second_process_loads_machine_code_alone(tmp_path):
    cold, first = run(tmp_path)
    cached, second = run(tmp_path)
    assert not cold
    assert cached
    assert first == second
    light, third = run(tmp_path, "another", "shape")
    assert light
    np.testing.assert_array_equal(third[:6], first[:6])
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "file" / "folder") == (False, first)  # no place for a cache


def falling():
    """A layer, and a step that teaches it."""
    layer = tg.nn.Linear(4, 1, rng=np.random.default_rng(1))

    def step(x, y):
        layer.zero_grad()
        loss = np.mean(np.square(layer(x) - y))
        loss.backward()
        with tg.no_grad():
            for parameter in layer.parameters():
                parameter.__isub__(0.1 * parameter.grad)
        return loss

    return layer, tg.capture(step, backend="numba")


def test_a_step_that_runs_in_epochs_alone_is_compiled_once(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.random((22, 4), np.float32), rng.random((22, 1), np.float32)
    _, single = falling()
    rounds = [20, 20, 22, 22, 22, 4]
    wanted = [[float(single(x[i:end][:4], y[i:end][:4])) for i in range(0, end, 4)] for end in rounds]
    monkeypatch.setenv("TINYGRAD_SCRATCH_CACHE", str(tmp_path))
    layer, step = falling()
    modules = []
    for end, losses in zip(rounds[:-1], wanted, strict=False):
        np.testing.assert_array_equal(step.epoch(x[:end], y[:end], batch_size=4), losses)
        modules.append(len(list(tmp_path.glob("step_*.py"))))
        layer.eval()  # which has the plan looked for anew
        layer.train()
    assert modules == [1, 1, 1, 1, 2]  # the two that are left of 22 are one step: it is recorded twice, then compiled
    assert float(step(x[:4], y[:4])) == wanted[-1][0]
    assert len(list(tmp_path.glob("step_*.py"))) == 3
