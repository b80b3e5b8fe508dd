"""Everyday calls of NumPy, section by section of its reference's index of routines: what `benchmarks coverage` tries.

Each line is an expression of `np` and of the operands below; it gives one array, and is differentiated by every operand of
floating point that it names.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_RNG = np.random.default_rng(0)
_FACTOR = _RNG.standard_normal((3, 3))

VARIABLES: dict[str, Any] = {
    "x": _RNG.standard_normal((3, 4)),
    "y": _RNG.standard_normal((3, 4)) + 0.05,
    "v": _RNG.standard_normal(4),
    "w": _RNG.standard_normal(4) + 3,
    "p": _RNG.uniform(0.3, 2.0, (3, 4)),
    "u": _RNG.uniform(-0.8, 0.8, (3, 4)),
    "b": _RNG.standard_normal((2, 3, 4)),
    "a": _FACTOR + 3 * np.eye(3),
    "s": _FACTOR @ _FACTOR.T + 2 * np.eye(3),
    "t": np.array(0.7),
}
"""Operands that are differentiated: x, y matrices, v, w vectors, p positive, u in (-1, 1), b a stack, a, s square, t 0-d."""

CONSTANTS: dict[str, Any] = {
    "mask": np.array([[True, False, True, True], [False, False, True, False], [True, True, False, True]]),
    "i": np.array([0, 2, 2, 1]),
    "k": np.array([[0, 1, 2, 1], [2, 2, 0, 0], [1, 0, 1, 2]]),
    "nodes": np.array([-3.0, -1.1, 0.21, 1.3, 3.1]),
    "hole": np.array([[0.0, np.nan, 0.0, 0.0], [0.0, 0.0, 0.0, np.nan], [0.0, 0.0, 0.0, 0.0]]),
}
"""Operands that are not: a mask, indices, coordinates in order, zeros with a NaN here and there."""

SECTIONS = {
    "arithmetic and elements": """
        np.add(x, y) | np.subtract(x, 2.0) | np.multiply(x, v) | np.divide(x, p) | np.power(p, x) | np.float_power(p, 2)
        np.negative(x) | np.positive(x) | np.reciprocal(p) | np.floor_divide(p, 0.7) | np.remainder(p, 0.7) | np.fmod(x, 0.7)
        np.divmod(p, 0.7)[1] | np.modf(x)[0] | np.exp(x) | np.expm1(x) | np.exp2(x) | np.log(p) | np.log10(p) | np.log2(p)
        np.log1p(p) | np.logaddexp(x, y) | np.logaddexp2(x, y) | np.sin(x) | np.cos(x) | np.tan(u) | np.arcsin(u)
        np.arccos(u) | np.arctan(x) | np.hypot(x, y) | np.arctan2(x, y) | np.degrees(x) | np.radians(x) | np.deg2rad(x)
        np.sinh(x) | np.cosh(x) | np.tanh(x) | np.arcsinh(x) | np.arccosh(p + 1) | np.arctanh(u) | np.sqrt(p) | np.cbrt(p)
        np.square(x) | np.absolute(x) | np.fabs(x) | np.sign(x) | np.maximum(x, y) | np.minimum(x, 0.1) | np.fmax(x, y)
        np.fmin(x, y) | np.clip(x, -0.5, 0.5) | np.nan_to_num(x) | np.sinc(x) | np.i0(x) | np.copysign(x, y)
        np.heaviside(x, 0.5) | np.ldexp(x, 2) | np.frexp(x)[0] | np.real(x) | np.conj(x) | np.unwrap(3 * v)
        np.round(x, 1) | np.rint(x) | np.fix(x) | np.floor(x) | np.ceil(x) | np.trunc(x)
        np.where(mask, x, y) | np.where(x > 0, x, 0.0)""",
    "reductions and scans": """
        np.sum(x) | np.sum(x, axis=0, keepdims=True) | np.prod(x, axis=1) | np.mean(x, axis=(0, 1)) | np.std(x, axis=0)
        np.var(x, ddof=1) | np.max(x, axis=1) | np.min(x) | np.ptp(x, axis=0) | np.median(x, axis=1)
        np.percentile(x, 30) | np.quantile(x, [0.1, 0.6], axis=0) | np.average(x, axis=1, weights=w) | np.cov(x)
        np.corrcoef(x) | np.nansum(x + hole) | np.nanprod(x + hole, axis=0) | np.nanmean(x + hole, axis=1)
        np.nanvar(x + hole) | np.nanstd(x + hole, axis=0) | np.nanmax(x + hole, axis=0) | np.nanmin(x + hole)
        np.nanmedian(x + hole, axis=1) | np.nanquantile(x + hole, 0.3) | np.cumsum(x, axis=1) | np.cumprod(x, axis=0)
        np.nancumsum(x + hole) | np.cumulative_sum(x, axis=0) | np.cumulative_prod(v) | np.diff(x) | np.diff(v, n=2)
        np.ediff1d(v) | np.gradient(v) | np.gradient(x, axis=0) | np.trapezoid(x, axis=0) | np.sum(x, where=mask)
        np.max(x, initial=0.3, where=mask) | np.add.reduce(x) | np.multiply.reduce(x, axis=1)
        np.maximum.reduce(x) | np.logaddexp.reduce(x) | np.add.accumulate(x) | np.multiply.accumulate(x, axis=1)
        np.add.reduceat(v, [0, 2]) | np.multiply.outer(v, w) | np.bincount(i, weights=v)
        np.histogram(v, bins=nodes, weights=w)[0]""",
    "shapes, joining, splitting": """
        np.reshape(x, (4, 3)) | np.ravel(x) | np.transpose(b, (2, 0, 1)) | np.swapaxes(b, 0, 2) | np.moveaxis(b, 0, -1)
        np.rollaxis(b, 2) | np.expand_dims(x, 1) | np.squeeze(x[None]) | np.broadcast_to(v, (3, 4))
        np.broadcast_arrays(v, x)[0] | np.atleast_1d(t) | np.atleast_2d(v) | np.atleast_3d(x) | np.concatenate([x, y])
        np.concat([x, y], axis=1) | np.stack([x, y], axis=1) | np.vstack([x, v]) | np.hstack([x, y]) | np.dstack([x, y])
        np.column_stack([v, w]) | np.block([[x, y], [y, x]]) | np.append(x, v) | np.insert(v, 1, t) | np.delete(x, 1, axis=0)
        np.split(x, 2, axis=1)[1] | np.array_split(v, 3)[0] | np.hsplit(x, 2)[0] | np.vsplit(x, 3)[1] | np.dsplit(b, 2)[0]
        np.unstack(x)[1] | np.tile(x, (2, 1)) | np.repeat(x, 2, axis=1) | np.flip(x) | np.fliplr(x) | np.flipud(x) | np.rot90(x)
        np.roll(x, 1, axis=0) | np.pad(x, 1) | np.pad(v, 2, mode="reflect") | np.resize(v, (2, 3)) | np.trim_zeros(v)
        np.meshgrid(v, w)[0] | np.linspace(t, 2.0, 5) | np.logspace(t, 2.0, 3) | np.geomspace(t, 5.0, 4) | np.copy(x)
        np.full_like(x, 2.0) + x | np.astype(x, np.float64) | np.permute_dims(b, (1, 0, 2)) | np.matrix_transpose(b)
        np.diag(v) | np.diag(a) | np.diagflat(v) | np.diagonal(a) | np.tril(x) | np.triu(x, 1) | np.vander(v, 3)
        np.lib.stride_tricks.sliding_window_view(v, 2)""",
    "indexing, choosing, sorting": """
        x[1] | x[:, ::-1] | x[i] | x[mask] | x[..., None] | np.take(x, i, axis=0) | np.take_along_axis(x, k, axis=0)
        np.choose(k, [x, y, p]) | np.compress([True, False, True], x, axis=0) | np.extract(mask, x)
        np.select([x > 0.5, x > -0.5], [x, 2 * y], 0.0) | np.piecewise(x, [x < 0, x >= 0], [lambda z: -z, lambda z: z * z])
        np.sort(x) | np.sort(x, axis=None) | x[0][np.argsort(v)] | np.partition(v, 2)[2] | np.unique(v)
        np.union1d(v, w) | np.apply_along_axis(np.sum, 0, x) | np.argmax(x, axis=1) * t | np.interp(x, nodes, w[0] * nodes**2)
        np.interp(0.4, nodes, np.concatenate([v, w[:1]])) | np.count_nonzero(x > 0) * t""",
    "products and linear algebra": """
        np.dot(x, v) | np.vdot(v, w) | np.inner(x, y) | np.outer(v, w) | np.matmul(x, y.T) | x @ v | np.tensordot(x, y)
        np.vecdot(x, y) | np.matvec(b, v) | np.einsum("ij,kj->ik", x, y) | np.einsum("ii->i", a) | np.einsum("...j,j", b, v)
        np.kron(v, a) | np.cross(a, s) | np.trace(a) | np.convolve(v, w) | np.convolve(v, w, mode="same")
        np.correlate(v, w[:2]) | np.linalg.inv(a) | np.linalg.det(a) | np.linalg.slogdet(a)[1] | np.linalg.solve(a, s)
        np.linalg.lstsq(x.T, v)[0] | np.linalg.cholesky(s @ s.T) | np.linalg.qr(a)[1] | np.linalg.svd(a)[1]
        np.linalg.svdvals(x) | np.linalg.eigh(s + s.T)[0] | np.linalg.eigvalsh(s + s.T) | np.linalg.pinv(x) | np.linalg.norm(x)
        np.linalg.norm(x, axis=1) | np.linalg.norm(a, 2) | np.linalg.vector_norm(x, axis=0) | np.linalg.matrix_norm(a)
        np.linalg.matrix_power(a, 3) | np.linalg.multi_dot([x, y.T, a]) | np.linalg.cond(a) | np.linalg.tensorinv(a, ind=1)
        np.linalg.tensorsolve(a, v[:3])""",
    "polynomials": """
        np.polyval(v, x) | np.polyadd(v, w) | np.polysub(v, w) | np.polymul(v, w) | np.polydiv(v, w[:2])[0] | np.polyder(v)
        np.polyint(v) | np.poly(v) | np.polyfit(nodes[:4], v, 2) | np.roots(v[:2])""",
    "complex intermediates": """
        np.abs(np.fft.rfft(v)) | np.fft.irfft(np.fft.rfft(v) * 2) | np.abs(np.fft.fft(v)) ** 2 | np.fft.fftshift(v)
        np.linalg.eigvals(a).real""",
}

CALLS: dict[str, list[str]] = {
    section: [call.strip() for line in text.strip().split("\n") for call in line.split("|")]
    for section, text in SECTIONS.items()
}
