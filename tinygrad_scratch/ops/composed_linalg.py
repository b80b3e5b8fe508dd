"""np.linalg as compositions of rows: what takes factorisations apart, norms, products, and what follows from a solve.

The norm of a zero vector has derivative 0. ``eig`` and ``eigvals`` are refused: the answers of general matrices are complex.
"""

from collections.abc import Sequence
from functools import reduce
from math import prod
from operator import index as as_int
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from tinygrad_scratch.errors import NotDifferentiableError
from tinygrad_scratch.ops import composed, decompositions
from tinygrad_scratch.registry import implements

_EighResult = type(np.linalg.eigh(np.ones((1, 1))))
_QRResult = type(np.linalg.qr(np.ones((1, 1))))
_SlogdetResult = type(np.linalg.slogdet(np.ones((1, 1))))
_SVDResult = type(np.linalg.svd(np.ones((1, 1))))


def _array(x: Any) -> Any:
    return x if hasattr(x, "ndim") else np.asarray(x)


def _floating(x: Any) -> Any:
    x = _array(x)
    return x if x.dtype.kind == "f" else x.astype(np.float64)


# -- factorisations ----------------------------------------------------------------------------------------------------


@implements(np.linalg.slogdet)
def slogdet(a: Any) -> Any:
    """np.linalg.slogdet: (sign, logabsdet). The sign is piecewise constant. LinAlgError in backward if a is singular."""
    y = decompositions.slogdet(a)
    return _SlogdetResult(y[0], y[1])


@implements(np.linalg.qr)
def qr(a: Any, mode: str = "reduced") -> Any:
    """np.linalg.qr: (Q, R), or R alone with mode="r". `a` of full rank. With mode="complete" the further columns of Q are one
    basis of many of what is left: gradients are right for functions that do not depend on which (Q2 @ Q2.T)."""
    if mode not in ("reduced", "complete", "r"):
        raise NotDifferentiableError(f"np.linalg.qr(mode={mode!r}) of a Tensor: use 'reduced', 'complete' or 'r'")
    y = decompositions.qr(a, mode="reduced" if mode == "r" else mode)
    m = a.shape[-2]
    return y[..., m:, :].mT if mode == "r" else _QRResult(y[..., :m, :], y[..., m:, :].mT)


@implements(np.linalg.eigh)
def eigh(a: Any, UPLO: str = "L") -> Any:  # noqa: N803  (NumPy's name)
    """np.linalg.eigh of symmetric matrices: (eigenvalues, eigenvectors)."""
    y = decompositions.eigh(a, uplo=UPLO)
    return _EighResult(y[..., 0, :], y[..., 1:, :])


@implements(np.linalg.eigvalsh)
def eigvalsh(a: Any, UPLO: str = "L") -> Any:  # noqa: N803
    """np.linalg.eigvalsh: differentiable once where eigenvalues are equal, to any order where they are not."""
    return decompositions.eigh(a, uplo=UPLO)[..., 0, :]


@implements(np.linalg.svd)
def svd(a: Any, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False) -> Any:
    """np.linalg.svd: (U, S, Vh), or S alone. With full_matrices the further columns of U (rows of Vh) are one basis of many of
    what is left: gradients are right for functions that do not depend on which."""
    m, n = a.shape[-2:]
    if hermitian:
        return _svd_hermitian(a, compute_uv)
    if not compute_uv:
        return svdvals(a)
    y = decompositions.svd(a, full_matrices=bool(full_matrices and m != n))
    columns = (m, n) if full_matrices else (min(m, n),) * 2
    return _SVDResult(y[..., :m, : columns[0]], y[..., m, : min(m, n)], y[..., m + 1 :, : columns[1]].mT)


def _svd_hermitian(a: Any, compute_uv: bool) -> Any:
    w, v = eigh(a)
    order = np.argsort(-np.abs(w), axis=-1)
    w = np.take_along_axis(w, order, axis=-1)
    if not compute_uv:
        return np.abs(w)
    v = np.take_along_axis(v, order[..., None, :], axis=-1)
    return _SVDResult(v, np.abs(w), (v * np.sign(w)[..., None, :]).mT)


@implements(np.linalg.svdvals)
def svdvals(x: Any) -> Any:
    """np.linalg.svdvals: differentiable once where singular values are equal or 0, to any order where they are not."""
    return decompositions.svd(x)[..., x.shape[-2], :]


# -- what follows from a solve -----------------------------------------------------------------------------------------


