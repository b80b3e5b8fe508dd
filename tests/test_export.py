"""Exported steps: files that run with NumPy alone, and carry the source of what NumPy lacks."""

import re
import subprocess
import sys
from functools import lru_cache
from itertools import pairwise as pairs
from typing import Any, NamedTuple

import numpy as np
import pytest
from capturing import BACKENDS, arrays_of, assert_same, compiled_steps  # noqa: F401

import tinygrad_scratch as tg
from models.convnet import LeNet5
from tinygrad_scratch import _team, nn
from tinygrad_scratch.capture.carry import carried
from tinygrad_scratch.errors import CaptureError
from tinygrad_scratch.optim import SGD
from tinygrad_scratch.registry import OPS
from tinygrad_scratch.testing import samples

PROGRAM = """
import sys
sys.modules["tinygrad_scratch"] = None
import numpy as np, step
given = np.load("given.npz")
results = [step.step(given[f"x{n}"], given[f"y{n}"])[0] for n in range(3)]
np.savez("results.npz", *results, **step.state)
"""


def run_alone(step, folder, batches):
    """(results, state) of an exported step in a process that has NumPy, and not this library."""
    step.export(folder / "step.py")
    np.savez(
        folder / "given.npz", **{f"{k}{n}": a for n, b in enumerate(batches) for k, a in zip("xy", b, strict=True)}
    )
    subprocess.run([sys.executable, "-c", PROGRAM], cwd=folder, check=True, timeout=120)
    with np.load(folder / "results.npz") as made:
        return [made[f"arr_{n}"] for n in range(3)], {k: made[k] for k in made.files if not k.startswith("arr_")}


def training(model):
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)

    def step(x, y):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def test_lenet5_is_trained_with_numpy_alone(tmp_path, rng):
    model = LeNet5(rng=0)
    step = tg.capture(training(model), backend="numpy")
    batches = [(rng.normal(size=(8, 1, 28, 28)).astype(np.float32), rng.integers(0, 10, 8)) for _ in range(6)]
    for batch in batches[:3]:
        step(*batch)
    losses, state = run_alone(step, tmp_path, batches[3:])
    assert_same(losses, [step(*batch).numpy() for batch in batches[3:]])
    for name, parameter in model.named_parameters():
        found = state[f"model_{name.replace('.', '_')}"]
        np.testing.assert_array_equal(found, parameter.numpy())


@pytest.mark.parametrize("backend", BACKENDS)
def test_either_back_end_exports(backend, tmp_path, rng):
    """With dropout, whose stream goes on where it was."""
    step = tg.capture(
        training(nn.Sequential(nn.Linear(6, 5, rng=0), nn.GELU(), nn.Dropout(rng=1), nn.Linear(5, 3, rng=2))),
        backend=backend,
    )
    batches = [(rng.normal(size=(4, 6)).astype(np.float32), rng.integers(0, 3, 4)) for _ in range(6)]
    for batch in batches[:3]:
        step(*batch)
    losses, _ = run_alone(step, tmp_path, batches[3:])
    assert not step.plan.fallback
    assert_same(losses, [step(*batch).numpy() for batch in batches[3:]], 0.0 if backend == "numpy" else 1e-5)


# -- what is carried ---------------------------------------------------------------------------------------------------

AS_AN_INDEX = {"getitem", "scatter", "replace"}
"""Rows that a step never calls."""
ROWS = {name: op for name, op in OPS.items() if name not in AS_AN_INDEX and not name.startswith("special_")}


def run_carried(functions):
    """Functions, made from the source that is carried."""
    scope: dict[str, Any] = {"np": np}
    exec(carried(functions), scope)
    return {name: scope[name] for name in functions}


def test_every_row_can_be_carried():
    """All in one file, and each as the library has it to the last bit."""
    made = run_carried({f"row_{name}": op.fn for name, op in ROWS.items()})
    for name, op in ROWS.items():
        for inputs, options in samples(op):
            found, expected = (f(*inputs, **options) for f in (made[f"row_{name}"], op.fn))
            np.testing.assert_array_equal(found, expected, err_msg=name)


class Pair(NamedTuple):
    """A class, with a method."""

    first: int
    second: int = 2

    def total(self, more: "int" = 0) -> "int":
        return self.first + self.second + more


FACTORS = (2.0, -3, ("héé", None))


@lru_cache(maxsize=3)
def remembered(n: int) -> int:
    return Pair(n).total(more=1)


def own(x: Any, scale: "Any" = (1 - 0.5), *, names: dict[str, Any] | None = None) -> Any:
    """Annotations after é, constants, a class, a cache, threads, modules by other names."""
    import math

    total: Any = np.zeros_like(x) + math.pi
    parts: dict[int, Any] = {}

    def work(piece: int) -> None:
        parts[piece] = x * FACTORS[piece]

    _team.share(work, 2)
    for a, b in pairs([0, 1]):
        total = parts[a] - parts[b] + total  # type: ignore[operator]
    return total * scale + remembered(3) + len(FACTORS[2][0])


def test_a_function_of_ones_own_is_carried_with_what_it_uses(tmp_path, rng):
    row = tg.elementwise(own, lambda g, y, x: g * 2.5, name="own_row")
    try:
        step = tg.capture(lambda x, y: row(tg.as_tensor(x)) * y, backend="numpy")
        batches = [(rng.normal(size=5), rng.normal(size=5)) for _ in range(6)]
        for batch in batches[:3]:
            step(*batch)
        results, _ = run_alone(step, tmp_path, batches[3:])
        assert_same(results, [step(*batch).numpy() for batch in batches[3:]])
        text = (tmp_path / "step.py").read_text()
    finally:
        del OPS["own_row"]
    assert "Any" not in text
    assert "type: ignore" not in text
    assert "_team" not in text


def imports_something(x):
    from tinygrad_scratch.ops import elementwise

    return elementwise.add(x, 1)


RNG = np.random.default_rng(0)


def approximated(x):
    return pytest.approx(x)


def draws(x):
    return x + RNG.random()


def made_by_another(n):
    def inner(x):
        return x + n

    return inner


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x + 1, "test_export.<lambda>, which is no def of a module"),
        (made_by_another(3), "test_export.made_by_another.<locals>.inner, which is no def of a module"),
        (imports_something, "tinygrad_scratch.ops, which it imports"),
        (draws, "RNG, an object of type Generator"),
        (approximated, "pytest, of pytest"),
        (eval("lambda x: x", {"__name__": __name__}), "the source of <lambda>, which is not to be found"),
    ],
)
def test_what_cannot_be_carried_is_named(function, reason):
    with pytest.raises(CaptureError, match=re.escape(f"cannot export mine: it needs {reason}; write it as a def")):
        carried({"row_mine": function})


def test_a_row_of_scipy_is_refused(tmp_path):
    pytest.importorskip("scipy")
    from tinygrad_scratch import special

    step = tg.capture(lambda x: special.gammaln(tg.as_tensor(x)), backend="numpy")
    for _ in range(3):
        step(np.ones(3))
    with pytest.raises(CaptureError, match="cannot export special_gammaln: it needs "):
        step.export(tmp_path / "step.py")
    assert not list(tmp_path.iterdir())
