"""Windows over two axes of images (..., H, W), and pooling, with torch's options and meaning.

``unfold2d`` shows every window of an image (a view), ``fold2d`` adds windows back: each is the other's transpose.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from tinygrad_scratch import _team
from tinygrad_scratch._typing import Array, Shape
from tinygrad_scratch.domains import Distinct, Domain, Interval, distinct, reals
from tinygrad_scratch.ops.elementwise import astype
from tinygrad_scratch.registry import general, linear


class Windows(NamedTuple):
    """Where the windows of an image lie: sizes of image and kernel, steps, zeros added on each side, windows down and across."""

    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]
    out: tuple[int, int]

    @property
    def padded(self) -> bool:
        return any(self.before) or any(self.after)

    @property
    def apart(self) -> bool:
        """Whether no two windows have an element in common."""
        return all(d * (k - 1) < s for k, s, d in zip(self.kernel, self.stride, self.dilation, strict=True))

    def inside(self, axis: int, k: int) -> tuple[slice, slice]:
        """Along an axis: the windows whose k-th element lies in the image itself, and these elements."""
        step, start = self.stride[axis], k * self.dilation[axis] - self.before[axis]
        low = max(0, -(start // step))
        high = min(self.out[axis], (self.size[axis] - 1 - start) // step + 1)
        high = max(low, high)
        return slice(low, high), slice(start + low * step, max(start + (high - 1) * step + 1, 0), step)


def pair(value: Any, what: str) -> tuple[int, int]:
    """A number, for both axes, or two of them. TypeError for anything else."""
    both = (value, value) if isinstance(value, (int, np.integer)) else value
    if not isinstance(both, (tuple, list)) or len(both) != 2 or not all(isinstance(n, (int, np.integer)) for n in both):
        raise TypeError(f"{what} is {value!r}: it must be a whole number, or two, for the height and the width")
    return int(both[0]), int(both[1])


def _padding(padding: Any, kernel: Any, stride: Any, dilation: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """Zeros (above, to the left) and (below, to the right)."""
    if not isinstance(padding, str):
        both = pair(padding, "padding")
        if min(both) < 0:
            raise ValueError(f"padding is {padding}: it must not be negative; use x[..., 1:-1, 1:-1] to crop")
        return both, both
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding != "same":
        raise ValueError(f"padding is {padding!r}: it must be 'same', 'valid', a whole number or two of them")
    if stride != (1, 1):
        raise ValueError(f"padding='same' needs stride 1, and it is {stride}; give the padding in numbers")
    total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    return (total[0] // 2, total[1] // 2), (total[0] - total[0] // 2, total[1] - total[1] // 2)


@lru_cache(maxsize=1024)
def _windows(size: Shape, kernel: Any, stride: Any, padding: Any, dilation: Any) -> Windows:
    kernel, stride, dilation = pair(kernel, "kernel_size"), pair(stride, "stride"), pair(dilation, "dilation")
    for what, values in (("kernel_size", kernel), ("stride", stride), ("dilation", dilation)):
        if min(values) < 1:
            raise ValueError(f"{what} is {values}: it must be at least 1")
    before, after = _padding(padding, kernel, stride, dilation)
    whole = tuple(n + b + a for n, b, a in zip(size, before, after, strict=True))
    reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    if reach[0] > whole[0] or reach[1] > whole[1]:
        raise ValueError(
            f"the kernel reaches over {reach[0]} x {reach[1]} pixels, more than the padded input's {whole[0]} x {whole[1]} (the input's "
            f"{size[0]} x {size[1]} and padding {padding!r}); use larger images, more padding, or a smaller kernel"
        )
    out = tuple((n - r) // s + 1 for n, r, s in zip(whole, reach, stride, strict=True))
    return Windows(size, kernel, stride, dilation, before, after, out)  # type: ignore[arg-type]


def windows(size: Shape, kernel: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1) -> Windows:
    """The windows of an image of `size` (H, W). ValueError for options that make no sense, or a kernel that is too large."""
    key = [tuple(x) if isinstance(x, list) else x for x in (kernel, stride, padding, dilation)]
    return _windows((int(size[0]), int(size[1])), *key)


# -- windows and back --------------------------------------------------------------------------------------------------


def pad(x: Array, at: Windows, fill: float = 0) -> Array:
    if not at.padded:
        return x
    (top, left), (bottom, right), (height, width) = at.before, at.after, at.size
    y = np.full((*x.shape[:-2], height + top + bottom, width + left + right), fill, x.dtype)
    y[..., top : top + height, left : left + width] = x
    return y


def show(x: Array, at: Windows) -> Array:
    """A view (..., kh, kw, oh, ow) of an image that is padded already."""
    *lead, down, right = x.strides
    (a, b), (s, t) = at.dilation, at.stride
    strides = (*lead, a * down, b * right, s * down, t * right)
    return as_strided(x, (*x.shape[:-2], *at.kernel, *at.out), strides, writeable=False)


def _unfold2d(x: Any, kernel_size: Any = 1, stride: Any = 1, dilation: Any = 1) -> Any:
    """Every window of an image, as a view: (..., H, W) -> (..., kh, kw, oh, ow)."""
    return show(x, windows(x.shape[-2:], kernel_size, stride, 0, dilation))


def _fold2d(g: Any, size: Any = (), stride: Any = 1, dilation: Any = 1) -> Any:
    """The transpose of unfold2d: (..., kh, kw, oh, ow) added up in an image (..., H, W) of `size`."""
    at = windows(size, tuple(g.shape[-4:-2]), stride, 0, dilation)
    x = np.zeros((*g.shape[:-4], *at.size), g.dtype)
    add_back(x, g, at)
    return x


def add_back(x: Array, g: Array, at: Windows) -> None:
    """x (..., H, W) += windows (..., kh, kw, oh, ow), each element at its place; what lies on the padding is lost."""
    for i in range(at.kernel[0]):
        rows, down = at.inside(0, i)
        for j in range(at.kernel[1]):
            columns, right = at.inside(1, j)
            x[..., down, right] += g[..., i, j, rows, columns]


def _fold_back(g: Any, y: Any, x: Any, kernel_size: Any = 1, **options: Any) -> Any:
    return fold2d(g, size=tuple(x.shape[-2:]), **options)


def _unfold_back(g: Any, y: Any, x: Any, size: Any = (), **options: Any) -> Any:
    return unfold2d(g, kernel_size=tuple(x.shape[-4:-2]), **options)


# -- pooling -----------------------------------------------------------------------------------------------------------


def pooling(shape: Shape, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1) -> Windows:
    """The windows of a pool over images of a shape (..., H, W). ValueError for options that make no sense."""
    if len(shape) < 2:
        raise ValueError(f"pooling takes images (..., H, W), not shape {tuple(shape)}")
    at = windows(shape[-2:], kernel_size, kernel_size if stride is None else stride, padding, dilation)
    if any(2 * p > k for p, k in zip(at.before, at.kernel, strict=True)):
        raise ValueError(f"padding {padding} is more than half of the kernel, {at.kernel}: some windows would be empty")
    return at


def _max_pool2d(x: Any, kernel_size: Any = 1, stride: Any = None, padding: Any = 0, dilation: Any = 1) -> Any:
    """The largest element of each window: (..., H, W) -> (..., oh, ow). Padding never wins."""
    at = pooling(x.shape, kernel_size, stride, padding, dilation)
    y = np.empty((*x.shape[:-2], *at.out), x.dtype)
    _by_images(lambda x, y: _maxima(pad(x, at, _lowest(x.dtype)), at, out=y), x, y)
    return y


def _by_images(work: Callable[..., Any], x: Array, *others: Array) -> None:
    """work(x, *others) on a run of images after another, which threads share."""
    if x.ndim == 2:
        work(x, *others)
    else:
        _team.share_runs(lambda run: work(x[run], *(a[run] for a in others)), len(x), x[:1].nbytes)


def _maxima(x: Array, at: Windows, out: Array | None = None) -> Array:
    """The windows' largest elements, of an image that is padded already: down first, for rows lie together, then across."""
    for axis in (0, 1):
        step, reach = at.stride[axis], (at.out[axis] - 1) * at.stride[axis] + 1
        runs = [slice(k * at.dilation[axis], k * at.dilation[axis] + reach, step) for k in range(at.kernel[axis])]
        elements = [x[..., run] if axis else x[..., run, :] for run in runs]
        x = np.maximum(elements[0], elements[-1], out=out if axis else None)
        for element in elements[1:-1]:
            np.maximum(x, element, out=x)
    return x


