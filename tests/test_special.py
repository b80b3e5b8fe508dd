"""Special functions and distributions: SciPy's own names on Tensors, values beside SciPy, rows as every row is tested."""

import subprocess
import sys

import numpy as np
import pytest

import tinygrad_scratch as tg
from tinygrad_scratch import Tensor
from tinygrad_scratch.errors import NotDifferentiableError
from tinygrad_scratch.testing import check_grad, check_op

scipy_special = pytest.importorskip("scipy.special", reason="compares with SciPy")
scipy_stats = pytest.importorskip("scipy.stats")

from tinygrad_scratch import special, stats  # noqa: E402  (they need SciPy)

ROWS = [name for name in tg.OPS if name.startswith("special_")]
X = np.array([0.3, 1.5, 2.5])


@pytest.mark.parametrize("row", ROWS)
def test_every_promise_of_rows_holds(row):
    for seed in range(2):
        check_op(tg.OPS[row], seed)


@pytest.mark.parametrize(("a", "slope"), [(0.5, np.inf), (1.0, 1.0), (2.0, 0.0), (20.0, 0.0)])
def test_the_incomplete_gamma_function_begins(a, slope):
    x = Tensor(0.0, requires_grad=True)
    scipy_special.gammainc(a, x).backward()
    assert x.grad.item() == slope


@pytest.mark.parametrize("row", ["special_erf", "special_beta", "special_log_ndtr", "special_i1", "special_gammainc"])
def test_captured(row, tmp_path, monkeypatch):
    monkeypatch.setenv("TINYGRAD_SCRATCH_CACHE", str(tmp_path))
    op = tg.OPS[row]

    def step(*xs):
        xs = [tg.as_tensor(x).detach().requires_grad_() if x.dtype.kind == "f" else x for x in xs]
        y = np.sum(op(*xs))
        return y, *tg.gradients(y, [x for x in xs if isinstance(x, Tensor) and x.requires_grad])

    for backend in ("numpy", "numba"):
        if backend == "numba":
            pytest.importorskip("numba", reason="needs numba")
        captured = tg.capture(step, backend=backend)
        for seed in range(4):
            xs = op.domain.sample(np.random.default_rng(seed), ((2, 3),) * len(op.rules), {})[0]
            for found, expected in zip(captured(*xs), step(*xs), strict=True):
                np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-9)
        assert [plan.calls for plan in captured.plans] == [2]
    if backend == "numba":
        assert "NumPy instead of compiled code" in captured.explain()


