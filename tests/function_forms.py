"""What tests call of NumPy: for each function that is a composition, some forms, each (a function of arrays, the arrays).

The first table holds functions with a derivative, the second those whose answers have none.
"""
# ruff: noqa: E501  (one function a line, however wide)

import numpy as np

RNG = np.random.default_rng(0)
V, W, M, B = RNG.standard_normal(4), RNG.standard_normal(4), RNG.standard_normal((3, 4)), RNG.standard_normal((2, 3, 4))
V3, Q = RNG.standard_normal(3), RNG.standard_normal((3, 3))
P = np.abs(M) + 0.3  # positive
S = np.array(0.7)
N = M.copy()
N[0, 1] = N[2, 3] = N[1, 1] = np.nan
GAPS = np.array([0.0, 0.0, 1.5, -2.0, 0.0])
MASK = np.array([[True, False, True, True], [False, False, True, False], [True, True, True, True]])
NODES = np.array([-2.0, -0.5, 0.3, 1.1, 2.5])
PICK = np.array([[0, 1, 2, 1], [2, 2, 0, 0], [1, 0, 1, 2]])
swv = np.lib.stride_tricks.sliding_window_view
METHODS = (
    "inverted_cdf averaged_inverted_cdf closest_observation interpolated_inverted_cdf hazen weibull linear "
    "median_unbiased normal_unbiased lower higher midpoint nearest"
).split()

