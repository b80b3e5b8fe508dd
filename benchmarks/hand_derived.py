"""The networks of the five papers with their backpropagation derived by hand, in plain NumPy.

This is the yardstick: what a patient expert writes who needs no library. A network is data (`Network`); one set of
functions does the work for all of them.

    forward       a[0] = x,  z[l] = a[l-1] @ W[l] + b[l],  a[l] = f(z[l])
    output delta  d[L] = dloss/dz[L], in closed form for each pair of output activation and loss
    backward      d[l-1] = (d[l] @ W[l].T) * f'(z[l-1])
    gradients     dloss/dW[l] = a[l-1].T @ d[l],  dloss/db[l] = the sum of d[l] over the batch
    update        G = momentum * G + gradient,  W = W - lr * G

Arrays: inputs (batch, in), weights (in, out), biases (out,). Every loss is a sum over the outputs of an example and a
mean over the examples of the batch. Targets are class indices (batch,) for softmax cross-entropy, else (batch, out)
arrays of zeros and ones.

`Plain` is that, readable, for any batch. `Preallocated` is the same arithmetic pushed as far as NumPy goes: every
array made once, `out=` everywhere, and for online learning (batch 1) the weight gradient `a.T @ delta` as the
broadcast multiply that it then is, which is several times faster and equal bit for bit. `ProductsAlone` runs these
same products and nothing else: the floor for a step that makes them one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[Any]
Activation = Literal["sigmoid", "relu"]
Loss = Literal["squared_error", "binary_cross_entropy", "softmax_cross_entropy"]


@dataclass(frozen=True)
class Network:
    """A fully connected network and how it is trained. The loss decides the output's activation: softmax or sigmoid."""

    name: str
    sizes: tuple[int, ...]
    hidden: Activation
    loss: Loss
    batch: int
    lr: float
    momentum: float = 0.0

    @property
    def label(self) -> str:
        """For example ``784-32-10 batch 1, momentum``."""
        shape = "-".join(map(str, self.sizes))
        return f"{shape} batch {self.batch:,}" + (", momentum" if self.momentum else "")

    @property
    def depth(self) -> int:
        """The number of layers that have weights."""
        return len(self.sizes) - 1


# fmt: off
NETWORKS = {network.name: network for network in (
    #       name               sizes                activation loss                     batch  lr    momentum
    Network("jhu",             (784, 300, 100, 10), "sigmoid", "squared_error",             1, 0.10),
    Network("kth-online",      (784, 32, 10),       "sigmoid", "squared_error",             1, 0.10, 0.8),
    Network("kth-batch",       (784, 32, 10),       "sigmoid", "squared_error",            50, 0.71),
    Network("ncsu",            (784, 32, 10),       "sigmoid", "binary_cross_entropy",    128, 1.28),  # 0.01 x 128
    Network("ecse4850",        (784, 100, 100, 10), "relu",    "softmax_cross_entropy",    50, 0.008),
    Network("kth-cifar10",     (3072, 200, 10),     "sigmoid", "squared_error",            50, 0.07),
    Network("lab2-softmax",    (784, 64, 10),       "sigmoid", "softmax_cross_entropy", 40000, 0.7),
    Network("wide",            (784, 512, 512, 10), "relu",    "softmax_cross_entropy",   256, 0.1,  0.9),
    Network("lab2-neuron",     (784, 1),            "sigmoid", "squared_error",         40000, 1.0),
    Network("lab2-hidden",     (784, 64, 1),        "sigmoid", "binary_cross_entropy",  40000, 0.7),
)}
# The eight training steps that `python -m benchmarks steps` measures: the papers' own, and one that is larger.
STEPS = ("jhu", "kth-online", "kth-batch", "ncsu", "ecse4850", "kth-cifar10", "lab2-softmax", "wide")
# fmt: on


