"""detect_anomaly: which operation first made a NaN or an infinity, forward or backward; and was an operand overwritten?

NaN spreads, so by the time a loss is NaN its origin is long gone. Here every answer, and every rule's contribution, is
looked at when it is made, and the first that is not finite though its inputs were is named. Slow: for finding a fault,
not for training.
"""

import sys
from os.path import dirname
from types import TracebackType
from typing import Any
from weakref import ref
from zlib import crc32

import numpy as np

from tinygrad_scratch._typing import Array
from tinygrad_scratch.backward import reads
from tinygrad_scratch.context import is_grad_enabled, listening, state
from tinygrad_scratch.errors import AnomalyError, describe

_HERE = dirname(__file__)


class detect_anomaly(listening):  # noqa: N801  (a context manager named like a function, as in torch)
    """Context manager, for this thread: raise where something first goes wrong.

    inf: also report infinities that an operation made of finite numbers (log(0), an overflow), not only NaN.

    AnomalyError (a FloatingPointError) names
    - forward: the operation, its operands, how many elements, the first index, and the operands' values there;
    - backward: the operation whose derivative made NaN of a cotangent without any, and the line that called it.
      Infinities are not reported there: the derivative of sqrt at 0 is one;
    - an operand that was overwritten between the operation and backward (an array that the user kept and wrote into):
      for operations that ran inside.

    >>> import numpy as np, tinygrad_scratch as tg
    >>> x = tg.Tensor([4.0, 0.0], requires_grad=True)
    >>> with tg.detect_anomaly(), np.errstate(all="ignore"):
    ...     y = np.sum(np.log(x))
    Traceback (most recent call last):
        ...
    tinygrad_scratch.errors.AnomalyError: log(float64(2,)) made inf at 1 of 2 elements, first at (1,) from 0.0
    """

    def __init__(self, inf: bool = True):
        super().__init__(_Watch(inf))

    def __enter__(self) -> Any:
        if not isinstance(state.mode, bool):
            raise RuntimeError(
                "detect_anomaly() inside another one, or inside a step that is being captured: put it around the step"
            )
        self.listener.grad = is_grad_enabled()
        return super().__enter__()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        super().__exit__(kind, error, trace)
        self.listener = _Watch(self.listener.inf)  # type: ignore[attr-defined]  # what it kept is let go


class _Watch:
    """The listener. Keeps, while an answer lives, its operands' checksums and the line that called the operation."""

    lift = False
    grad = True
    phase = "forward"

    def __init__(self, inf: bool):
        self.inf = inf
        self.kept: dict[int, tuple[Any, tuple[int, ...], str]] = {}

    def record(
        self, op: Any, values: tuple[Any, ...], options: dict[str, Any], answer: Array, parents: tuple[Any, ...] = ()
    ) -> Array:
        """The answer, as it is, once it has been looked at."""
        if "out" in options:  # an update in place
            return answer
        if self.phase == "forward" and answer.dtype.kind == "f" and not np.isfinite(answer).all():
            self._look(op, values, answer, "NaN", np.isnan)
            if self.inf:
                self._look(op, values, answer, "inf", np.isinf)
        if self.grad:
            key, kept = id(answer), self.kept
            kept[key] = ref(answer, lambda _: kept.pop(key, None)), tuple(map(_checksum, values)), _line()
        return answer

    def _look(self, op: Any, values: tuple[Any, ...], answer: Array, what: str, test: Any) -> None:
        """AnomalyError if the answer has a NaN (or inf) where no operand has one."""
        bad = test(answer)
        numbers = [value for value in values if np.asarray(value).dtype.kind == "f"]
        if op.kind == "elementwise":
            for value in numbers:
                bad = bad & ~test(value)
        elif any(test(value).any() for value in numbers):
            return
        if bad.any():
            call = f"{op.__name__}({', '.join(map(describe, values))})"
            raise AnomalyError(f"{call} made {what} {_places(bad, values if op.kind == 'elementwise' else ())}")

    def pulled(self, tensor: Any, i: int, g: Any, part: Any) -> None:
        """Called by backward with what the rule of argument i of `tensor`'s operation made of the cotangent g."""
        op, parents, values, options = tensor._node
        g, part = getattr(g, "_data", g), getattr(part, "_data", part)
        alive, sums, line = self.kept.get(id(tensor._data), (None, (), ""))
        call = f"{op.__name__}({', '.join(map(describe, values))}){line}"
        if alive is not None and alive() is tensor._data:
            for k, (value, before) in enumerate(zip(values, sums, strict=True)):
                if _checksum(value) != before and reads(op, k, parents, (g, tensor._data, *values), options):
                    raise AnomalyError(
                        f"argument {k} of {call} was overwritten between the operation and backward, so its derivative "
                        "would be wrong; write into a copy"
                    )
        if np.isnan(part).any() and not np.isnan(g).any():
            where = _places(np.isnan(part), (g, *values) if op.kind == "elementwise" and part.shape == g.shape else ())
            where = where.replace("from", "from cotangent and operands")
            raise AnomalyError(f"the derivative of {call} by argument {i} made NaN {where}")


def _places(bad: Array, values: tuple[Any, ...]) -> str:
    """``at 1 of 6 elements, first at (0, 2) from 0.0, inf``: the values are those that broadcast to there."""
    index = tuple(int(k) for k in np.argwhere(bad)[0])
    there = [repr(np.broadcast_to(value, bad.shape)[index].item()) for value in values]
    return (
        f"at {np.count_nonzero(bad)} of {bad.size} elements, first at {index}{' from ' * bool(there)}{', '.join(there)}"
    )


def _checksum(value: Any) -> int:
    return crc32(value.tobytes()) if isinstance(value, np.ndarray) else 0


def _line() -> str:
    """The innermost line of the program that is not of this package: `` at train.py:12``."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_HERE):
        frame = frame.f_back
    return f" at {frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else ""
