"""Convolution and pooling: layers and functions. Names, arguments, defaults and layouts are torch's; images are (N, C, H, W)."""

from math import prod, sqrt
from typing import Any

import numpy as np

from tinygrad_scratch._typing import Shape
from tinygrad_scratch.nn.layers import Rng
from tinygrad_scratch.nn.module import Module, Parameter
from tinygrad_scratch.ops.convolution import conv2d as _conv2d
from tinygrad_scratch.ops.convolution import conv2d_affine
from tinygrad_scratch.ops.reductions import sum_
from tinygrad_scratch.ops.shaping import reshape
from tinygrad_scratch.ops.windows import add_padding, pair, pooling, unfold2d
from tinygrad_scratch.ops.windows import max_pool2d as _max_pool2d

Size = int | tuple[int, int]
"""A whole number for both axes, or (height, width)."""


def conv2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Any:
    """Cross-correlation of images (N, C, H, W), or of one image (C, H, W), with weight (out, C / groups, kh, kw).

    bias: (out,), added to each channel. padding: zeros on each side, "valid" for none, or "same": as many as keep the
    size at stride 1. Answers (N, out, oh, ow), oh = (H + 2 padding - dilation (kh - 1) - 1) // stride + 1.
    ValueError for channels that do not fit, a kernel larger than the padded image, or an unknown padding.

    >>> conv2d(np.ones((1, 1, 4, 4)), np.ones((2, 1, 3, 3)), padding=1)[0, 0].tolist()
    [[4.0, 6.0, 6.0, 4.0], [6.0, 9.0, 9.0, 6.0], [6.0, 9.0, 9.0, 6.0], [4.0, 6.0, 6.0, 4.0]]
    """
    if input.ndim == 3:
        y = conv2d(reshape.apply(input, shape=(1, *input.shape)), weight, bias, stride, padding, dilation, groups)
        return reshape.apply(y, shape=y.shape[1:])
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if bias is None:
        return _conv2d.apply(input, weight, **options)
    return conv2d_affine.apply(input, weight, bias, **options)


def max_pool2d(input: Any, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1) -> Any:
    """The largest element of each window of (..., H, W); a tie shares its gradient evenly. Padding never wins.

    stride: the kernel's size if None. ValueError for a kernel larger than the padded image, or more padding than half
    the kernel.

    >>> max_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2).tolist()
    [[[[5.0, 7.0], [13.0, 15.0]]]]
    """
    return _max_pool2d.apply(input, kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation)


def avg_pool2d(
    input: Any, kernel_size: Size, stride: Size | None = None, padding: Size = 0, count_include_pad: bool = True
) -> Any:
    """The mean of each window of (..., H, W), of which zeros of the padding are part unless count_include_pad is False.

    >>> avg_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2).tolist()
    [[[[2.5, 4.5], [10.5, 12.5]]]]
    """
    at = pooling(input.shape, kernel_size, stride, padding)
    steps: dict[str, Any] = {"kernel_size": at.kernel, "stride": at.stride}
    total = sum_.apply(unfold2d.apply(add_padding(input, at), **steps), axis=(-4, -3))
    if count_include_pad or not at.padded:
        return total / (at.kernel[0] * at.kernel[1])
    inside = unfold2d(add_padding(np.ones(at.size, input.dtype), at), **steps)
    return total / np.sum(inside, axis=(-4, -3))


class Conv2d(Module):
    """``conv2d`` with a weight and a bias that are learned.

    Parameters
    ----------
    kernel_size, stride, padding, dilation: a whole number, or (height, width); padding also "same" or "valid".
    groups: the channels fall into so many groups, each convolved by itself.
    bias: whether there is one; without it ``bias`` is None.
    dtype: of the parameters, floating point.
    rng: a numpy Generator or a seed; the weight is drawn first, then the bias.

    Attributes: weight (out_channels, in_channels / groups, kh, kw) and bias (out_channels,), drawn as torch does from
    U(-b, b), b = 1/sqrt(in_channels / groups * kh * kw). ValueError for sizes below 1, or channels that the groups do
    not divide.

    >>> layer = Conv2d(3, 8, 5, padding="same", rng=0)
    >>> layer(np.ones((2, 3, 32, 32), np.float32)).shape
    (2, 8, 32, 32)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        dtype: Any = np.float32,
        rng: Rng = None,
    ):
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride = pair(kernel_size, "kernel_size"), pair(stride, "stride")
        self.padding = padding if isinstance(padding, str) else pair(padding, "padding")
        self.dilation, self.groups = pair(dilation, "dilation"), groups
        self._check()
        rng = np.random.default_rng(rng)
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        bound = 1 / sqrt(shape[1] * shape[2] * shape[3])
        self.weight = Parameter(rng.uniform(-bound, bound, shape), dtype)
        self.bias = Parameter(rng.uniform(-bound, bound, out_channels), dtype) if bias else None

    def _check(self) -> None:
        here = f"Conv2d({self.in_channels}, {self.out_channels}, {self.kernel_size}, groups={self.groups})"
        if min(self.in_channels, self.out_channels, self.groups, *self.kernel_size, *self.stride, *self.dilation) < 1:
            raise ValueError(f"{here}: channels, groups, kernel, stride and dilation must be at least 1")
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(f"{here}: groups must divide both in_channels and out_channels")
        if isinstance(self.padding, str) and self.padding not in ("same", "valid"):
            raise ValueError(f"{here}: padding is {self.padding!r}; it must be 'same', 'valid' or whole numbers")
        if self.padding == "same" and self.stride != (1, 1):
            raise ValueError(f"{here}: padding='same' needs stride 1, not {self.stride}; give the padding in numbers")

    def forward(self, x: Any) -> Any:
        return conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def multiply_adds(self, output: Shape) -> int:
        """For one image whose output has this shape: what ``summary`` counts."""
        return self.weight.size * prod(output[1:])

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        usual: dict[str, Any] = {"padding": (0, 0), "dilation": (1, 1), "groups": 1}
        text += "".join(f", {k}={getattr(self, k)}" for k, v in usual.items() if getattr(self, k) != v)
        return text + (", bias=False" if self.bias is None else "")


class MaxPool2d(Module):
    """``max_pool2d``: the largest element of each window.

    >>> MaxPool2d(2)(np.ones((5, 3, 9, 8))).shape
    (5, 3, 4, 4)
    """

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1):
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation = padding, dilation

    def forward(self, x: Any) -> Any:
        return max_pool2d(x, self.kernel_size, self.stride, self.padding, self.dilation)

    def extra_repr(self) -> str:
        text = f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
        return f"{text}, dilation={self.dilation}, ceil_mode=False"


class AvgPool2d(Module):
    """``avg_pool2d``: the mean of each window.

    >>> AvgPool2d(2)(np.ones((5, 3, 9, 8))).shape
    (5, 3, 4, 4)
    """

    def __init__(
        self, kernel_size: Size, stride: Size | None = None, padding: Size = 0, count_include_pad: bool = True
    ):
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.count_include_pad = padding, count_include_pad

    def forward(self, x: Any) -> Any:
        return avg_pool2d(x, self.kernel_size, self.stride, self.padding, self.count_include_pad)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
