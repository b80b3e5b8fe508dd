"""What every competitor of a training step is: parameters to begin from, batches, one step."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.hand_derived import Array, Network

Batch = tuple[Any, Any]


class Peer:
    """One network trained with one library: `step` is what is timed, `reset` goes back to the initial parameters."""

    trains = True  # False: there is no loss and no weight to compare

    def __init__(self, network: Network, parameters: Sequence[Array], batches: Sequence[tuple[Array, Array]]) -> None:
        self.network = network
        self.initial = parameters
        self.prepare()
        self.batches: list[Batch] = [self.convert(x, targets) for x, targets in batches]

    def prepare(self) -> None:
        """Imports the library and makes what does not depend on the batches."""

    def convert(self, x: Array, targets: Array) -> Batch:
        """A batch in the library's own arrays."""
        return x, targets

    def reset(self) -> None:
        """Back to the initial parameters, without velocity."""
        raise NotImplementedError

    def step(self, x: Any, targets: Any) -> Any:
        """One training step; returns the loss in the library's own type."""
        raise NotImplementedError

    def value(self, loss: Any) -> float:
        """The loss that a step returned, as a number."""
        return float(loss)

    def weights(self) -> list[Array]:
        """[W1, b1, ...] as they are now, weights (in, out)."""
        raise NotImplementedError

    def wait(self) -> None:
        """Returns when everything that was asked for has been computed."""

    def run(self, count: int) -> Any:
        """`count` steps over the batches in turn; returns the last loss."""
        step, loss = self.step, None
        for x, targets in itertools.islice(itertools.cycle(self.batches), count):
            loss = step(x, targets)
        self.wait()
        return loss


def interleave(layers: Sequence[Any], between: Callable[[], Any]) -> list[Any]:
    """layer, activation, layer, activation, ..., layer."""
    return [module for layer in layers for module in (layer, between())][:-1]
