"""The array API namespace: every function of the standard against the oracle, its page in the docs, changes of a graph."""

import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import tinygrad_scratch as tg
from benchmarks import array_api
from tinygrad_scratch import Tensor
from tinygrad_scratch.errors import GraphError
from tinygrad_scratch.testing import check_grad

X = np.array([0.3, 1.2, -0.4])
ROOT = Path(__file__).parents[1]
PAGE = array_api.DOCS.read_text()
NOT_PASSING = set(re.findall(r"^\| `([\w.]+)` \|", PAGE.split("## Libraries")[0], re.MULTILINE))
DIFFERENTIABLE = set(re.findall(r"`([\w.]+)`", PAGE.split("**Passing and differentiable:**")[1].split("\n")[0]))


@pytest.mark.parametrize("name", array_api.CALLS)
def test_function_of_the_standard(name):
    """It passes, and is differentiable, where the page says so; what does not pass raises, and is never wrong."""
    call = array_api.CALLS[name]
    if "descending" in call:  # which NumPy's own namespace, the oracle without it, does not take
        pytest.importorskip("array_api_strict")
    if name in NOT_PASSING:
        with suppress(TypeError, AttributeError):  # refused; or, since the page was written, right
            array_api.compare(call, np.float64)
        return
    array_api.compare(call, np.float64)
    array_api.compare(call, np.float32)
    assert array_api.differentiable(call) == (name in DIFFERENTIABLE)


def test_the_page_has_every_function():
    strict = pytest.importorskip("array_api_strict")
    own = {"Device", "linalg", "fft", "e", "inf", "nan", "pi", "newaxis"}
    names = {n for n in strict.__all__ if not n.startswith("_") and "flags" not in n.lower()} - own
    dtypes = {n for n in names if not callable(getattr(strict, n))}
    assert names - dtypes - {"bool"} <= set(array_api.CALLS)
    assert all(hasattr(tg.array_api, n) for n in names | own - {"Device"})
    assert set(dir(tg.array_api)) >= names - dtypes
    for name in array_api.CALLS:
        assert f"`{name}`" in PAGE


def test_namespace_of_a_tensor():
    x = Tensor(X)
    assert x.__array_namespace__(api_version="2024.12") is tg.array_api
    assert x.device == "cpu"
    assert x.to_device("cpu") is x
    for call in (lambda: x.__array_namespace__(api_version="1999.1"), lambda: x.to_device("gpu")):
        with pytest.raises(ValueError, match=r"1999.1|gpu"):
            call()
    with pytest.raises(ValueError, match="on the CPU"):
        tg.array_api.zeros(3, device="cuda")
    with pytest.raises(AttributeError, match="no 'sinus'"):
        tg.array_api.sinus  # noqa: B018


def test_dlpack_shares_memory_and_refuses_a_graph():
    x = Tensor(X)
    assert np.shares_memory(np.from_dlpack(x), x.numpy())
    with pytest.raises(TypeError, match="would lose the graph"):
        np.from_dlpack(x.requires_grad_())


def test_asarray_keeps_graphs():
    xp, x = tg.array_api, Tensor(X, requires_grad=True)
    assert xp.asarray(x) is x
    y = xp.asarray([[x[0], 2.0], [x[1] * x[2], x[0]]])
    y.sum().backward()
    np.testing.assert_allclose(x.grad, [2, -0.4, 1.2])
    assert xp.asarray(x, dtype=xp.float32).requires_grad
    assert xp.asarray(x, copy=True).requires_grad
    with pytest.raises(ValueError, match="without a copy"):
        xp.asarray(x, dtype=xp.float32, copy=False)
    assert xp.asarray([1, 2]).dtype == np.int64


# -- rewriting: changes of Tensors with a graph ---------------------------------------------------------------------------


def changes(x):
    """Old values that are used before a change, chains of changes, a constant that receives a graph."""
    y = np.sin(x)
    a, b = y + 1.0, y * y
    y += x
    c = y * x
    y[1:] = y[:-1] * 2
    d = np.exp(y)
    y //= 1.5
    e = y * x
    y[0] = 7.0
    z = Tensor(np.zeros(3))
    f = z * x
    z[1] = x[0]
    z *= x
    return np.sum(a * 1.3 + b * c + d + e + f) + np.sum(z * y * a)


