"""The NumPy functions of ops/functions: NumPy is the oracle of values, differences that of gradients, eager that of capture."""

from functools import wraps

import numpy as np
import pytest
from capturing import arrays_of, assert_same, compiled_steps  # noqa: F401
from function_forms import CONSTANT, FORMS

import tinygrad_scratch as tg
from tinygrad_scratch import Tensor, protocols, registry
from tinygrad_scratch.errors import CaptureError
from tinygrad_scratch.testing import check_grad

registry.load_all()
CASES = [
    pytest.param(f, arrays, id=f"{function.__name__}-{i}")
    for function, forms in FORMS.items()
    for i, (f, arrays) in enumerate(forms)
]


@pytest.mark.parametrize(("f", "arrays"), [case for case in CASES if len(case.values[1]) > 1])
def test_arrays_mix_with_tensors(f, arrays):
    """One Tensor among arrays: its gradient is that which it has among Tensors, or it is refused."""
    together = [Tensor(a, requires_grad=True) for a in arrays]
    answer = f(*together)
    cotangent = np.ones(answer.shape)
    gradients = tg.gradients(answer, together, cotangent)
    for i, expected in enumerate(gradients):
        mixed = [Tensor(a, requires_grad=True) if i == j else a for j, a in enumerate(arrays)]
        try:
            alone = f(*mixed)
        except TypeError:  # NumPy does not ask this argument, and its own function is refused an array
            continue
        assert isinstance(alone, Tensor)
        np.testing.assert_allclose(alone.numpy(), answer.numpy(), rtol=1e-13)
        if alone.requires_grad:
            (found,) = tg.gradients(alone, [mixed[i]], cotangent)
            np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-12, atol=1e-14)
        else:
            assert not expected.numpy().any()


READING = {
    "trim_zeros", "extract", "piecewise", "unique", "unique_all", "union1d", "histogram", "polyadd", "polydiv", "polyfit",  # shapes
    "quantile", "nanmedian", "nanquantile",  # places that depend on how many elements are numbers, or on weights
}  # fmt: skip
"""Functions whose forms may have to read values, which a captured step refuses."""


@pytest.mark.parametrize(("f", "arrays"), CASES)
def test_value_is_numpys(f, arrays):
    expected = np.asarray(f(*arrays))
    answer = f(*map(Tensor, arrays))
    assert isinstance(answer, Tensor)
    assert answer.dtype == expected.dtype
    np.testing.assert_allclose(answer.numpy(), expected, rtol=1e-12, atol=1e-13)
    assert answer.shape == expected.shape


@pytest.mark.parametrize(("f", "arrays"), CASES)
def test_float32_stays_float32(f, arrays):
    narrow = [np.asarray(a, np.float32) for a in arrays]
    tensors = [Tensor(a, requires_grad=True) for a in narrow]
    expected, answer = np.asarray(f(*narrow)), f(*tensors)
    assert answer.dtype in (expected.dtype, np.float32)  # also where NumPy's own function widens it
    if answer.requires_grad:
        found = tg.gradients(answer, tensors, np.ones(answer.shape, answer.dtype))
        assert all(g.dtype == np.float32 for g in found)


@pytest.mark.parametrize(("f", "arrays"), CASES)
def test_gradients_are_derivatives(f, arrays):
    def of_finite(*tensors):
        return f(*(np.where(np.isnan(a), np.nan, t) for a, t in zip(arrays, tensors, strict=True)))

    check_grad(of_finite, *(np.nan_to_num(a) for a in arrays), order=2)


@pytest.mark.parametrize(("f", "arrays"), CASES)
def test_captured_is_eager_or_refused(f, arrays, request):
    """What a captured step gives is never frozen: new inputs give new answers, or reading a value is refused."""

    def step(*inputs):
        variables = [
            Tensor(x, requires_grad=True) if isinstance(x, np.ndarray) else x.detach().requires_grad_() for x in inputs
        ]
        answer = f(*variables)
        return [answer, *tg.gradients(np.sum(answer * answer), variables)] if answer.requires_grad else [answer]

    captured = tg.capture(step, backend="numpy", rewrites=False)
    for seed in range(4):
        inputs = [np.asarray(a + 0.01 * seed * np.cos(np.arange(a.size) * seed).reshape(a.shape)) for a in arrays]
        try:
            found = captured(*inputs)
        except CaptureError:
            assert request.node.callspec.id.rpartition("-")[0] in READING
            return
        assert_same(arrays_of(found), arrays_of(step(*inputs)), 1e-12, f"call {seed}")


@pytest.mark.parametrize(("f", "x"), CONSTANT)
def test_answers_without_a_derivative(f, x):
    expected, answer = f(x), f(Tensor(x, requires_grad=x.dtype.kind == "f"))
    for a, b in zip(*((y if isinstance(y, tuple) else (y,)) for y in (answer, expected)), strict=True):
        if isinstance(b, np.ndarray):
            assert isinstance(a, Tensor)
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a.numpy(), b)
        else:
            assert a == b
        if getattr(a, "requires_grad", False):
            a.backward(np.ones(a.shape))


def test_methods_take_the_options_of_functions():
    t, x = Tensor(FORMS[np.sort][0][1][0], requires_grad=True), FORMS[np.sort][0][1][0]
    positive = x > 0
    for found, expected in (
        (t.sum(axis=1, where=positive), x.sum(axis=1, where=positive)),
        (t.max(initial=0.2, axis=0), x.max(initial=0.2, axis=0)),
        (t.mean(dtype=np.float32), x.mean(dtype=np.float32)),
        (t.var(correction=1), np.var(x, correction=1)),
        (t.round(2), x.round(2)),
        (t.cumprod(axis=1), x.cumprod(axis=1)),
        (t.conj(), x),
        (t.nonzero()[0], x.nonzero()[0]),
        (Tensor([0, 1, 1, 0]).choose(t[:2]), np.choose([0, 1, 1, 0], x[:2])),
    ):
        np.testing.assert_allclose(found.numpy(), expected)
    with pytest.raises(TypeError, match="an array cannot hold a graph"):
        t.sum(axis=0, out=np.zeros(4))
    with pytest.raises(TypeError):
        t.exp(where=positive)


def test_every_composition_is_called(monkeypatch):
    """The tables of forms leave out no function that is answered by a composition, or by its values."""
    seen = set()

    def watched(function, answer):
        @wraps(answer)
        def run(*args, **options):
            seen.add(function)
            return answer(*args, **options)

        return run

    class Watched(set):
        def __contains__(self, function):
            seen.add(function)
            return super().__contains__(function)

    expected = set(registry.VALUES)
    for table in (registry.ANSWERS, registry.MORE):
        for function, answer in list(table.items()):
            if getattr(answer, "__module__", "").startswith("tinygrad_scratch.ops.functions"):
                monkeypatch.setitem(table, function, watched(function, answer))
                expected.add(function)
    monkeypatch.setattr(protocols, "VALUES", Watched(registry.VALUES))
    for forms in FORMS.values():
        for f, arrays in forms:
            f(*map(Tensor, arrays))
    for f, x in CONSTANT:
        f(Tensor(x))
    left = sorted(f.__name__ for f in expected - seen)
    assert not left, " ".join(left)
