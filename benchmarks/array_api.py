"""Which functions of the array API standard pass, and which functions of libraries that are written for it take Tensors.

How to read it: every function of the standard is called on Tensors and, as the oracle, on array-api-strict's arrays
(where it is not installed, on NumPy's), in float64 and float32. "yes": a Tensor of the same values, shape and dtype.
Where the answer is real, its gradient is held to finite differences: "differentiable". Then the functions of SciPy,
scikit-learn, einops and array-api-extra are called on a Tensor that requires a gradient, within ``tg.rewriting()``.
``--write`` puts it all into docs/array_api.md.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import tinygrad_scratch as tg
from benchmarks import measure
from tinygrad_scratch.testing import check_grad

DOCS = Path(__file__).parents[1] / "docs" / "array_api.md"

UNARY = """abs asin asinh atan atanh ceil cos cosh exp expm1 floor isfinite isinf isnan log log1p log2 log10 negative positive
reciprocal round sign signbit sin sinh square sqrt tan tanh trunc conj real acos""".split()
BINARY = """add atan2 copysign divide equal floor_divide greater greater_equal hypot less less_equal logaddexp maximum minimum
multiply not_equal pow remainder subtract""".split()
WRITTEN = """
acosh: xp.acosh(x + 1.5) | nextafter: xp.nextafter(c, d) | clip: xp.clip(x, 0.3, 0.7)
logical_not: xp.logical_not(b)
logical_and: xp.logical_and(b, x > 0.5) | logical_or: xp.logical_or(b, x > 0.5) | logical_xor: xp.logical_xor(b, x > 0.5)
bitwise_and: xp.bitwise_and(i, j) | bitwise_or: xp.bitwise_or(i, j) | bitwise_xor: xp.bitwise_xor(i, j)
bitwise_invert: xp.bitwise_invert(i) | bitwise_left_shift: xp.bitwise_left_shift(i, j)
bitwise_right_shift: xp.bitwise_right_shift(i, j) | imag: xp.imag(x)
sum: xp.sum(x, axis=1, keepdims=True) | prod: xp.prod(x, axis=0) | mean: xp.mean(x, axis=(0, 1)) | max: xp.max(x, axis=1)
min: xp.min(x) | std: xp.std(x, axis=1, correction=1.0) | var: xp.var(x, correction=1) | all: xp.all(b, axis=0)
any: xp.any(b) | cumulative_sum: xp.cumulative_sum(x, axis=1, include_initial=True)
cumulative_prod: xp.cumulative_prod(x, axis=0) | count_nonzero: xp.count_nonzero(i, axis=1) | diff: xp.diff(x, axis=1)
argmax: xp.argmax(x, axis=1) | argmin: xp.argmin(x) | nonzero: xp.nonzero(i) | searchsorted: xp.searchsorted(v, x[0, :])
where: xp.where(b, x, y) | argsort: xp.argsort(x, axis=0, descending=True) | sort: xp.sort(x, axis=1, descending=True)
unique_all: xp.unique_all(i) | unique_counts: xp.unique_counts(i) | unique_inverse: xp.unique_inverse(i)
unique_values: xp.unique_values(x) | isin: xp.isin(i, j)
broadcast_arrays: xp.broadcast_arrays(x, v) | broadcast_to: xp.broadcast_to(v, (2, 3)) | concat: xp.concat([x, y], axis=None)
expand_dims: xp.expand_dims(x, axis=1) | flip: xp.flip(x, axis=1) | moveaxis: xp.moveaxis(x, 0, 1)
permute_dims: xp.permute_dims(x, (1, 0)) | repeat: xp.repeat(x, 2, axis=1) | reshape: xp.reshape(x, (3, -1))
roll: xp.roll(x, 1, axis=0) | squeeze: xp.squeeze(x[:1, :], axis=0) | stack: xp.stack([x, y], axis=1) | tile: xp.tile(x, (2, 1))
unstack: xp.unstack(x, axis=1) | matmul: xp.matmul(x, m) | matrix_transpose: xp.matrix_transpose(x)
tensordot: xp.tensordot(x, m, axes=1) | vecdot: xp.vecdot(x, y) | take: xp.take(x, k, axis=1)
take_along_axis: xp.take_along_axis(x, xp.argsort(x, axis=1), axis=1) | astype: xp.astype(x, xp.float64)
asarray: xp.asarray([1.0, 2.0]) | arange: xp.arange(1, 7, 2) | empty: xp.empty((2, 3)).shape | eye: xp.eye(3, 4, k=1)
empty_like: xp.empty_like(x).shape | full: xp.full((2,), 3.5) | full_like: xp.full_like(x, 2) | ones: xp.ones((2, 2))
linspace: xp.linspace(0.0, 1.0, 5) | meshgrid: xp.meshgrid(v, v) | ones_like: xp.ones_like(x)
tril: xp.tril(m) | triu: xp.triu(m, k=1)
zeros: xp.zeros(3) | zeros_like: xp.zeros_like(i) | from_dlpack: xp.from_dlpack(xp.ones(3))
broadcast_shapes: xp.broadcast_shapes((2, 1), (3,)) | can_cast: xp.can_cast(xp.float32, xp.float64) | finfo: xp.finfo(x.dtype).bits
iinfo: xp.iinfo(xp.int32).max | isdtype: xp.isdtype(x.dtype, "real floating") | result_type: xp.result_type(x, xp.float32)
linalg.cholesky: xp.linalg.cholesky(m) | linalg.cross: xp.linalg.cross(v, v[::-1]) | linalg.det: xp.linalg.det(m)
linalg.diagonal: xp.linalg.diagonal(m, offset=1) | linalg.eigh: xp.linalg.eigh(m).eigenvalues
linalg.eigvalsh: xp.linalg.eigvalsh(m) | linalg.inv: xp.linalg.inv(m) | linalg.matmul: xp.linalg.matmul(x, m)
linalg.matrix_norm: xp.linalg.matrix_norm(m) | linalg.matrix_power: xp.linalg.matrix_power(m, 3)
linalg.matrix_rank: xp.linalg.matrix_rank(m) | linalg.matrix_transpose: xp.linalg.matrix_transpose(x)
linalg.outer: xp.linalg.outer(v, v) | linalg.pinv: xp.linalg.pinv(x) | linalg.qr: xp.linalg.qr(m).R
linalg.slogdet: xp.linalg.slogdet(m).logabsdet | linalg.solve: xp.linalg.solve(m, m[:, :2]) | linalg.svd: xp.linalg.svd(x).S
linalg.svdvals: xp.linalg.svdvals(x) | linalg.tensordot: xp.linalg.tensordot(x, m, axes=1) | linalg.trace: xp.linalg.trace(m)
linalg.vecdot: xp.linalg.vecdot(x, y, axis=-2) | linalg.vector_norm: xp.linalg.vector_norm(x, axis=1, ord=3)
linalg.eig: xp.linalg.eig(m) | linalg.eigvals: xp.linalg.eigvals(m)
fft.fft: xp.fft.fft(v) | fft.ifft: xp.fft.ifft(v) | fft.fftn: xp.fft.fftn(x) | fft.ifftn: xp.fft.ifftn(x) | fft.rfft: xp.fft.rfft(v)
fft.irfft: xp.fft.irfft(v) | fft.rfftn: xp.fft.rfftn(x) | fft.irfftn: xp.fft.irfftn(x) | fft.hfft: xp.fft.hfft(v)
fft.ihfft: xp.fft.ihfft(v) | fft.fftfreq: xp.fft.fftfreq(4) | fft.rfftfreq: xp.fft.rfftfreq(4)
fft.fftshift: xp.fft.fftshift(v) | fft.ifftshift: xp.fft.ifftshift(v)
"""
CALLS = {
    **{name: f"xp.{name}(x)" for name in UNARY},
    **{name: f"xp.{name}(x, y)" for name in BINARY},
    **dict(call.strip().split(": ", 1) for line in WRITTEN.strip().splitlines() for call in line.split(" | ")),
}
"""name of the standard -> a call of it."""

COMPLEX = "fft ifft fftn ifftn rfft irfft rfftn irfftn hfft ihfft".split()
REASONS = {
    "imag": "Tensors are real; complex numbers are refused",
    "linalg.eig": "its answer is complex",
    "linalg.eigvals": "its answer is complex",
    **{
        f"fft.{name}": "its input or answer is complex"
        for name in "fft ifft fftn ifftn rfft irfft rfftn irfftn hfft ihfft".split()
    },
}
"""Why a function of the standard does not pass, where that is so by design."""


def arrays(dtype: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The operands: x, y (2, 3) in (0.1, 0.9); v (3,) in order; m (3, 3) positive definite; i, j, k integers; b booleans."""
    rng = np.random.default_rng(0)
    x, y = rng.permutation(np.linspace(0.12, 0.88, 12)).reshape(2, 2, 3).astype(dtype)
    root = rng.uniform(0.2, 0.8, (3, 3))
    return {
        "x": x, "y": y, "v": np.array([0.2, 0.5, 0.8], dtype), "m": (root @ root.T + np.eye(3)).astype(dtype),
        "i": np.array([[3, 0, 5], [5, 6, 3]]), "j": np.array([[1, 2, 0], [3, 1, 2]]), "k": np.array([2, 0, 2]),
        "b": np.array([[True, False, True], [False, False, True]]), "c": x.copy(), "d": y.copy(),
    }  # fmt: skip