def _lowest(dtype: Any) -> Any:
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min if dtype.kind in "iu" else False


def _max_pool2d_input(
    g: Any, x: Any, kernel_size: Any = 1, stride: Any = None, padding: Any = 0, dilation: Any = 1
) -> Any:
    """`g` (..., oh, ow) shared evenly by the largest elements of each window of x: the cotangent (..., H, W)."""
    at = pooling(x.shape, kernel_size, stride, padding, dilation)
    result = np.zeros(x.shape, np.result_type(g, 1.0))
    _by_images(lambda x, g, result: _add_to_largest(g, x, at, result), x, g, result)
    return result


def _add_to_largest(g: Array, x: Array, at: Windows, result: Array) -> None:
    """result (..., H, W) += `g` (..., oh, ow), shared evenly by the largest elements of each window of x."""
    x = pad(x, at, _lowest(x.dtype))
    shown, largest = show(x, at), _maxima(x, at)
    won = {(i, j): np.equal(shown[..., i, j, :, :], largest) for i, j in np.ndindex(at.kernel)}
    share = g / np.add.reduce(list(won.values()), axis=0, dtype=g.dtype)
    for (i, j), mask in won.items():
        (rows, down), (columns, right) = at.inside(0, i), at.inside(1, j)
        part = (share * mask)[..., rows, columns]
        if at.apart:
            result[..., down, right] = part
        else:
            result[..., down, right] += part


