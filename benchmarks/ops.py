"""Every row of the op table, forward and backward, as a multiple of the bare NumPy function.

How to read it: a row of the table is an op, on inputs that its own domain draws (float32), small (a few elements,
where the figure is overhead alone) and large (tens to hundreds of thousands of elements, where the arithmetic
dominates). "NumPy" is the time of the row's NumPy function on arrays; "forward" the row on Tensors that need a
gradient, as a multiple of that; "both" forward and backward, as a multiple of the same; "/ rules" forward and
backward as a multiple of the function and the derivative rules run by hand on arrays: what the graph itself costs.
Each is a median of paired blocks. Sorted by the last small figure.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import tinygrad_scratch as tg
from benchmarks import measure
from benchmarks.hand_derived import Array
from tinygrad_scratch.backward import project
from tinygrad_scratch.domains import Case, Matrices
from tinygrad_scratch.registry import OPS, Op

LARGE = 16_384  # how many times more elements the large inputs have


@dataclass
class Example:
    """One row on inputs of one size, ready to be timed."""

    op: Op
    values: list[Any]
    options: dict[str, Any]

    def __post_init__(self) -> None:
        op, count = self.op, len(self.values)
        self.rules = op.rules * count if op.variadic else op.rules
        differentiable = [rule is not None for rule in self.rules]
        self.wanted = [d and v.dtype.kind == "f" for d, v in zip(differentiable, self.values, strict=True)]
        self.tensors = [
            tg.Tensor(v, requires_grad=w) if w else v for v, w in zip(self.values, self.wanted, strict=True)
        ]
        if not any(self.wanted):
            self.tensors[0] = tg.Tensor(self.values[0])
        self.cotangent = np.ones_like(self.bare())

    def bare(self) -> Any:
        """The NumPy function on arrays."""
        return self.op.fn(*self.values, **self.options)

    def forward(self) -> Any:
        """The row on Tensors."""
        return self.op(*self.tensors, **self.options)

    def both(self) -> None:
        """Forward and backward on Tensors."""
        for tensor, wanted in zip(self.tensors, self.wanted, strict=True):
            if wanted:
                tensor.grad = None
        self.forward().backward(self.cotangent)

    def rules_by_hand(self) -> list[Array]:
        """The function and its derivative rules on arrays: every wanted gradient."""
        arguments = (self.cotangent, self.bare(), *self.values)
        pull = self.op.rules[0](*arguments, **self.options) if self.op.variadic else None  # type: ignore[misc]
        gradients = []
        for i, (rule, value) in enumerate(zip(self.rules, self.values, strict=True)):
            if self.wanted[i]:
                gradient = pull(i) if pull is not None else rule(*arguments, **self.options)  # type: ignore[misc]
                gradients.append(project(gradient, value.shape, value.dtype))
        return gradients


IMAGES: dict[str, Case] = {
    "unfold2d": (((8, 16, 24, 24),), {"kernel_size": 3}),
    "fold2d": (((8, 16, 3, 3, 22, 22),), {"size": (24, 24)}),
    "conv2d": (((8, 16, 24, 24), (16, 16, 3, 3)), {}),
    "conv2d_input": (((8, 16, 22, 22), (16, 16, 3, 3)), {"size": (24, 24)}),
    "conv2d_weight": (((8, 16, 22, 22), (8, 16, 24, 24)), {"kernel_size": (3, 3)}),
    "conv2d_affine": (((8, 16, 24, 24), (16, 16, 3, 3), (16,)), {}),
    "max_pool2d": (((8, 16, 24, 24),), {"kernel_size": 2}),
    "max_pool2d_input": (((8, 16, 12, 12), (8, 16, 24, 24)), {"kernel_size": 2}),
    "fourier_fft": (((256, 256, 2),), {}),
    "fourier_irfft": (((256, 129, 2),), {"n": 256}),
}
"""Large cases of rows whose shapes and options depend on each other."""


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Measure, print, write ops.json; returns the results."""
    parser = measure.parser("ops", __doc__)
    parser.add_argument("--ops", nargs="+", choices=OPS, default=list(OPS), metavar="NAME", help="rows (default: all)")
    parser.add_argument("--rounds", type=measure.positive, default=7, help="paired blocks per figure (default: 7)")
    options = parser.parse_args(arguments)
    block = 0.002
    if options.quick:
        options.rounds, block = 1, 0.0001
    results = measure.header("ops", options, "tinygrad_scratch")
    rng = np.random.default_rng(options.seed)
    results["ops"] = {name: measure_op(OPS[name], rng, options, block) for name in options.ops}
    print(show(results["ops"]))
    measure.write_json(options.out / "ops.json", results)
    print(f"\nWritten: {options.out / 'ops.json'}")
    return results


