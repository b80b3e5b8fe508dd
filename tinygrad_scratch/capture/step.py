"""``capture``: a function that records itself on its first calls and replays what it recorded on all later ones."""

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from copy import deepcopy
from functools import update_wrapper
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_scratch.capture.plan import Plan, Stale, make_plan
from tinygrad_scratch.capture.record import Recording, record, same_step
from tinygrad_scratch.capture.replay import MISS
from tinygrad_scratch.capture.threads import Threads
from tinygrad_scratch.context import is_grad_enabled, settings, state
from tinygrad_scratch.errors import CaptureError, describe
from tinygrad_scratch.tensor import Tensor

MOST_PLANS = 32
MOST_TRIES = 5


def capture(
    function: Callable[..., Any] | None = None,
    *,
    backend: str = "auto",
    rewrites: bool | Iterable[str] = True,
    threads: int | str | None = None,
) -> Any:
    """Record a step once, replay it as straight-line code. A decorator, or ``capture(step, backend="numpy")``.

    function: takes arrays, Tensors, numbers, or lists and dicts of them; uses rows, backward and optimizers; returns Tensors,
        None, or lists, tuples and dicts of them. What it reads from outside (parameters, optimizer state, arrays) is read
        by reference in every call; learning rates and other options of optimizers may change between calls.
    backend: "numpy"; "numba" (the extra ``jit``: one compiled function); "auto" takes numba where it is installed.
    rewrites: True for all cheaper patterns, False for none (then captured equals eager to the last bit), or their names.
    threads: of matrix products and convolutions: None, as NumPy's BLAS is set, which gives small products one thread by
        itself; a number; or "auto", whichever of one and all is faster at the time (while another program keeps a core busy,
        one). Where threads share convolutions, or the blocks of a large batch, BLAS itself takes one.

    The first two calls run eagerly and are recorded; when both recorded the same step, all later calls with inputs of the
    same shapes and dtypes replay it. Another shape is recorded anew. Inputs are not copied; results are.

    CaptureError: a value is read while recording (``float(t)``, ``if t > 0``), a result is no Tensor, gradients of an
    earlier call are added to, or something from outside changed that is neither an input nor read by reference.

    >>> import tinygrad_scratch as tg
    >>> w = tg.Tensor([1.0, 2.0], requires_grad=True)
    >>> @tg.capture(backend="numpy")
    ... def step(x):
    ...     loss = np.sum((x * w) ** 2)
    ...     loss.backward()
    ...     with tg.no_grad():
    ...         w.__isub__(0.25 * w.grad)
    ...     w.zero_grad()
    ...     return loss
    >>> [float(step(np.ones(2))) for _ in range(3)]
    [5.0, 1.25, 0.3125]
    """
    if function is None:
        return lambda f: Captured(f, backend, rewrites, threads)
    return Captured(function, backend, rewrites, threads)


