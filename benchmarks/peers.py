"""One training step (forward, backward, update) in each library, written as its users write it.

Every peer gets the same initial parameters, in the layout of `hand_derived` (weights (in, out)), and the same
batches, which it may convert beforehand: no conversion is timed. A step returns the loss without fetching its value.
`weights` gives the parameters back in the hand-derived layout, for the check that all peers have trained alike.

A peer's library is imported when the peer is made; ImportError then means that it is not installed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.hand_derived import Array, Network, Plain, Preallocated, ProductsAlone, pairs
from benchmarks.ours import CapturedNumba, CapturedNumbaAuto, CapturedNumPy, Eager
from benchmarks.peer import Batch, Peer, interleave

# ---- NumPy -----------------------------------------------------------------------------------------------------------


class HandDerived(Peer):
    """`hand_derived.Plain`."""

    make: Callable[[Network, Sequence[Array]], Any] = Plain

    def reset(self) -> None:
        self.trained = self.make(self.network, self.initial)
        self.step = self.trained  # type: ignore[method-assign]

    def weights(self) -> list[Array]:
        return list(self.trained.parameters)


class HandDerivedPreallocated(HandDerived):
    """`hand_derived.Preallocated`."""

    make = Preallocated


class MatrixProducts(HandDerived):
    """`hand_derived.ProductsAlone`: no training, only the time of the products."""

    make = ProductsAlone
    trains = False


# ---- PyTorch ---------------------------------------------------------------------------------------------------------


class TorchEager(Peer):
    """torch.nn and torch.optim, eager, with torch's own number of threads."""

    def prepare(self) -> None:
        torch, network = importlib.import_module("torch"), self.network
        self.torch = torch
        layers = [torch.nn.Linear(*size) for size in zip(network.sizes, network.sizes[1:], strict=False)]
        between = torch.nn.Sigmoid if network.hidden == "sigmoid" else torch.nn.ReLU
        self.model = torch.nn.Sequential(*interleave(layers, between))
        self.parameters = list(self.model.parameters())  # weights (out, in)
        self.optimizer = torch.optim.SGD(self.parameters, lr=network.lr, momentum=network.momentum)

    def convert(self, x: Array, targets: Array) -> Batch:
        return self.torch.from_numpy(x), self.torch.from_numpy(targets)

    def reset(self) -> None:
        with self.torch.no_grad():
            for parameter, value in zip(self.parameters, self.initial, strict=True):
                parameter.copy_(self.torch.from_numpy(value.T))
        for kept in self.optimizer.state.values():
            if kept.get("momentum_buffer") is not None:
                kept["momentum_buffer"].zero_()

    def loss(self, z: Any, targets: Any) -> Any:
        functional = self.torch.nn.functional
        if self.network.loss == "squared_error":
            return functional.mse_loss(self.torch.sigmoid(z), targets, reduction="sum") * (0.5 / len(targets))
        if self.network.loss == "binary_cross_entropy":
            return functional.binary_cross_entropy_with_logits(z, targets, reduction="sum") / len(targets)
        return functional.cross_entropy(z, targets)

    def step(self, x: Any, targets: Any) -> Any:
        loss = self.loss(self.model(x), targets)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss

    def value(self, loss: Any) -> float:
        return float(loss.item())

    def weights(self) -> list[Array]:
        return [parameter.detach().numpy().T for parameter in self.parameters]


class TorchCompile(TorchEager):
    """The whole step as one function of torch.func under torch.compile.

    Faster than compiling the loss and the optimizer one by one: 95 against 292 us for 784-32-10 at batch 1.
    """

    def prepare(self) -> None:
        super().prepare()
        torch, model, network = self.torch, self.model, self.network
        self.values = {name: tensor.detach() for name, tensor in model.named_parameters()}
        self.velocities = {name: torch.zeros_like(tensor) for name, tensor in self.values.items()}

        def loss(values: Any, x: Any, targets: Any) -> Any:
            return self.loss(torch.func.functional_call(model, values, (x,)), targets)

        def step(x: Any, targets: Any) -> Any:
            gradients, value = torch.func.grad_and_value(loss)(self.values, x, targets)
            for name, tensor in self.values.items():
                change = gradients[name]
                if network.momentum:
                    change = self.velocities[name].mul_(network.momentum).add_(change)
                tensor.sub_(network.lr * change)
            return value

        torch._dynamo.reset()
        self.step = torch.compile(step)  # type: ignore[method-assign]

    def reset(self) -> None:
        super().reset()
        for velocity in self.velocities.values():
            velocity.zero_()


# ---- JAX -------------------------------------------------------------------------------------------------------------


class JaxJit(Peer):
    """The whole step under jax.jit, parameters and velocities donated."""

    def prepare(self) -> None:
        jax, network = importlib.import_module("jax"), self.network
        self.jax = jax

        def step(values: list[Any], velocities: list[Any], x: Any, targets: Any) -> Any:
            loss, gradients = jax.value_and_grad(self.loss)(values, x, targets)
            if network.momentum:
                gradients = velocities = [network.momentum * v + g for v, g in zip(velocities, gradients, strict=True)]
            return [p - network.lr * g for p, g in zip(values, gradients, strict=True)], velocities, loss

        self.compiled = jax.jit(step, donate_argnums=(0, 1))

    def convert(self, x: Array, targets: Array) -> Batch:
        return self.jax.numpy.asarray(x), self.jax.numpy.asarray(targets)

    def loss(self, values: list[Any], x: Any, targets: Any) -> Any:
        nn, jnp = self.jax.nn, self.jax.numpy
        activation = nn.sigmoid if self.network.hidden == "sigmoid" else nn.relu
        for weight, bias in pairs(values[:-2]):
            x = activation(x @ weight + bias)
        z = x @ values[-2] + values[-1]
        if self.network.loss == "squared_error":
            return 0.5 * jnp.sum((nn.sigmoid(z) - targets) ** 2) / len(x)
        if self.network.loss == "binary_cross_entropy":
            return jnp.sum(nn.softplus(z) - z * targets) / len(x)
        picked = jnp.take_along_axis(nn.log_softmax(z), targets[:, None], axis=1)
        return -jnp.mean(picked)

    def reset(self) -> None:
        self.values = [self.jax.numpy.array(parameter) for parameter in self.initial]
        self.velocities = [self.jax.numpy.zeros_like(value) for value in self.values] if self.network.momentum else []

    def step(self, x: Any, targets: Any) -> Any:
        self.values, self.velocities, loss = self.compiled(self.values, self.velocities, x, targets)
        return loss

    def wait(self) -> None:
        self.jax.block_until_ready((self.values, self.velocities))

    def weights(self) -> list[Array]:
        return [np.asarray(value) for value in self.values]