def oracle() -> Any:
    """array-api-strict's namespace, or NumPy's."""
    if importlib.util.find_spec("array_api_strict"):
        import array_api_strict

        return array_api_strict
    return np


def flat(result: Any) -> Iterator[Any]:
    """The arrays of a result, and whatever else it holds."""
    if isinstance(result, (tuple, list)):
        for part in result:
            yield from flat(part)
    else:
        yield result


def compare(call: str, dtype: Any) -> None:
    """AssertionError, or what the call raises, unless Tensors give what the oracle gives."""
    xp = oracle()
    found = list(flat(eval(call, {"xp": tg.array_api, **{k: tg.Tensor(a) for k, a in arrays(dtype).items()}})))
    expected = list(flat(eval(call, {"xp": xp, **{k: xp.asarray(a) for k, a in arrays(dtype).items()}})))
    assert len(found) == len(expected), f"{len(found)} results instead of {len(expected)}"
    for a, b in zip(found, expected, strict=True):
        if not hasattr(b, "dtype"):
            assert str(a) == str(b).rpartition(".")[2], f"{a} instead of {b}"
            continue
        assert isinstance(a, tg.Tensor), f"{type(a).__name__} instead of a Tensor"
        other = np.asarray(b)
        assert (a.shape, a.dtype) == (other.shape, other.dtype), (
            f"{a.dtype}{a.shape} instead of {other.dtype}{other.shape}"
        )
        np.testing.assert_allclose(a.numpy(), other, rtol=1e-5 if other.dtype == np.float32 else 1e-12)


