"""What this thread is doing: keeping a graph, keeping none (no_grad), or showing every operation to a listener.

One attribute, read once an operation: ``state.mode`` is True (a graph is kept), False (none is), or a Listener.
"""

import threading
from itertools import count
from types import TracebackType
from typing import Any, Protocol, TypeVar

from tinygrad_scratch._typing import Array

F = TypeVar("F")


class Listener(Protocol):
    """Sees every operation: capture's trace, and detect_anomaly."""

    grad: bool
    """Whether a graph is kept while it listens."""
    lift: bool
    """Whether backward feeds the rules Tensors, so that the listener sees inside them."""

    def record(
        self, op: Any, values: tuple[Any, ...], options: dict[str, Any], answer: Array, parents: tuple[Any, ...]
    ) -> Array:
        """Called after `op` made `answer` from `values`, the arrays of `parents` (None: the operand was no Tensor).

        Returns the array to go on with: `answer`, or an equal one.
        """


class _State(threading.local):
    mode: "bool | Listener" = True
    transforms: int = 0
    rewriting: bool = False
    through_views: bool = False


state = _State()


def tell(what: str, *about: Any) -> None:
    """Tell the listener, if there is one and it wants to know (it has a method of that name), of what no operation shows."""
    mode = state.mode
    if mode is not True and mode is not False:
        hear = getattr(mode, what, None)
        if hear is not None:
            hear(*about)


def is_lifted() -> bool:
    """Whether a listener looks inside rules and compositions (capture), so that they are to be fed Tensors."""
    mode = state.mode
    return mode is not True and mode is not False and mode.lift


class during:  # noqa: N801
    """Context manager: tells a listener that wants to know (capture, for its comments) which part of a step runs."""

    def __init__(self, phase: str):
        self.phase = phase

    def __enter__(self) -> None:
        if not isinstance(state.mode, bool) and hasattr(state.mode, "phase"):
            state.mode.phase = self.phase

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not isinstance(state.mode, bool) and hasattr(state.mode, "phase"):
            state.mode.phase = "update"


class Changes:
    """Counts what programs change between calls and captured steps were recorded with: attributes of modules, what a
    parameter holds and whether it is frozen, the groups and the state of optimizers.

    Whoever changes such a thing calls ``note()`` afterwards. A step compares one number, and looks closer where it differs.
    """

    def __init__(self) -> None:
        self.version = 0
        self._next = count(1).__next__

    def note(self) -> None:
        """Something has changed. Called after the change: a step that looks meanwhile looks again."""
        self.version = self._next()


changes = Changes()


def is_grad_enabled() -> bool:
    """Whether this thread keeps a graph now.

    >>> is_grad_enabled()
    True
    """
    mode = state.mode
    return mode if isinstance(mode, bool) else mode.grad


class set_grad_enabled:  # noqa: N801  (a context manager named like a function, as in torch)
    """Context manager and decorator: keep a graph, or not, inside. This thread only.

    >>> with set_grad_enabled(False):
    ...     is_grad_enabled()
    False
    """

    def __init__(self, enabled: bool):
        self.enabled = enabled
        self.before: list[bool] = []

    def __enter__(self) -> None:
        mode = state.mode
        self.before.append(is_grad_enabled())
        if isinstance(mode, bool):
            state.mode = self.enabled
        else:
            mode.grad = self.enabled

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        mode = state.mode
        before = self.before.pop()
        if isinstance(mode, bool):
            state.mode = before
        else:
            mode.grad = before

    def __call__(self, function: Any) -> Any:
        """As a decorator."""
        from functools import wraps

        @wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with set_grad_enabled(self.enabled):
                return function(*args, **kwargs)

        return wrapped


class no_grad(set_grad_enabled):  # noqa: N801
    """Context manager and decorator: operations inside keep no graph.

    >>> import numpy as np, tinygrad_scratch as tg
    >>> w = tg.Tensor(np.ones(2), requires_grad=True)
    >>> with tg.no_grad():
    ...     w -= 0.5
    >>> w.tolist()
    [0.5, 0.5]
    """

    def __init__(self) -> None:
        super().__init__(False)


class enable_grad(set_grad_enabled):  # noqa: N801
    """Context manager and decorator: operations inside keep a graph, also within no_grad."""

    def __init__(self) -> None:
        super().__init__(True)


class rewriting:  # noqa: N801
    """Context manager, for this thread: ``x += v`` and ``x[i] = v`` on a Tensor with a graph give the name a new value.

    For code that was written for arrays, array API code say. What used the Tensor before keeps the value that it used;
    views of it do not follow, where NumPy's would. Leaves that require gradients still refuse.

    >>> import numpy as np, tinygrad_scratch as tg
    >>> def clipped(x):
    ...     y = x * 2.0
    ...     y[y > 3.0] = 3.0
    ...     y += x
    ...     return np.sum(y)
    >>> with rewriting():
    ...     tg.grad(clipped)(np.array([1.0, 2.0]))
    array([3., 1.])
    """

    def __enter__(self) -> None:
        self.before, state.rewriting = state.rewriting, True

    def __exit__(self, *_: Any) -> None:
        state.rewriting = self.before


class listening:  # noqa: N801
    """Context manager: `listener` sees every operation of this thread inside it."""

    def __init__(self, listener: Listener):
        self.listener = listener

    def __enter__(self) -> Listener:
        self.before = state.mode
        state.mode = self.listener
        return self.listener

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        state.mode = self.before