class Captured:
    """A captured function. Call it as the function; look at what it became with ``source``, ``plans`` and ``explain()``."""

    def __init__(self, function: Callable[..., Any], backend: str = "auto", rewrites: bool | Iterable[str] = True,
                 threads: int | str | None = None):  # fmt: skip
        if not callable(function):
            raise TypeError(f"capture takes a function, not {describe(function)}")
        self.function = function
        self.backend = _choose(backend)
        self.rewrites = rewrites
        self.threads = Threads(threads)
        self._wanted = threads
        self.plans: list[Plan] = []
        self._last: Plan | None = None
        self._pending: dict[
            Any, tuple[int, Recording]
        ] = {}  # how often each kind of call was recorded, and its last recording
        self._lock = threading.RLock()
        update_wrapper(self, function, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        plan = self._last
        if plan is not None and not kwargs:
            result = plan.replay(*args)
            if result is not MISS:
                return result
        mode = state.mode
        if (mode is not True and mode is not False) or state.transforms:
            return self.function(
                *args, **kwargs
            )  # within another capture, watched for anomalies, or differentiated: it is part of that
        return self._slowly(args, kwargs, mode)

    def _slowly(self, args: tuple[Any, ...], kwargs: dict[str, Any], mode: bool) -> Any:
        """Find the plan for these inputs, or record the call."""
        with self._lock:
            given, watched = (*args, *kwargs.values()), self._leaves()
            key = (_key(args), _key(kwargs), mode, settings.fingerprint())
            plan = self._known(key, kwargs)
            if plan is not None:
                with suppress(Stale):
                    return plan.run(given)
                self._drop(plan)
            return self._record(key, args, kwargs, watched)

    def _known(self, key: Any, kwargs: dict[str, Any]) -> Plan | None:
        """The plan of calls of this kind, if one was made and what it was made of is as it was."""
        plan = next((plan for plan in self.plans if plan.key == key), None)
        if plan is not None:
            plan.settings = settings.version
            self._last = plan if not kwargs else None
            if not plan.current():
                self._drop(plan)
                return None
        return plan

    def _drop(self, plan: Plan) -> None:
        self.plans.remove(plan)
        self._last = None

    def _leaves(self) -> list[Tensor]:
        """What any of its calls may leave gradients in."""
        known: list[Plan | Recording] = [*self.plans, *(recording for _, recording in self._pending.values())]
        return list({id(t): t for k in known for t in k.leaves}.values())

    def _record(self, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any], watched: list[Tensor]) -> Any:
        self._make_room(key)
        tries, earlier = self._pending.pop(key, (0, None))
        recording = record(self.function, args, kwargs, self.backend == "numba", earlier, watched)
        same = earlier is not None and same_step(earlier, recording)
        if earlier is not None:
            earlier.forget()
        if same:
            plan = make_plan(recording, self.backend, self.rewrites, self.threads)
            plan.key, plan.settings = key, settings.version
            self.plans.append(plan)
            self._last = plan if not kwargs else None
        elif tries + 1 >= MOST_TRIES:
            raise CaptureError(
                f"the step was different in each of {MOST_TRIES} calls with the same inputs' shapes (a number or a branch of the "
                "program changes from call to call); pass what changes as an input array"
            )
        else:
            self._pending[key] = tries + 1, recording
        for plan in self.plans:
            plan.watch(self._leaves())
        return recording.result

    def _make_room(self, key: Any) -> None:
        """Forget plans made before a module was switched or replaced. CaptureError if there are too many all the same."""
        if len(self.plans) + len(self._pending) >= MOST_PLANS and key not in self._pending:
            self.plans = [plan for plan in self.plans if plan.key[3] == key[3]]
            self._pending = {k: tried for k, tried in self._pending.items() if k[3] == key[3]}
            if len(self.plans) + len(self._pending) >= MOST_PLANS:
                raise CaptureError(
                    f"{MOST_PLANS} plans are kept already: inputs of ever new shapes, or numbers that change with every call; "
                    "pass numbers as 0-d arrays, and pad or drop odd batches"
                )

    def find(self, *args: Any) -> None:
        """Have the plan at hand that a call with these would replay, if there is one."""
        mode = state.mode
        if (mode is True or mode is False) and not state.transforms:
            with self._lock:
                self._known((_key(args), _key({}), mode, settings.fingerprint()), {})

    def is_current(self, plan: Plan) -> bool:
        """Whether nothing was switched since the plan was found to fit."""
        return plan.settings == settings.version and plan._mode is is_grad_enabled() and plan.current()

    def epoch(self, *arrays: Any, order: Any = None, batch_size: int = 1, progress: Any = None) -> Any:
        """Call the step for each batch of the examples that `arrays` hold along their first axis; in compiled code where it can.

        order: the examples' indices in the order in which to take them; all, as they lie, if None.
        batch_size: examples a step; the last step takes what is left.
        progress: called as progress(steps done, steps in all, results of the last few) about 20 times a second; a true
            answer stops the epoch after these.

        What the step draws is drawn for many steps at once, with the stream of one step after the other; only where one
        generator gives numbers of two dtypes is each step a call.

        Returns the results of all steps in the step's own structure, as arrays: numbers stacked, arrays joined along their
        first axis. The same numbers as ``for i in range(0, len(order), batch_size): step(*(a[order[i:i+batch_size]] ...))``.

        >>> import tinygrad_scratch as tg
        >>> mean = tg.capture(lambda x: np.mean(x), backend="numpy")
        >>> mean.epoch(np.arange(5.0), batch_size=2)
        array([0.5, 2.5, 4. ])
        """
        from tinygrad_scratch.capture.epoch import run_epoch

        return run_epoch(self, arrays, order, batch_size, progress)

    # -- what it became --------------------------------------------------------------------------------------------

    @property
    def plan(self) -> Plan:
        """The plan that was made last. CaptureError before the second call."""
        if not self.plans:
            raise CaptureError("nothing is captured yet: call the step (twice) with real inputs first")
        return self._last or self.plans[-1]

    @property
    def source(self) -> str:
        """The derived forward, backward and update as readable NumPy."""
        return self.plan.source

    def explain(self) -> str:
        """What the last plan does: calls, memory, rewrites that fired."""
        return self.plan.explain()

    def export(self, path: str | Path) -> Path:
        """Write ``path`` (Python, needs NumPy alone) and beside it the state that it updates (.npz). Returns the path.

        The source of rows that NumPy has no function for, convolution or your own, is carried along, for one thread.
        CaptureError, before anything is written, for one that needs what has no source (SciPy, a lambda).
        """
        from tinygrad_scratch.capture.export import export

        return export(self.plan, Path(path))

    def __deepcopy__(self, memo: dict[int, Any]) -> "Captured":
        """In a copy of a module, its captured methods are the copy's, to be recorded anew."""
        return Captured(deepcopy(self.function, memo), self.backend, self.rewrites, self._wanted)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """A captured method is captured for each instance."""
        if instance is None:
            return self
        bound = Captured(self.function.__get__(instance, owner), self.backend, self.rewrites, self._wanted)
        with suppress(AttributeError):  # an instance with slots makes a new one at each look-up
            instance.__dict__[self.function.__name__] = bound
        return bound


