"""Seeing inside a network while it trains: how large activations and gradients are, which units are dead, how far a step
moves the weights; every so many steps, eagerly, on a copy, whatever computes the steps."""

from collections.abc import Callable, Mapping
from math import sqrt
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from tinygrad_scratch._typing import Array
from tinygrad_scratch.context import enable_grad
from tinygrad_scratch.nn.module import Module
from tinygrad_scratch.nn.observe import layers, observed
from tinygrad_scratch.tensor import Tensor, as_tensor
from tinygrad_scratch.transforms import gradients

CONSTANT = 1e-3
"""A unit is dead if its outputs differ by no more than this share of the layer's largest."""


class Look(NamedTuple):
    """What was seen of one layer just before and during one step. None where there is nothing to see."""

    step: int
    layer: str
    kind: str
    activation: float
    """Root of the mean square of its outputs."""
    gradient: float | None
    """Norm of the loss's gradient with respect to its outputs, all of the batch."""
    dead: float | None
    """Share of its units (channels, after a convolution) that give the same output for the whole batch."""
    weight: float | None
    """Norm of its parameters, before the step."""
    weight_gradient: float | None
    """Norm of the loss's gradient with respect to its parameters."""
    update: float | None
    """Norm of what the step added to its parameters, divided by theirs."""


class Watch:
    """Looks into a network once every `every` steps, beginning with the first.

    model: the network that is trained. loss: ``loss(model, *batch)`` gives the loss of a batch as a Tensor.

    ``with watch(*batch): step(*batch)`` around each step. When a look is due, the loss and its gradients are computed
    eagerly on a copy of the model, and after the step the weights are compared with the copy's. Model, gradients and
    generators stay as they are, so the training is the same, bit for bit; and the step may be anything: eager, captured,
    compiled. A look takes about two eager steps. Steps that are made elsewhere are counted by ``advance(steps)``.

    ``rows``: a Look for each layer that was called, look after look.

    >>> import tinygrad_scratch as tg
    >>> from tinygrad_scratch import nn, optim
    >>> model = nn.Sequential(nn.Linear(4, 8, rng=0), nn.ReLU(), nn.Linear(8, 1, rng=1))
    >>> optimizer = optim.SGD(model.parameters(), lr=0.1)
    >>> loss = lambda model, x: np.mean(model(x) ** 2)
    >>> def step(x):
    ...     optimizer.zero_grad()
    ...     loss(model, x).backward()
    ...     optimizer.step()
    >>> watch = Watch(model, loss, every=10)
    >>> for _ in range(20):
    ...     with watch(np.ones((5, 4), np.float32)):
    ...         step(np.ones((5, 4), np.float32))
    >>> [(row.step, row.layer, row.kind) for row in watch.rows]
    [(0, '0', 'Linear'), (0, '1', 'ReLU'), (0, '2', 'Linear'), (10, '0', 'Linear'), (10, '1', 'ReLU'), (10, '2', 'Linear')]
    """

    def __init__(self, model: Module, loss: Callable[..., Any], every: int = 100):
        if every < 1:
            raise ValueError(f"every is {every}: a look every 1 or more steps")
        self.model, self.loss, self.every = model, loss, every
        self.steps = 0
        self.rows: list[Look] = []
        self._batch: tuple[Any, ...] | None = None
        self._before: dict[str, Module] = {}
        self._looks: list[Look] = []

    @property
    def left(self) -> int:
        """How many steps there are before the next look; 0 if it is due."""
        return -self.steps % self.every

    def advance(self, steps: int = 1) -> None:
        """Count steps that were made without being watched."""
        self.steps += steps

    def __call__(self, *batch: Any) -> "Watch":
        self._batch = batch
        return self

    def __enter__(self) -> "Watch":
        if self._batch is None:
            raise TypeError("a watch is given the step's batch: with watch(x, targets): step(x, targets)")
        batch, self._batch = self._batch, None
        if not self.left:
            self._looks, twin = look(self.model, self.loss, batch, self.steps)
            self._before = layers(twin)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._before and error is None:
            now = layers(self.model)
            self.rows += [row._replace(update=_moved(self._before[row.layer], now[row.layer])) for row in self._looks]
        self._before, self._looks = {}, []
        if error is None:
            self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        """The count of steps, and the rows; it can be written as JSON."""
        return {"steps": self.steps, "rows": [list(row) for row in self.rows]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a ``state_dict()``."""
        rows = [Look(*row) for row in state_dict["rows"]]
        self.steps, self.rows = int(state_dict["steps"]), rows


def look(model: Module, loss: Callable[..., Any], batch: tuple[Any, ...], step: int = 0) -> tuple[list[Look], Module]:
    """What there is to see in the network for one batch, and the copy of the network on which it was seen."""
    outputs: list[tuple[str, Module, Tensor]] = []

    def seen(path: str, layer: Module, output: Any) -> None:
        if isinstance(output, (Tensor, np.ndarray)):
            outputs.append((path, layer, as_tensor(output)))

    twin = observed(model, seen)
    with enable_grad():
        value = loss(twin, *batch)
    named = dict(twin.named_parameters())
    wanted = [t for t in [*(y for _, _, y in outputs), *named.values()] if t.requires_grad]
    found = {id(t): g.data for t, g in zip(wanted, gradients(value, wanted), strict=True)}
    rows = []
    for path, layer, y in outputs:
        own = list(layer.parameters(recurse=False))
        slopes = [found[id(p)] for p in own if id(p) in found]
        rows.append(
            Look(
                step=step,
                layer=path,
                kind=type(layer).__name__,
                activation=_norm([y.data]) / sqrt(max(y.size, 1)),
                gradient=_norm([found[id(y)]]) if id(y) in found else None,
                dead=_dead(y.data),
                weight=_norm([p.data for p in own]) if own else None,
                weight_gradient=_norm(slopes) if slopes else None,
                update=None,
            )
        )
    return rows, twin


def _norm(arrays: list[Array]) -> float:
    flat = [a.ravel("K") for a in arrays]  # as they lie, without a copy
    return sqrt(sum(float(np.dot(a, a)) for a in flat))


def _dead(y: Array) -> float | None:
    """See Look.dead; None if there is one value for each unit, which is always the same."""
    unit = 1 if y.ndim == 4 else y.ndim - 1
    rest = tuple(axis for axis in range(y.ndim) if axis != unit)
    if not y.size or y.ndim < 2 or y.size == y.shape[unit]:
        return None
    low, high = y.min(rest), y.max(rest)
    return float(np.mean(high - low <= CONSTANT * max(float(high.max()), -float(low.min()))))


def _moved(before: Module, after: Module) -> float | None:
    old = [p.data for p in before.parameters(recurse=False)]
    new = [p.data for p in after.parameters(recurse=False)]
    size = _norm(old)
    return _norm([b - a for a, b in zip(old, new, strict=True)]) / size if size else None
