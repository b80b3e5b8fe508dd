"""Convolution of images (N, C, H, W), with torch's options and meaning, as matrix products with windows of the images.

The windows of a few images at a time are copied to memory that stays in cache. The derivatives are ``conv2d_input`` and
``conv2d_weight``: of the three, each is linear in both inputs, and each one's rules are the other two.

Threads share the images, in runs that the shapes fix: the answer of several runs has the same bits on any number of threads.
"""

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from tinygrad_scratch import _team
from tinygrad_scratch._memory import LINE
from tinygrad_scratch._typing import Array, Shape
from tinygrad_scratch.domains import reals
from tinygrad_scratch.ops.windows import Windows, add_padding, pad, show, unfold2d, windows
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


def _window_bytes(x: Array, at: Windows) -> int:
    """Bytes of the windows of one image."""
    return int(prod((x.shape[1], *at.kernel, *at.out)) * x.itemsize)


def _few(run: slice, each: int) -> Iterator[slice]:
    """A run of images, with windows of `each` bytes, in parts that stay in cache."""
    step = max(1, _CHUNK // max(1, each))
    for low in range(run.start, run.stop, step):
        yield slice(low, min(low + step, run.stop))


def _columns(x: Array, run: slice, at: Windows, groups: int) -> Iterator[tuple[slice, Array]]:
    """(images, their windows as matrices (n, groups, C/groups kh kw, oh ow)) of a run of the images, a few at a time.

    The matrices are overwritten by the next ones.
    """
    channels, outer = x.shape[1], at.out[0] * at.out[1]
    shape = (groups, channels // groups * at.kernel[0] * at.kernel[1], outer)
    if at.kernel == at.stride == (1, 1) and not at.padded:
        yield run, x[run].reshape(run.stop - run.start, *shape)
        return
    few = list(_few(run, _window_bytes(x, at)))
    most = max((images.stop - images.start for images in few), default=0)
    buffer = np.empty((most, channels, *at.kernel, leading(outer, x.itemsize)), x.dtype)[..., :outer]
    for images in few:
        shown = show(pad(x[images], at), at)
        taken = buffer[: len(shown)]
        taken.reshape(shown.shape)[...] = shown
        yield images, taken.reshape(len(taken), *shape)


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
    return _correlate(*_common(x, weight), bias, at, groups)


def _correlate(x: Array, weight: Array, bias: Any, at: Windows, groups: int) -> Array:
    out = len(weight)
    y = np.empty((len(x), groups, out // groups, at.out[0] * at.out[1]), x.dtype)
    matrix = weight.reshape(groups, out // groups, -1)
    shift = None if bias is None else bias.reshape(groups, out // groups, 1)

    def fill(run: slice) -> None:
        for images, columns in _columns(x, run, at, groups):
            part = np.matmul(matrix, columns, out=y[images])
            if shift is not None:
                part += shift

    _team.share_runs(fill, len(x), _window_bytes(x, at))
    return y.reshape(len(x), out, *at.out)


def _conv2d_input(
    g: Any, weight: Any, size: Any = (), stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Any:
    """The transpose of conv2d in its images, of `size` (H, W): (N, out, oh, ow) and the weight -> (N, C, H, W)."""
    (out, inner, *kernel), channels = weight.shape, groups * weight.shape[1]
    at = windows(size, tuple(kernel), stride, padding, dilation)
    if g.shape[1:] != (out, *at.out):
        raise ValueError(
            f"the cotangent of images of {at.size} and a weight {weight.shape} has shape (N, {out}, {at.out[0]}, {at.out[1]}), "
            f"not {g.shape}"
        )
    g, weight = _common(g, weight)
    weight = weight.reshape(groups, out // groups, inner, *kernel)
    back = turned_windows(at)
    if back is not None and out * prod(at.size) <= 2 * channels * prod(at.out):
        turned = weight[..., ::-1, ::-1].swapaxes(1, 2).reshape(channels, out // groups, *kernel)
        return _correlate(g, turned, None, back, groups)
    matrices = np.ascontiguousarray(weight.transpose(3, 4, 0, 2, 1))
    x = np.empty((len(g), channels, *at.size), g.dtype)

    def fill(run: slice) -> None:
        for images in _few(run, _window_bytes(x, at)):
            _scatter(g[images], matrices, at, x[images])

    _team.share_runs(fill, len(g), _window_bytes(x, at))
    return x


def _scatter(g: Array, matrices: Array, at: Windows, x: Array) -> None:
    """x (N, C, H, W) = conv2d_input of g (N, out, oh, ow), for `matrices` (kh, kw, groups, C / groups, out / groups).

    The pixels of the padded image that a step apart lie together: then what all windows give to their element (i, j) is one
    run of pixels in memory, if the cotangent has zeros between its rows.
    """
    (down, right), (height, width), (oh, ow) = at.stride, at.size, at.out
    rows, columns = (-(-sum(n) // s) for *n, s in zip(at.before, at.size, at.after, at.stride, strict=True))
    wide = np.zeros((*g.shape[:2], oh, columns), g.dtype)
    wide[..., :ow] = g
    run = (oh - 1) * columns + ow
    wide = wide.reshape(len(g), matrices.shape[2], matrices.shape[4], oh * columns)[..., :run]
    whole = np.zeros((len(g), *matrices.shape[2:4], down, right, rows * columns), g.dtype)
    for i, j in np.ndindex(at.kernel):
        (above, r), (left, c) = divmod(i * at.dilation[0], down), divmod(j * at.dilation[1], right)
        start = above * columns + left
        whole[..., r, c, start : start + run] += np.matmul(matrices[i, j], wide)
    whole = whole.reshape(*x.shape[:2], down, right, rows, columns).transpose(0, 1, 4, 2, 5, 3)
    top, left = at.before
    x[...] = whole.reshape(*x.shape[:2], rows * down, columns * right)[..., top : top + height, left : left + width]


def turned_windows(at: Windows) -> Windows | None:
    """Windows of the cotangent whose products with the weight, turned by 180 degrees, are conv2d_input, if they exist.

    To copy windows is faster than to add them back, where they are not many more (out H W beside C oh ow).
    """
    down, right = (d * (k - 1) for k, d in zip(at.kernel, at.dilation, strict=True))
    before, after = (down - at.before[0], right - at.before[1]), (down - at.after[0], right - at.after[1])
    if at.stride != (1, 1) or min(*before, *after) < 0:
        return None
    return at._replace(size=at.out, before=before, after=after, out=at.size)


def _conv2d_weight(
    g: Any, x: Any, kernel_size: Any = (), stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Any:
    """The transpose of conv2d in its weight, of `kernel_size`: (N, out, oh, ow) and the images -> (out, C / groups, kh, kw).

    Each run of images has a sum of its own; these are added in the runs' order.
    """
    at = windows(x.shape[2:], kernel_size, stride, padding, dilation)
    g, x = _common(g, x)
    out, inner = g.shape[1], x.shape[1] // groups
    g = g.reshape(len(g), groups, out // groups, at.out[0] * at.out[1])
    shape = (groups, inner * at.kernel[0] * at.kernel[1], out // groups)
    worth = 8 * prod(shape) * g.itemsize  # beside which a sum of its own costs a run little
    parts = _team.runs(len(x), _window_bytes(x, at), max(worth, _team.PIECE))
    sums = np.zeros((len(parts), *shape), g.dtype)

    def add(piece: int) -> None:
        for images, columns in _columns(x, parts[piece], at, groups):
            products = np.matmul(columns, g[images].mT)  # this way round BLAS packs the smaller: up to twice as fast
            sums[piece] += np.add.reduce(products, axis=0) if len(products) != 1 else products[0]

    _team.share(add, len(parts))
    total = np.add.reduce(sums, axis=0)
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
