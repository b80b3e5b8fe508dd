"""The table: every operation is one row, a function of arrays and, for each argument, a derivative rule.

A row is made by the word for what it is: ``elementwise``, ``linear``, ``multilinear`` or ``general``. The word gives
the forward mode too (the same rules fed tangents, or the function itself). A rule receives the cotangent ``g``, the
answer ``y`` and the inputs, and is plain NumPy: it never un-broadcasts and never casts; ``backward.project`` does.

>>> import numpy as np, tinygrad_scratch as tg
>>> cube = tg.elementwise(lambda x: x**3, lambda g, y, x: g * 3 * x**2, name="cube")
>>> float(tg.grad(cube)(2.0))
12.0
"""

import inspect
from collections.abc import Callable
from threading import RLock
from typing import Any, TypeVar

from tinygrad_scratch._typing import Rule
from tinygrad_scratch.domains import Domain, reals


class Op:
    """One row of the table. Calling it on arrays gives arrays; on anything that holds a Tensor, a Tensor.

    Attributes
    ----------
    fn: the function of arrays (arrays positional, the rest keyword).
    rules: one derivative rule (or None: no gradient) for each array; a variadic row has one, taking the index first.
    kind: "elementwise", "linear", "multilinear" or "general".
    domain: where its inputs may lie; tests, benchmarks and docs draw from it.
    reference: a composition of other rows with the same value (fused rows only).
    keywords: the names of its options, in order.
    """

    def __init__(self, fn: Callable[..., Any], rules: tuple[Rule | None, ...], kind: str, domain: Domain, **about: Any):
        self.fn = fn
        self.rules = rules
        self.kind = kind
        self.domain = domain
        self.__name__: str = about.get("name") or fn.__name__.strip("_")
        self.reference: Callable[..., Any] | None = about.get("reference")
        self.variadic: bool = about.get("variadic", False)
        self.__doc__ = fn.__doc__
        self.keywords = _keywords(fn, 0 if self.variadic else len(rules))
        self.apply: Callable[..., Any] = fn  # replaced by record.bind: what runs when a Tensor is among the inputs

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        return self.apply(*inputs, **options)

    def __repr__(self) -> str:
        return f"<op {self.__name__}: {self.kind}, {len(self.rules)} argument{'s' * (len(self.rules) != 1)}>"

    @property
    def differentiable(self) -> bool:
        return any(rule is not None for rule in self.rules)


OPS: dict[str, Op] = {}
"""Every row by name."""

ANSWERS: dict[Callable[..., Any], Callable[..., Any]] = {}
"""Which NumPy function is which row, or which composition of rows."""

MORE: dict[Callable[..., Any], Callable[..., Any]] = {}
"""Compositions for the options that a NumPy function's row does not have: ``np.sum(t, where=...)``."""

METHODS: dict[str, Callable[..., Any]] = {}
"""How a ufunc's method runs that is no row of its own: "reduce" -> f(ufunc, x, axis=0, ...)."""

VALUES: set[Callable[..., Any]] = set()
"""NumPy functions that are run on the values alone: their answers (truth values, indices, counts) have no gradient."""

CONSTANT: dict[Callable[..., Any], str] = {}
"""NumPy functions whose composition has a gradient of "zero" (piecewise constant), or "none" (truth values, shapes)."""

F = TypeVar("F", bound=Callable[..., Any])

_binders: list[Callable[[Op], None]] = []
_late: list[Callable[[], Any]] = []
_loading = RLock()


def on_register(bind: Callable[[Op], None]) -> None:
    """Call `bind` for every row there is and every row to come (the Tensor side uses it; rows know no Tensor)."""
    _binders.append(bind)
    for op in OPS.values():
        bind(op)


def register(op: Op, answers: tuple[Callable[..., Any], ...]) -> Op:
    """Put a row into the table. ValueError if the name is taken."""
    if op.__name__ in OPS:
        raise ValueError(f"an op named {op.__name__!r} is already registered; pass another name=")
    OPS[op.__name__] = op
    for function in answers:
        ANSWERS[function] = op
    for bind in _binders:
        bind(op)
    return op


def _row(kind: str) -> Callable[..., Op]:
    def make(
        fn: Callable[..., Any],
        *rules: Rule | None,
        answers: Callable[..., Any] | tuple[Callable[..., Any], ...] | None = None,
        domain: Domain = reals,
        **about: Any,
    ) -> Op:
        if answers is None:
            answers = (fn,) if str(getattr(fn, "__module__", "")).startswith("numpy") or hasattr(fn, "nin") else ()
        return register(Op(fn, rules, kind, domain, **about), answers if isinstance(answers, tuple) else (answers,))

    make.__name__ = kind
    make.__doc__ = _KINDS[kind]
    return make


_KINDS = {
    "elementwise": "A row whose elements depend on the same element of each input. Tangents: the same rules.",
    "linear": "A row that is a linear map of its real inputs, all together. Tangents: the function itself.",
    "multilinear": "A row that is linear in each input. Tangents: the function with one input at a time replaced.",
    "general": "A row of any other shape. Tangents: its rule, transposed by differentiating it by the cotangent.",
}
"""What each kind word promises. Any of them with ``variadic=True``: of any number of arrays, its one rule answers i -> part."""

elementwise = _row("elementwise")
linear = _row("linear")
multilinear = _row("multilinear")
general = _row("general")


def implements(*functions: Callable[..., Any], constant: str = "") -> Callable[[F], F]:
    """Decorator: this composition of rows answers for these NumPy functions when they meet a Tensor.

    constant: "zero" if its gradient is zero wherever there is one, "none" if its answers have none.
    """

    def decorate(composition: F) -> F:
        for function in functions:
            ANSWERS[function] = composition
            if constant:
                CONSTANT[function] = constant
        return composition

    return decorate


def later(load: Callable[[], Any]) -> None:
    """Call `load`, which adds answers, when a function is asked for that is not among those there are yet."""
    _late.append(load)


def load_all() -> None:
    """Add the answers that load late. An answer that is there already (a user's own) stays."""
    with _loading:  # another thread waits until all are there
        while _late:
            before = dict(ANSWERS)
            _late[-1]()
            ANSWERS.update(before)
            _late.pop()


def answer_for(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """The row or composition that answers for a NumPy function; None if nothing does."""
    answer = ANSWERS.get(function)
    if answer is None and _late:
        load_all()
        answer = ANSWERS.get(function)
    return answer


def _keywords(fn: Callable[..., Any], arrays: int) -> tuple[str, ...]:
    """The names of the options of `fn`, which follow its arrays."""
    if hasattr(fn, "nin"):  # a ufunc: its options (out, where, dtype ...) cannot live in a graph
        return ()
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (
        TypeError,
        ValueError,
    ):  # np.where and a few others are C functions without a signature, and take no options
        return ()
    return tuple(p.name for p in parameters[arrays:] if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