def unchanged(x):
    """The same without changes."""
    y = np.sin(x)
    a, b = y + 1.0, y * y
    y = y + x
    c = y * x
    y = np.concatenate([y[:1], y[:-1] * 2])
    d = np.exp(y)
    y = y // 1.5
    e = y * x
    y = np.concatenate([np.array([7.0]), y[1:]])
    z = np.zeros(3) * x
    f = z * x
    z = np.stack([z[0], x[0], z[2]]) * x
    return np.sum(a * 1.3 + b * c + d + e + f) + np.sum(z * y * a)


def test_changes_give_the_same_derivatives():
    with tg.rewriting():
        check_grad(lambda x: changes(x * 1.0), X, order=2)
        for transform in (tg.grad, tg.hessian, lambda f: tg.jacobian(tg.grad(f), mode="reverse")):
            np.testing.assert_allclose(transform(changes)(X), transform(unchanged)(X))
        np.testing.assert_allclose(tg.jvp(changes, (X,), (X,))[1], tg.grad(unchanged)(X) @ X)


def test_a_tensor_changed_by_itself():
    def f(x):
        y = x * 1.0
        y *= y
        y[y > 0.5] = 2.0
        y[...] = y
        y[:] = y * x
        return np.sum(y)

    g = lambda x: np.sum(np.where(x * x > 0.5, 2.0, x * x) * x)  # noqa: E731
    with tg.rewriting():
        np.testing.assert_allclose(tg.grad(f)(X), tg.grad(g)(X))
        np.testing.assert_allclose(tg.hessian(f)(X), tg.hessian(g)(X), atol=1e-12)


def test_changes_in_a_captured_step():
    def f(x):
        y = x * 2.0
        y[0] = 1.0
        y += x
        y *= y
        return np.sum(y)

    with tg.rewriting():
        captured = tg.capture(tg.grad(f), backend="numpy")
        for seed in range(4):
            x = np.random.default_rng(seed).standard_normal(3)
            np.testing.assert_allclose(captured(x), tg.grad(f)(x), rtol=1e-12)
    assert captured.plan.calls == 2


def test_arguments_may_be_changed_and_stay_as_they_are():
    def f(x):
        x *= 2.0
        x[0] = 1.0
        return np.sum(x * x)

    given = X.copy()
    with tg.rewriting():
        np.testing.assert_allclose(tg.grad(f)(given), [0, 8 * X[1], 8 * X[2]])
    np.testing.assert_array_equal(given, X)


def test_outside_of_it_and_for_leaves_changes_are_refused():
    x = Tensor(X, requires_grad=True)
    y = x * 2
    with pytest.raises(GraphError, match="has a graph"):
        y += 1.0
    with tg.rewriting(), pytest.raises(GraphError, match="requires a gradient"):
        x += 1.0
    with tg.rewriting(), pytest.raises(ValueError, match=r"shape \(3,\) cannot hold"):
        y += np.ones((2, 3))
    with pytest.raises(GraphError, match="has a graph"):
        y[0] = 1.0
    plain = Tensor(X)
    with tg.rewriting():
        plain += 1.0
    np.testing.assert_array_equal(plain, X + 1)


@pytest.mark.parametrize("library", array_api.LIBRARIES)
def test_libraries_differentiate(library):
    """What the page calls differentiable still is. In a process of its own, where SciPy sees SCIPY_ARRAY_API."""
    if not array_api.installed(library) or (library == "scikit-learn" and not array_api.installed("scipy")):
        pytest.skip(f"{library} is not installed")
    names = re.findall(r"`([\w.]+)`", PAGE.split(f"**{library} ")[1].split("\n")[0])
    code = (
        "from benchmarks import array_api, array_api_consumers;"
        f"calls = array_api_consumers.calls({library!r});"
        f"print({{n: v for n in {names} if (v := array_api.verdict(calls[n])) != 'differentiable'}})"
    )
    environment = {**os.environ, "SCIPY_ARRAY_API": "1"}
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert names
    assert run.stdout.strip() == "{}"