# fmt: off
FORMS = {
    # ufuncs and functions of elements
    np.conjugate: [(np.conj, (M,)), (np.real, (M,)), (np.real_if_close, (M,)), (np.conjugate, (S,))],
    np.degrees: [(np.degrees, (M,)), (np.rad2deg, (S,)), (np.radians, (M,)), (np.deg2rad, (V,))],
    np.fabs: [(np.fabs, (M,)), (np.float_power, (P, V)), (lambda x: np.float_power(x, 2), (P,))],
    np.divmod: [(lambda a: np.divmod(a, 1.3)[1], (M,)), (lambda a, b: np.divmod(a, b)[1], (M, V + 4))],
    np.modf: [(lambda x: np.modf(x)[0], (M,))],
    np.frexp: [(lambda x: np.frexp(x)[0], (M,))],
    np.fmax: [(np.fmax, (M, V)), (lambda x: np.fmax(x, 0.1), (M,)), (np.fmin, (M, V)), (np.fmax.outer, (V, V3))],
    np.logaddexp2: [(np.logaddexp2, (M, V)), (lambda x: np.logaddexp2(x, 1.5), (V,))],
    np.vdot: [(np.vdot, (M, M + 1))],
    np.matvec: [(np.matvec, (B, V)), (np.vecmat, (V3, B)), (np.matvec, (M, V))],
    np.sinc: [(np.sinc, (M,)), (np.sinc, (np.array([0.0, 0.25, -0.49, 0.75, 1e-9]),))],
    np.i0: [(np.i0, (3 * M,))],
    np.nan_to_num: [(np.nan_to_num, (M,)), (lambda x: np.nan_to_num(x, nan=2.0, posinf=1.0, neginf=0.0), (V,))],
    np.unwrap: [(np.unwrap, (5 * V,)), (lambda x: np.unwrap(x, axis=0, period=2.0), (3 * M,))],
    np.full_like: [(lambda x: np.full_like(x, 2.0) + x, (M,)), (lambda a, x: np.full_like(a, x) + a, (M, S)), (lambda a, x: np.full_like(a, x, shape=(2, 4)) + np.sum(a), (M, V))],
    np.copysign: [(np.copysign, (M, V))], np.fmod: [(np.fmod, (M, V + 4))], np.heaviside: [(np.heaviside, (M, V)), (lambda h: np.heaviside([0.0, 1.0, -1.0, 0.0], h), (V,))], np.ldexp: [(lambda x: np.ldexp(x, [1, 2, -1, 0]), (M,))],
    np.exp: [(lambda x: np.add(x, 1, dtype=np.float64), (M,))],
    # methods of ufuncs
    np.ufunc.reduce: [
        (np.logaddexp.reduce, (M,)), (lambda x: np.logaddexp.reduce(x, axis=(0, 1)), (M,)), (lambda x: np.hypot.reduce(x, axis=1), (P,)), (lambda x: np.subtract.reduce(x, axis=-1), (M,)),
        (lambda x: np.divide.reduce(x, axis=0, keepdims=True), (P,)), (lambda x: np.logaddexp.reduce(x, axis=1, where=MASK, initial=0.5), (M,)),
        (lambda x: np.logaddexp2.reduce(x, axis=0), (M,)), (lambda x: np.fmax.reduce(x, axis=None), (M,)), (lambda x: np.add.reduce(x, 1, where=MASK, initial=2.0), (M,)),
        (lambda x: np.multiply.reduce(x, axis=1, where=MASK), (M,)), (lambda x: np.maximum.reduce(x, axis=0, initial=0.3), (M,)), (lambda x: np.minimum.reduce(x, axis=0, initial=9.0, where=MASK), (M,)),
        (lambda x: np.hypot.reduce(x, axis=1, where=MASK), (P,)), (lambda x: np.logaddexp.reduce(x, axis=1, keepdims=True), (M,)),
    ],
    np.ufunc.accumulate: [
        (np.multiply.accumulate, (M,)), (lambda x: np.maximum.accumulate(x, axis=1), (M,)), (lambda x: np.logaddexp.accumulate(x, axis=-1), (M,)), (np.subtract.accumulate, (V,)), (lambda x: np.divide.accumulate(x, axis=1), (P,)),
    ],
    np.ufunc.reduceat: [(lambda x: np.add.reduceat(x, [0, 2, 1]), (V,)), (lambda x: np.maximum.reduceat(x, [0, 1], axis=1), (M,)), (lambda x: np.multiply.reduceat(x, [1, 1, 0]), (M,))],
    np.ufunc.outer: [(np.logaddexp2.outer, (V, V3)), (lambda x: np.copysign.outer(x, [1.0, -1.0]), (V,))],
    # moving elements
    np.rot90: [(np.rot90, (M,)), (lambda x: np.rot90(x, 2), (M,)), (lambda x: np.rot90(x, -1, axes=(1, 2)), (B,))],
    np.fft.fftshift: [(np.fft.fftshift, (M,)), (lambda x: np.fft.ifftshift(x, axes=1), (M,))],
    np.rollaxis: [(lambda x: np.rollaxis(x, 2), (B,)), (lambda x: np.rollaxis(x, 0, 2), (B,))],
    np.unstack: [(lambda x: np.unstack(x)[1], (M,)), (lambda x: np.unstack(x, axis=1)[2], (M,))],
    np.resize: [(lambda x: np.resize(x, (2, 5)), (M,)), (lambda x: np.resize(x, 7), (V,))],
    swv: [(lambda x: swv(x, 3), (V,)), (lambda x: swv(x, (2, 2)), (M,)), (lambda x: swv(x, 2, axis=1), (M,))],
    np.diag: [(np.diag, (V,)), (lambda x: np.diag(x, 1), (V,)), (np.diag, (M,)), (lambda x: np.diag(x, -1), (M,)), (np.diagflat, (M,)), (lambda x: np.diagflat(x, 1), (V,))],
    np.fliplr: [(np.fliplr, (M,)), (np.flipud, (M,)), (np.flipud, (V,))],
    np.tril: [(np.tril, (Q,)), (lambda x: np.tril(x, -1), (B,)), (np.triu, (M,)), (lambda x: np.triu(x, 1), (Q,)), (np.triu, (V3,))],
    np.atleast_3d: [(np.atleast_3d, (S,)), (np.atleast_3d, (V,)), (np.atleast_3d, (M,)), (np.atleast_3d, (B,))],
    np.vsplit: [(lambda x: np.vsplit(x, 3)[1], (M,)), (lambda x: np.hsplit(x, [1])[1], (M,)), (lambda x: np.hsplit(x, 2)[0], (V,)), (lambda x: np.dsplit(x, 2)[1], (B,))],
    np.delete: [(lambda x: np.delete(x, 1), (V,)), (lambda x: np.delete(x, [0, 2], axis=1), (M,)), (lambda x: np.delete(x, slice(None, None, 2), 0), (M,)), (lambda x: np.delete(x, -1), (M,))],
    np.trim_zeros: [(lambda x: np.trim_zeros(x * (GAPS != 0)), (np.ones(5),)), (lambda x: np.trim_zeros(x * (GAPS != 0), "f"), (np.ones(5),)), (lambda x: np.trim_zeros(x * (GAPS != 0), "b"), (np.ones(5),))],
    np.broadcast_arrays: [(lambda a, b: np.broadcast_arrays(a, b)[0], (V, M)), (lambda a, b: np.broadcast_arrays(a, b)[1], (V, M))],
    np.meshgrid: [(lambda a, b: np.meshgrid(a, b)[0], (V, V3)), (lambda a, b: np.meshgrid(a, b, indexing="ij")[1], (V, V3)), (lambda a, b: np.meshgrid(a, b, sparse=True)[1], (V, V3))],
    # joining
    np.append: [(np.append, (V, M)), (lambda a, b: np.append(a, b, axis=0), (M, M)), (lambda a: np.append([1.0], a), (V,))],
    np.block: [(lambda a, b: np.block([[a, b], [b, a]]), (Q, 2 * Q)), (lambda a: np.block([a, 1.0, a]), (V,)), (lambda a: np.block([[a, np.zeros((3, 1))]]), (M,))],
    np.column_stack: [(lambda a, b: np.column_stack([a, b]), (V3, M)), (lambda a, b: np.column_stack([a, b]), (V, W))],
    np.dstack: [(lambda a, b: np.dstack([a, b]), (M, M + 1)), (lambda a: np.dstack([a, [1, 2, 3, 4]]), (V,))],
    np.insert: [(lambda a: np.insert(a, 1, 9.0), (V,)), (lambda a, b: np.insert(a, 2, b, axis=1), (M, V3)), (lambda a, b: np.insert(a, [0, 2], b, axis=0), (M, V)), (lambda a, b: np.insert(a, [1, 3, 3], b), (V, V3)), (lambda a: np.insert(V, slice(1, 3), a), (S,))],
    np.concatenate: [(lambda a, b: np.concatenate([a, b], dtype=np.float64), (M, M))],
    # selecting
    np.choose: [(lambda a, b, c: np.choose(PICK, [a, b, c]), (M, V, S)), (lambda a, b: np.choose([0, 1, 3, 5], [a, b], mode="wrap"), (V, W)), (lambda a, b: np.choose([0, 1, 3, -5], [a, b], mode="clip"), (M, W))],
    np.select: [(lambda x: np.select([x > 1, x > 0], [x**2, 3 * x], -1.0), (M,)), (lambda a, b: np.select([MASK], [a], b), (M, V))],
    np.compress: [(lambda x: np.compress([True, False, True], x, axis=0), (M,)), (lambda x: np.compress([0, 1, 1], x), (M,))],
    np.extract: [(lambda x: np.extract(MASK, x), (M,)), (lambda x: np.extract(x > 0, x), (M,))],
    np.piecewise: [(lambda x: np.piecewise(x, [x < 0, x >= 0], [lambda v: -2 * v, np.sqrt]), (M,)), (lambda x: np.piecewise(x, [x > 0.5], [np.exp, 1.5]), (V,)), (lambda x: np.piecewise(x, x > 0.5, [np.exp, np.sin]), (V,))],
    np.take: [(lambda x: np.take(x, [0, 9, -3], mode="wrap"), (V,)), (lambda x: np.take(x, [0, 9, -3], axis=1, mode="clip"), (M,))],
    # sorting and order statistics
    np.sort: [(np.sort, (M,)), (lambda x: np.sort(x, axis=0), (M,)), (lambda x: np.sort(x, axis=None, kind="stable"), (M,))],
    np.partition: [(lambda x: np.partition(x, 2)[..., 2], (M,)), (lambda x: np.partition(x, [0, 1], axis=0)[1], (M,)), (lambda x: np.partition(x, 5, axis=None)[5], (M,))],
    np.median: [(np.median, (M,)), (lambda x: np.median(x, axis=0), (M,)), (lambda x: np.median(x, axis=(0, 2), keepdims=True), (B,)), (np.median, (V3,))],
    np.nanmedian: [(np.nanmedian, (N,)), (lambda x: np.nanmedian(x, axis=1), (N,)), (lambda x: np.nanmedian(x, axis=0, keepdims=True), (N,))],
    np.quantile: [
        *((lambda x, m=m: np.quantile(x, [0.1, 0.5, 0.77, 1.0], method=m), (np.append(M, 0.2),)) for m in METHODS), (lambda x: np.quantile(x, 0.3, axis=1), (M,)), (lambda x: np.quantile(x, [[0, 0.9]], axis=(0, 1), keepdims=True), (B,)),
        (lambda x: np.quantile(x, 0.4, weights=P, method="inverted_cdf"), (M,)), (lambda x: np.quantile(x, [0.2, 0.7], axis=1, weights=P[0], method="inverted_cdf"), (M,)),
    ],
    np.percentile: [(lambda x: np.percentile(x, 30), (M,)), (lambda x: np.percentile(x, [5, 95], axis=0, method="weibull"), (M,))],
    np.nanquantile: [(lambda x: np.nanquantile(x, [0.2, 0.6], axis=1), (N,)), (lambda x: np.nanquantile(x, 0.4, method="lower"), (N,)), (lambda x: np.nanpercentile(x, 25, axis=0), (N,))],
    np.unique: [(np.unique, (M,)), (lambda x: np.unique(x, return_counts=True)[0], (V,)), (lambda x: np.unique(x, axis=0), (M,)), (lambda x: np.sort(np.unique_values(x)), (M,))],
    np.unique_all: [(lambda x: np.unique_all(x).values, (M,)), (lambda x: np.unique_counts(x).values, (V,)), (lambda x: np.unique_inverse(x).values, (V,))],
    np.union1d: [(np.union1d, (V, V3)), (lambda x: np.setdiff1d(x, [9.0]), (V,)), (lambda x: np.setxor1d(x, [8.0, 9.0]), (V,))],
    # reductions
    np.sum: [(lambda x: np.sum(x, axis=1, where=MASK, initial=3.0), (M,)), (lambda x: np.sum(x, where=MASK, keepdims=True), (M,)), (lambda x: np.sum(x, dtype=np.float64), (M,))],
    np.prod: [(lambda x: np.prod(x, axis=0, where=MASK, initial=2.0), (M,)), (lambda x: np.prod(x, initial=0.5), (V,))],
    np.max: [(lambda x: np.max(x, axis=1, where=MASK, initial=-9.0), (M,)), (lambda x: np.max(x, initial=0.2), (M,)), (lambda x: np.min(x, axis=0, initial=-0.1, keepdims=True), (M,)), (lambda x: np.max(x[:0], axis=0, initial=0.2), (M,)), (lambda x: np.amax(x, initial=0.2), (M,)), (lambda x: np.amin(x, 0, initial=0.2), (M,))],
    np.mean: [(lambda x: np.mean(x, axis=0, where=MASK), (M,)), (lambda x: np.mean(x, dtype=np.float64), (M,))],
    np.var: [(lambda x: np.var(x, axis=1, ddof=0.5, where=MASK), (M,)), (lambda x: np.var(x, correction=1), (M,)), (lambda x: np.var(x, axis=0, mean=np.ones((1, 4)), keepdims=True), (M,))],
    np.std: [(lambda x: np.std(x, axis=0, where=MASK[:, :1], keepdims=True), (M,)), (lambda x: np.std(x, correction=1), (M,))],
    np.nansum: [(np.nansum, (N,)), (lambda x: np.nansum(x, axis=0, keepdims=True), (N,)), (lambda x: np.nanprod(x, axis=1), (N,)), (lambda x: np.nansum(x, axis=0, where=MASK, initial=1.0), (N,))],
    np.nanmean: [(np.nanmean, (N,)), (lambda x: np.nanmean(x, axis=1), (N,)), (lambda x: np.nanvar(x, axis=1), (N,)), (lambda x: np.nanstd(x, ddof=1), (N,)), (lambda x: np.nanstd(x, axis=1, keepdims=True), (N,))],
    np.nanmax: [(np.nanmax, (N,)), (lambda x: np.nanmax(x, axis=0), (N,)), (lambda x: np.nanmin(x, axis=1, keepdims=True), (N,)), (lambda x: np.nanmin(x, initial=0.0, where=MASK), (N,))],
    np.cumprod: [(np.cumprod, (M,)), (lambda x: np.cumprod(x, axis=0), (M,)), (lambda x: np.cumprod(x, axis=-1), (B,)), (lambda x: np.cumprod(x * (GAPS != 0)), (GAPS + 1,))],
    np.cumsum: [(lambda x: np.cumsum(x, axis=1, dtype=np.float64), (M,))],
    np.nancumsum: [(np.nancumsum, (N,)), (lambda x: np.nancumprod(x, axis=1), (N,))],
    np.cumulative_sum: [(lambda x: np.cumulative_sum(x, axis=1, include_initial=True), (M,)), (np.cumulative_sum, (V,)), (lambda x: np.cumulative_prod(x, axis=0, include_initial=True), (M,))],
    np.ptp: [(np.ptp, (M,)), (lambda x: np.ptp(x, axis=1, keepdims=True), (M,))],
    # statistics
    np.average: [(np.average, (M,)), (lambda x, w: np.average(x, weights=w), (M, P)), (lambda x, w: np.average(x, axis=1, weights=w), (M, P[0])), (lambda x, w: np.average(x, axis=(0, 2), weights=w, keepdims=True), (B, P[:2, :4])), (lambda x, w: np.average(x, axis=0, weights=w, returned=True)[1], (M, P))],
    np.cov: [(np.cov, (M,)), (np.cov, (V,)), (np.cov, (V, W)), (lambda x: np.cov(x, rowvar=False, bias=True), (M,)), (lambda x, w: np.cov(x, aweights=w), (M, P[0])), (lambda x: np.cov(x, fweights=[1, 2, 3, 1], ddof=0), (M,)), (lambda x, w: np.cov(x, fweights=[1, 2, 3, 1], aweights=w), (M, P[0]))],
    np.corrcoef: [(np.corrcoef, (M,)), (np.corrcoef, (V, W)), (lambda x: np.corrcoef(x, rowvar=False), (M,))],
    np.bincount: [(lambda w: np.bincount([0, 2, 2, 1], w), (V,)), (lambda w: np.bincount([0, 2, 2, 1], weights=w, minlength=6), (V,))],
    np.histogram: [(lambda x: np.histogram(x, 5)[1], (M,)), (lambda w: np.histogram(M, 4, weights=w)[0], (P,)), (lambda x: np.histogram_bin_edges(x, 3), (V,)), (lambda w: np.histogram(M, [-3.0, 0.0, 1.0, 3.0], weights=w, density=True)[0], (P,))],
    # differences, integrals, grids
    np.diff: [(np.diff, (V,)), (lambda x: np.diff(x, n=2, axis=0), (M,)), (lambda x: np.diff(x, prepend=0.0, append=x[:, :1]), (M,)), (lambda x: np.diff(x, n=0), (V,)), (lambda x: np.diff(M, append=x, axis=0), (S,))],
    np.ediff1d: [(np.ediff1d, (M,)), (lambda x: np.ediff1d(x, to_end=[1.0, 2.0], to_begin=0.5), (V,))],
    np.trapezoid: [(np.trapezoid, (V,)), (lambda y, x: np.trapezoid(y, x), (M, NODES[:4])), (lambda y: np.trapezoid(y, dx=0.5, axis=0), (M,)), (lambda y, x: np.trapezoid(y, x, axis=1), (M, M + 1))],
    np.gradient: [
        (np.gradient, (V,)), (lambda x: np.gradient(x)[0], (M,)), (lambda x: np.gradient(x, 0.5, 2.0)[1], (M,)), (lambda x: np.gradient(x, axis=1, edge_order=2), (M,)), (lambda x, c: np.gradient(x, c), (V, NODES[:4])),
        (lambda x: np.gradient(x, 0.3, axis=(0, 2))[1], (B,)), (lambda x, c: np.gradient(x, c, axis=1, edge_order=2), (M, NODES[:4])), (lambda x: np.gradient(x, np.arange(4.0) ** 2), (V,)),
    ],
    np.interp: [(np.interp, (M, NODES, GAPS + V[0])), (lambda x: np.interp(x, NODES, GAPS, left=-7.0, right=8.0), (2 * M,)), (lambda x, f: np.interp(x, NODES, f, period=3.0), (M, GAPS)), (lambda x: np.interp(x, [0.5], [2.0]) + x, (V,))],
    np.convolve: [*((lambda a, v, m=m, f=f: f(a, v, m), pair) for m in ("full", "same", "valid") for f in (np.convolve, np.correlate) for pair in ((V, NODES), (NODES, V3), (V, V3), (V, V[:2]), (V3, W), (V, W))), (np.convolve, (V, V3)), (np.correlate, (V, V3))],
    np.linspace: [(lambda a, b: np.linspace(a, b, 5), (S, S + 2)), (lambda a: np.linspace(a, 3.0, 4, endpoint=False, axis=-1), (V,)), (lambda a: np.linspace(0, a, 6, retstep=True)[1], (S,)), (lambda a: np.linspace(a, 2, 1), (S,))],
    np.logspace: [(lambda a: np.logspace(a, 2, 4), (S,)), (lambda a: np.logspace(0, a, 3, base=2.0), (S,)), (lambda a: np.geomspace(a, 5.0, 4), (S,)), (lambda a: np.geomspace(-a, -9.0, 4, endpoint=False), (S,))],
    # polynomials
    np.polyval: [(np.polyval, (V, M)), (lambda x: np.polyval([1, 2, 3], x), (M,)), (lambda p: np.polyval(p, 0.3), (V,))],
    np.polyadd: [(np.polyadd, (V, V3)), (np.polysub, (V3, V)), (np.polymul, (V, V3)), (lambda x: np.polymul(x, [0, 0, 1, 2]), (V,))],
    np.polydiv: [(lambda a, b: np.polydiv(a, b)[0], (NODES, V3)), (lambda a, b: np.polydiv(a, b)[1], (NODES, V3)), (lambda a, b: np.polydiv(a, b)[1], (V3, V))],
    np.polyder: [(np.polyder, (V,)), (lambda p: np.polyder(p, 2), (V,)), (np.polyint, (V,)), (lambda p: np.polyint(p, 2, [1.0, 2.0]), (V,))],
    np.poly: [(np.poly, (V,))],
    np.polyfit: [(lambda x, y: np.polyfit(x, y, 2), (NODES, GAPS + V[0])), (lambda x, y, w: np.polyfit(x, y, 1, w=w), (V, np.stack([W, V**2], axis=1), P[0]))],
    # calling a function along axes
    np.apply_along_axis: [(lambda x: np.apply_along_axis(np.sum, 0, x), (M,)), (lambda x: np.apply_along_axis(np.sort, 1, x), (B,)), (lambda x: np.apply_along_axis(lambda v: v[:, None] * v, 1, x), (B,))],
    np.apply_over_axes: [(lambda x: np.apply_over_axes(np.sum, x, [0, 2]), (B,)), (lambda x: np.apply_over_axes(np.max, x, 1), (M,))],
}
"""NumPy function (or a near relative of it) -> forms with a derivative."""

