"""Names that say what they are: ``layers_0_weight``, ``layers_0_weight_grad``, ``sigmoid_1``; from Module paths and rows."""

import inspect
import keyword
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from tinygrad_scratch.capture.recording.trace import Trace, Var
from tinygrad_scratch.tensor import Tensor

RESERVED = {
    "np",
    "state",
    "memory",
    "step",
    "check_labels",
    "check_range",
    *(name for name in dir(np) if not name.startswith("_")),
}


def known_names(function: Callable[..., Any]) -> dict[int, str]:
    """{id of an array: name} for what the function closes over: modules (by path), optimizers' state, Tensors, arrays."""
    found: dict[int, str] = {}
    optimizers = []
    reached = list(_reached(function))
    modules = [name for name, value in reached if hasattr(value, "named_parameters")]
    for name, value in reached:
        if hasattr(value, "named_parameters"):
            for path, tensor in [*value.named_parameters(), *_buffers(value)]:
                prefix = f"{name}_" if len(modules) > 1 or path[0].isdigit() else ""
                found.setdefault(id(tensor._data), prefix + path)
        elif hasattr(value, "param_groups"):
            optimizers.append(value)
        elif isinstance(value, Tensor):
            found.setdefault(id(value._data), name)
        elif isinstance(value, np.ndarray):
            found.setdefault(id(value), name)
    for optimizer in optimizers:
        for parameter, kept in getattr(optimizer, "state", {}).items():
            owner = found.get(id(getattr(parameter, "_data", None)), "")
            for key, array in kept.items() if isinstance(kept, dict) else ():
                found.setdefault(id(getattr(array, "_data", array)), f"{owner}_{key}".strip("_"))
    return found


def _buffers(module: Any) -> Iterable[tuple[str, Tensor]]:
    return module.named_buffers() if hasattr(module, "named_buffers") else ()


def _reached(function: Callable[..., Any]) -> Iterable[tuple[str, Any]]:
    target = inspect.unwrap(function)
    owner = getattr(target, "__self__", None)
    if owner is not None:
        yield from ((k, v) for k, v in vars(owner).items() if hasattr(owner, "__dict__"))
        yield "self", owner
    code = getattr(target, "__func__", target)
    if not inspect.isfunction(code):
        yield getattr(type(code), "__name__", "self").lower(), code
        yield from getattr(code, "__dict__", {}).items()
        return
    variables = inspect.getclosurevars(code)
    for scope in (variables.nonlocals, variables.globals):
        for name, value in scope.items():
            yield name, value
            if inspect.isfunction(value) and value is not code:  # helpers that the step calls: one level down
                inner = inspect.getclosurevars(value)
                yield from {**inner.globals, **inner.nonlocals}.items()


def give_names(trace: Trace, variables: Iterable[Var], known: dict[int, str]) -> None:
    """A valid, unique Python name for every Var."""
    taken = set(RESERVED)
    variables = list(variables)
    for var in variables:
        if var.kind == "input":
            var.name = _unique(var.name, taken)
    for var in variables:
        if var.kind in ("external", "hyper") or (var.kind == "constant" and id(var.array) in known):
            var.name = _unique(
                known.get(id(var.array), var.name or ("rate" if var.kind == "hyper" else "outside")), taken
            )
    if trace.loss is not None and not trace.loss.name:
        trace.loss.name = _unique("loss", taken)
    cotangents = {id(cotangent): owner for owner, cotangent in trace.gradients.items()}
    by_id = {id(v): v for v in variables}
    for var in variables:
        if var.name or var.kind == "input":
            continue
        if var.kind == "constant" and var.maker is None:
            var.name = _unique("constant", taken)
            continue
        owner = by_id.get(cotangents.get(id(var), 0))
        if owner is not None and owner.name:
            var.name = _unique(f"{owner.name}_grad", taken)
        else:
            var.name = _unique(_from_row(var), taken)


def _from_row(var: Var) -> str:
    maker = var.maker
    if maker is None:
        return "value"
    row = var.hint or maker.op.__name__
    if row == "affine":
        weight = next((v.root.name for v in [*maker.vars, *(u for m in maker.vars if m.maker for u in m.maker.vars)]
                       if v.root.name.endswith("weight")), "")  # fmt: skip
        return f"{weight.removesuffix('weight')}affine"
    first = maker.inputs[0] if maker.inputs else None
    if row in ("transpose", "swapaxes") and isinstance(first, Var) and first.name:
        return f"{first.name}_T"
    if row in ("reshape", "expand_dims", "squeeze", "broadcast_to") and isinstance(first, Var) and first.name:
        return (
            first.name
            if first.name.endswith("_spread")
            else f"{first.name}_{'spread' if row == 'broadcast_to' else 'view'}"
        )
    return row


def _unique(wanted: str, taken: set[str]) -> str:
    name = re.sub(r"\W", "_", wanted).strip("_") or "value"
    name = f"_{name}" if name[0].isdigit() else name
    name = f"{name}_" if keyword.iskeyword(name) else name
    candidate, n = name, 1 if name in RESERVED else 2
    while candidate in taken:
        candidate, n = f"{name}_{n}", n + 1
    taken.add(candidate)
    return candidate