def test_scipys_own_functions_load_the_rows():
    code = (
        "import sys, numpy as np, scipy.special, tinygrad_scratch as tg;"
        "assert 'tinygrad_scratch.special' not in sys.modules;"
        "x = tg.Tensor([1.0, 2.0], requires_grad=True);"
        "scipy.special.xlogy(3.0, x).sum().backward(); print(x.grad.tolist())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[3.0, 1.5]"


def test_what_is_not_there_is_refused():
    t = Tensor(X, requires_grad=True)
    with pytest.raises(NotDifferentiableError, match=r"scipy\.special\.spence is not differentiable here"):
        scipy_special.spence(t)
    with pytest.raises(NotDifferentiableError, match=r"differentiable in x, not in a"):
        scipy_special.gammainc(t, 1.0)
    with pytest.raises(NotDifferentiableError, match="does not take"):
        scipy_special.erf(t, where=X > 1)
    with pytest.raises(ValueError, match="n is -1"):
        special.polygamma(-1, t)
    with pytest.raises(TypeError, match=r"t\.detach\(\)"):
        scipy_special.logsumexp(t)
    with pytest.raises(NotImplementedError, match=r"stats\.t"):
        stats.t.cdf(t, 3.0)
    with pytest.raises(TypeError, match=r"stats\.norm takes x, 0 shape parameters"):
        stats.norm.pdf(t, 0, 1, 2)


def test_the_functions_of_several_elements():
    a, b = np.array([[0.5, -1.0, 2.0], [1000.0, 1001.0, 0.0]]), np.array([1.0, 2.0, 0.5])
    for axis in (None, 0, -1, (0, 1)):
        for name in ("softmax", "log_softmax"):
            ours, theirs = getattr(special, name), getattr(scipy_special, name)
            np.testing.assert_allclose(ours(Tensor(a), axis).numpy(), theirs(a, axis), rtol=1e-12)
        np.testing.assert_allclose(special.logsumexp(Tensor(a), axis).numpy(), scipy_special.logsumexp(a, axis))
    found = special.logsumexp(Tensor(a), axis=1, b=b, keepdims=True)
    np.testing.assert_allclose(found.numpy(), scipy_special.logsumexp(a, axis=1, b=b, keepdims=True))
    check_grad(lambda a, b: special.logsumexp(a, axis=1, b=b), a[:1], b, order=2)
    check_grad(lambda a: special.softmax(a)[0], a[:1], order=2)
    assert special.polygamma(2, Tensor(X)).tolist() == scipy_special.polygamma(2, X).tolist()


@pytest.mark.parametrize(
    ("f", "x", "slopes"),
    [
        (scipy_special.xlogy, (0.0, 0.0), (-np.inf, 0.0)),
        (scipy_special.xlog1py, (0.0, -1.0), (-np.inf, 0.0)),
        (scipy_special.i1, (0.0,), (0.5,)),
        (scipy_special.i0e, (0.0,), (0.0,)),
        (scipy_special.log_ndtr, (-1e4,), (1e4 + 1e-4,)),
        (scipy_special.expit, (-1000.0,), (0.0,)),
        (scipy_special.log_expit, (-1000.0,), (1.0,)),
        (scipy_special.erfcx, (1e6,), (-1 / np.sqrt(np.pi) / 1e12,)),
    ],
)
def test_special_values(f, x, slopes):
    tensors = [Tensor(v, requires_grad=True) for v in x]
    f(*tensors).backward()
    np.testing.assert_allclose([t.grad.item() for t in tensors], slopes, rtol=1e-11)


CONTINUOUS = {
    "norm": (),
    "logistic": (),
    "laplace": (),
    "cauchy": (),
    "expon": (),
    "gamma": (2.5,),
    "beta": (2.5, 1.5),
    "t": (3.5,),
    "lognorm": (0.7,),
    "uniform": (),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_densities(name):
    ours, theirs, shapes = getattr(stats, name), getattr(scipy_stats, name), CONTINUOUS[name]
    x = np.array([0.35, 0.6, 0.9])
    for f in ("logpdf", "pdf", "cdf", "sf", "logcdf", "logsf", "ppf"):
        try:
            found = getattr(ours, f)(Tensor(x), *shapes, 0.1, scale=1.5)
        except NotImplementedError:
            assert f not in ("logpdf", "pdf")
            continue
        np.testing.assert_allclose(found.numpy(), getattr(theirs, f)(x, *shapes, 0.1, scale=1.5), rtol=1e-12)
        assert getattr(ours, f)(Tensor(x, np.float32), *shapes, loc=0.1).dtype == np.float32
        fixed = shapes if name == "gamma" and f in ("cdf", "sf") else ()  # differentiable in x alone
        rest = (0.1, 1.5) if fixed else (*shapes, 0.1, 1.5)
        check_grad(lambda x, *p, f=f, fixed=fixed: getattr(ours, f)(x, *fixed, *p), x, *map(np.array, rest), order=2)


@pytest.mark.parametrize(
    ("name", "x"), [("expon", -0.5), ("gamma", -1.0), ("beta", 1.5), ("uniform", -0.1), ("uniform", 1.1)]
)
def test_outside_the_support(name, x):
    ours, theirs, shapes = getattr(stats, name), getattr(scipy_stats, name), CONTINUOUS[name]
    t = Tensor(x, requires_grad=True)
    density = ours.logpdf(t, *shapes)
    density.backward()
    assert (density.item(), t.grad.item()) == (-np.inf, 0)
    if name != "beta":
        assert ours.cdf(Tensor(x), *shapes).item() == theirs.cdf(x, *shapes)


@pytest.mark.parametrize(
    ("name", "k", "parameters"),
    [("poisson", [0, 3, 7], (2.5,)), ("binom", [0, 3, 5], (5.0, 0.3)), ("bernoulli", [0, 1, 1], (0.3,))],
)
def test_probabilities(name, k, parameters):
    ours, theirs = getattr(stats, name), getattr(scipy_stats, name)
    np.testing.assert_allclose(
        ours.logpmf(k, *map(Tensor, parameters)).numpy(), theirs.logpmf(k, *parameters), rtol=1e-12
    )
    np.testing.assert_allclose(ours.pmf(np.array(k), *parameters), theirs.pmf(k, *parameters), rtol=1e-12)
    check_grad(lambda p: ours.logpmf(np.array(k), *parameters[:-1], p), np.array(parameters[-1]), order=2)
    assert ours.logpmf(k, *(Tensor(p, np.float32) for p in parameters)).dtype == np.float32