@implements(np.linalg.lstsq)
def lstsq(a: Any, b: Any, rcond: Any = None) -> tuple[Any, Any, Any, Any]:
    """np.linalg.lstsq: (x, residuals, rank, singular values), by pinv(a) @ b. The derivative is that of constant rank.

    Whether there are residuals depends on the rank, a value: in a captured step write np.linalg.pinv(a) @ b instead.
    """
    a, b = _floating(a), _floating(b)
    if a.ndim != 2 or b.ndim not in (1, 2) or a.shape[0] != b.shape[0]:
        raise np.linalg.LinAlgError(
            f"np.linalg.lstsq takes a of shape (m, n) and b of shape (m,) or (m, k), not {a.shape} and {b.shape}"
        )
    m, n = a.shape
    if rcond is None:
        rcond = np.finfo(a.dtype).eps * max(m, n)
    elif rcond < 0:
        rcond = np.finfo(a.dtype).eps
    x = np.matmul(np.linalg.pinv(a, rcond), b)
    s = svdvals(a)
    rank = int(np.sum(s > rcond * s[0])) if s.size else 0
    missing = b - np.matmul(a, x)
    residuals = np.sum(missing * missing, axis=0) if rank == n < m else x[:0].reshape(-1)[:0]
    return x, residuals if residuals.ndim else residuals.reshape(1), rank, s


@implements(np.linalg.tensorinv)
def tensorinv(a: Any, ind: int = 2) -> Any:
    """np.linalg.tensorinv: the inverse of the matrix that joins the first `ind` axes, and the others."""
    if ind <= 0:
        raise ValueError(f"np.linalg.tensorinv: ind is {ind}; it must be positive")
    left, right = a.shape[:ind], a.shape[ind:]
    return np.linalg.inv(a.reshape((prod(right), -1))).reshape((*right, *left))


@implements(np.linalg.tensorsolve)
def tensorsolve(a: Any, b: Any, axes: Sequence[int] | None = None) -> Any:
    """np.linalg.tensorsolve: x with tensordot(a, x, x.ndim) == b."""
    a, b = _array(a), _array(b)
    if axes is not None:
        moved = normalize_axis_tuple(axes, a.ndim)
        a = np.transpose(a, [*(i for i in range(a.ndim) if i not in moved), *moved])
    shape = a.shape[b.ndim :]
    if prod(shape) != b.size:
        raise np.linalg.LinAlgError(
            f"np.linalg.tensorsolve: the axes of a, {a.shape}, past those of b, {b.shape}, hold {prod(shape)} elements; "
            f"they must hold as many as b, {b.size}"
        )
    return np.linalg.solve(np.reshape(a, (-1, b.size)), np.reshape(b, (-1,))).reshape(shape)


@implements(np.linalg.matrix_power)
def matrix_power(a: Any, n: int) -> Any:
    """np.linalg.matrix_power, by squaring; of the inverse for a negative n."""
    n = as_int(n)
    if n < 0:
        a, n = np.linalg.inv(a), -n
    if n == 0:
        return np.zeros_like(a) + np.eye(a.shape[-1], dtype=a.dtype)
    result = None
    while n:
        if n & 1:
            result = a if result is None else np.matmul(result, a)
        n >>= 1
        a = np.matmul(a, a) if n else a
    return composed.copy(result)


@implements(np.linalg.multi_dot)
def multi_dot(arrays: Sequence[Any]) -> Any:
    """np.linalg.multi_dot: the product of a chain, in the order that takes the fewest multiplications."""
    arrays = [_array(x) for x in arrays]
    if len(arrays) < 2:
        raise ValueError(f"np.linalg.multi_dot takes at least two arrays, not {len(arrays)}")
    first, last = arrays[0], arrays[-1]
    shape = first.shape[: first.ndim - 1] + last.shape[1:]
    arrays[0] = first.reshape((1, -1)) if first.ndim == 1 else first
    arrays[-1] = last.reshape((-1, 1)) if last.ndim == 1 else last
    if any(x.ndim != 2 for x in arrays):
        raise np.linalg.LinAlgError(
            f"np.linalg.multi_dot takes matrices (the first and last may be vectors), not {[x.shape for x in arrays]}"
        )
    return _chain(arrays).reshape(shape)


def _chain(arrays: list[Any]) -> Any:
    """Matrix-chain multiplication (Cormen et al., chapter 15.2)."""
    count = len(arrays)
    sizes = [*(x.shape[0] for x in arrays), arrays[-1].shape[1]]
    best: dict[tuple[int, int], tuple[int, int]] = {(i, i + 1): (0, 0) for i in range(count)}
    for length in range(2, count + 1):
        for i in range(count - length + 1):
            j = i + length
            costs = ((best[i, k][0] + best[k, j][0] + sizes[i] * sizes[k] * sizes[j], k) for k in range(i + 1, j))
            best[i, j] = min(costs)

    def multiply(i: int, j: int) -> Any:
        k = best[i, j][1]
        return arrays[i] if j == i + 1 else np.matmul(multiply(i, k), multiply(k, j))

    return multiply(0, count)


