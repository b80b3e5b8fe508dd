"""The errors users meet. Each says what happened, the shapes and the fix, and keeps the type that NumPy would raise."""

from typing import Any

import numpy as np


class GraphError(RuntimeError):
    """The graph cannot give what was asked of it (no graph, a value changed since, a non-scalar without a gradient)."""


class NotDifferentiableError(TypeError):
    """A NumPy function that is not a row of the table, or an option of one that a graph cannot honour."""


class AnomalyError(FloatingPointError):
    """Raised inside ``detect_anomaly()``: names the operation that first made a NaN."""


class CaptureError(RuntimeError):
    """A step that cannot be captured, or a call that does not fit what was captured."""


class CaptureWarning(UserWarning):
    """A captured step is right, but slower than it could be; says why, and what to do."""


def describe(value: Any) -> str:
    """``float32(3, 4)`` for arrays and Tensors, the value itself for scalars, the type's name for the rest."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype}{tuple(value.shape)}"
    return repr(value) if isinstance(value, (int, float, bool)) else type(value).__name__


def explain(error: Exception, op: Any, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    """Add to `error` the operation, its operands and the fix. Called only once an operation has already failed."""
    options = "".join(f", {key}={value!r}" for key, value in keywords.items() if value is not None)
    error.add_note(f"in {op.__name__}({', '.join(map(describe, inputs))}{options})")
    hint = _hint(op, [tuple(value.shape) if hasattr(value, "shape") else np.shape(value) for value in inputs])
    if hint:
        error.add_note(f"fix: {hint}")


def _hint(op: Any, shapes: list[tuple[int, ...]]) -> str:
    name = op.__name__
    if name == "matmul" and len(shapes) == 2:
        a, b = shapes
        if a and b and a[-1] != b[-2 if len(b) > 1 else 0]:
            return (
                f"the last axis of the left operand ({a[-1]}) must equal the "
                f"{'second to last' if len(b) > 1 else 'only'} axis of the right one ({b[-2 if len(b) > 1 else 0]}); "
                "is one of them to be transposed (.mT)?"
            )
    if name == "affine" and len(shapes) >= 2 and shapes[0] and len(shapes[1]) == 2 and shapes[0][-1] != shapes[1][1]:
        return f"the input's last axis is {shapes[0][-1]}, but the weight, {shapes[1]}, takes {shapes[1][1]} features"
    try:
        np.broadcast_shapes(*shapes if op.kind == "elementwise" else ())
    except ValueError:
        return f"shapes {shapes} do not broadcast: align them from the right; each pair of axes must be equal or 1"
    return ""
