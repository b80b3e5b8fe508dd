"""``capture``: a function that records itself on its first calls and replays what it recorded on all later ones."""

import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from copy import deepcopy
from functools import update_wrapper
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_scratch.capture.derivative import Differentiable
from tinygrad_scratch.capture.derive import derive, differentiable_of, results_of
from tinygrad_scratch.capture.plan import Plan, Stale, Unfit, make_plan
from tinygrad_scratch.capture.recording.record import Recording, difference, record
from tinygrad_scratch.capture.recording.trace import Var
from tinygrad_scratch.capture.replay import MISS
from tinygrad_scratch.capture.threads import Threads
from tinygrad_scratch.context import changes, is_grad_enabled, state
from tinygrad_scratch.errors import CaptureError, CaptureWarning, describe
from tinygrad_scratch.tensor import Tensor
from tinygrad_scratch.values import refuse_mask

MOST_PLANS, MOST_ALIKE = 32, 4
MOST_TRIES = 5
MOST_FAILURES = 10
_next = count(1).__next__


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
        self.made = 0  # how many plans were made
        self._last: Plan | None = None
        self._pending: dict[
            Any, tuple[int, Recording]
        ] = {}  # how often each kind of call was recorded, and its last recording
        self._failures: Counter[str] = Counter()  # why plans were not taken
        self._replayed = 0  # calls of plans that are gone
        self._derived: set[Any] = set()  # kinds of calls whose results were differentiated
        self._told = False
        self._lock = threading.RLock()
        self.instance: Any = None  # whose method it is
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
        return self._slowly(args, kwargs)

    def _slowly(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Find the plan for these inputs, or record the call."""
        with self._lock:
            key = self._key(args, kwargs)
            plan = self._fitting(key)
            if plan is not None:
                self._last = plan if not kwargs else None
                try:
                    return plan.run((*args, *kwargs.values()))
                except Unfit:
                    return self.function(*args, **kwargs)
                except Stale:
                    self._drop(plan)
            if self._gives_up(key):
                return self.function(*args, **kwargs)
            return self._record(key, args, kwargs)

    def _key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        strided = self.backend == "numpy"
        return _key(args, strided), _key(kwargs, strided), state.mode, state.rewriting

    def _fitting(self, key: Any) -> Plan | None:
        """The plan of calls of this kind that does what the program would do now, if one was made."""
        known = [plan for plan in self.plans if plan.key == key]
        failing = ""
        for plan in sorted(known, key=lambda plan: -plan.used):
            why = plan.fits()
            if not why:
                plan.used = _next()
                return plan
            failing = failing or why
        if failing and key not in self._pending:
            self._failures[failing] += 1
            if self._failures[failing] == MOST_FAILURES:
                self._warn_of(failing)
        return None

    def _warn_of(self, why: str) -> None:
        warnings.warn(
            f"the captured step {self._name} was recorded anew {MOST_FAILURES} times because {why} was another than before; a "
            "number that changes is followed where it is a 0-d array: an argument, or a Tensor that is written in place",
            CaptureWarning,
            stacklevel=4,
        )

    @property
    def _name(self) -> str:
        return getattr(self.function, "__qualname__", type(self.function).__name__)

    def _drop(self, plan: Plan) -> None:
        self.plans.remove(plan)
        self._last = None

    def _record(self, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tries, earlier = self._pending.pop(key, (0, None))
        recording = record(self.function, args, kwargs, self.backend == "numba")
        why = "" if earlier is None else difference(earlier, recording)
        if earlier is not None:
            earlier.forget()
        differentiable = differentiable_of(recording, lambda: self._ask(key))
        results = results_of(recording, differentiable)
        if earlier is not None and not why:
            self._keep(self._plan(recording, differentiable, key), key, kwargs)
        elif tries + 1 >= MOST_TRIES:
            raise CaptureError(
                f"the step was another one in each of {MOST_TRIES} calls with inputs of the same shapes; the last two differ in "
                f"{why}; pass what changes as an argument, or keep a number that changes as a 0-d array, which is followed"
            )
        else:
            self._pending[key] = tries + 1, recording
        return results

    def _plan(self, recording: Recording, differentiable: Differentiable | None, key: Any) -> Plan:
        """The plan of a step; with plans of its results' derivatives, if they are asked for."""
        settings = self.backend, self.rewrites, self.threads
        kept: list[Var] = []
        if differentiable is not None and key in self._derived:
            kept, differentiable.pulls = derive(differentiable, settings)
        plan = make_plan(recording, *settings, kept)
        plan.differentiable = differentiable
        return plan

    def _ask(self, key: Any) -> None:
        """A derivative was taken: calls of this kind that are recorded have plans for it."""
        with self._lock:
            if key not in self._derived:
                self._derived.add(key)
                for plan in [plan for plan in self.plans if plan.key == key]:
                    self._drop(plan)

    def _keep(self, plan: Plan, key: Any, kwargs: dict[str, Any]) -> None:
        """Have one more plan; of too many, or too many for one kind of inputs, the one goes that was used longest ago."""
        plan.key, plan.rewriting, plan.used = key, key[3], _next()
        self.plans.append(plan)
        self.made += 1
        self._last = plan if not kwargs else None
        alike = [known for known in self.plans if known.key == key]
        for some, most in ((alike, MOST_ALIKE), (self.plans, MOST_PLANS)):
            if len(some) > most:
                oldest = min(some, key=lambda plan: plan.used)
                self._replayed += oldest.calls
                self.plans.remove(oldest)
                return

    def _gives_up(self, key: Any) -> bool:
        """Whether a call of yet another kind is done eagerly: many plans were made, and hardly any was ever replayed."""
        if self.made < 2 * MOST_PLANS or key in self._pending:
            return False
        if self._replayed + sum(plan.calls for plan in self.plans) > 2 * self.made:
            return False
        if not self._told:
            self._told = True
            warnings.warn(
                f"the captured step {self._name} has been recorded for {self.made} kinds of inputs, and hardly any of them came "
                "again; calls with others are done eagerly from now on; pad or drop odd batches, and pass numbers as 0-d arrays",
                CaptureWarning,
                stacklevel=4,
            )
        return True

    def find(self, *args: Any) -> None:
        """Have the plan at hand that a call with these would replay, if there is one."""
        mode = state.mode
        if (mode is True or mode is False) and not state.transforms:
            with self._lock:
                self._last = self._fitting(self._key(args, {})) or self._last

    def is_current(self, plan: Plan) -> bool:
        """Whether the plan still does what the program would do."""
        mode = plan._mode is is_grad_enabled() and plan.rewriting is state.rewriting
        return mode and not (plan.fits() if plan.version != changes.version else plan.failing())

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
        """What the last plan does: calls, memory, rewrites that fired; and why the step was recorded again, how often."""
        again = [f"recorded again {n} times: {why} was another than before" for why, n in self._failures.most_common()]
        return "\n".join([self.plan.explain(), *again])

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
        """A captured method is captured for each instance; a copy of that, which has its attributes, is another one."""
        if instance is None:
            return self
        kept, name = getattr(instance, "__dict__", {}), f"_captured_{self.function.__name__}"
        bound = kept.get(name)
        if bound is None or bound.instance is not instance:
            bound = Captured(self.function.__get__(instance, owner), self.backend, self.rewrites, self._wanted)
            bound.instance = instance
            kept[name] = bound  # an instance with slots makes a new one at each look-up
        return bound

    def __reduce__(self) -> Any:
        """Pickled by its name, as a function is; one of a method is made anew by what has it."""
        if self.instance is not None:
            return _nothing, ()
        return str(self.__qualname__)  # type: ignore[attr-defined]  # as its function's


def _nothing() -> None:
    """What a captured method is pickled as."""


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


def _key(tree: Any, strided: bool) -> Any:
    """What must be equal for a plan to fit: structure, and for each leaf its type, shape and dtype, or its value.

    strided: also how arrays lie, which says in what order sums over them are added up.
    """
    if isinstance(tree, dict):
        return tuple((name, _key(value, strided)) for name, value in tree.items())
    if isinstance(tree, (list, tuple)):
        return (type(tree).__name__, *(_key(value, strided) for value in tree))
    if isinstance(tree, Tensor):
        strides = tree._data.strides if strided else ()
        return ("Tensor", tree.shape, tree.dtype.str, strides, tree.requires_grad and is_grad_enabled())
    if isinstance(refuse_mask(tree), np.ndarray):
        return ("array", tree.shape, tree.dtype.str, tree.strides if strided else ())
    if isinstance(tree, np.generic):
        return ("array", (), tree.dtype.str, ())
    if isinstance(tree, (int, float, bool, str, type(None))):
        return (type(tree).__name__, repr(tree))  # which tells 0.0 from -0.0, and finds nan again
    raise CaptureError(
        f"a captured step takes arrays, Tensors, numbers, and lists and dicts of them, not {type(tree).__name__}"
    )