def initial_parameters(network: Network, rng: np.random.Generator, dtype: DTypeLike = np.float32) -> list[Array]:
    """[W1, b1, W2, b2, ...], each drawn from U(-1/sqrt(in), 1/sqrt(in)) as `tinygrad_scratch.nn.Linear` does."""
    parameters: list[Array] = []
    for inputs, outputs in zip(network.sizes, network.sizes[1:], strict=False):
        bound = 1.0 / np.sqrt(inputs)
        parameters.append(rng.uniform(-bound, bound, (inputs, outputs)).astype(dtype))
        parameters.append(rng.uniform(-bound, bound, outputs).astype(dtype))
    return parameters


def random_batches(
    network: Network, count: int, rng: np.random.Generator, dtype: DTypeLike = np.float32
) -> list[tuple[Array, Array]]:
    """`count` batches (x, targets): x (batch, in) uniform in [0, 1) like pixels, targets of random classes."""
    return [random_batch(network, rng, dtype) for _ in range(count)]


def random_batch(network: Network, rng: np.random.Generator, dtype: DTypeLike = np.float32) -> tuple[Array, Array]:
    """One batch of `random_batches`."""
    x = rng.random((network.batch, network.sizes[0]), dtype=np.float32).astype(dtype, copy=False)
    outputs = network.sizes[-1]
    labels = rng.integers(0, max(outputs, 2), network.batch)
    if network.loss == "softmax_cross_entropy":
        return x, labels
    return x, (labels[:, None] == (np.arange(outputs) if outputs > 1 else 1)).astype(dtype)


# ---- plain NumPy -----------------------------------------------------------------------------------------------------


def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)), written with tanh so that no z overflows."""
    return 0.5 * np.tanh(0.5 * z) + 0.5


def forward(network: Network, parameters: Sequence[Array], x: Array) -> tuple[list[Array], Array]:
    """The inputs [a0, a1, ...] of every layer, and the last layer's z (batch, out), which the loss takes."""
    inputs = [x]
    for weight, bias in pairs(parameters[:-2]):
        z = inputs[-1] @ weight + bias
        inputs.append(sigmoid(z) if network.hidden == "sigmoid" else np.maximum(z, 0.0))
    return inputs, inputs[-1] @ parameters[-2] + parameters[-1]


def loss_and_delta(network: Network, z: Array, targets: Array) -> tuple[Any, Array]:
    """The loss, and its derivative by z (batch, out)."""
    n = len(z)
    if network.loss == "squared_error":  # 1/2 |sigmoid(z) - t|^2
        y = sigmoid(z)
        error = y - targets
        return 0.5 * np.vdot(error, error) / n, error * y * (1.0 - y) / n
    if network.loss == "binary_cross_entropy":  # -t log y - (1 - t) log(1 - y), y = sigmoid(z)
        loss = np.maximum(z, 0.0) - z * targets + np.log1p(np.exp(-np.abs(z)))
        return loss.sum() / n, (sigmoid(z) - targets) / n
    rows = np.arange(n)  # -log softmax(z)[label]
    shifted = z - z.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    total = exponentials.sum(axis=1, keepdims=True)
    delta = exponentials / total
    delta[rows, targets] -= 1.0
    return (np.log(total).sum() - shifted[rows, targets].sum()) / n, delta / n


def backward(network: Network, parameters: Sequence[Array], inputs: Sequence[Array], delta: Array) -> list[Array]:
    """The gradients [dW1, db1, dW2, db2, ...], from the last layer's delta to the first layer's."""
    gradients: list[Array] = []
    for layer in reversed(range(network.depth)):
        a = inputs[layer]
        gradients += [delta.sum(axis=0), a.T @ delta]
        if layer:
            delta = delta @ parameters[2 * layer].T
            delta = delta * a * (1.0 - a) if network.hidden == "sigmoid" else delta * (a > 0.0)
    return gradients[::-1]


def gradients(network: Network, parameters: Sequence[Array], x: Array, targets: Array) -> tuple[Any, list[Array]]:
    """The loss and the gradients [dW1, db1, dW2, db2, ...]."""
    inputs, z = forward(network, parameters, x)
    loss, delta = loss_and_delta(network, z, targets)
    return loss, backward(network, parameters, inputs, delta)


def update(network: Network, parameters: Sequence[Array], velocities: Sequence[Array], grads: Sequence[Array]) -> None:
    """One step down the gradients, in place."""
    for parameter, velocity, gradient in zip(parameters, velocities, grads, strict=True):
        if network.momentum:
            velocity *= network.momentum
            velocity += gradient
            gradient = velocity
        parameter -= network.lr * gradient