def differentiable(call: str) -> bool:
    """Whether the call has a gradient by one of its real operands, which is then held to differences."""
    given = arrays(np.float64)
    reals = [name for name in "xyvm" if re.search(rf"\b{name}\b", call)]

    def f(*values: Any) -> Any:
        found = eval(call, {"xp": tg.array_api, **given, **dict(zip(reals, values, strict=True))})
        return next((y for y in flat(found) if isinstance(y, tg.Tensor) and y.requires_grad), None)

    output = f(*(tg.Tensor(given[name], requires_grad=True) for name in reals))
    if output is None:
        return False
    symmetric = call.startswith(("xp.linalg.cholesky", "xp.linalg.eig"))
    check_grad(
        lambda *values: f(*((v + v.T) / 2 if symmetric else v for v in values)), *(given[name] for name in reals)
    )
    return True


def standard() -> dict[str, str]:
    """name -> "yes", "yes, differentiable", or the reason why not."""
    verdicts = {}
    for name, call in CALLS.items():
        try:
            compare(call, np.float64)
            compare(call, np.float32)
            verdicts[name] = "yes, differentiable" if differentiable(call) else "yes"
        except Exception as error:
            verdicts[name] = REASONS.get(name) or f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return verdicts


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Check, print, write array_api.json and, if asked, the page of the docs."""
    parser = measure.parser("array_api", __doc__)
    parser.add_argument("--write", action="store_true", help=f"write {DOCS.relative_to(DOCS.parents[1])}")
    options = parser.parse_args(arguments)
    results = measure.header("array_api", options, "array-api-strict", *LIBRARIES)
    results["standard"] = standard()
    results["libraries"] = {} if options.quick else libraries()
    page = show(results)
    print(page)
    measure.write_json(options.out / "array_api.json", results)
    if options.write:
        DOCS.parent.mkdir(exist_ok=True)
        DOCS.write_text(page + "\n")
    return results


LIBRARIES = ("scipy", "scikit-learn", "einops", "array-api-extra")


def libraries() -> dict[str, dict[str, str]]:
    """library -> function -> "differentiable" or the reason why not."""
    os.environ["SCIPY_ARRAY_API"] = "1"  # read by SciPy when it is imported
    from benchmarks import array_api_consumers

    found = {}
    for library in LIBRARIES:
        if installed(library):
            found[library] = {name: verdict(f) for name, f in array_api_consumers.calls(library).items()}
    return found


def installed(library: str) -> str:
    """The version of a library, or nothing."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return ""