# -- norms -------------------------------------------------------------------------------------------------------------


@implements(np.linalg.norm)
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """np.linalg.norm: all orders of vectors and of matrices. Derivative 0 at the zero vector."""
    x = _floating(x)
    if axis is None and ord is None:  # of all elements, whatever their axes
        flat = _vector_norm(x.reshape(-1), 2, (0,), False)
        return flat.reshape((1,) * x.ndim) if keepdims else flat
    axes = tuple(range(x.ndim)) if axis is None else normalize_axis_tuple(axis, x.ndim)
    if len(axes) == 1:
        return _vector_norm(x, 2 if ord is None else ord, axes, keepdims)
    if len(axes) == 2:
        return _matrix_norm(x, "fro" if ord is None else ord, axes, keepdims)
    raise ValueError(f"np.linalg.norm: a norm is over 1 or 2 axes, not {len(axes)} (of an array of shape {x.shape})")


@implements(np.linalg.vector_norm)
def vector_norm(x: Any, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Any:
    """np.linalg.vector_norm: over one axis, several, or all."""
    x = _floating(x)
    axes = tuple(range(x.ndim)) if axis is None else normalize_axis_tuple(axis, x.ndim)
    return _vector_norm(x, ord, axes, keepdims)


@implements(np.linalg.matrix_norm)
def matrix_norm(x: Any, keepdims: bool = False, ord: Any = "fro") -> Any:
    """np.linalg.matrix_norm: over the last two axes."""
    x = _floating(x)
    return _matrix_norm(x, ord, (x.ndim - 2, x.ndim - 1), keepdims)


def _vector_norm(x: Any, order: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    if isinstance(order, str):
        raise ValueError(f"np.linalg.norm: {order!r} is an order of matrices; this is a norm over axes {axes}")
    if order == np.inf:
        return np.max(np.abs(x), axis=axes, keepdims=keepdims)
    if order == -np.inf:
        return np.min(np.abs(x), axis=axes, keepdims=keepdims)
    if order == 0:
        return np.sum(np.not_equal(x, 0).astype(x.dtype), axis=axes, keepdims=keepdims)
    if order == 1:
        return np.sum(np.abs(x), axis=axes, keepdims=keepdims)
    if order == 2:
        total = np.sum(x * x, axis=axes, keepdims=keepdims)
        zero = np.equal(total, 0)
        return np.where(zero, total, np.sqrt(np.where(zero, 1, total)))
    size = np.abs(x)
    if order < 0:
        return np.sum(size**order, axis=axes, keepdims=keepdims) ** (1 / order)
    absent = np.equal(size, 0)  # where the power's derivative may be infinite
    total = np.sum(np.where(absent, 0, np.where(absent, 1, size) ** order), axis=axes, keepdims=keepdims)
    zero = np.equal(total, 0)
    return np.where(zero, total, np.where(zero, 1, total) ** (1 / order))


def _matrix_norm(x: Any, order: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    if order in ("fro", "f"):
        return _vector_norm(x, 2, axes, keepdims)
    if order in (1, -1, np.inf, -np.inf):
        summed, other = axes if abs(order) == 1 else axes[::-1]
        sums = np.sum(np.abs(x), axis=summed, keepdims=True)
        found = (np.max if order > 0 else np.min)(sums, axis=other, keepdims=True)
    elif order in (2, -2, "nuc"):
        s = svdvals(np.moveaxis(x, axes, (-2, -1)))
        found = np.sum(np.abs(s), axis=-1) if order == "nuc" else s[..., 0 if order == 2 else -1]
        return np.expand_dims(found, tuple(sorted(axes))) if keepdims else found
    else:
        raise ValueError(f"np.linalg.norm: {order!r} is no order of matrices: 'fro', 'nuc', 1, -1, 2, -2, inf or -inf")
    return found if keepdims else np.squeeze(found, axis=axes)


@implements(np.linalg.cond)
def cond(x: Any, p: Any = None) -> Any:
    """np.linalg.cond. LinAlgError for a singular matrix with p other than None, 2 and -2 (whose derivative is undefined)."""
    x = _floating(x)
    if p is None or p in (2, -2):
        s = svdvals(x)
        top, bottom = (s[..., -1], s[..., 0]) if p == -2 else (s[..., 0], s[..., -1])
        zero = np.equal(bottom, 0)
        return np.where(zero, np.inf, top / np.where(zero, 1, bottom))
    return matrix_norm(x, ord=p) * matrix_norm(np.linalg.inv(x), ord=p)


# -- products and parts ------------------------------------------------------------------------------------------------


@implements(np.linalg.outer)
def outer(x1: Any, x2: Any) -> Any:
    """np.linalg.outer: of two vectors."""
    x1, x2 = _array(x1), _array(x2)
    if x1.ndim != 1 or x2.ndim != 1:
        raise ValueError(f"np.linalg.outer takes two vectors, not arrays of shapes {x1.shape} and {x2.shape}")
    return np.outer(x1, x2)


@implements(np.linalg.matmul)
def matmul(x1: Any, x2: Any) -> Any:
    """np.linalg.matmul."""
    return np.matmul(x1, x2)


@implements(np.linalg.tensordot)
def tensordot(x1: Any, x2: Any, axes: Any = 2) -> Any:
    """np.linalg.tensordot."""
    return np.tensordot(x1, x2, axes)


@implements(np.linalg.diagonal)
def diagonal(x: Any, offset: int = 0) -> Any:
    """np.linalg.diagonal: of the last two axes."""
    return np.diagonal(x, offset, -2, -1)


@implements(np.linalg.trace)
def trace(x: Any, offset: int = 0) -> Any:
    """np.linalg.trace: over the last two axes."""
    return np.sum(diagonal(x, offset), axis=-1)


@implements(np.matrix_transpose, np.linalg.matrix_transpose)
def matrix_transpose(x: Any) -> Any:
    """np.matrix_transpose: the last two axes swapped."""
    return np.swapaxes(x, -1, -2)


@implements(np.vecdot)
def _vecdot(x1: Any, x2: Any) -> Any:
    """np.vecdot: over the last axis."""
    x1, x2 = _array(x1), _array(x2)
    if x1.ndim == 0 or x2.ndim == 0 or x1.shape[-1] != x2.shape[-1]:
        raise ValueError(f"np.vecdot: shapes {x1.shape} and {x2.shape} must have last axes of equal length")
    return np.sum(x1 * x2, axis=-1)


@implements(np.linalg.vecdot)
def vecdot(x1: Any, x2: Any, axis: int = -1) -> Any:
    """np.linalg.vecdot: over one axis."""
    return _vecdot(np.moveaxis(_array(x1), axis, -1), np.moveaxis(_array(x2), axis, -1))


@implements(np.cross)
def cross(a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None) -> Any:
    """np.cross of vectors of three components."""
    a, b = _array(a), _array(b)
    if axis is not None:
        axisa = axisb = axisc = axis
    if a.shape[axisa] != 3 or b.shape[axisb] != 3:
        raise ValueError(
            f"np.cross of Tensors: both axes must have length 3, not {a.shape[axisa]} and {b.shape[axisb]}"
        )
    a, b = np.moveaxis(a, axisa, -1), np.moveaxis(b, axisb, -1)
    after, before = np.array([1, 2, 0]), np.array([2, 0, 1])
    product = a[..., after] * b[..., before] - a[..., before] * b[..., after]
    return np.moveaxis(product, -1, normalize_axis_index(axisc, product.ndim))


@implements(np.linalg.cross)
def linalg_cross(x1: Any, x2: Any, axis: int = -1) -> Any:
    """np.linalg.cross of vectors of three components."""
    return cross(x1, x2, axis=axis)


@implements(np.kron)
def kron(a: Any, b: Any) -> Any:
    """np.kron: blocks of b, scaled by the elements of a."""
    a, b = _array(a), _array(b)
    ndim = max(a.ndim, b.ndim)
    a, b = (np.reshape(x, (1,) * (ndim - x.ndim) + tuple(x.shape)) for x in (a, b))
    left, right = tuple(range(1, 2 * ndim, 2)), tuple(range(0, 2 * ndim, 2))
    product = np.expand_dims(a, left) * np.expand_dims(b, right)
    return np.reshape(product, tuple(m * n for m, n in zip(a.shape, b.shape, strict=True)))


@implements(np.vander)
def vander(x: Any, N: int | None = None, increasing: bool = False) -> Any:  # noqa: N803
    """np.vander: powers of a vector, as columns, each by one multiplication more than the last (so 0 ** 0 is 1)."""
    if x.ndim != 1:
        raise ValueError(f"np.vander takes a vector, not an array of shape {x.shape}")
    count = x.shape[0] if N is None else as_int(N)
    powers = reduce(lambda found, _: [*found, found[-1] * x], range(count - 1), [np.ones_like(x)])
    y = np.stack(powers[:count] if count else powers, axis=1)
    y = y if count else y[:, :0]
    return y if increasing else np.flip(y, axis=1)
