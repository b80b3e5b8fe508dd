"""Layers: Linear, Embedding, Dropout, and the activations as modules. Names, arguments and layouts are torch's."""

from math import prod, sqrt
from typing import Any

import numpy as np

from tinygrad_scratch._typing import Shape
from tinygrad_scratch.errors import describe
from tinygrad_scratch.nn.activations import elu, gelu, silu
from tinygrad_scratch.nn.module import Module, Parameter
from tinygrad_scratch.ops.elementwise import tanh
from tinygrad_scratch.ops.fused import check_labels, leaky_relu, log_softmax, prelu, relu, sigmoid, softmax, softplus
from tinygrad_scratch.ops.linalg import affine, matmul
from tinygrad_scratch.ops.shaping import reshape, transpose
from tinygrad_scratch.random import uniform

Rng = np.random.Generator | int | None
"""Where random numbers come from: a Generator, a seed, or None for fresh ones."""


class Linear(Module):
    """y = x @ weight.T + bias, for x (..., in_features) and y (..., out_features).

    Parameters
    ----------
    bias: whether there is one; without it ``bias`` is None.
    dtype: of the parameters, floating point.
    rng: a numpy Generator or a seed; the weight is drawn first, then the bias.

    Attributes: weight (out_features, in_features) and bias (out_features,), drawn as torch does from U(-b, b),
    b = 1/sqrt(in_features). ValueError for sizes below 1.

    >>> layer = Linear(3, 2, rng=0)
    >>> layer(np.ones((5, 3), np.float32)).shape, layer.weight.dtype
    ((5, 2), dtype('float32'))
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, dtype: Any = np.float32, rng: Rng = None
    ):
        if in_features < 1 or out_features < 1:
            raise ValueError(f"Linear({in_features}, {out_features}): it needs at least one input and one output")
        rng = np.random.default_rng(rng)
        bound = 1 / sqrt(in_features)
        self.in_features = in_features
        self.out_features = out_features
        # One input's weights lie together: x @ weight.T is a product of matrices as they lie, up to half again as fast.
        weight = np.asfortranarray(rng.uniform(-bound, bound, (out_features, in_features)))
        self.weight = Parameter(weight, dtype)
        self.bias = Parameter(rng.uniform(-bound, bound, out_features), dtype) if bias else None

    def forward(self, x: Any) -> Any:
        if self.bias is None:
            return matmul.apply(x, transpose.apply(self.weight))
        return affine.apply(x, self.weight, self.bias)

    def multiply_adds(self, output: Shape) -> int:
        """For one example whose output has this shape: what ``summary`` counts."""
        return self.weight.size * prod(output[:-1])

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Embedding(Module):
    """A vector for each index: y = weight[x], for integers x of any shape and y (*x.shape, embedding_dim).

    padding_idx: the index whose vector starts at 0 and is never learned. rng: a numpy Generator or a seed.

    Attribute: weight (num_embeddings, embedding_dim), drawn from N(0, 1). IndexError for an index that is negative or not
    below num_embeddings, TypeError for one that is no integer.

    >>> Embedding(10, 3, rng=0)(np.array([[1, 2, 4], [4, 3, 9]])).shape
    (2, 3, 3)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        dtype: Any = np.float32,
        rng: Rng = None,
    ):
        if num_embeddings < 1 or embedding_dim < 1:
            raise ValueError(
                f"Embedding({num_embeddings}, {embedding_dim}): it needs at least one vector and one number in each"
            )
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(f"padding_idx is {padding_idx}, but there are {num_embeddings} indices")
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        vectors = np.random.default_rng(rng).normal(size=(num_embeddings, embedding_dim))
        if padding_idx is not None:
            vectors[padding_idx] = 0
        self.weight = Parameter(vectors, dtype)

    def forward(self, x: Any) -> Any:
        x = x if hasattr(x, "dtype") else np.asarray(x)
        try:
            x = check_labels.apply(x, classes=self.num_embeddings)
        except (IndexError, TypeError) as error:
            raise type(error)(
                f"{describe(x)} are no indices of {self.num_embeddings} embeddings, integers from 0 to "
                f"{self.num_embeddings - 1}: {error}; make the Embedding larger, or map the indices first"
            ) from None
        y = self.weight[x]
        if self.padding_idx is None:
            return y
        return np.where(np.not_equal(x, self.padding_idx)[..., None], y, y.detach())

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


class Identity(Module):
    """y = x."""

    def forward(self, x: Any) -> Any:
        return x