# ---- autograd and mygrad ---------------------------------------------------------------------------------------------


class Autograd(Peer):
    """HIPS autograd; the update is in place, on its NumPy arrays."""

    def prepare(self) -> None:
        self.np = importlib.import_module("autograd.numpy")
        self.logsumexp = importlib.import_module("autograd.scipy.special").logsumexp
        self.value_and_grad = importlib.import_module("autograd").value_and_grad(self.loss)

    def convert(self, x: Array, targets: Array) -> Batch:
        if targets.ndim == 1:  # one-hot: faster here than indexing, whose derivative adds at indices
            targets = (targets[:, None] == np.arange(self.network.sizes[-1])).astype(x.dtype)
        return x, targets

    def loss(self, values: list[Any], x: Any, targets: Array) -> Any:
        anp, n = self.np, len(targets)
        for weight, bias in pairs(values[:-2]):
            z = anp.dot(x, weight) + bias
            x = self.sigmoid(z) if self.network.hidden == "sigmoid" else anp.maximum(z, 0.0)
        z = anp.dot(x, values[-2]) + values[-1]
        if self.network.loss == "squared_error":
            return 0.5 * anp.sum((self.sigmoid(z) - targets) ** 2) / n
        if self.network.loss == "binary_cross_entropy":
            return anp.sum(anp.logaddexp(z, np.float32(0.0)) - z * targets) / n
        return anp.sum(self.logsumexp(z, axis=1)) / n - anp.sum(z * targets) / n

    def sigmoid(self, z: Any) -> Any:
        return 0.5 * self.np.tanh(0.5 * z) + 0.5

    def reset(self) -> None:
        self.values = [parameter.copy() for parameter in self.initial]
        self.velocities = [np.zeros_like(value) for value in self.values]

    def step(self, x: Any, targets: Any) -> Any:
        loss, gradients = self.value_and_grad(self.values, x, targets)
        for value, velocity, gradient in zip(self.values, self.velocities, gradients, strict=True):
            if self.network.momentum:
                velocity *= self.network.momentum
                velocity += gradient
                gradient = velocity
            value -= self.network.lr * gradient
        return loss

    def weights(self) -> list[Array]:
        return list(self.values)


class MyGrad(Peer):
    """MyGrad, its memory guarding off, as its documentation advises for speed; the update is on the NumPy arrays."""

    def prepare(self) -> None:
        self.mg = importlib.import_module("mygrad")
        self.nn = importlib.import_module("mygrad.nnet.activations")
        self.softmax_crossentropy = importlib.import_module("mygrad.nnet.losses").softmax_crossentropy
        self.mg.turn_memory_guarding_off()

    def reset(self) -> None:
        self.values = [self.mg.tensor(parameter) for parameter in self.initial]
        self.velocities = [np.zeros_like(parameter) for parameter in self.initial]

    def loss(self, x: Any, targets: Array) -> Any:
        mg, n = self.mg, len(targets)
        activation = self.nn.sigmoid if self.network.hidden == "sigmoid" else self.nn.relu
        for weight, bias in pairs(self.values[:-2]):
            x = activation(mg.matmul(x, weight) + bias)
        z = mg.matmul(x, self.values[-2]) + self.values[-1]
        if self.network.loss == "squared_error":
            return 0.5 * mg.sum((self.nn.sigmoid(z) - targets) ** 2) / n
        if self.network.loss == "binary_cross_entropy":
            return mg.sum(mg.logaddexp(z, np.float32(0.0)) - z * targets) / n
        return self.softmax_crossentropy(z, targets)

    def step(self, x: Any, targets: Any) -> Any:
        loss = self.loss(x, targets)
        loss.backward()
        for value, velocity in zip(self.values, self.velocities, strict=True):
            gradient = value.grad
            if self.network.momentum:
                velocity *= self.network.momentum
                velocity += gradient
                gradient = velocity
            value.data[...] -= self.network.lr * gradient
        return loss

    def weights(self) -> list[Array]:
        return [value.data for value in self.values]


YARDSTICK = "hand-derived"
# fmt: off
PEERS: dict[str, type[Peer]] = {
    YARDSTICK:          HandDerived,
    "preallocated":     HandDerivedPreallocated,
    "products-alone":   MatrixProducts,
    "ours-eager":       Eager,
    "ours-numpy":       CapturedNumPy,
    "ours-compiled":    CapturedNumba,
    "ours-auto":        CapturedNumbaAuto,
    "torch-eager":      TorchEager,
    "torch-compile":    TorchCompile,
    "jax-jit":          JaxJit,
    "autograd":         Autograd,
    "mygrad":           MyGrad,
}
# fmt: on
