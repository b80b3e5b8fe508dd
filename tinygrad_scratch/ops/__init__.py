"""The calculus, one aligned row an operation. Reading order is import order; nothing here knows what a Tensor is."""

from importlib import import_module  # noqa: I001  (reading order below)

from tinygrad_scratch import registry
from tinygrad_scratch.ops import (  # noqa: F401  (imported for their rows, in reading order)
    elementwise,
    special,
    shaping,
    reductions,
    indexing,
    linalg,
    decompositions,
    windows,
    convolution,
    fused,
    composed,
)

# Compositions, no rows: loaded when a function is asked for that nothing above answers.
registry.later(lambda: import_module("tinygrad_scratch.ops.composed_linalg"))
registry.later(lambda: import_module("tinygrad_scratch.ops.functions"))