def pairs(parameters: Sequence[Array]) -> Iterator[tuple[Array, Array]]:
    """(W1, b1), (W2, b2), ..."""
    return zip(parameters[::2], parameters[1::2], strict=True)


class Plain:
    """Trains its own copy of the parameters; a call is one step: ``step(x, targets) -> loss``."""

    def __init__(self, network: Network, parameters: Sequence[Array]) -> None:
        self.network = network
        self.parameters = [parameter.copy() for parameter in parameters]
        self.velocities = [np.zeros_like(parameter) for parameter in parameters]

    def __call__(self, x: Array, targets: Array) -> Any:
        loss, grads = gradients(self.network, self.parameters, x, targets)
        update(self.network, self.parameters, self.velocities, grads)
        return loss


# ---- the same with every array made once -----------------------------------------------------------------------------


class Preallocated:
    """`Plain` without a single new array in a step; made for one batch size.

    It keeps, for each layer, its output `a` and its `delta` (batch, out), and for each parameter its gradient, which
    also holds the step lr * gradient.
    """

    def __init__(self, network: Network, parameters: Sequence[Array], batch: int | None = None) -> None:
        self.network = network
        self.batch = batch or network.batch
        self.parameters = [parameter.copy() for parameter in parameters]
        self.velocities = [np.zeros_like(parameter) for parameter in parameters]
        self.gradients = [np.empty_like(parameter) for parameter in parameters]
        dtype = parameters[0].dtype
        self.outputs = [np.empty((self.batch, size), dtype) for size in network.sizes[1:]]
        self.deltas = [np.empty_like(a) for a in self.outputs]
        self.scratch = [np.empty_like(a) for a in self.outputs]
        self.positive = [np.empty(a.shape, bool) for a in self.outputs]
        self.column = np.empty((self.batch, 1), dtype)
        self.picked = np.empty(self.batch, dtype)
        self.row_starts = np.arange(self.batch) * network.sizes[-1]
        self.flat_labels = np.empty_like(self.row_starts)
        self.outer = outer_product(self.batch)

    def __call__(self, x: Array, targets: Array) -> Any:
        self.forward(x)
        loss = getattr(self, self.network.loss)(targets)
        self.backward(x)
        self.update()
        return loss

    def forward(self, x: Array) -> None:
        """Fills `outputs`; the last one holds z, which the loss turns into the network's answer."""
        last = self.network.depth - 1
        for layer, (weight, bias) in enumerate(pairs(self.parameters)):
            z = self.outputs[layer]
            np.matmul(x, weight, out=z)
            np.add(z, bias, out=z)
            if layer < last and self.network.hidden == "sigmoid":
                sigmoid_in_place(z)
            elif layer < last:
                np.maximum(z, 0.0, out=z)
            x = z

    def squared_error(self, targets: Array) -> Any:
        """The loss; fills the last layer's delta."""
        y, delta, error = self.outputs[-1], self.deltas[-1], self.scratch[-1]
        sigmoid_in_place(y)
        np.subtract(y, targets, out=error)
        loss = 0.5 * np.vdot(error, error) / self.batch
        np.subtract(1.0, y, out=delta)
        np.multiply(delta, y, out=delta)
        np.multiply(delta, error, out=delta)
        np.divide(delta, self.batch, out=delta)
        return loss

    def binary_cross_entropy(self, targets: Array) -> Any:
        """The loss; fills the last layer's delta."""
        z, delta, terms = self.outputs[-1], self.deltas[-1], self.scratch[-1]
        np.absolute(z, out=terms)
        np.negative(terms, out=terms)
        np.exp(terms, out=terms)
        np.log1p(terms, out=terms)
        np.maximum(z, 0.0, out=delta)
        np.add(terms, delta, out=terms)
        loss = (terms.sum() - np.vdot(z, targets)) / self.batch
        sigmoid_in_place(z)
        np.subtract(z, targets, out=delta)
        np.divide(delta, self.batch, out=delta)
        return loss

    def softmax_cross_entropy(self, targets: Array) -> Any:
        """The loss; fills the last layer's delta."""
        z, delta, column, picked = self.outputs[-1], self.deltas[-1], self.column, self.picked
        flat_labels = np.add(self.row_starts, targets, out=self.flat_labels)
        np.max(z, axis=1, keepdims=True, out=column)
        np.subtract(z, column, out=z)
        np.exp(z, out=delta)
        np.sum(delta, axis=1, keepdims=True, out=column)
        np.divide(delta, column, out=delta)
        np.log(column, out=column)
        z.take(flat_labels, out=picked, mode="clip")  # the other modes make a copy of out
        loss = (column.sum() - picked.sum()) / self.batch
        delta.take(flat_labels, out=picked, mode="clip")
        np.subtract(picked, 1.0, out=picked)
        delta.reshape(-1)[flat_labels] = picked
        np.divide(delta, self.batch, out=delta)
        return loss

    def backward(self, x: Array) -> None:
        """Fills `gradients` and the hidden layers' deltas."""
        for layer in reversed(range(self.network.depth)):
            a = self.outputs[layer - 1] if layer else x
            delta = self.deltas[layer]
            self.outer(a.T, delta, out=self.gradients[2 * layer])
            np.sum(delta, axis=0, out=self.gradients[2 * layer + 1])
            if layer:
                below = self.deltas[layer - 1]
                np.matmul(delta, self.parameters[2 * layer].T, out=below)
                if self.network.hidden == "sigmoid":
                    np.multiply(below, a, out=below)
                    np.subtract(1.0, a, out=self.scratch[layer - 1])
                    np.multiply(below, self.scratch[layer - 1], out=below)
                else:
                    np.greater(a, 0.0, out=self.positive[layer - 1])
                    np.multiply(below, self.positive[layer - 1], out=below)

    def update(self) -> None:
        """One step down `gradients`, which is overwritten."""
        for parameter, velocity, gradient in zip(self.parameters, self.velocities, self.gradients, strict=True):
            if self.network.momentum:
                np.multiply(velocity, self.network.momentum, out=velocity)
                np.add(velocity, gradient, out=velocity)
                np.multiply(velocity, self.network.lr, out=gradient)
            else:
                np.multiply(gradient, self.network.lr, out=gradient)
            np.subtract(parameter, gradient, out=parameter)


