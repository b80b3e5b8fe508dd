"""Matrices: inverse, solve, determinants, and the factorisations. Each takes stacks of matrices in its last two axes.

A factorisation has several answers and a row has one, so its row packs them into one array, which a composition in
``composed_linalg`` takes apart again: one call of LAPACK, one rule for all cotangents together.

Sources: Giles 2008, "Collected matrix derivative results" (inv, solve, det, eigh); Golub & Pereyra 1973 (pinv); Murray 2016
(cholesky); Townsend 2016, Wan & Zhang 2019 (svd); Walter & Lehmann 2018, Seeger et al. 2017 (qr). All are differentiated by
their rules again, to any order.

Where the mathematics has no answer: eigenvectors and singular vectors of equal values may be turned into each other, so a
function that looks at them has derivative NaN there (and a function of the values alone a right one); det is differentiated
at singular matrices too, by its cofactors; inv, solve and slogdet have no derivative there (LinAlgError).
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from tinygrad_scratch.domains import Case, Domain, Interval, Matrices, inputs
from tinygrad_scratch.ops.reductions import exclusive_products, real
from tinygrad_scratch.registry import general

_ASYMMETRY = 1e-3  # of the largest element: more than rounding, less than a matrix of which one triangle is filled


def _lapack(fn: Callable[..., Any]) -> Callable[..., Any]:
    """LAPACK has no float16: it is computed in float32 and given back as float16."""

    @wraps(fn)
    def run(*arrays: Any, **options: Any) -> Any:
        if all(x.dtype != np.float16 for x in arrays):
            return fn(*arrays, **options)
        dtype = np.result_type(*arrays)
        wide = (x.astype(np.float32) if x.dtype == np.float16 else x for x in arrays)
        answer = fn(*wide, **options)
        return answer.astype(dtype) if answer.dtype.kind == "f" else answer

    return run


def _symmetric(a: Any, name: str) -> Any:
    """The symmetric part of a symmetric matrix, so that its gradient is symmetric too. ValueError for another matrix, of
    which NumPy would read one triangle only."""
    a = real(a)
    if a.ndim < 2 or a.shape[-1] != a.shape[-2]:
        raise np.linalg.LinAlgError(f"{name} takes square matrices in the last two axes, not {a.dtype}{a.shape}")
    with np.errstate(invalid="ignore"):  # of infinities, about which LAPACK has its say
        apart, size = np.abs(a - a.mT), np.max(np.abs(a), axis=(-2, -1), keepdims=True, initial=0)
    if np.any(apart > _ASYMMETRY * size):
        raise ValueError(
            f"{name} takes symmetric matrices (NumPy would read one triangle and ignore the other); "
            "pass (a + a.mT) / 2, or np.tril(a) + np.tril(a, -1).mT for a matrix that is given by its lower triangle"
        )
    return (a + a.mT) / 2


def _half(x: Any) -> Any:
    """The symmetric part."""
    return (x + x.mT) / 2


def _lower(x: Any, k: int = 0) -> Any:
    """The lower triangle, from the k-th diagonal down."""
    return np.where(np.tri(x.shape[-2], x.shape[-1], k, dtype=bool), x, 0)


def _diagonal(x: Any) -> Any:
    n = np.arange(x.shape[-1])
    return x[..., n, n]


def _scaled(x: Any, columns: Any) -> Any:
    """x @ diag(columns)."""
    return x * columns[..., None, :]


# -- inverse, solve, determinants --------------------------------------------------------------------------------------


@_lapack
def _inv(a: Any) -> Any:
    return np.linalg.inv(a)


@_lapack
def _solve(a: Any, b: Any) -> Any:
    return np.linalg.solve(a, b)


def _transposed_solve(g: Any, a: Any, b: Any) -> Any:
    """inv(a).T @ g: the cotangent of b. (A b of one axis is one vector for every matrix of the stack, as NumPy has it.)"""
    return solve(a.mT, g[..., None])[..., 0] if b.ndim == 1 else solve(a.mT, g)


def _solve_left(g: Any, y: Any, a: Any, b: Any) -> Any:
    h = _transposed_solve(g, a, b)
    return -h[..., :, None] * y[..., None, :] if b.ndim == 1 else -(h @ y.mT)


@_lapack
def _pinv(a: Any, rcond: Any = None, hermitian: bool = False, rtol: Any = None) -> Any:
    if hermitian:
        a = _symmetric(a, "np.linalg.pinv(hermitian=True)")
    return np.linalg.pinv(a, rcond, hermitian, **{} if rtol is None else {"rtol": rtol})


def _pinv_rule(g: Any, y: Any, a: Any, rcond: Any = None, hermitian: bool = False, rtol: Any = None) -> Any:
    """Golub & Pereyra 1973, eq. 4.12, transposed: where the rank is constant."""
    tall, wide = y.mT @ y, y @ y.mT
    part = -(y.mT @ g @ y.mT) + (g.mT - a @ (y @ g.mT)) @ wide + tall @ (g.mT - (g.mT @ y) @ a)
    return _half(part) if hermitian else part


@_lapack
def _slogdet(a: Any) -> Any:
    return np.stack(np.linalg.slogdet(a))


@_lapack
def _det(a: Any) -> Any:
    return np.linalg.det(a)


def _det_rule(g: Any, y: Any, a: Any) -> Any:
    return g[..., None, None] * cofactor(a)


def _by_svd(a: Any) -> tuple[Any, Any, Any]:
    """(u, s, v) of square matrices, with the sign of det(u) det(v) put on u's last column: a = u s' v.T, det(u v.T) = 1,
    where s' has that sign on its last value too. det(a) = prod(s')."""
    y = svd(a)
    n = a.shape[-1]
    u, s, v = y[..., :n, :], y[..., n, :], y[..., n + 1 :, :]
    turn = np.sign(det(u @ v.mT))[..., None]
    last = np.arange(n) == n - 1
    turn = np.where(last, turn, np.ones_like(turn))
    return _scaled(u, turn), s * turn, v


@_lapack
def _cofactor(a: Any) -> Any:
    """The derivative of det: det(a) inv(a).T, and its limit where a is singular: u (products of all other s) v.T."""
    u, s, v = _by_svd(real(a))
    return _scaled(u, exclusive_products(s)) @ v.mT


def _cofactor_rule(g: Any, y: Any, a: Any) -> Any:
    """In the basis of the singular vectors, d cofactor_ij = -p_ij e_ji off the diagonal and sum_j p_ij e_jj on it, where
    p_ij is the product of all singular values but the i-th and the j-th: no division, so right at singular matrices."""
    u, s, v = _by_svd(a)
    n = a.shape[-1]
    same = np.eye(n, dtype=bool)
    p = np.where(same, 0, exclusive_products(np.where(same, 1, s[..., None, :])))
    inner = u.mT @ g @ v
    on = (p @ _diagonal(inner)[..., None])[..., 0]
    return u @ np.where(same, on[..., None, :], -p * inner.mT) @ v.mT


@_lapack
def _matrix_rank(a: Any, tol: Any = None, hermitian: bool = False, rtol: Any = None) -> Any:
    return np.linalg.matrix_rank(a, tol, hermitian, rtol=rtol)


# -- factorisations ----------------------------------------------------------------------------------------------------


@_lapack
def _cholesky(a: Any, upper: bool = False) -> Any:
    y = np.linalg.cholesky(_symmetric(a, "np.linalg.cholesky"))
    return y.mT if upper else y


def _cholesky_rule(g: Any, y: Any, a: Any, upper: bool = False) -> Any:
    """sym(L^-T P L^-1) with P the lower triangle of L.T g, its diagonal halved (Murray 2016, eq. 10)."""
    if upper:
        g, y = g.mT, y.mT
    p = y.mT @ _lower(g)
    p = (_lower(p) + _lower(p, -1)) / 2
    return _half(solve(y.mT, solve(y.mT, p.mT).mT))


@_lapack
def _qr(a: Any, mode: Any = "reduced") -> Any:
    """[q; r.T], of shape (..., m + n, k)."""
    q, r = np.linalg.qr(a, mode)
    return np.concatenate([q, r.mT], axis=-2)


def _qr_rule(g: Any, y: Any, a: Any, mode: str = "reduced") -> Any:
    """Walter & Lehmann 2018 for a of full rank. Columns past the rows are q.T a; rows of a complete q past the columns turn
    with the others as little as they can (they are an arbitrary basis of what is left)."""
    m, n = a.shape[-2:]
    k = min(m, n)
    q, gq = y[..., :m, :k], g[..., :m, :k]
    r, gr = y[..., m : m + k, :k].mT, g[..., m : m + k, :k].mT
    if y.shape[-1] > k:
        gq = gq - y[..., :m, k:] @ (g[..., :m, k:].mT @ q)
    rest = g[..., m + k :, :].mT
    if n > k:
        gq = gq + a[..., k:] @ rest.mT
    lower = r @ gr.mT - gq.mT @ q
    lower = _lower(lower) + _lower(lower, -1).mT
    first = solve(r, (gq + q @ lower).mT).mT
    return np.concatenate([first, q @ rest], axis=-1) if n > k else first


@_lapack
def _eigh(a: Any, uplo: Any = "L") -> Any:
    """[w; v], of shape (..., 1 + n, n)."""
    w, v = np.linalg.eigh(_symmetric(a, "np.linalg.eigh"), uplo)
    return np.concatenate([w[..., None, :], v], axis=-2)


def _apart(difference: Any, *looked: Any) -> Any:
    """Denominators: `difference`, and where it is 0: 1 if nobody looks at either vector of the pair, else NaN."""
    unused: Any = np.eye(difference.shape[-1], dtype=bool)
    quiet = [np.logical_and(np.equal(m, 0), np.equal(m.mT, 0)) for m in looked]
    unused = np.logical_or(unused, quiet[0] if len(quiet) == 1 else np.logical_and(*quiet))
    return np.where(np.equal(difference, 0), np.where(unused, difference + 1, np.nan), difference)


def _on_diagonal(x: Any, diagonal: Any) -> Any:
    return np.where(np.eye(x.shape[-1], dtype=bool), diagonal[..., None, :], x)


def _eigh_rule(g: Any, y: Any, a: Any, uplo: str = "L") -> Any:
    """v (diag(gw) + (v.T gv - gv.T v) / 2(wj - wi)) v.T (Giles 2008, 3.1)."""
    w, v = y[..., 0, :], y[..., 1:, :]
    m = v.mT @ g[..., 1:, :]
    inner = (m - m.mT) / (2 * _apart(w[..., None, :] - w[..., :, None], m))
    return v @ _on_diagonal(inner, g[..., 0, :]) @ v.mT


@_lapack
def _svd(a: Any, full_matrices: bool = False) -> Any:
    """[u; s; v], of shape (..., m + 1 + n, k), or with max(m, n) columns, of which u or v fills some, if full."""
    u, s, vh = np.linalg.svd(a, full_matrices)
    parts = [u, s[..., None, :], vh.mT]
    width = max(x.shape[-1] for x in parts)
    padded = [np.pad(x, [*[(0, 0)] * (x.ndim - 1), (0, width - x.shape[-1])]) for x in parts]
    return np.concatenate(padded, axis=-2)


def _beside(u: Any, g: Any, k: int, full: bool) -> tuple[Any, Any]:
    """(u.T g, the part of g that leaves the span of u) for the first k columns; further ones turn with them (see _qr_rule)."""
    first, mine = u[..., :k], g[..., :k]
    if full and u.shape[-2] > k:
        rest = slice(k, u.shape[-2])
        mine = mine - u[..., rest] @ (g[..., rest].mT @ first)
    inner = first.mT @ mine
    return inner, (mine - first @ inner if u.shape[-2] > k else None)


def _svd_rule(g: Any, y: Any, a: Any, full_matrices: bool = False) -> Any:
    """Townsend 2016, eqs. 25-27, with both off-diagonal parts over one denominator, sj**2 - si**2."""
    m, n = a.shape[-2:]
    k = min(m, n)
    u, s, v = y[..., :m, :k], y[..., m, :k], y[..., m + 1 :, :k]
    mu, beside_u = _beside(y[..., :m, :], g[..., :m, :], k, full_matrices)
    mv, beside_v = _beside(y[..., m + 1 :, :], g[..., m + 1 :, :], k, full_matrices)
    row, column = s[..., None, :], s[..., :, None]
    apart = _apart((row - column) * (row + column), mu, mv)
    inner = _on_diagonal(((mu - mu.mT) * row + column * (mv - mv.mT)) / apart, g[..., m, :k])
    part = u @ inner @ v.mT
    if beside_u is not None:
        part = part + _over(beside_u, s) @ v.mT
    if beside_v is not None:
        part = part + u @ _over(beside_v, s).mT
    return part


def _over(x: Any, s: Any) -> Any:
    """x @ diag(1 / s): 0, not 0 / 0, where nobody looks at the vector of a singular value 0."""
    s = s[..., None, :]
    return x / np.where(np.logical_and(np.equal(s, 0), np.all(np.equal(x, 0), axis=-2, keepdims=True)), s + 1, s)


_any, _spd, _sym = Matrices(), Matrices("positive"), Matrices("symmetric")
_square = Domain((_any,), ((((3, 3),), {}), (((2, 2, 2),), {}), (((1, 1),), {})))
_dets = Domain((_any,), (*_square.cases, (((2, 3, 3),), {})))
_systems = Domain(
    (_any, Interval()),
    tuple((pair, {}) for pair in (((3, 3), (3,)), ((3, 3), (3, 2)), ((2, 3, 3), (3,)), ((2, 1, 2, 2), (3, 2, 1)))),
)
_tall_and_wide: tuple[Case, ...] = ((((3, 3),), {}), (((4, 2),), {}), (((2, 2, 3),), {}))
_pinvs = Domain((_any,), (*_tall_and_wide, (((4, 3),), {"rcond": 1e-10})))
_choleskys = Domain((_spd,), ((((3, 3),), {}), (((2, 2, 2),), {}), (((3, 3),), {"upper": True})))
_qrs = Domain((_any,), (*_tall_and_wide, (((3, 2),), {"mode": "complete"}), (((2, 3),), {"mode": "complete"})))
_svds = Domain((_any,), (*_tall_and_wide, (((3, 2),), {"full_matrices": True}), (((2, 3),), {"full_matrices": True})))
_eighs = Domain((_sym,), ((((3, 3),), {}), (((2, 2, 2),), {}), (((3, 3),), {"uplo": "U"})))
_ranks = inputs(_any).with_cases((((3, 3),), {}), (((2, 4, 2),), {}))

# fmt: off
inv      = general(_inv,      lambda g, y, a: -(y.mT @ g @ y.mT), answers=np.linalg.inv, domain=_square)
solve    = general(_solve,    _solve_left, lambda g, y, a, b: _transposed_solve(g, a, b), answers=np.linalg.solve, domain=_systems)
pinv     = general(_pinv,     _pinv_rule, answers=np.linalg.pinv, domain=_pinvs)
det      = general(_det,      _det_rule, answers=np.linalg.det, domain=_dets)
cofactor = general(_cofactor, _cofactor_rule, domain=_dets)
slogdet  = general(_slogdet,  lambda g, y, a: g[1][..., None, None] * inv(a).mT, domain=_square)
cholesky = general(_cholesky, _cholesky_rule, answers=np.linalg.cholesky, domain=_choleskys)
qr       = general(_qr,       _qr_rule, domain=_qrs)
eigh     = general(_eigh,     _eigh_rule, domain=_eighs)
svd      = general(_svd,      _svd_rule, domain=_svds)

# Capturable, no gradient: piecewise constant.
matrix_rank = general(_matrix_rank, None, answers=np.linalg.matrix_rank, domain=_ranks)
# fmt: on
