"""NumPy's two protocols: a ufunc or function that meets a Tensor is answered by its row, or refused with the reason."""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from tinygrad_scratch.context import is_grad_enabled
from tinygrad_scratch.errors import NotDifferentiableError
from tinygrad_scratch.registry import ANSWERS, Op

_NO_VALUE = np._NoValue  # NumPy's own "not given"

_INSTEAD = {
    "copyto": "x = x.at[...].set(v)",
    "put": "x.at[i].set(v)",
    "at": "x = x.at[i].add(v)",
    "full_like": "np.zeros_like(t) + value",
    "fft": "a real formulation: complex numbers are not supported",
    "eig": "np.linalg.eigh for symmetric matrices: the eigenvalues of others may be complex",
    "eigvals": "np.linalg.eigvalsh for symmetric matrices: the eigenvalues of others may be complex",
    "real_if_close": "the Tensor itself: it is always real",
    "float_power": "np.power",
    "divmod": "a // b and a % b",
    "modf": "np.trunc(x) and x - np.trunc(x)",
    "frexp": "np.log2",
    "asarray": "t.numpy() or t.detach()",
    "array": "t.numpy() or t.detach()",
    "save": "np.save(file, t.numpy())",
    "savez": "t.numpy()",
    "array2string": "str(t)",
}


def array_ufunc(self: Any, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
    """``Tensor.__array_ufunc__``: np.exp(t), ndarray + t, np.add.reduce(t), np.multiply.outer(t, u)."""
    if method == "__call__" and not options and (row := ANSWERS.get(ufunc)) is not None:  # nearly every call
        return row(*inputs)
    function = ufunc if method == "__call__" else getattr(ufunc, method)
    name = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
    if "out" in options:
        return _into_arrays(function, name, inputs, options)
    options = {k: v for k, v in options.items() if not _is_default(k, v)}
    outer = method == "outer" and ufunc.nin == 2 and ufunc.nout == 1
    answer = ANSWERS.get(ufunc if outer else function)
    if answer is None or (outer and not isinstance(answer, Op)):
        raise NotDifferentiableError(_refusal(name))
    if (method == "__call__" or outer) and options:
        raise NotDifferentiableError(
            f"np.{name} of a Tensor does not take {', '.join(sorted(options))}; "
            "use np.where, or .astype(dtype), around it"
        )
    if method in ("reduce", "accumulate"):  # along the first axis, where np.sum takes all
        options.setdefault("axis", 0)
    if outer:
        a, b = inputs
        inputs = (np.reshape(a, np.shape(a) + (1,) * np.ndim(b)), b)
    return call(answer, name, inputs, options)


def array_function(self: Any, function: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> Any:
    """``Tensor.__array_function__``: np.sum(t, axis=0), np.concatenate([t, array]), np.einsum("ij,j", a, t)."""
    answer = ANSWERS.get(function)
    name = getattr(function, "__name__", str(function))
    if answer is None:
        raise NotDifferentiableError(_refusal(_qualified(function)))
    if isinstance(answer, Op) and not answer.variadic:
        n, names = len(answer.rules), _parameters(function)
        kwargs = {**dict(zip(names[n:], args[n:], strict=False)), **kwargs}
        args = (*args[:n], *(kwargs.pop(key) for key in names[len(args) : n] if key in kwargs))
        if len(args) < n:
            raise NotDifferentiableError(
                f"np.{name} of a Tensor takes {n} arrays, not {len(args)}; use t.numpy() for other forms"
            )
    return call(answer, name, args, {k: v for k, v in kwargs.items() if not _is_default(k, v)})


def _is_default(key: str, value: Any) -> bool:
    """Whether an option says nothing: left out, or None where that is not a choice (axis=None is all axes)."""
    return (
        value is _NO_VALUE
        or (value is None and key in ("out", "dtype", "signature"))
        or (value is True and key == "where")
    )


def call(answer: Callable[..., Any], name: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Run a row or composition; an option that it does not have is refused by name."""
    known = answer.keywords if isinstance(answer, Op) else _parameters(answer)
    if isinstance(answer, Op) or ("options" not in known and "bounds" not in known):
        unknown = [key for key in options if key not in known]
        if "out" in unknown:
            raise NotDifferentiableError(
                f"np.{name}(out=...) of a Tensor: an array cannot hold a graph; use the returned Tensor"
            )
        if unknown:
            raise NotDifferentiableError(
                f"np.{name} of a Tensor does not take {', '.join(sorted(unknown))}; "
                f"it takes {', '.join(known) or 'no options'}"
            )
    return answer(*args, **options)


def _into_arrays(function: Any, name: str, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """``array += tensor``: allowed where no graph would be lost."""
    lost = is_grad_enabled() and any(getattr(x, "requires_grad", False) for x in inputs)
    targets = options["out"]
    if lost or not all(isinstance(t, np.ndarray) for t in targets):
        raise NotDifferentiableError(
            f"np.{name}(out=...) of a Tensor: an array cannot hold a graph; write y = x + t instead of x += t, "
            "or use t.detach(), or wrap it in no_grad()"
        )
    return function(*(x.numpy() if hasattr(x, "_data") else x for x in inputs), **options)


def _refusal(name: str) -> str:
    short = name.rsplit(".", 1)[-1]
    family = next((word for word in name.split(".") if word in _INSTEAD), short)
    instead = _INSTEAD.get(family)
    advice = f"use {instead}" if instead else "use t.numpy() for its value alone, or compose it from rows (tg.OPS)"
    return f"np.{name} is not differentiable here (it is no row of the table); {advice}"


def _qualified(function: Any) -> str:
    module = getattr(function, "__module__", "numpy") or "numpy"
    return ".".join([*(part for part in module.split(".")[1:] if not part.startswith("_")), function.__name__])


@cache
def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return ()
