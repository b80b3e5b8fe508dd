"""Convolution of images (N, C, H, W), with torch's options and meaning, as matrix products with windows of the images.

The windows of a few images at a time are copied to memory that stays in cache. The derivatives are ``conv2d_input`` and
``conv2d_weight``: of the three, each is linear in both inputs, and each one's rules are the other two.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tinygrad_scratch._memory import LINE
from tinygrad_scratch._typing import Array, Shape
from tinygrad_scratch.domains import reals
from tinygrad_scratch.ops.windows import Windows, add_back, add_padding, pad, show, unfold2d, windows
from tinygrad_scratch.registry import general, multilinear

_CHUNK = 1 << 20  # bytes of windows that are copied at a time: about what a core's own cache holds


def _plan(x: Shape, weight: Shape, stride: Any, padding: Any, dilation: Any, groups: int) -> Windows:
    """The windows of a convolution. ValueError, with the fix, for shapes and groups that do not go together."""
    if len(x) != 4 or len(weight) != 4:
        raise ValueError(
            f"conv2d takes images (N, C, H, W) and a weight (out, in / groups, kh, kw), not shapes {x} and {weight}; "
            "use x[:, None] for images without channels"
        )
    if groups < 1 or weight[0] % groups or x[1] % groups:
        raise ValueError(
            f"groups is {groups}: it must divide the {x[1]} channels of the input and the {weight[0]} of the output"
        )
    if weight[1] * groups != x[1]:
        raise ValueError(
            f"the input has {x[1]} channels (its shape is {x}), but the weight, {weight}, takes {weight[1] * groups}"
            f"{f' in {groups} groups' if groups > 1 else ''}; are its axes (N, C, H, W)?"
        )
    return windows(x[2:], weight[2:], stride, padding, dilation)


def _columns(x: Array, at: Windows, groups: int) -> Iterator[tuple[slice, Array]]:
    """(images, their windows as matrices (n, groups, C/groups kh kw, oh ow)) of a few images at a time.

    The matrices are overwritten by the next ones.
    """
    count, channels = x.shape[:2]
    inner, outer = channels // groups * at.kernel[0] * at.kernel[1], at.out[0] * at.out[1]
    if at.kernel == at.stride == (1, 1) and not at.padded:
        yield slice(0, count), x.reshape(count, groups, inner, outer)
        return
    step = max(1, min(count, _CHUNK // max(1, groups * inner * outer * x.itemsize)))
    buffer = np.empty((step, channels, *at.kernel, leading(outer, x.itemsize)), x.dtype)[..., :outer]
    for low in range(0, count, step):
        shown = show(pad(x[low : low + step], at), at)
        taken = buffer[: len(shown)]
        taken.reshape(shown.shape)[...] = shown
        yield slice(low, low + step), taken.reshape(len(taken), groups, inner, outer)


def leading(columns: int, itemsize: int) -> int:
    """The distance of a matrix's rows, in elements: a line of the cache more where the rows would all begin at the same place
    of a page, and push each other out of the cache (a third of a product's speed)."""
    return columns + LINE // itemsize if columns * itemsize % 1024 == 0 else columns


def _common(a: Array, b: Array) -> tuple[Array, Array]:
    if a.dtype == b.dtype:
        return a, b
    dtype = np.result_type(a, b)
    return a.astype(dtype, copy=False), b.astype(dtype, copy=False)


def _conv2d(x: Any, weight: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Any:
    """Cross-correlation: images (N, C, H, W) with weight (out, C / groups, kh, kw) -> (N, out, oh, ow)."""
    return _convolve(x, weight, None, stride, padding, dilation, groups)


def _convolve(x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Array:
    at = _plan(x.shape, weight.shape, stride, padding, dilation, groups)
    x, weight = _common(x, weight)
    out = len(weight)
    y = np.empty((len(x), groups, out // groups, at.out[0] * at.out[1]), x.dtype)
    matrix = weight.reshape(groups, out // groups, -1)
    shift = None if bias is None else bias.reshape(groups, out // groups, 1)
    for images, columns in _columns(x, at, groups):
        part = np.matmul(matrix, columns, out=y[images])
        if shift is not None:
            part += shift
    return y.reshape(len(x), out, *at.out)


def _conv2d_input(
    g: Any, weight: Any, size: Any = (), stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Any:
    """The transpose of conv2d in its images, of `size` (H, W): (N, out, oh, ow) and the weight -> (N, C, H, W)."""
    count, (out, inner, *kernel) = len(g), weight.shape
    at = windows(size, tuple(kernel), stride, padding, dilation)
    g, weight = _common(g, weight)
    x = np.zeros((count, inner * groups, *at.size), g.dtype)
    matrix = weight.reshape(groups, out // groups, -1).mT
    g = g.reshape(count, groups, out // groups, at.out[0] * at.out[1])
    step = max(1, _CHUNK // max(1, groups * matrix[0].shape[0] * g.shape[-1] * g.itemsize))
    for low in range(0, count, step):
        columns = np.matmul(matrix, g[low : low + step])
        add_back(x[low : low + step], columns.reshape(len(columns), inner * groups, *kernel, *at.out), at)
    return x


def _conv2d_weight(
    g: Any, x: Any, kernel_size: Any = (), stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Any:
    """The transpose of conv2d in its weight, of `kernel_size`: (N, out, oh, ow) and the images -> (out, C / groups, kh, kw)."""
    at = windows(x.shape[2:], kernel_size, stride, padding, dilation)
    g, x = _common(g, x)
    out, inner = g.shape[1], x.shape[1] // groups
    g = g.reshape(len(g), groups, out // groups, at.out[0] * at.out[1])
    total = np.zeros((groups, inner * at.kernel[0] * at.kernel[1], out // groups), g.dtype)
    for images, columns in _columns(x, at, groups):
        products = np.matmul(columns, g[images].mT)  # this way round BLAS packs the smaller one: up to twice as fast
        total += np.add.reduce(products, axis=0) if len(products) != 1 else products[0]
    return np.ascontiguousarray(total.mT).reshape(out, inner, *at.kernel)


def _conv2d_affine(
    x: Any, weight: Any, bias: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Any:
    """conv2d and a bias (out,) for each channel: a layer. One row, so that the bias is added while the answer is in cache."""
    if bias.shape != weight.shape[:1]:
        raise ValueError(
            f"bias has shape {bias.shape}, but there are {len(weight)} channels: it must be ({len(weight)},)"
        )
    if np.result_type(x, weight, bias) != np.result_type(x, weight):
        return _conv2d(x, weight, stride, padding, dilation, groups) + bias.reshape(-1, 1, 1)
    return _convolve(x, weight, bias, stride, padding, dilation, groups)


def _to_input(g: Any, y: Any, x: Any, weight: Any, *_: Any, **options: Any) -> Any:
    return conv2d_input(g, weight, size=tuple(x.shape[2:]), **options)


def _to_weight(g: Any, y: Any, x: Any, weight: Any, *_: Any, **options: Any) -> Any:
    return conv2d_weight(g, x, kernel_size=tuple(weight.shape[2:]), **options)


def _input_to_weight(g: Any, y: Any, h: Any, weight: Any, size: Any = (), **options: Any) -> Any:
    return conv2d_weight(h, g, kernel_size=tuple(weight.shape[2:]), **options)


def _weight_to_input(g: Any, y: Any, h: Any, x: Any, kernel_size: Any = (), **options: Any) -> Any:
    return conv2d_input(h, g, size=tuple(x.shape[2:]), **options)


def _by_windows(x: Any, weight: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Any:
    """conv2d as one sum over windows."""
    at = windows(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    shown = unfold2d(add_padding(x, at), kernel_size=at.kernel, stride=at.stride, dilation=at.dilation)
    shown = np.reshape(shown, (x.shape[0], groups, -1, *shown.shape[2:]))
    weight = np.reshape(weight, (groups, -1, *weight.shape[1:]))
    y = np.einsum("ngcijhw,gocij->ngohw", shown, weight)
    return np.reshape(y, (x.shape[0], -1, *y.shape[3:]))


_images = reals.with_cases(
    (((2, 2, 4, 5), (3, 2, 2, 3)), {}),
    (((1, 1, 5, 5), (2, 1, 3, 3)), {"stride": 2, "padding": 1}),
    (((2, 4, 4, 3), (2, 2, 2, 3)), {"padding": "same", "groups": 2}),
    (((1, 2, 6, 5), (2, 1, 2, 2)), {"stride": (1, 3), "padding": (2, 0), "dilation": (3, 2), "groups": 2}),
    (((2, 3, 3, 2), (2, 3, 1, 1)), {"padding": "valid"}),
)
_cotangents_and_weights = reals.with_cases(
    (((2, 3, 3, 3), (3, 2, 2, 3)), {"size": (4, 5)}),
    (((1, 2, 3, 3), (2, 1, 3, 3)), {"size": (6, 5), "stride": 2, "padding": 1}),
    (((2, 2, 4, 3), (2, 2, 2, 3)), {"size": (4, 3), "padding": "same", "groups": 2}),
)
_cotangents_and_images = reals.with_cases(
    (((2, 3, 3, 3), (2, 2, 4, 5)), {"kernel_size": (2, 3)}),
    (((1, 2, 3, 3), (1, 1, 6, 5)), {"kernel_size": (3, 3), "stride": 2, "padding": 1}),
    (((2, 2, 4, 3), (2, 4, 4, 3)), {"kernel_size": (2, 3), "padding": "same", "groups": 2}),
)
_layers = reals.with_cases(
    (((2, 2, 4, 5), (3, 2, 2, 3), (3,)), {}),
    (((1, 2, 5, 5), (2, 1, 3, 3), (2,)), {"stride": 2, "padding": 1, "groups": 2}),
)
# fmt: off
conv2d           = multilinear(_conv2d, _to_input, _to_weight, reference=_by_windows, domain=_images)
conv2d_input     = multilinear(_conv2d_input,  lambda g, y, h, w, size=(), **how: conv2d(g, w, **how), _input_to_weight, domain=_cotangents_and_weights)
conv2d_weight    = multilinear(_conv2d_weight, lambda g, y, h, x, kernel_size=(), **how: conv2d(x, g, **how), _weight_to_input, domain=_cotangents_and_images)
conv2d_affine    = general(_conv2d_affine, _to_input, _to_weight, lambda g, y, x, w, b, **how: np.sum(g, axis=(0, 2, 3)),
                           reference=lambda x, w, b, **how: conv2d(x, w, **how) + np.reshape(b, (-1, 1, 1)), domain=_layers)
# fmt: on