CONSTANT = [
    (np.imag, M), (np.angle, M), (lambda x: np.angle(x, deg=True), M), (np.round, M), (lambda x: np.round(x, 2), M), (lambda x: np.around(x, -1), 30 * M), (np.fix, M), (np.isposinf, M), (np.isneginf, M), (np.spacing, M),
    (lambda x: np.modf(x)[1], M), (lambda x: np.frexp(x)[1], M), (lambda x: np.divmod(x, 0.7)[0], M), (np.signbit, M), (np.nonzero, M), (np.flatnonzero, M), (np.argwhere, M), (lambda x: np.argpartition(x, 1)[..., 1], M),
    (lambda x: np.lexsort((x, V)), V), (np.nanargmax, N), (lambda x: np.nanargmin(x, axis=1), N), (lambda x: np.digitize(x, NODES), M), (lambda x: np.searchsorted(NODES, x), M), (lambda x: np.isclose(x, V), M), (lambda x: np.allclose(x, V), M),
    (lambda x: np.array_equal(x, M), M), (lambda x: np.array_equiv(x, V), M), (lambda x: np.isin(x, V), V), (np.isreal, M), (np.iscomplex, M), (np.isrealobj, M), (np.iscomplexobj, M), (np.result_type, M), (np.common_type, M), (np.triu_indices_from, Q),
    (lambda x: np.histogram(x, NODES)[0], M), (lambda x: np.histogram(x, 4)[0], M), (lambda x: np.unique(x, return_index=True)[1], M), (lambda x: np.unique_all(x).inverse_indices, M), (lambda x: np.zeros_like(np.empty_like(x)), M),
    (lambda x: np.bincount(x, minlength=3), np.array([0, 1, 1, 4])), (np.bitwise_count, np.array([0, 7, 9])), (lambda x: np.left_shift(x, 2), np.array([1, 3])), (lambda x: np.gcd(x, 12), np.array([8, 9])), (lambda x: np.where(x > 0), M), (np.ndim, M), (np.shape, M),
    (lambda x: np.packbits(x), np.array([True, False, True])), (np.unpackbits, np.array([3, 9], np.uint8)), (lambda x: np.ix_(x, [True, False]), np.array([2, 0])), (lambda x: np.ravel_multi_index((x, x), (5, 5)), np.array([1, 3])), (lambda x: np.unravel_index(x, (2, 3)), np.array([1, 5])),
    (np.diag_indices_from, Q), (np.tril_indices_from, Q), (np.min_scalar_type, np.array(7)), (lambda x: np.can_cast(x, np.float32), M), (lambda x: np.einsum_path("ij,jk", x, x)[0], Q),
    (lambda x: np.shares_memory(x, V), M), (lambda x: np.may_share_memory(x, V), M), (np.array2string, V), (np.array_repr, V), (np.array_str, V),
    (lambda x: np.quantile(x, 0.5), np.array([3, 1, 2])), (lambda x: np.diff(x), np.array([True, False])), (lambda x: np.round(x, -1), np.array([14, 15, 26])),
]
"""(function, array): answers without a derivative."""
# fmt: on
