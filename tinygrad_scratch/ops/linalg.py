"""Products: matmul with all of NumPy's shape rules, einsum in every form, and the affine map of a layer."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_scratch.domains import Domain, reals
from tinygrad_scratch.registry import general, multilinear


def _matmul_left(g: Any, y: Any, a: Any, b: Any) -> Any:
    if b.ndim == 1:
        return g[..., None] * b
    if a.ndim == 1:
        return (g[..., None, :] @ b.mT)[..., 0, :]
    return g @ b.mT


def _matmul_right(g: Any, y: Any, a: Any, b: Any) -> Any:
    if a.ndim == 1:
        return a * g if b.ndim == 1 else a[:, None] * g[..., None, :]
    if b.ndim == 1:
        return (a.mT @ g[..., None])[..., 0]
    return a.mT @ g


def _matmul(a: Any, b: Any) -> Any:
    """a @ b with NumPy's shape rules. A sum over one term (the weight gradient of a batch of one) is a broadcast multiply,
    which writes the product once: several times faster than the BLAS call, and the same bits."""
    if a.ndim > 1 and b.ndim > 1 and a.shape[-1] == 1 == b.shape[-2] and a.dtype.kind == "f":
        return np.multiply(a, b)
    return np.matmul(a, b)


def _convolve_rule(g: Any, other: Any) -> Any:
    """The cotangent of one factor: g correlated with the other, of the length that the factor has."""
    n, m = g.shape[0], other.shape[0]
    return convolve(g, np.flip(other))[m - 1 : n]


def _weight_rule(g: Any, y: Any, x: Any, weight: Any, bias: Any) -> Any:
    """g.T @ x, in the memory order of the weight, so that an update runs through both in step."""
    if g.ndim != 2:
        g, x = _rows(g), _rows(x)
    left, right = (g.T, x) if getattr(weight, "_data", weight).flags.c_contiguous else (x.T, g)
    product = left @ right if right.shape[0] != 1 else matmul(left, right)  # the row: a sum over one term is a product
    return product if right is x else product.T


def _affine(x: Any, weight: Any, bias: Any) -> Any:
    """x @ weight.T + bias: the affine map of a layer. x (..., in), weight (out, in), bias (out,) -> (..., out)."""
    y = x @ weight.T
    if bias.dtype is y.dtype and bias.ndim == 1 and y.ndim:
        return np.add(y, bias, out=y)
    return y + bias


def _rows(x: Any) -> Any:
    return x if x.ndim == 2 else x.reshape((-1, x.shape[-1]))


def _canonical(subscripts: str, ndims: tuple[int, ...]) -> tuple[list[str], str]:
    """Explicit subscripts, one letter an axis: the ellipsis spelled out, the output written down."""
    left, arrow, out = subscripts.replace(" ", "").partition("->")
    terms = left.split(",")
    free = [c for c in "ZYXWVUTSRQPONMLKJIHGFEDCBAzyxwvutsrqponmlkjihgfedcba" if c not in subscripts]
    extra = [ndim - len(term.replace("...", "")) for term, ndim in zip(terms, ndims, strict=True)]
    dots = "".join(free[: max([n for n, t in zip(extra, terms, strict=True) if "..." in t], default=0)])
    terms = [t.replace("...", dots[len(dots) - n :]) for t, n in zip(terms, extra, strict=True)]
    if not arrow:
        joined = "".join(terms)
        out = "..." + "".join(sorted(c for c in set(joined) - set(dots) if joined.count(c) == 1))
    return terms, out.replace("...", dots)


def _einsum(*operands: Any, subscripts: str = "", optimize: Any = False) -> Any:
    return np.einsum(subscripts, *operands, optimize=optimize)


def _einsum_rule(g: Any, y: Any, *operands: Any, subscripts: str, optimize: Any = False) -> Callable[[int], Any]:
    """Swap the output with one operand. Axes of full length nowhere else come back as ones, repeated letters as an identity."""
    terms, out = _canonical(subscripts, tuple(x.ndim for x in operands))

    def pull(i: int) -> Any:
        mine, others = terms[i], [t for j, t in enumerate(terms) if j != i]
        factors, names = [g, *(x for j, x in enumerate(operands) if j != i)], [out, *others]
        longer = {
            c for x, name in zip(factors, names, strict=True) for c, n in zip(name, x.shape, strict=True) if n > 1
        }
        target = ""
        for axis, letter in enumerate(mine):
            n, new = operands[i].shape[axis], letter
            if letter in target:  # the diagonal of this operand: off it, the derivative is zero
                new = next(c for c in map(chr, range(0x61, 0x7B)) if c not in "".join([*terms, out, *names, target]))
                factors.append(np.eye(n, dtype=operands[i].dtype))
                names.append(letter + new)
            elif letter not in "".join(names) or (n > 1 and letter not in longer):  # summed alone, or against length 1
                factors.append(np.ones(n, dtype=operands[i].dtype))
                names.append(letter)
            target += new
        return einsum(*factors, subscripts=f"{','.join(names)}->{target}", optimize=optimize)

    return pull


_products = Domain(
    cases=tuple(
        (pair, {})
        for pair in (((3, 4), (4, 2)), ((4,), (4,)), ((4,), (4, 2)), ((3, 4), (4,)), ((2, 3, 4), (4, 2)), ((2, 1, 3, 4), (5, 4, 2)), ((4,), (2, 4, 3)), ((2, 3, 4), (4,)))
    )
)  # fmt: skip
_sums = reals.with_cases(
    (((3, 4), (4, 2)), {"subscripts": "ij,jk->ik"}),
    (((3, 4), (4, 2)), {"subscripts": "ij,jk"}),
    (((3, 3),), {"subscripts": "ii"}),
    (((3, 3, 2),), {"subscripts": "iij->ij"}),
    (((2, 3), (3,)), {"subscripts": "ij,k->i"}),
    (((2, 3, 4), (4, 5)), {"subscripts": "...j,jk->...k"}),
    (((2, 3), (2, 3), (3,)), {"subscripts": "bi,bi,i->b"}),
)
_signals = reals.with_cases((((5,), (3,)), {}), (((2,), (4,)), {}), (((1,), (1,)), {}))
_layers = reals.with_cases((((5, 3), (2, 3), (2,)), {}), (((3,), (2, 3), (2,)), {}), (((2, 4, 3), (2, 3), (2,)), {}))

# fmt: off
matmul = multilinear(_matmul,  _matmul_left, _matmul_right, answers=np.matmul, domain=_products)
einsum = multilinear(_einsum, _einsum_rule, variadic=True, domain=_sums)
convolve = multilinear(np.convolve, lambda g, y, a, v: _convolve_rule(g, v), lambda g, y, a, v: _convolve_rule(g, a), answers=(), domain=_signals)
affine = general(_affine, lambda g, y, x, w, b: g @ w, _weight_rule, lambda g, y, x, w, b: g,
                 reference=lambda x, w, b: np.add(np.matmul(x, np.transpose(w)), b), domain=_layers)
# fmt: on
