"""The array API standard (2024.12) over Tensors: what ``tensor.__array_namespace__()`` gives to array-consuming libraries.

Each function is NumPy's of the same name, whose rows differentiate it; arrays that NumPy makes come back as Tensors. Here
are those that the standard writes otherwise, that create arrays, or whose answers are integers and truth values.
``docs/array_api.md`` lists what passes.

>>> import tinygrad_scratch as tg
>>> x = tg.Tensor([3.0, 4.0], requires_grad=True)
>>> xp = x.__array_namespace__()
>>> xp.sum(xp.square(x)).backward()
>>> x.grad.tolist()
[6.0, 8.0]
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from tinygrad_scratch.errors import NotDifferentiableError
from tinygrad_scratch.tensor import Tensor, as_tensor, value_of

__array_api_version__ = "2024.12"

_SAME = """bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float32 float64 complex64 complex128
e inf nan pi newaxis broadcast_shapes isdtype __array_namespace_info__""".split()
_ELEMENTWISE = """abs acos acosh add asin asinh atan atan2 atanh bitwise_and bitwise_invert bitwise_or bitwise_xor ceil
copysign cos cosh divide equal exp expm1 floor floor_divide greater greater_equal hypot isfinite isinf isnan less less_equal
log log1p log2 log10 logaddexp logical_and logical_not logical_or logical_xor maximum minimum multiply negative not_equal
positive pow reciprocal remainder sign sin sinh square sqrt subtract tan tanh trunc""".split()
_SHAPING = "broadcast_to concat expand_dims flip moveaxis permute_dims repeat reshape roll squeeze stack tile".split()
_REDUCING = "all any argmax argmin count_nonzero max min".split()
_OTHER = "matmul tensordot take take_along_axis diff tril triu where".split()
_CREATING = "arange empty eye from_dlpack full linspace ones zeros empty_like full_like ones_like zeros_like".split()
_VALUES = "bitwise_left_shift bitwise_right_shift isin nonzero searchsorted signbit nextafter".split()
_LINALG = """cholesky cross det eigh eigvalsh inv matrix_norm matrix_power matrix_rank pinv qr slogdet solve svd svdvals
vector_norm""".split()
_FFT = "fft ifft fftn ifftn rfft irfft rfftn irfftn hfft ihfft fftfreq rfftfreq fftshift ifftshift".split()


def check_device(device: Any) -> None:
    """ValueError for any device but the CPU."""
    if device not in (None, "cpu"):
        raise ValueError(f"device {device!r}: all Tensors are on the CPU; use 'cpu' or None")


def _tensors(result: Any) -> Any:
    """Arrays as Tensors, also within tuples; dtypes and other things as they are."""
    if isinstance(result, tuple):
        items = map(_tensors, result)
        return type(result)(*items) if hasattr(result, "_fields") else tuple(items)
    if isinstance(result, list):
        return [_tensors(x) for x in result]
    return as_tensor(result) if isinstance(result, (np.ndarray, np.generic)) else result


def _values(x: Any) -> Any:
    """The array behind a Tensor, for answers that have no derivative."""
    return value_of(x, "an answer of integers or truth values") if isinstance(x, Tensor) else x


def _through(function: Callable[..., Any]) -> Callable[..., Any]:
    """NumPy's function as it is: its rows do the rest."""

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        return _tensors(function(*args, **options))

    return call