def _choose(backend: str) -> str:
    if backend not in ("auto", "numpy", "numba"):
        raise ValueError(f"backend is {backend!r}: it must be 'numpy', 'numba' or 'auto'")
    if backend == "numpy":
        return backend
    from importlib.util import find_spec

    if find_spec("numba") is not None:
        return "numba"
    if backend == "numba":
        raise ImportError("backend='numba' needs numba: pip install 'tinygrad_scratch[jit]' (or use backend='numpy')")
    return "numpy"


def _key(tree: Any) -> Any:
    """What must be equal for a plan to fit: structure, and for each leaf its type, shape and dtype, or its value."""
    if isinstance(tree, dict):
        return tuple((name, _key(value)) for name, value in tree.items())
    if isinstance(tree, (list, tuple)):
        return (type(tree).__name__, *map(_key, tree))
    if isinstance(tree, Tensor):
        return ("Tensor", tree.shape, tree.dtype.str, tree.requires_grad and is_grad_enabled())
    if isinstance(tree, np.ndarray):
        return ("array", tree.shape, tree.dtype.str)
    if isinstance(tree, np.generic):
        return ("array", (), tree.dtype.str)
    if isinstance(tree, (int, float, bool, str, type(None))):
        return (type(tree).__name__, repr(tree))  # which tells 0.0 from -0.0, and finds nan again
    raise CaptureError(
        f"a captured step takes arrays, Tensors, numbers, and lists and dicts of them, not {type(tree).__name__}"
    )
