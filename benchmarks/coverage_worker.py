"""One library's answers to everyday calls: reads a list of calls, writes one line of JSON for each. A process of its own."""

from __future__ import annotations

import json
import sys
import types
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.everyday import CONSTANTS, VARIABLES

Answer = tuple[Any, list[Any]]
"""The value of a call, and its gradients (None: the library says there is none)."""

STEP, RTOL, ATOL = 1e-4, 1e-5, 1e-7


def main() -> None:
    """Try every call that stands in the input."""
    library, namespace = sys.argv[1:]
    differentiate, own = LIBRARIES[library]()
    for call in json.load(sys.stdin):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            outcome, note = judge(call, differentiate, own if namespace == "own" else np)
        print(json.dumps({"call": call, "outcome": outcome, "note": note}), flush=True)


def judge(call: str, differentiate: Callable[..., Answer], namespace: Any) -> tuple[str, str]:
    """("right" | "refused" | "wrong", why)."""
    code = compile(call, call, "eval")
    used = names(code)
    wanted = [name for name in VARIABLES if name in used]

    def evaluate(np_: Any, *operands: Any) -> Any:
        return eval(code, {"np": np_, **CONSTANTS}, dict(zip(wanted, operands, strict=True)))

    arrays = [VARIABLES[name] for name in wanted]
    expected, cotangent, slopes = reference(lambda *operands: evaluate(np, *operands), arrays)
    try:
        value, found = differentiate(lambda *operands: evaluate(namespace, *operands), arrays, cotangent)
    except Exception as error:
        return "refused", f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    if np.shape(value) != expected.shape or not np.allclose(value, expected, RTOL, ATOL, equal_nan=True):
        return "wrong", f"value {np.asarray(value).tolist()} instead of {expected.tolist()}"[:160]
    for name, g, slope in zip(wanted, found, slopes, strict=True):
        g = np.zeros(slope.shape) if g is None else np.asarray(g, np.float64)
        if g.shape != slope.shape or not np.allclose(g, slope, RTOL * 10, ATOL * 100):
            return "wrong", f"gradient of {name}: {g.tolist()} instead of {slope.tolist()}"[:160]
    return "right", ""


def names(code: types.CodeType) -> set[str]:
    """The names that an expression uses, also within its lambdas."""
    inner = [names(part) for part in code.co_consts if isinstance(part, types.CodeType)]
    return set(code.co_names).union(*inner)


def reference(f: Callable[..., Any], arrays: list[Any]) -> tuple[Any, Any, list[Any]]:
    """(NumPy's value, a cotangent, the gradients for it by differences of NumPy's function)."""
    value = np.asarray(f(*arrays))
    cotangent = np.asarray(np.random.default_rng(1).uniform(0.5, 1.5, value.shape), value.dtype)
    slopes = []
    for n, array in enumerate(arrays):
        slope = np.zeros(array.shape)
        for index in np.ndindex(array.shape):
            near, far = (difference(f, arrays, n, index, cotangent, step) for step in (STEP, 2 * STEP))
            slope[index] = (8 * near - far) / (12 * STEP)
        slopes.append(slope)
    return value, cotangent, slopes


def difference(f: Callable[..., Any], arrays: list[Any], n: int, index: Any, cotangent: Any, step: float) -> float:
    """The contracted value `step` after an element, less that before it."""
    values = []
    for sign in (1, -1):
        moved = [array.copy() for array in arrays]
        moved[n][index] += sign * step
        values.append(np.sum(np.asarray(f(*moved), np.float64) * cotangent))
    return float(values[0] - values[1])


# ---- the libraries: each gives (differentiate, its own namespace) ----------------------------------------------------


def _ours() -> tuple[Callable[..., Answer], Any]:
    import tinygrad_scratch as tg

    def differentiate(f: Callable[..., Any], arrays: list[Any], cotangent: Any) -> Answer:
        tensors = [tg.Tensor(array, requires_grad=True) for array in arrays]
        answer = f(*tensors)
        if not isinstance(answer, tg.Tensor):
            return answer, [None] * len(arrays)
        if answer.requires_grad:
            answer.backward(cotangent)
        return answer.numpy(), [None if tensor.grad is None else tensor.grad.numpy() for tensor in tensors]

    return differentiate, np


def _autograd() -> tuple[Callable[..., Answer], Any]:
    autograd, own = import_module("autograd"), import_module("autograd.numpy")

    values = np.vectorize(lambda box: getattr(box, "_value", box), otypes=[float])

    def differentiate(f: Callable[..., Any], arrays: list[Any], cotangent: Any) -> Answer:
        answers, grads = [], []

        def contracted(*operands: Any) -> Any:  # np's functions may give arrays of boxes, which this takes too
            answers.append(f(*operands))
            return (answers[-1] * cotangent).sum()

        for n in range(len(arrays)):
            pull, _ = autograd.make_vjp(contracted, n)(*arrays)
            grads.append(pull(1.0))
        value = getattr(answers[-1], "_value", answers[-1])
        return values(value) if np.asarray(value).dtype == object else value, grads

    return differentiate, own


def _mygrad() -> tuple[Callable[..., Answer], Any]:
    mygrad = import_module("mygrad")

    def differentiate(f: Callable[..., Any], arrays: list[Any], cotangent: Any) -> Answer:
        tensors = [mygrad.tensor(array) for array in arrays]
        answer = f(*tensors)
        if not isinstance(answer, mygrad.Tensor):
            return answer, [None] * len(arrays)
        if not answer.constant:
            answer.backward(cotangent)
        return answer.data, [tensor.grad for tensor in tensors]

    return differentiate, mygrad


def _jax() -> tuple[Callable[..., Answer], Any]:
    jax = import_module("jax")
    jax.config.update("jax_enable_x64", True)

    def differentiate(f: Callable[..., Any], arrays: list[Any], cotangent: Any) -> Answer:
        value, pull = jax.vjp(f, *map(jax.numpy.asarray, arrays))
        return value, list(pull(jax.numpy.asarray(cotangent, value.dtype)))

    return differentiate, jax.numpy


def _torch() -> tuple[Callable[..., Answer], Any]:
    torch = import_module("torch")

    def differentiate(f: Callable[..., Any], arrays: list[Any], cotangent: Any) -> Answer:
        tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
        answer = f(*tensors)
        if not isinstance(answer, torch.Tensor):
            return answer, [None] * len(arrays)
        if answer.requires_grad:
            answer.backward(torch.as_tensor(cotangent, dtype=answer.dtype))
        return answer.detach().numpy(), [tensor.grad for tensor in tensors]

    return differentiate, torch


LIBRARIES = {"ours": _ours, "autograd": _autograd, "mygrad": _mygrad, "jax": _jax, "torch": _torch}

if __name__ == "__main__":
    main()
