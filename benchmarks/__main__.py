"""``python -m benchmarks COMMAND [options]``: measurements of the library; ``COMMAND --help`` says how to read each."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "steps": ("steps", "training steps of eight networks, beside hand-derived NumPy and other libraries"),
    "capture": ("capture", "what capturing a step costs and saves: start, memory, an online epoch"),
    "layers": ("layers", "layers and whole steps of convolutional networks, beside torch: time and memory"),
    "ops": ("ops", "every row of the op table, as a multiple of the bare NumPy function"),
    "precision": ("precision", "errors of values and derivatives against 50 digits"),
    "coverage": ("coverage", "everyday calls of NumPy: right, refused or wrong, here and in other libraries"),
    "graphs": ("graphs", "a chain and a wide graph of a million operations: time, memory, freeing"),
    "array_api": (
        "array_api",
        "the array API standard: which of its functions, and which libraries' functions, work on Tensors",
    ),
    "jacobians": ("jacobians", "whole Jacobians and Hessians, many directions at once, beside one at a time"),
    "import": ("imports", "import time over NumPy's own, and the size of the wheel"),
    "optimizers": ("optimizers", "one update by each optimizer, beside torch's foreach and fused ones"),
    "papers": ("papers", "all training steps of the reproduced papers, beside hand-derived NumPy and torch"),
    "goals": ("goals", "convolutional networks trained until they reach a goal on the test images, beside torch"),
    "training": ("training", "training MNIST, beside hand-derived NumPy and torch"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] not in COMMANDS:
        lines = [f"  {command:<12}{about}" for command, (_, about) in COMMANDS.items()]
        usage = "\n".join(["usage: python -m benchmarks COMMAND [options]", "", *lines])
        asked = bool(arguments) and arguments[0] in ("-h", "--help")
        print(usage, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    module = importlib.import_module(f"benchmarks.{COMMANDS[arguments[0]][0]}")
    module.main(arguments[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