def _created(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that makes an array: of values, shapes and dtypes alone."""

    @wraps(function)
    def call(*args: Any, device: Any = None, **options: Any) -> Any:
        check_device(device)
        return _tensors(function(*map(_values, args), **{k: _values(v) for k, v in options.items()}))

    return call


def _of_values(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose answer is piecewise constant: of the values alone."""

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        return _tensors(function(*map(_values, args), **options))

    return call


def __getattr__(name: str) -> Any:
    if name in _SAME:
        made = getattr(np, name)
    elif name in _ELEMENTWISE or name in _SHAPING or name in _REDUCING or name in _OTHER:
        made = _through(getattr(np, name))
    elif name in _CREATING:
        made = _created(getattr(np, name))
    elif name in _VALUES:
        made = _of_values(getattr(np, name))
    else:
        raise AttributeError(f"the array API namespace of tinygrad_scratch has no {name!r}")
    globals()[name] = made
    return made


def __dir__() -> list[str]:
    names = [*_SAME, *_ELEMENTWISE, *_SHAPING, *_REDUCING, *_OTHER, *_CREATING, *_VALUES]
    return sorted({*names, *(n for n in globals() if not n.startswith("_"))} - _NOT_OURS)


_NOT_OURS = {
    "Any",
    "Callable",
    "NotDifferentiableError",
    "Tensor",
    "as_tensor",
    "check_device",
    "np",
    "value_of",
    "wraps",
}


# -- what is written otherwise -------------------------------------------------------------------------------------------


def asarray(obj: Any, /, *, dtype: Any = None, device: Any = None, copy: Any = None) -> Tensor:
    """A Tensor of anything; a Tensor keeps its graph, and so do those within lists."""
    check_device(device)
    if isinstance(obj, (list, tuple)) and any(isinstance(x, (Tensor, list, tuple)) for x in obj):
        obj = np.stack([asarray(x) for x in obj])
    if isinstance(obj, Tensor):
        if dtype is not None and obj.dtype != dtype:
            if copy is False:
                raise ValueError(f"asarray: {obj.dtype} cannot become {np.dtype(dtype)} without a copy")
            return obj.astype(dtype)
        return obj.copy() if copy else obj
    return as_tensor(np.array(obj, dtype=dtype, copy=copy))


def astype(x: Tensor, dtype: Any, /, *, copy: Any = True, device: Any = None) -> Tensor:
    """`x` in another dtype."""
    check_device(device)
    return x if not copy and x.dtype == dtype else x.astype(dtype)


def _summed(function: Callable[..., Any]) -> Callable[..., Any]:
    """sum and prod, whose ``dtype`` is that of the terms."""

    @wraps(function)
    def call(x: Any, /, *, axis: Any = None, dtype: Any = None, keepdims: Any = False) -> Any:
        return _tensors(function(x if dtype is None else x.astype(dtype), axis=axis, keepdims=keepdims))

    return call


def _corrected(function: Callable[..., Any]) -> Callable[..., Any]:
    """std and var, whose ``correction`` is NumPy's ddof."""

    @wraps(function)
    def call(x: Any, /, *, axis: Any = None, correction: float = 0.0, keepdims: Any = False) -> Any:
        return _tensors(function(x, axis=axis, ddof=correction, keepdims=keepdims))

    return call


sum, prod, std, var = _summed(np.sum), _summed(np.prod), _corrected(np.std), _corrected(np.var)


def mean(x: Any, /, *, axis: Any = None, keepdims: Any = False) -> Any:
    """The mean over `axis`."""
    return np.mean(x, axis=axis, keepdims=keepdims)


def clip(x: Any, /, min: Any = None, max: Any = None) -> Any:
    """`x` between `min` and `max`, in the dtype of x."""
    if min is None and max is None:
        return asarray(x, copy=True)
    return np.clip(x, min, max)


def round(x: Any, /) -> Any:
    """The nearest integer, of halves the even one. Piecewise constant: its derivative is 0."""
    return asarray(x, copy=True) if x.dtype.kind != "f" else np.rint(x)


def vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    """The products along `axis`, added up."""
    if axis >= 0 or x1.shape[axis] != x2.shape[axis]:
        raise ValueError(f"vecdot: axis must be negative and as long in {x1.shape} as in {x2.shape}, not {axis}")
    return np.sum(np.multiply(x1, x2), axis=axis)


def matrix_transpose(x: Any, /) -> Any:
    """The last two axes swapped."""
    return np.swapaxes(x, -1, -2)


def unstack(x: Any, /, *, axis: int = 0) -> tuple[Any, ...]:
    """The slices along `axis`."""
    return tuple(np.moveaxis(x, axis, 0))


def broadcast_arrays(*arrays: Any) -> list[Any]:
    """Every array in the shape that they have together."""
    shape = np.broadcast_shapes(*(x.shape for x in arrays))
    return [np.broadcast_to(x, shape) for x in arrays]


def meshgrid(*arrays: Any, indexing: str = "xy") -> list[Any]:
    """Coordinate arrays of coordinate vectors."""
    count = len(arrays)
    grids = [np.reshape(x, tuple(-1 if i == j else 1 for j in range(count))) for i, x in enumerate(arrays)]
    spread = broadcast_arrays(*map(asarray, grids))
    return [np.swapaxes(g, 0, 1) for g in spread] if indexing == "xy" and count > 1 else spread


def argsort(x: Any, /, *, axis: int = -1, descending: Any = False, stable: Any = True) -> Any:
    """The indices that sort `x`."""
    data = _values(x)
    if descending:  # of the reversed array, reversed: so that equal elements stay in order
        order = np.flip(np.argsort(np.flip(data, axis), axis=axis, kind="stable"), axis)
        return as_tensor(data.shape[axis] - 1 - order)
    return as_tensor(np.argsort(data, axis=axis, kind="stable"))


def sort(x: Any, /, *, axis: int = -1, descending: Any = False, stable: Any = True) -> Any:
    """`x` in order; the gradient goes back to where each element came from."""
    return np.take_along_axis(x, argsort(x, axis=axis, descending=descending).numpy(), axis)


def _accumulated(function: Callable[..., Any], start: float) -> Callable[..., Any]:
    @wraps(function)
    def call(x: Any, /, *, axis: Any = None, dtype: Any = None, include_initial: Any = False) -> Any:
        if axis is None and x.ndim > 1:
            raise ValueError(f"an array of {x.ndim} axes needs axis=")
        axis = 0 if axis is None else axis
        x = x if dtype is None else x.astype(dtype)
        if x.dtype.kind in "iub" and dtype is None:
            x = x.astype(np.sum(np.zeros(1, x.dtype)).dtype)  # as sums of its kind
        if include_initial:
            shape = [1 if i == axis % x.ndim else n for i, n in enumerate(x.shape)]
            x = np.concatenate([np.full(shape, start, x.dtype), x], axis=axis)
        return function(x, axis=axis)

    return call


cumulative_sum, cumulative_prod = _accumulated(np.cumsum, 0), _accumulated(np.cumprod, 1)


def unique_all(x: Any, /) -> Any:
    """values, indices, inverse_indices, counts: the values are taken from `x`, so they have gradients."""
    found = np.unique_all(_values(x))
    kind: Any = type(found)
    return kind(np.reshape(x, (-1,))[found.indices], *(as_tensor(part) for part in found[1:]))


def unique_values(x: Any, /) -> Any:
    """Each value once."""
    return unique_all(x).values


def unique_counts(x: Any, /) -> Any:
    """values, counts."""
    found = unique_all(x)
    return type(np.unique_counts(np.zeros(1)))(found.values, found.counts)


def unique_inverse(x: Any, /) -> Any:
    """values, inverse_indices."""
    found = unique_all(x)
    return type(np.unique_inverse(np.zeros(1)))(found.values, found.inverse_indices)


def real(x: Any, /) -> Any:
    """`x`: Tensors are real."""
    return x


conj = real


def imag(x: Any, /) -> Any:
    """NotDifferentiableError: Tensors are real."""
    raise NotDifferentiableError("imag: complex numbers are not supported; Tensors are real")


def result_type(*arrays_and_dtypes: Any) -> Any:
    """The dtype that an operation on these has; Python numbers are weak."""
    return np.result_type(*(x.dtype if isinstance(x, Tensor) else x for x in arrays_and_dtypes))


def can_cast(from_: Any, to: Any, /) -> Any:
    """Whether a dtype, or an array's, can become another by the standard's rules."""
    return np.can_cast(from_.dtype if isinstance(from_, Tensor) else from_, to)


def finfo(type: Any, /) -> Any:
    """Limits of a floating-point dtype, or an array's."""
    return np.finfo(type.dtype if isinstance(type, Tensor) else type)


def iinfo(type: Any, /) -> Any:
    """Limits of an integer dtype, or an array's."""
    return np.iinfo(type.dtype if isinstance(type, Tensor) else type)


class _Extension:
    """A part of the namespace: NumPy's functions of these names, and those that are given."""

    def __init__(self, module: Any, names: list[str], **own: Callable[..., Any]):
        for name in names:
            setattr(self, name, _through(getattr(module, name)))
        for name, function in own.items():
            setattr(self, name, function)


def _outer(x1: Any, x2: Any, /) -> Any:
    return x1[:, None] * x2[None, :]


def _diagonal(x: Any, /, *, offset: int = 0) -> Any:
    return np.diagonal(x, offset, -2, -1)


def _trace(x: Any, /, *, offset: int = 0, dtype: Any = None) -> Any:
    return sum(_diagonal(x, offset=offset), axis=-1, dtype=dtype)


linalg = _Extension(
    np.linalg, _LINALG, matmul=_through(np.matmul), tensordot=_through(np.tensordot), vecdot=vecdot,
    matrix_transpose=matrix_transpose, outer=_outer, diagonal=_diagonal, trace=_trace,
)  # fmt: skip
"""The extension of linear algebra."""

fft = _Extension(np.fft, _FFT)
"""The extension of Fourier transforms: those that NumPy's rows have; the others say why not."""