def sigmoid_in_place(z: Array) -> None:
    """`sigmoid` written over its argument."""
    np.multiply(z, 0.5, out=z)
    np.tanh(z, out=z)
    np.multiply(z, 0.5, out=z)
    np.add(z, 0.5, out=z)


def outer_product(batch: int) -> Callable[..., Array]:
    """The fastest function for `a.T @ delta`: with one example no sum is left, only the products a[i] * delta[j]."""
    return np.multiply if batch == 1 else np.matmul


# ---- the floor -------------------------------------------------------------------------------------------------------


class ProductsAlone:
    """The step's matrix products and nothing else, into arrays made once; a call trains nothing and returns nothing."""

    def __init__(self, network: Network, parameters: Sequence[Array]) -> None:
        outer = outer_product(network.batch)
        weights = parameters[::2]
        values = [np.full((network.batch, size), 0.5, weights[0].dtype) for size in network.sizes[1:]]
        self.first = (weights[0], values[0], outer, np.empty_like(weights[0]))
        self.products: list[tuple[Callable[..., Array], Array, Array, Array]] = []
        for layer in range(1, network.depth):
            a, delta, weight = values[layer - 1], values[layer], weights[layer]
            self.products.append((np.matmul, a, weight, np.empty_like(delta)))  # forward
            self.products.append((np.matmul, delta, weight.T, np.empty_like(a)))  # delta of the layer below
            self.products.append((outer, a.T, delta, np.empty_like(weight)))  # gradient of the weight

    def __call__(self, x: Array, targets: Array) -> None:
        weight, value, outer, gradient = self.first
        np.matmul(x, weight, out=value)
        for product, a, b, out in self.products:
            product(a, b, out=out)
        outer(x.T, value, out=gradient)