class Dropout(Module):
    """While training, an element is 0 with probability p, and the others are divided by 1 - p (Srivastava et al. 2014).

    rng: a numpy Generator or a seed. In eval mode, y = x. ValueError unless 0 <= p < 1.

    >>> sorted(set(Dropout(0.5, rng=0)(np.ones(100, np.float32)).tolist()))
    [0.0, 2.0]
    """

    def __init__(self, p: float = 0.5, *, rng: Rng = None):
        if not 0 <= p < 1:
            raise ValueError(f"Dropout({p}): the probability to drop an element must be in [0, 1)")
        self.p = p
        self.rng = np.random.default_rng(rng)

    def forward(self, x: Any) -> Any:
        if not self.training or not self.p:
            return x
        kept = uniform(x.shape, self.rng) >= self.p
        return x * kept / (1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class ReLU(Module):
    """y = max(x, 0).

    >>> ReLU()(np.array([-1.0, 2.0]))
    array([0., 2.])
    """

    def forward(self, x: Any) -> Any:
        return relu.apply(x)


class LeakyReLU(Module):
    """y = x where x > 0, negative_slope * x elsewhere."""

    def __init__(self, negative_slope: float = 0.01):
        self.negative_slope = negative_slope

    def forward(self, x: Any) -> Any:
        return leaky_relu.apply(x, slope=self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class PReLU(Module):
    """LeakyReLU whose slope is learned (He et al. 2015): one, or one for each of num_parameters channels (axis 1).

    ``weight`` (num_parameters,) starts at `init`.

    >>> PReLU()(np.array([-1.0, 2.0])).tolist()
    [-0.25, 2.0]
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25, *, dtype: Any = np.float32):
        self.num_parameters = num_parameters
        self.weight = Parameter(np.full(num_parameters, init), dtype)

    def forward(self, x: Any) -> Any:
        if self.num_parameters == 1 or x.ndim <= 2:
            return prelu.apply(x, self.weight)
        return prelu.apply(x, reshape.apply(self.weight, shape=(-1, *(1,) * (x.ndim - 2))))

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class ELU(Module):
    """y = x where x > 0, alpha (exp(x) - 1) elsewhere (Clevert et al. 2016)."""

    def __init__(self, alpha: float = 1.0):
        self.alpha = alpha

    def forward(self, x: Any) -> Any:
        return elu(x, self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


class GELU(Module):
    """y = x Phi(x), Phi the standard normal distribution (Hendrycks and Gimpel 2016); see ``nn.functional.gelu``.

    approximate: "none", or "tanh" for the approximation by it. ValueError for another word.
    """

    def __init__(self, approximate: str = "none"):
        gelu(np.zeros(1), approximate)
        self.approximate = approximate

    def forward(self, x: Any) -> Any:
        return gelu(x, self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class SiLU(Module):
    """y = x sigmoid(x), also called swish."""

    def forward(self, x: Any) -> Any:
        return silu(x)


class Sigmoid(Module):
    """y = 1 / (1 + exp(-x))."""

    def forward(self, x: Any) -> Any:
        return sigmoid.apply(x)


class Tanh(Module):
    """y = tanh(x)."""

    def forward(self, x: Any) -> Any:
        return tanh.apply(x)


class Softplus(Module):
    """y = log(1 + exp(beta x)) / beta, without overflow."""

    def __init__(self, beta: float = 1.0):
        self.beta = beta

    def forward(self, x: Any) -> Any:
        return softplus.apply(x) if self.beta == 1 else softplus.apply(x * self.beta) / self.beta

    def extra_repr(self) -> str:
        return f"beta={self.beta}"


class _AlongAxis(Module):
    """An activation along the axis `dim`."""

    def __init__(self, dim: int = -1):
        self.dim = dim

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmax(_AlongAxis):
    """y = exp(x) / sum(exp(x)) along the axis `dim`, without overflow."""

    def forward(self, x: Any) -> Any:
        return softmax.apply(x, axis=self.dim)


class LogSoftmax(_AlongAxis):
    """y = log(softmax(x)) along the axis `dim`, without overflow."""

    def forward(self, x: Any) -> Any:
        return log_softmax.apply(x, axis=self.dim)


class Flatten(Module):
    """The axes from start_dim to end_dim as one: by default, all but the first.

    >>> Flatten()(np.zeros((5, 28, 28))).shape
    (5, 784)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Any) -> Any:
        first, last = self.start_dim % x.ndim, self.end_dim % x.ndim
        if first > last:
            raise ValueError(f"start_dim {self.start_dim} comes after end_dim {self.end_dim} in shape {tuple(x.shape)}")
        shape = x.shape
        return reshape.apply(x, shape=(*shape[:first], prod(shape[first : last + 1]), *shape[last + 1 :]))

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
