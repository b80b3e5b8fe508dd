"""NumPy's two protocols: a ufunc or function that meets a Tensor is answered by its row, or refused with the reason."""

import inspect
import sys
from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from typing import Any

import numpy as np

from tinygrad_scratch import refusals
from tinygrad_scratch.context import is_grad_enabled
from tinygrad_scratch.errors import NotDifferentiableError, describe
from tinygrad_scratch.registry import ANSWERS, METHODS, MORE, VALUES, Op, answer_for

_NO_VALUE = np._NoValue  # NumPy's own "not given"


def array_ufunc(self: Any, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
    """``Tensor.__array_ufunc__``: np.exp(t), ndarray + t, np.add.reduce(t), np.multiply.outer(t, u)."""
    if method == "__call__" and not options and (row := ANSWERS.get(ufunc)) is not None:  # nearly every call
        return row(*inputs)
    function = ufunc if method == "__call__" else getattr(ufunc, method)
    name = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
    if "out" in options:
        return _into(function, name, inputs, options)
    options = {k: v for k, v in options.items() if not _is_default(k, v)}
    answer = answer_for(function)
    if answer is None and method in METHODS and _is_plain_binary(ufunc) and answer_for(ufunc) is not None:
        answer = partial(METHODS[method], ufunc)
    if answer is None and method == "__call__":
        answer = _scipys(ufunc)
    if answer is None:
        raise NotDifferentiableError(refusals.message(name))
    if method == "__call__":
        inputs, options = _cast(answer, inputs, options)
        if options and isinstance(answer, Op):
            raise NotDifferentiableError(
                f"np.{name} of a Tensor does not take {', '.join(sorted(options))}; "
                "use np.where, or .astype(dtype), around it"
            )
    elif method in ("reduce", "accumulate"):  # along the first axis, where np.sum takes all
        options.setdefault("axis", 0)
    return call(answer, name, inputs, options, MORE.get(function))


def _scipys(ufunc: np.ufunc) -> Callable[..., Any] | None:
    """The row of a ufunc of scipy.special: they are loaded when the first one meets a Tensor."""
    scipy_special = sys.modules.get("scipy.special")
    if scipy_special is None or getattr(scipy_special, ufunc.__name__, None) is not ufunc:
        return None
    import_module("tinygrad_scratch.special")
    if ufunc not in ANSWERS:
        raise NotDifferentiableError(
            f"scipy.special.{ufunc.__name__} is not differentiable here (it is no row of tinygrad_scratch.special); "
            "use t.numpy() for its value alone, or make it a row with tg.elementwise(function, rule)"
        )
    return ANSWERS[ufunc]


def array_function(self: Any, function: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> Any:
    """``Tensor.__array_function__``: np.sum(t, axis=0), np.concatenate([t, array]), np.einsum("ij,j", a, t)."""
    answer = ANSWERS.get(function) or answer_for(function)
    name = getattr(function, "__name__", str(function))
    if answer is None:
        if function in VALUES:
            return _wrapped(function(*_plain(args), **_plain(kwargs)), self)
        raise NotDifferentiableError(refusals.message(refusals.qualified(function)))
    more = MORE.get(function)
    if isinstance(answer, Op) and not answer.variadic:
        n, names = len(answer.rules), _parameters(function)
        kwargs = {**dict(zip(names[n:], args[n:], strict=False)), **kwargs}
        args = (*args[:n], *(kwargs.pop(key) for key in names[len(args) : n] if key in kwargs))
        if len(args) < n and more is not None:
            answer = more
        elif len(args) < n:
            raise NotDifferentiableError(
                f"np.{name} of a Tensor takes {n} arrays, not {len(args)}; use t.numpy() for other forms"
            )
    else:
        args, kwargs = _named(function, answer, args, kwargs)
    result = call(answer, name, args, {k: v for k, v in kwargs.items() if not _is_default(k, v)}, more)
    return _wrapped(result, self) if isinstance(result, (tuple, np.ndarray)) else result


def call(
    answer: Callable[..., Any],
    name: str,
    args: tuple[Any, ...],
    options: dict[str, Any],
    more: Callable[..., Any] | None = None,
) -> Any:
    """Run a row or composition (`more`: the one that has options which the row has not); others are refused by name."""
    if "out" in options:
        return _written(
            call(answer, name, args, {k: v for k, v in options.items() if k != "out"}, more), name, options["out"]
        )
    known = answer.keywords if isinstance(answer, Op) else _parameters(answer)
    if isinstance(answer, Op) or ("options" not in known and "bounds" not in known):
        unknown = [key for key in options if key not in known]
        if unknown and more is not None:
            return call(more, name, args, options)
        if unknown:
            raise NotDifferentiableError(
                f"np.{name} of a Tensor does not take {', '.join(sorted(unknown))}; "
                f"it takes {', '.join(known) or 'no options'}"
            )
    return answer(*args, **options)


def _is_default(key: str, value: Any) -> bool:
    """Whether an option says nothing: left out, or None where that is not a choice (axis=None is all axes)."""
    return (
        value is _NO_VALUE
        or (value is None and key in ("out", "dtype", "signature", "like"))
        or (value is True and key == "where")
    )


def _is_plain_binary(ufunc: Any) -> bool:
    return bool(ufunc.nin == 2 and ufunc.nout == 1 and ufunc.signature is None)


def _cast(
    answer: Callable[..., Any], inputs: tuple[Any, ...], options: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """``dtype=`` of a ufunc's call: its operands are converted before it computes."""
    dtype = options.get("dtype")
    if dtype is None or np.dtype(dtype).kind != "f" or not isinstance(answer, Op) or not answer.differentiable:
        return inputs, options
    cast = [np.astype(x, np.dtype(dtype)) if hasattr(x, "dtype") else x for x in inputs]
    return tuple(cast), {k: v for k, v in options.items() if k != "dtype"}


def _named(
    function: Any, answer: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments by keyword from where NumPy's order of them is not the composition's: (args, kwargs)."""
    theirs, ours = _parameters(function), _parameters(answer)
    same = next((i for i, pair in enumerate(zip(theirs, ours, strict=False)) if pair[0] != pair[1]), len(ours))
    if same == 0 or len(args) <= same or _is_open(function):
        return args, kwargs
    return args[:same], {**dict(zip(theirs[same:], args[same:], strict=False)), **kwargs}


def _plain(value: Any) -> Any:
    """Arrays for the Tensors in arguments, however deep in lists, tuples and dicts they lie."""
    if hasattr(value, "_data"):
        return value.numpy()
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    return {k: _plain(v) for k, v in value.items()} if type(value) is dict else value


def _wrapped(value: Any, tensor: Any) -> Any:
    """Tensors for the arrays in an answer; truth values, counts and dtypes as they are."""
    if isinstance(value, tuple):
        parts = [_wrapped(v, tensor) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    numbers = isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "fiub"
    return tensor.wrap(np.asarray(value)) if numbers else value


def _into(function: Any, name: str, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """``array += tensor``, ``np.exp(x, out=t)``: allowed where no graph would be lost."""
    targets = options["out"]
    if all(isinstance(t, np.ndarray) for t in targets):
        if is_grad_enabled() and any(getattr(x, "requires_grad", False) for x in inputs):
            raise NotDifferentiableError(
                f"np.{name}(out=array) of a Tensor: an array cannot hold a graph; write y = x + t instead of x += t, "
                "or use t.detach(), or wrap it in no_grad()"
            )
        return function(*(x.numpy() if hasattr(x, "_data") else x for x in inputs), **options)
    if len(targets) != 1:
        raise NotDifferentiableError(f"np.{name} of a Tensor takes one out=; write a, b = np.{name}(...)")
    return _written(function(*inputs, **{k: v for k, v in options.items() if k != "out"}), name, targets[0])


def _written(value: Any, name: str, target: Any) -> Any:
    """An answer in the memory of a Tensor that was given as out=, which takes it as ``target[...] = value`` does."""
    if not hasattr(target, "_data"):
        raise NotDifferentiableError(
            f"np.{name}(out=...) of a Tensor: an array cannot hold a graph; use the returned Tensor"
        )
    if not np.can_cast(value.dtype, target.dtype, "same_kind"):
        raise TypeError(f"np.{name}(out=t): the answer is {describe(value)}, which t, {describe(target)}, cannot hold")
    target[...] = value
    return target


@cache
def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return ()


@cache
def _is_open(function: Callable[..., Any]) -> bool:
    """Whether a function takes any number of arrays by position."""
    try:
        kinds = [p.kind for p in inspect.signature(function).parameters.values()]
    except (TypeError, ValueError):
        return True
    return inspect.Parameter.VAR_POSITIONAL in kinds
