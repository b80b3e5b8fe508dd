"""Layers that give what passes through them mean 0 and variance 1. Names, arguments, formulas, state: torch's."""

from typing import Any

import numpy as np

from tinygrad_scratch.context import no_grad
from tinygrad_scratch.errors import describe
from tinygrad_scratch.nn.module import Module, Parameter
from tinygrad_scratch.tensor import Tensor


def _standardized(x: Any, axes: tuple[int, ...], eps: float) -> tuple[Any, Any, Any, Any]:
    """(x - mean, 1 / sqrt(variance + eps), mean, variance), over the axes; the variance divides by all n."""
    mean = np.mean(x, axis=axes, keepdims=True)
    centred = x - mean
    variance = np.mean(centred * centred, axis=axes, keepdims=True)
    return centred, 1 / np.sqrt(variance + eps), mean, variance


class _BatchNorm(Module):
    """Batch normalisation over all axes but the channels', which is axis 1."""

    _axes: tuple[int, ...] = ()  # how many axes an input may have
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        bias: bool = True,
        dtype: Any = np.float32,
    ):
        if num_features < 1:
            raise ValueError(f"{type(self).__name__}({num_features}): it needs at least one channel")
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self.weight = Parameter(np.ones(num_features), dtype) if affine else None
        self.bias = Parameter(np.zeros(num_features), dtype) if affine and bias else None
        tracked = track_running_stats
        self.register_buffer("running_mean", Tensor(np.zeros(num_features), dtype) if tracked else None)
        self.register_buffer("running_var", Tensor(np.ones(num_features), dtype) if tracked else None)
        self.register_buffer("num_batches_tracked", Tensor(0, np.int64) if tracked else None)

    def forward(self, x: Any) -> Any:
        self._check(x)
        axes = (0, *range(2, x.ndim))
        wide = (-1, *(1,) * (x.ndim - 2))
        if self.training or self.running_mean is None:
            count = x.size // self.num_features
            if self.training and count == 1:
                raise ValueError(
                    f"batch normalisation in training of input {describe(x)}: one value per channel has no variance; "
                    "use more examples in a batch (drop_last in the loader), or model.eval()"
                )
            centred, scale, mean, variance = _standardized(x, axes, self.eps)
            if self.training and self.running_mean is not None:
                with no_grad():
                    self._track(mean.reshape(-1), variance.reshape(-1) * (count / max(count - 1, 1)))
        else:
            spread: Any = self.running_var
            centred = x - self.running_mean.reshape(wide)
            scale = 1 / np.sqrt(spread + self.eps).reshape(wide)
        y = centred * (scale if self.weight is None else scale * self.weight.reshape(wide))
        return y if self.bias is None else y + self.bias.reshape(wide)

    def _track(self, mean: Any, variance: Any) -> None:
        """Move the running statistics towards those of a batch; its variance is the unbiased one."""
        count: Any = self.num_batches_tracked
        count += 1
        part: Any = self.momentum  # of the new; None: as much as makes the average of all batches
        if part is None:
            part = 1 / count.astype(mean.dtype)
        pairs: Any = ((self.running_mean, mean), (self.running_var, variance))
        for running, new in pairs:
            running *= 1 - part
            running += part * new

    def _check(self, x: Any) -> None:
        if x.ndim not in self._axes or x.shape[1] != self.num_features:
            shapes = {2: "(N, C)", 3: "(N, C, L)", 4: "(N, C, H, W)"}
            wanted = " or ".join(shapes[n] for n in self._axes)
            raise ValueError(
                f"{type(self).__name__}({self.num_features}) takes {wanted} with C = {self.num_features} channels on axis 1, "
                f"not {describe(x)}"
            )

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(_BatchNorm):
    """y = (x - mean) / sqrt(variance + eps) * weight + bias, for x (N, C) or (N, C, L) (Ioffe and Szegedy 2015).

    In training, mean and variance are each channel's in the batch, and the buffers running_mean and running_var move
    towards them (the unbiased variance) by `momentum`, or None for the average of all batches; in eval mode they are these.

    Parameters
    ----------
    num_features: C. affine, bias: whether there are a weight (C,), 1 at first, and with it a bias (C,), 0 at first.
    track_running_stats: False for no buffers; then eval mode takes the batch too.

    ValueError for other shapes, and in training for one value per channel.

    >>> layer = BatchNorm1d(2)
    >>> layer(np.array([[1.0, 5.0], [3.0, 5.0]], np.float32)).numpy().round(3).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    >>> layer.running_mean, layer.running_var
    (Tensor([0.2, 0.5], dtype=float32), Tensor([1.1, 0.9], dtype=float32))
    """

    _axes = (2, 3)


class BatchNorm2d(_BatchNorm):
    """BatchNorm1d for images (N, C, H, W).

    >>> BatchNorm2d(3)(np.zeros((2, 3, 4, 4), np.float32)).shape
    (2, 3, 4, 4)
    """

    _axes = (4,)


class LayerNorm(Module):
    """y = (x - mean) / sqrt(variance + eps) * weight + bias, over the last axes of each example (Ba et al. 2016).

    normalized_shape: the lengths of those axes, or a number for the last one; weight and bias have it.
    elementwise_affine, bias: whether there are a weight, 1 at first, and with it a bias, 0 at first.

    ValueError for an x whose last axes are others.

    >>> LayerNorm(2)(np.array([[1.0, 3.0]], np.float32)).numpy().round(3).tolist()
    [[-1.0, 1.0]]
    """

    def __init__(
        self,
        normalized_shape: Any,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: Any = np.float32,
    ):
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        if not shape:
            raise ValueError("LayerNorm(()): it needs at least one axis")
        self.normalized_shape, self.eps, self.elementwise_affine = shape, eps, elementwise_affine
        self.weight = Parameter(np.ones(shape), dtype) if elementwise_affine else None
        self.bias = Parameter(np.zeros(shape), dtype) if elementwise_affine and bias else None

    def forward(self, x: Any) -> Any:
        shape = self.normalized_shape
        if tuple(x.shape[-len(shape) :]) != shape:
            raise ValueError(f"LayerNorm({shape}) takes inputs whose last axes have shape {shape}, not {describe(x)}")
        centred, scale, _, _ = _standardized(x, tuple(range(-len(shape), 0)), self.eps)
        y = centred * scale
        if self.weight is not None:
            y = y * self.weight
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        affine = f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        return f"{self.normalized_shape}, eps={self.eps}, {affine}"
