"""The calculus, one aligned row an operation. Reading order is import order; nothing here knows what a Tensor is."""

from tinygrad_scratch.ops import (  # noqa: F401, I001  (imported for their rows, in reading order)
    elementwise,
    shaping,
    reductions,
    indexing,
    linalg,
    decompositions,
    fused,
    composed,
    composed_linalg,
)
