"""Fourier transforms of Tensors: np.fft with a spectrum as two real Tensors, ``(real, imag)``.

A Tensor is real, so ``np.fft.rfft(tensor)``, whose answer is complex, is refused. What programs want in the end is real (a
filtered signal, a power spectrum, a convolution), and everything on the way is a formula of the real and the imaginary part:
a pair says so, needs no convention for the derivative by a complex number, and each part has the gradient that it looks as if
it had. The functions have np.fft's names, arguments and norms; three linear rows do the work.

>>> import numpy as np, tinygrad_scratch as tg
>>> x = tg.Tensor([0.0, 1.0, 0.0, -1.0], requires_grad=True)
>>> spectrum = tg.fft.rfft(x)
>>> np.sum(tg.fft.power(spectrum)).backward()
>>> x.grad
Tensor([ 0.,  4.,  0., -4.])
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from tinygrad_scratch.domains import reals
from tinygrad_scratch.ops.reductions import real
from tinygrad_scratch.registry import Op, linear

_TRANSPOSED = {None: "forward", "backward": "forward", "forward": "backward", "ortho": "ortho"}


class Spectrum(NamedTuple):
    """Complex numbers as two arrays or Tensors of one shape."""

    real: Any
    imag: Any


# -- the rows: a pair is the last axis, of length 2 --------------------------------------------------------------------


def _pair(z: Any, dtype: Any) -> Any:
    return np.stack([z.real, z.imag], axis=-1).astype(dtype, copy=False)


def _complex(x: Any) -> Any:
    x = x.astype(np.float32 if x.dtype.itemsize < 8 else np.float64, copy=False)
    return x[..., 0] + 1j * x[..., 1]


def _rfft(x: Any, n: int | None = None, axis: int = -1, norm: Any = None) -> Any:
    x = real(x)
    return _pair(np.fft.rfft(x, n, axis, norm), x.dtype)


def _irfft(x: Any, n: int = 1, axis: int = -1, norm: Any = None) -> Any:
    x = real(x)
    return np.fft.irfft(_complex(x), n, axis, norm).astype(x.dtype, copy=False)


def _fft(x: Any, n: int | None = None, axis: int = -1, norm: Any = None, inverse: bool = False) -> Any:
    x = real(x)
    return _pair((np.fft.ifft if inverse else np.fft.fft)(_complex(x), n, axis, norm), x.dtype)


def _fitted(x: Any, n: int, axis: int) -> Any:
    """Cut or filled with zeros to length n."""
    have = x.shape[axis]
    if have > n:
        return x[(*(slice(None),) * axis, slice(n))]
    return np.pad(x, [(0, n - have if i == axis else 0) for i in range(x.ndim)]) if have < n else x


def _weights(n: int, count: int, axis: int, x: Any, twice: float) -> Any:
    """`twice` for the frequencies that stand for their negatives too, 1 for zero and for half the sampling rate."""
    alone = np.array([k in (0, n / 2) for k in range(count)])
    return np.where(alone, 1, twice).astype(x.dtype).reshape([-1 if i == axis else 1 for i in range(x.ndim)])


def _rfft_rule(g: Any, y: Any, x: Any, n: int | None = None, axis: int = -1, norm: Any = None) -> Any:
    axis = normalize_axis_index(axis, x.ndim)
    length = x.shape[axis] if n is None else n
    weighted = g * _weights(length, g.shape[axis], axis, g, 0.5)
    return _fitted(irfft_row(weighted, n=length, axis=axis, norm=_TRANSPOSED[norm]), x.shape[axis], axis)


def _irfft_rule(g: Any, y: Any, x: Any, n: int = 1, axis: int = -1, norm: Any = None) -> Any:
    axis = normalize_axis_index(axis, x.ndim - 1)
    part = rfft_row(g, n=n, axis=axis, norm=_TRANSPOSED[norm])
    return _fitted(part * _weights(n, part.shape[axis], axis, part, 2.0), x.shape[axis], axis)


def _fft_rule(g: Any, y: Any, x: Any, n: Any = None, axis: int = -1, norm: Any = None, inverse: bool = False) -> Any:
    axis = normalize_axis_index(axis, x.ndim - 1)
    part = fft_row(g, axis=axis, norm=_TRANSPOSED[norm], inverse=not inverse)
    return _fitted(part, x.shape[axis], axis)


_rffts = reals.with_cases(
    (((6,),), {}),
    (((2, 5),), {"axis": 0}),
    (((5,),), {"n": 8, "norm": "ortho"}),
    (((2, 6),), {"n": 3, "norm": "forward"}),
)
_irffts = reals.with_cases(
    (((4, 2),), {"n": 6}),
    (((3, 2, 2),), {"n": 5, "axis": 0}),
    (((3, 2),), {"n": 7, "norm": "ortho"}),
    (((4, 2),), {"n": 4, "norm": "forward"}),
)
_ffts = reals.with_cases(
    (((4, 2),), {}),
    (((3, 2, 2),), {"axis": 0, "inverse": True}),
    (((5, 2),), {"n": 3, "norm": "ortho"}),
    (((3, 2),), {"n": 5, "norm": "forward", "inverse": True}),
)
rfft_row: Op = linear(_rfft, _rfft_rule, name="fourier_rfft", domain=_rffts)
irfft_row: Op = linear(_irfft, _irfft_rule, name="fourier_irfft", domain=_irffts)
fft_row: Op = linear(_fft, _fft_rule, name="fourier_fft", domain=_ffts)


# -- np.fft's functions ------------------------------------------------------------------------------------------------


def _array(x: Any) -> Any:
    return x if hasattr(x, "ndim") else np.asarray(x)


def _joined(x: Any) -> Any:
    """A pair as one array; of a real array, with imaginary parts 0."""
    parts = x if isinstance(x, tuple) else (x := _array(x), np.zeros_like(x))
    if len(parts) != 2:
        raise TypeError(f"a spectrum is a pair (real, imag), not {len(parts)} arrays")
    return np.stack([_array(part) for part in parts], axis=-1)


def _parted(x: Any) -> Spectrum:
    return Spectrum(x[..., 0], x[..., 1])


def _checked(x: Any, n: int | None, axis: int) -> int:
    """The axis, counted from the front."""
    if n is not None and n < 1:
        raise ValueError(f"a Fourier transform of {n} points: n must be positive")
    return normalize_axis_index(axis, x.ndim)


def rfft(x: Any, n: int | None = None, axis: int = -1, norm: str | None = None) -> Spectrum:
    """np.fft.rfft: the non-negative frequencies of a real signal."""
    x = _array(x)
    return _parted(rfft_row(x, n=n, axis=_checked(x, n, axis), norm=norm))


def irfft(spectrum: Any, n: int | None = None, axis: int = -1, norm: str | None = None) -> Any:
    """np.fft.irfft: the real signal of n points (twice the number of frequencies less two, unless told)."""
    x = _joined(spectrum)
    axis = _checked(x[..., 0], n, axis)
    return irfft_row(x, n=2 * (x.shape[axis] - 1) if n is None else n, axis=axis, norm=norm)


def fft(x: Any, n: int | None = None, axis: int = -1, norm: str | None = None) -> Spectrum:
    """np.fft.fft of a real signal or a pair."""
    x = _joined(x)
    return _parted(fft_row(x, n=n, axis=_checked(x[..., 0], n, axis), norm=norm))


def ifft(x: Any, n: int | None = None, axis: int = -1, norm: str | None = None) -> Spectrum:
    """np.fft.ifft of a real signal or a pair."""
    x = _joined(x)
    return _parted(fft_row(x, n=n, axis=_checked(x[..., 0], n, axis), norm=norm, inverse=True))


def fftn(x: Any, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: Any = None) -> Spectrum:
    """np.fft.fftn (fft2 with axes=(-2, -1)) of a real array or a pair."""
    x = _joined(x)
    for n, axis in _grid(x[..., 0], s, axes):
        x = fft_row(x, n=n, axis=axis, norm=norm)
    return _parted(x)


def ifftn(x: Any, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: Any = None) -> Spectrum:
    """np.fft.ifftn (ifft2 with axes=(-2, -1)) of a real array or a pair."""
    x = _joined(x)
    for n, axis in _grid(x[..., 0], s, axes):
        x = fft_row(x, n=n, axis=axis, norm=norm, inverse=True)
    return _parted(x)


def rfftn(x: Any, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: Any = None) -> Spectrum:
    """np.fft.rfftn (rfft2 with axes=(-2, -1)): real along the last of the axes."""
    x = _array(x)
    *others, (n, last) = _grid(x, s, axes)
    y = rfft_row(x, n=n, axis=last, norm=norm)
    for n, axis in others:
        y = fft_row(y, n=n, axis=axis, norm=norm)
    return _parted(y)


def irfftn(spectrum: Any, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: Any = None) -> Any:
    """np.fft.irfftn (irfft2 with axes=(-2, -1)): real along the last of the axes."""
    x = _joined(spectrum)
    *others, (n, last) = _grid(x[..., 0], s, axes)
    for count, axis in others:
        x = fft_row(x, n=count, axis=axis, norm=norm, inverse=True)
    return irfft_row(x, n=2 * (x.shape[last] - 1) if s is None else n, axis=last, norm=norm)


def _grid(x: Any, s: Sequence[int] | None, axes: Sequence[int] | None) -> list[tuple[int | None, int]]:
    """(points, axis) for each axis."""
    count = x.ndim if s is None else len(s)
    chosen = normalize_axis_tuple(range(x.ndim - count, x.ndim) if axes is None else axes, x.ndim)
    if s is not None and len(s) != len(chosen):
        raise ValueError(f"s, {tuple(s)}, and axes, {tuple(chosen)}, must be of equal length")
    return list(zip([None] * len(chosen) if s is None else s, chosen, strict=True))


# -- what spectra are for ----------------------------------------------------------------------------------------------


def multiply(a: Any, b: Any) -> Spectrum:
    """The product of two spectra, or of one and a real array: filtering."""
    (p, q), (r, s) = (x if isinstance(x, tuple) else (x, 0.0) for x in (a, b))
    return Spectrum(p * r - q * s, p * s + q * r)


def conjugate(spectrum: Any) -> Spectrum:
    """The spectrum of the signal reversed in time."""
    return Spectrum(spectrum[0], -spectrum[1])


def power(spectrum: Any) -> Any:
    """|z|**2."""
    return np.square(spectrum[0]) + np.square(spectrum[1])


def magnitude(spectrum: Any) -> Any:
    """|z|; its derivative at 0 is 0."""
    return np.hypot(spectrum[0], spectrum[1])


def phase(spectrum: Any) -> Any:
    """The angle of z, between -pi and pi."""
    return np.arctan2(spectrum[1], spectrum[0])


def convolve(a: Any, b: Any, mode: str = "full", axis: int = -1) -> Any:
    """np.convolve along one axis, by Fourier transforms: for long signals. The other axes broadcast.

    mode: "full" (m + n - 1 elements), "same" (max(m, n)) or "valid" (where they overlap completely).

    >>> convolve(np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0])).round(12)
    array([0., 1., 2., 3.])
    """
    a, b = np.moveaxis(_array(a), axis, -1), np.moveaxis(_array(b), axis, -1)
    m, n = a.shape[-1], b.shape[-1]
    full = m + n - 1
    sizes = {"full": full, "same": max(m, n), "valid": max(m, n) - min(m, n) + 1}
    if mode not in sizes:
        raise ValueError(f"convolve(mode={mode!r}): use 'full', 'same' or 'valid'")
    start = (full - sizes[mode]) // 2
    y = irfft(multiply(rfft(a, full), rfft(b, full)), full)
    return np.moveaxis(y[..., start : start + sizes[mode]], -1, axis)
