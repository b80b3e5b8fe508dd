"""A table of a network: its layers in the order in which they are called, what they answer, and what they cost."""

from typing import Any, NamedTuple

import numpy as np

from tinygrad_scratch._typing import Shape
from tinygrad_scratch.context import no_grad
from tinygrad_scratch.nn.module import Module
from tinygrad_scratch.nn.observe import layers, observed

HEADINGS = ("layer", "kind", "output", "parameters", "multiply-adds")


class Row(NamedTuple):
    """One call of a layer. `output`: its shape for one example, without the batch's axis; None if it is never called."""

    layer: str
    kind: str
    output: Shape | None
    parameters: int
    """Its own, counted where it is first called."""
    multiply_adds: int
    """For one example, of its matrix products; a layer of one's own defines ``multiply_adds(output_shape)`` for them."""


class Summary(NamedTuple):
    """``rows``, and the totals; it shows as a table."""

    rows: tuple[Row, ...]
    parameters: int
    multiply_adds: int

    def __str__(self) -> str:
        lines = [HEADINGS]
        for row in self.rows:
            shape = "not called" if row.output is None else str(row.output)
            lines.append((row.layer or "(itself)", row.kind, shape, _count(row.parameters), _count(row.multiply_adds)))
        lines.append(("total", "", "", _count(self.parameters), _count(self.multiply_adds)))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        texts = [
            "  ".join([*map(str.ljust, line[:3], widths), *map(str.rjust, line[3:], widths[3:])]) for line in lines
        ]
        rule = "-" * len(texts[0])
        return "\n".join([texts[0], rule, *texts[1:-1], rule, texts[-1]])

    def __repr__(self) -> str:
        return str(self)


def summary(model: Module, input_shape: Shape, dtype: Any = np.float32) -> Summary:
    """The table of a network that is fed examples of `input_shape`, which does not count the batch's axis.

    A copy of the network is called once, in eval mode, on zeros of this shape and dtype. Parameters are counted once,
    also when layers share them.

    >>> from tinygrad_scratch import nn
    >>> nn.Sequential(nn.Linear(784, 32), nn.Sigmoid(), nn.Linear(32, 10)).summary((784,))
    layer  kind     output  parameters  multiply-adds
    -------------------------------------------------
    0      Linear   (32,)       25,120         25,088
    1      Sigmoid  (32,)            -              -
    2      Linear   (10,)          330            320
    -------------------------------------------------
    total                       25,450         25,408
    """
    rows: list[Row] = []
    counted: set[int] = set()

    def own(layer: Module) -> int:
        fresh = {id(p): p.size for p in layer.parameters(recurse=False) if id(p) not in counted}
        counted.update(fresh)
        return sum(fresh.values())

    def seen(path: str, layer: Module, output: Any) -> None:
        shape = tuple(output.shape[1:]) if hasattr(output, "shape") else ()
        cost = getattr(layer, "multiply_adds", None)
        rows.append(Row(path, type(layer).__name__, shape, own(layer), int(cost(shape)) if cost else 0))

    twin = observed(model, seen).eval()
    with no_grad():
        twin(np.zeros((1, *input_shape), dtype))
    called = {row.layer for row in rows}
    rows += [
        Row(path, type(part).__name__, None, own(part), 0) for path, part in layers(twin).items() if path not in called
    ]
    return Summary(tuple(rows), sum(p.size for p in model.parameters()), sum(row.multiply_adds for row in rows))


def _count(number: int) -> str:
    return f"{number:,}" if number else "-"
