"""Fourier transforms with spectra as pairs: values beside np.fft, the rows as all rows are tested, what spectra are for."""

import numpy as np
import pytest

import tinygrad_scratch as tg
from tinygrad_scratch import Tensor, fft
from tinygrad_scratch.errors import NotDifferentiableError
from tinygrad_scratch.testing import check_grad, check_op

X = np.random.default_rng(0).standard_normal((3, 4, 5))
Z = X[0] + 1j * X[1]
ROWS = [name for name in tg.OPS if name.startswith("fourier_")]


def pair(z):
    return fft.Spectrum(Tensor(z.real), Tensor(z.imag))


def whole(answer):
    return answer.real.numpy() + 1j * answer.imag.numpy() if isinstance(answer, tuple) else answer.numpy()


@pytest.mark.parametrize("row", ROWS)
def test_every_promise_of_rows_holds(row):
    for seed in range(2):
        check_op(tg.OPS[row], seed)


@pytest.mark.parametrize("norm", [None, "backward", "ortho", "forward"])
def test_values_are_numpys(norm):
    for n, axis in ((None, -1), (3, 0), (7, 1), (6, -2)):
        for name in ("rfft", "fft", "ifft"):
            expected = getattr(np.fft, name)(X, n, axis, norm)
            np.testing.assert_allclose(whole(getattr(fft, name)(Tensor(X), n, axis, norm)), expected, atol=1e-12)
        axis = axis if axis == -1 else 0
        for name in ("fft", "ifft", "irfft"):
            expected = getattr(np.fft, name)(Z, n, axis, norm)
            np.testing.assert_allclose(whole(getattr(fft, name)(pair(Z), n, axis, norm)), expected, atol=1e-12)
    for s, axes in ((None, None), (None, (0, 2)), ((2, 6), (1, -1))):
        for name in ("fftn", "ifftn", "rfftn"):
            expected = getattr(np.fft, name)(X, s, axes, norm)
            np.testing.assert_allclose(whole(getattr(fft, name)(Tensor(X), s, axes, norm)), expected, atol=1e-12)
    for s, axes in ((None, None), ((3, 7), (1, 0))):
        for name in ("fftn", "ifftn", "irfftn"):
            expected = getattr(np.fft, name)(Z, s, axes, norm)
            np.testing.assert_allclose(whole(getattr(fft, name)(pair(Z), s, axes, norm)), expected, atol=1e-12)


def test_there_and_back_keeps_signal_dtype_and_gradient():
    t = Tensor(X.astype(np.float32), requires_grad=True)
    back = fft.irfftn(fft.rfftn(t), s=X.shape)
    assert back.dtype == np.float32
    np.testing.assert_allclose(back.numpy(), X, atol=1e-6)
    back.backward(X)
    np.testing.assert_allclose(t.grad.numpy(), X, atol=1e-6)


def test_real_functions_of_spectra_differentiate():
    x, h = X[0, 0], X[1, 1]
    check_grad(lambda x: fft.power(fft.rfft(x)), x, order=2)
    check_grad(lambda x: fft.magnitude(fft.fft(x, 8)), x, order=2)
    check_grad(lambda x: fft.phase(fft.rfft(x)), x, order=2)
    check_grad(lambda x, h: fft.irfft(fft.multiply(fft.rfft(x), fft.conjugate(fft.rfft(h))), 5), x, h, order=2)
    check_grad(lambda x, w: fft.irfft(fft.multiply(fft.rfft(x), w), 5), x, h[:3], order=2)
    assert np.sum(fft.power(fft.fft(x, norm="ortho"))) == pytest.approx(np.sum(x * x))  # Parseval
    assert not tg.grad(lambda x: np.sum(fft.magnitude(fft.rfft(x))))(np.zeros(4)).any()


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize(("m", "n"), [(9, 4), (4, 9), (5, 5), (1, 3)])
def test_convolution(mode, m, n):
    rng = np.random.default_rng(m)
    a, b = rng.standard_normal(m), rng.standard_normal(n)
    np.testing.assert_allclose(fft.convolve(Tensor(a), b, mode).numpy(), np.convolve(a, b, mode), atol=1e-12)
    check_grad(lambda a, b: fft.convolve(a, b, mode), a, b)
    rows = fft.convolve(np.stack([a, 2 * a]), b[None], mode)
    np.testing.assert_allclose(rows[1], 2 * rows[0], atol=1e-12)


def test_captured():
    def step(x):
        x = tg.as_tensor(x).detach().requires_grad_()
        y = np.sum(fft.power(fft.rfft(x)) * np.arange(3.0)) + np.sum(fft.convolve(x, np.ones(3)) ** 3)
        return y, *tg.gradients(y, [x])

    captured = tg.capture(step, backend="numpy")
    for x in X[0]:
        for found, expected in zip(captured(x), step(x), strict=True):
            np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-12)
    assert [plan.calls for plan in captured.plans] == [2]


def test_shifts():
    for f in (np.fft.fftshift, np.fft.ifftshift):
        for axes in (None, 1, (0, -1)):
            np.testing.assert_array_equal(f(Tensor(X), axes).numpy(), f(X, axes))
        check_grad(lambda x, f=f: f(x, axes=0), X[0])


def test_refusals_say_where_to_go():
    t = Tensor(X, requires_grad=True)
    for name in ("fft", "rfft", "ifft", "fft2", "rfftn"):
        with pytest.raises(NotDifferentiableError, match=r"complex numbers .* tg\.fft"):
            getattr(np.fft, name)(t)
    for call, message in (
        (lambda: fft.rfft(t, 0), "n must be positive"),
        (lambda: fft.fftn(t, (2, 2), (0,)), "equal length"),
        (lambda: fft.convolve(t, t, "most"), "use 'full', 'same' or 'valid'"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match=r"a pair \(real, imag\), not 3"):
        fft.irfft((t, t, t))