def measure_op(op: Op, rng: np.random.Generator, options: argparse.Namespace, block: float) -> dict[str, Any]:
    """The figures of one row at both sizes."""
    found: dict[str, Any] = {"kind": op.kind, "differentiable": op.differentiable}
    for size, larger in (("small", False), ("large", True)):
        sample = example(op, rng, larger)

        def ratio(function: Callable[[], Any], yardstick: Callable[[], Any]) -> tuple[float, float]:
            return measure.paired_ratio(function, yardstick, options.rounds, block)

        forward, seconds = ratio(sample.forward, sample.bare)
        figures: dict[str, Any] = {
            "shapes": [np.shape(v) for v in sample.values],
            "numpy_us": 1e6 * seconds,
            "forward": forward,
        }
        if any(sample.wanted):
            figures["both"] = ratio(sample.both, sample.bare)[0]
            figures["both_per_rules"] = ratio(sample.both, sample.rules_by_hand)[0]
        found[size] = figures
    return found


def example(op: Op, rng: np.random.Generator, larger: bool) -> Example:
    """The first case of the row's domain, its floats as float32; or the same with all axes longer."""
    shapes, options = op.domain.cases[0] if op.domain.cases else (((3, 4),) * len(op.rules), {})
    if larger and op.__name__ in IMAGES:
        shapes, options = IMAGES[op.__name__]
    elif larger:
        dimensions = max(len(shape) for shape in (*shapes, options.get("shape", ())))
        factor = round(LARGE ** (1 / max(dimensions, 1)))
        if any(isinstance(kind, Matrices) for kind in op.domain.values):  # whose cost is cubic: some 48 by 48
            factor = min(factor, 16)
        shapes = tuple(longer(shape, factor) for shape in shapes)
        if "shape" in options:
            options = {**options, "shape": longer(options["shape"], factor)}
    values, options = op.domain.sample(rng, shapes, options)
    return Example(op, [v.astype(np.float32) if v.dtype.kind == "f" else v for v in values], options)


def longer(shape: tuple[int, ...], factor: int) -> tuple[int, ...]:
    """`shape` with its axes `factor` times as long, except those of length 1 (which broadcast) and -1 (which adapt)."""
    return tuple(n * factor if n > 1 else n for n in shape)


def show(ops: dict[str, Any]) -> str:
    """The table."""

    def cells(figures: dict[str, Any]) -> list[str]:
        ratios = [f"{figures[key]:.2f}" if key in figures else "-" for key in ("forward", "both", "both_per_rules")]
        return [f"{figures['numpy_us']:.2f}", *ratios]

    def key(item: tuple[str, Any]) -> tuple[float, float]:
        return item[1]["small"].get("both_per_rules", 0.0), item[1]["small"]["forward"]

    ranked = sorted(ops.items(), key=key, reverse=True)
    rows = [[name, *cells(op["small"]), *cells(op["large"])] for name, op in ranked]
    columns = ["forward", "both", "/ rules"]
    headings = ["op", "small: NumPy us", *columns, "large: NumPy us", *columns]
    differentiable = [op for op in ops.values() if "both" in op["small"]]
    lines = [measure.table(headings, rows)]
    for size in ("small", "large"):
        if differentiable:
            middle = float(np.median([op[size]["both_per_rules"] for op in differentiable]))
            lines.append(f"median of the differentiable rows, {size}: both = {middle:.2f} times the rules by hand")
    return "\n".join(lines)
