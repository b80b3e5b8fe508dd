"""One training step with tinygrad_scratch, as its users write it: eager, captured, compiled."""

from __future__ import annotations

from typing import Any

from benchmarks.hand_derived import Array
from benchmarks.peer import Peer, interleave


class Eager(Peer):
    """tinygrad_scratch, each operation run as it is met."""

    def prepare(self) -> None:
        import tinygrad_scratch as tg

        self.tg, network = tg, self.network
        layers = [tg.nn.Linear(*size) for size in zip(network.sizes, network.sizes[1:], strict=False)]
        between = tg.nn.Sigmoid if network.hidden == "sigmoid" else tg.nn.ReLU
        self.model = tg.nn.Sequential(*interleave(layers, between))
        self.parameters = list(self.model.parameters())  # weights (out, in)
        self.optimizer = tg.optim.SGD(self.parameters, lr=network.lr, momentum=network.momentum)
        self.loss = getattr(self, network.loss)

    def reset(self) -> None:
        for parameter, value in zip(self.parameters, self.initial, strict=True):
            parameter.data[...] = value.T
        for kept in self.optimizer.state.values():  # a velocity of zero is none
            for array in kept.values():
                array[...] = 0.0

    def step(self, x: Any, targets: Any) -> Any:
        loss = self.loss(self.model(x), targets)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss

    def squared_error(self, z: Any, targets: Array) -> Any:
        y = self.tg.sigmoid(z)
        return self.tg.nn.functional.mse_loss(y, targets, reduction="sum") * (0.5 / len(targets))

    def binary_cross_entropy(self, z: Any, targets: Array) -> Any:
        return self.tg.binary_cross_entropy_with_logits(z, targets, reduction="sum") * (1 / len(targets))

    def softmax_cross_entropy(self, z: Any, targets: Array) -> Any:
        return self.tg.softmax_cross_entropy(z, targets)

    def weights(self) -> list[Array]:
        return [parameter.data.T for parameter in self.parameters]


class CapturedNumPy(Eager):
    """tinygrad_scratch, the same step captured: straight-line NumPy over buffers that are allocated once."""

    backend = "numpy"
    threads: str | None = None

    def prepare(self) -> None:
        super().prepare()
        self.step = self.tg.capture(  # type: ignore[method-assign]
            super().step, backend=self.backend, threads=self.threads
        )


class CapturedNumba(CapturedNumPy):
    """tinygrad_scratch, the same step captured and compiled."""

    backend = "numba"


class CapturedNumbaAuto(CapturedNumba):
    """The same, with one thread or several for the products, whichever is faster at the time."""

    threads = "auto"