def verdict(f: Callable[[Any], Any]) -> str:
    """How a library's function of one array takes a Tensor."""
    x = np.random.default_rng(0).uniform(0.2, 0.9, (6, 3))
    with warnings.catch_warnings(), tg.rewriting():
        warnings.simplefilter("ignore")
        try:
            found = f(tg.Tensor(x, requires_grad=True))
            if not isinstance(found, tg.Tensor):
                return f"the value alone: it answers with a {type(found).__name__}"
            check_grad(f, x, rtol=1e-5)
        except Exception as error:
            return reason(error)
    return "differentiable"


def reason(error: Exception) -> str:
    """Why a library's function does not take Tensors, in a few words."""
    text = str(error).strip().splitlines()[0]
    if "is not finite" in text:
        return "not: it makes a NaN and replaces it later; a gradient keeps the NaN"
    if "np.asarray of" in text:
        return "not: it converts to a NumPy array (compiled code), which would lose the graph"
    return f"not: {type(error).__name__}: {text[:140]}"


LIBRARIES_TEXT = """Functions of one array, given a Tensor (6, 3) that requires a gradient, within `tg.rewriting()`; gradients were
held to differences. SciPy needs `SCIPY_ARRAY_API=1`, scikit-learn `sklearn.config_context(array_api_dispatch=True)`."""


def show(results: dict[str, Any]) -> str:
    """The page, in Markdown."""
    verdicts: dict[str, str] = results["standard"]
    passing = {name: v for name, v in verdicts.items() if v.startswith("yes")}
    lines = [
        "# The array API standard over Tensors",
        "",
        "Written by `python -m benchmarks array_api --write`. `tensor.__array_namespace__()` is `tinygrad_scratch.array_api`; it",
        f"claims version {tg.array_api.__array_api_version__}. Each function was called on Tensors and on the arrays of "
        f"{oracle().__name__}, in float64 and",
        f"float32: {len(passing)} of {len(verdicts)} give the same values, shapes and dtypes. Gradients were held to differences.",
        "",
        "**Passing and differentiable:** " + ", ".join(f"`{n}`" for n, v in passing.items() if "diff" in v) + ".",
        "",
        "**Passing; the answer has no derivative, or is made of none:** "
        + ", ".join(f"`{n}`" for n, v in passing.items() if "diff" not in v) + ".",
        "",
        "| not passing | because |",
        "| --- | --- |",
        *(f"| `{name}` | {v} |" for name, v in verdicts.items() if name not in passing),
        "",
        "The test suite of the standard's authors is no package and was not run. Beyond the above: complex dtypes are refused; a",
        "Tensor with a graph is changed in place only within `tg.rewriting()`; `x[mask]` has the shape that the values give.",
    ]  # fmt: skip
    if results["libraries"]:
        lines += ["", "## Libraries", "", LIBRARIES_TEXT]
    for library, found in results["libraries"].items():
        right = [name for name, v in found.items() if v == "differentiable"]
        lines += [
            "",
            f"**{library} {installed(library)}**: differentiable: " + ", ".join(f"`{n}`" for n in right) + ".",
        ]
        rest = {name: v for name, v in found.items() if v != "differentiable"}
        lines += ["", "| function | |", "| --- | --- |", *(f"| `{n}` | {v} |" for n, v in rest.items())] if rest else []
    return "\n".join(lines)
