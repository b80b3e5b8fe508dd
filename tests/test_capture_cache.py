"""The cache of compiled steps: a second process loads what a first has compiled, and nothing that it does not need."""

import os
import subprocess
import sys

import numpy as np
from capturing import needs_numba

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