def _winners(x: Any, at: Windows) -> Any:
    """For each window of a padded image, the share of each of its elements in the largest: (..., kh, kw, oh, ow)."""
    shown = unfold2d(x, **_steps(at))
    won = astype(np.equal(shown, np.max(shown, axis=(-4, -3), keepdims=True)), dtype=x.dtype)
    return won / np.sum(won, axis=(-4, -3), keepdims=True)


def _steps(at: Windows) -> dict[str, Any]:
    return {"kernel_size": at.kernel, "stride": at.stride, "dilation": at.dilation}


def add_padding(x: Any, at: Windows, fill: float = 0.0) -> Any:
    """The padded image, as a composition of rows."""
    widths = [(0, 0)] * (x.ndim - 2) + list(zip(at.before, at.after, strict=True))
    return np.pad(x, widths, constant_values=fill) if at.padded else x


def _share_rule(h: Any, d: Any, g: Any, x: Any, **how: Any) -> Any:
    """Of the windows' elements of `h`, the mean of those that won."""
    at = pooling(x.shape, **how)
    shown = unfold2d(add_padding(h, at), **_steps(at))
    return np.sum(shown * _winners(add_padding(x, at, -np.inf), at), axis=(-4, -3))


def _flat(g: Any, d: Any, *_: Any, **how: Any) -> Any:
    """Which elements win does not change with their values, but where they tie."""
    return np.zeros_like(d)


def _share_back(g: Any, x: Any, **how: Any) -> Any:
    """max_pool2d_input as the transpose of taking the winners' mean."""
    at = pooling(x.shape, **how)
    padded = add_padding(x, at, -np.inf)
    shares = _winners(padded, at) * g[..., None, None, :, :]
    whole = fold2d(shares, size=tuple(padded.shape[-2:]), stride=at.stride, dilation=at.dilation)
    (top, left), (height, width) = at.before, at.size
    return whole[..., top : top + height, left : left + width]


def _largest(x: Any, **how: Any) -> Any:
    at = pooling(x.shape, **how)
    return np.max(unfold2d(add_padding(x, at, -np.inf), **_steps(at)), axis=(-4, -3))


def _to_winners(g: Any, y: Any, x: Any, **how: Any) -> Any:
    return max_pool2d_input(g, x, **how)


_pools: tuple[dict[str, Any], ...] = (
    {"kernel_size": 2},
    {"kernel_size": (2, 3), "stride": (2, 1), "padding": (1, 0)},
    {"kernel_size": 2, "stride": 1, "dilation": (1, 2)},
)
_unfolded = reals.with_cases(
    (((2, 4, 5),), {"kernel_size": 2, "stride": 2}),
    (((4, 5),), {"kernel_size": (2, 3), "stride": (2, 1)}),
    (((2, 1, 4, 5),), {"kernel_size": 2, "dilation": (1, 2)}),
)
_folded = reals.with_cases(
    (((2, 2, 2, 2, 2),), {"size": (4, 5), "stride": 2}),
    (((2, 2, 3, 2, 3),), {"size": (4, 5), "stride": (2, 1)}),
    (((2, 1, 2, 2, 3, 3),), {"size": (4, 5), "dilation": (1, 2)}),
)
_pooled_images = distinct.with_cases(*((((1, 2, 4, 5),), options) for options in _pools))
_shared = Domain(
    (Interval(), Distinct()),
    tuple(
        (((1, 2, n, m), (1, 2, 4, 5)), options)
        for (n, m), options in zip(((2, 2), (3, 3), (3, 3)), _pools, strict=True)
    ),
)

# fmt: off
unfold2d         = linear(_unfold2d, _fold_back, domain=_unfolded)
fold2d           = linear(_fold2d, _unfold_back, domain=_folded)
max_pool2d       = general(_max_pool2d, _to_winners, reference=_largest, domain=_pooled_images)
max_pool2d_input = general(_max_pool2d_input, _share_rule, _flat, reference=_share_back, domain=_shared)
# fmt: on
