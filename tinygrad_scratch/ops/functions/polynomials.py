"""Polynomials by their coefficients, highest power first, as np.polyval and its family take them."""

from typing import Any

import numpy as np

from tinygrad_scratch.ops import linalg
from tinygrad_scratch.ops.functions.moving import array, floating
from tinygrad_scratch.registry import implements


@implements(np.polyval)
def polyval(p: Any, x: Any) -> Any:
    """np.polyval, by Horner's rule; differentiable in the coefficients and in x."""
    p, x = array(p), array(x)
    answer = np.zeros(x.shape, np.result_type(p.dtype, x.dtype))
    for i in range(p.shape[0]):
        answer = answer * x + p[i]
    return answer


@implements(np.polyadd)
def polyadd(a1: Any, a2: Any) -> Any:
    """np.polyadd."""
    return np.add(*_aligned(a1, a2))


@implements(np.polysub)
def polysub(a1: Any, a2: Any) -> Any:
    """np.polysub."""
    return np.subtract(*_aligned(a1, a2))


def _aligned(a1: Any, a2: Any) -> list[Any]:
    a1, a2 = _coefficients(a1), _coefficients(a2)
    n = max(a1.size, a2.size)
    return [np.concatenate([np.zeros(n - a.size, a.dtype), a]) if a.size < n else a for a in (a1, a2)]


def _coefficients(p: Any) -> Any:
    p = array(p)
    return p if p.ndim else p.reshape((1,))


@implements(np.polymul)
def polymul(a1: Any, a2: Any) -> Any:
    """np.polymul; leading coefficients that are 0 are taken off first."""
    return linalg.convolve(*(_trimmed(_coefficients(a)) for a in (a1, a2)))


def _trimmed(p: Any) -> Any:
    trimmed = np.trim_zeros(p, "f")
    return trimmed if trimmed.size else np.zeros(1, p.dtype)


@implements(np.polydiv)
def polydiv(u: Any, v: Any) -> tuple[Any, Any]:
    """np.polydiv: (quotient, remainder), by long division."""
    u, v = (floating(_coefficients(a)) for a in (u, v))
    rest, quotient = u, []
    for _ in range(u.size - v.size + 1):
        quotient.append(rest[:1] / v[0])
        rest = (rest - np.concatenate([quotient[-1] * v, np.zeros(rest.size - v.size, v.dtype)]))[1:]
    if not quotient:
        quotient.append(np.zeros(1, u.dtype) * v[0])
    while rest.size > 1 and np.allclose(rest[0], 0, rtol=1e-14):
        rest = rest[1:]
    return np.concatenate(quotient), rest if rest.size else u[:1] * 0


@implements(np.polyder)
def polyder(p: Any, m: int = 1) -> Any:
    """np.polyder: the m-th derivative."""
    p = _coefficients(p)
    for _ in range(m):
        p = p[:-1] * np.arange(p.size - 1, 0, -1).astype(p.dtype)
    return p


@implements(np.polyint)
def polyint(p: Any, m: int = 1, k: Any = None) -> Any:
    """np.polyint: the m-th antiderivative, with the constants k."""
    p = floating(_coefficients(p))
    constants = np.zeros(m, p.dtype) if k is None else np.broadcast_to(array(k), (m,))
    for i in range(m):
        p = np.concatenate([p / np.arange(p.size, 0, -1).astype(p.dtype), np.astype(constants[i : i + 1], p.dtype)])
    return p


@implements(np.poly)
def poly(seq_of_zeros: Any) -> Any:
    """np.poly: the coefficients of the polynomial with these zeros."""
    zeros = floating(_coefficients(seq_of_zeros))
    if zeros.ndim != 1:
        raise ValueError(f"np.poly of a Tensor of shape {zeros.shape}: give the zeros; eigenvalues may be complex")
    answer: Any = np.ones(1, zeros.dtype)
    for i in range(zeros.size):
        answer = linalg.convolve(answer, np.concatenate([np.ones(1, zeros.dtype), -zeros[i : i + 1]]))
    return answer


@implements(np.polyfit)
def polyfit(x: Any, y: Any, deg: int, rcond: Any = None, full: bool = False, w: Any = None, cov: bool = False) -> Any:
    """np.polyfit: the coefficients alone; least squares by np.linalg.lstsq, columns scaled as NumPy does."""
    if full or cov:
        raise ValueError("np.polyfit of a Tensor gives the coefficients alone: leave out full= and cov=")
    x, y = floating(array(x)), floating(array(y))
    if x.ndim != 1 or not x.size or y.ndim not in (1, 2) or len(x) != len(y):
        raise TypeError(f"np.polyfit: x of shape {x.shape} and y of shape {y.shape}; give a vector and as many values")
    left, right = np.vander(x, deg + 1), y
    if w is not None:
        w = floating(array(w))
        left, right = left * w[:, None], right * (w[:, None] if y.ndim == 2 else w)
    scale = np.sqrt(np.sum(left * left, axis=0))
    solution = np.linalg.lstsq(left / scale, right, rcond=x.size * 2e-16 if rcond is None else rcond)[0]
    return (solution.T / scale).T
