"""One call, recorded: its inputs, its results, and what it left behind; and whether two recordings are of the same step."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinygrad_scratch.capture.names import known_names
from tinygrad_scratch.capture.trace import Trace, Var
from tinygrad_scratch.context import is_grad_enabled, listening
from tinygrad_scratch.errors import CaptureError, describe
from tinygrad_scratch.tensor import Tensor, wrap
from tinygrad_scratch.transforms import leaves, rebuild


@dataclass
class Recording:
    """What one call did."""

    trace: Trace
    inputs: list[Var]
    outputs: list[Var | None]
    result: Any
    grads: list[tuple[Tensor, Var]] = field(default_factory=list)  # gradients that the call leaves behind
    updated: list[Tensor] = field(default_factory=list)  # Tensors that it changed in place
    names: dict[int, str] = field(default_factory=dict)
    quick: tuple[Any, ...] = ()  # type, shape and dtype of each argument, if all are plain arrays or Tensors


def record(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Recording:
    """Call `function` once, eagerly, listening."""
    trace = Trace()
    trace.grad = is_grad_enabled()
    inputs: list[Var] = []
    tree = (args, kwargs)
    names = iter(_argument_names(function, args, kwargs))
    fresh = iter([_wrapped(leaf, next(names), trace, inputs) for leaf in leaves(tree)])
    args, kwargs = rebuild(tree, fresh)
    with listening(trace):
        made = function(*args, **kwargs)
    outputs = [_output(leaf, trace) for leaf in leaves(made)]
    recording = Recording(trace, inputs, outputs, None)
    _after(recording)
    recording.result = rebuild(made, iter([None if v is None else wrap(v.array.copy()) for v in outputs]))
    recording.names = known_names(function)
    recording.quick = _quick(tree)
    return recording


def _quick(tree: tuple[tuple[Any, ...], dict[str, Any]]) -> tuple[Any, ...]:
    """Type, shape and dtype of each argument, if all are plain arrays, or Tensors that ask for no gradient."""
    args, kwargs = tree
    plain = all(type(a) is np.ndarray or (isinstance(a, Tensor) and not a.requires_grad) for a in args)
    return tuple((type(a), a.shape, a.dtype) for a in args) if plain and not kwargs else ()


def _argument_names(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
    try:
        parameters = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        parameters = []
    top = [parameters[i] if i < len(parameters) else f"input_{i}" for i in range(len(args))] + list(kwargs)
    names = []
    for name, tree in zip(top, (*args, *kwargs.values()), strict=True):
        count = len(leaves(tree))
        names += [name] if count == 1 else [f"{name}_{i}" for i in range(count)]
    return names


def _wrapped(leaf: Any, name: str, trace: Trace, inputs: list[Var]) -> Any:
    """The argument as the step sees it: a Tensor around its array. Numbers and strings are part of the program."""
    if isinstance(leaf, Tensor):
        tensor = wrap(leaf._data.view())
        tensor.requires_grad = leaf.requires_grad
    elif isinstance(leaf, (np.ndarray, np.generic)):
        array = np.asarray(leaf)
        if array.dtype.kind not in "fiub":
            raise CaptureError(f"input {name} is {describe(array)}: a captured step takes real numbers")
        tensor = wrap(array.view())
    else:
        return leaf
    inputs.append(trace.add_input(tensor._data, name))
    return tensor


def _output(leaf: Any, trace: Trace) -> Var | None:
    if leaf is None:
        return None
    if not isinstance(leaf, Tensor):
        raise CaptureError(f"a captured step returns Tensors, None, or lists and dicts of them, not {type(leaf).__name__}; {describe(leaf)}")
    var = trace.vars.get(id(leaf._data))
    return trace.outside(leaf) if var is None else var


def _after(recording: Recording) -> None:
    """What the call left behind: Tensors that it changed, gradients that it set; and whether it added to older gradients."""
    trace = recording.trace
    changed = {id(i.out.root) for i in trace.instrs if i.in_place}
    outside = [v for v in trace.vars.values() if v.kind in ("external", "input") and v.tensor is not None]
    older = {id(grad) for _, grad in trace.leaf_grads}
    for var in outside:
        tensor: Any = var.tensor
        if id(tensor) in older:
            raise CaptureError(
                "the step adds to gradients that an earlier call left; call optimizer.zero_grad() in it before backward()"
            )
        if id(var) in changed:
            recording.updated.append(tensor)
            tensor.grad = None
        elif tensor.grad is not None and id(tensor.grad._data) in trace.vars:
            if var.kind == "input":
                raise CaptureError(f"the step leaves a gradient in its input {var.name}: return it instead (tg.gradients, tg.grad)")
            recording.grads.append((tensor, trace.vars[id(tensor.grad._data)]))
            tensor.grad = wrap(tensor.grad._data.copy())


def same_step(one: Recording, two: Recording) -> bool:
    """Whether two recordings are of the same step. CaptureError if an array from outside changed that should be an input."""
    a, b = one.trace.instrs, two.trace.instrs
    if len(a) != len(b) or any(x.signature() != y.signature() for x, y in zip(a, b, strict=True)):
        return False
    number = ({id(v): n for n, v in enumerate(_order(one))}, {id(v): n for n, v in enumerate(_order(two))})
    for x, y in zip(a, b, strict=True):
        for u, v in zip(x.inputs, y.inputs, strict=True):
            if isinstance(u, Var) and number[0][id(u)] != number[1][id(v)]:
                return False
            if isinstance(u, Var) and u.kind == "external":
                _settle(u, v, y)
    return True


def _order(recording: Recording) -> list[Var]:
    seen: dict[int, Var] = {}
    for instr in recording.trace.instrs:
        for var in [*instr.vars, instr.out]:
            seen.setdefault(id(var), var)
    return list(seen.values())


def _settle(old: Var, new: Var, instr: Any) -> None:
    """An array from outside: the same object is read by reference; an equal one, made anew by each call, is a constant."""
    if old.array is new.array or (new.tensor is not None and old.tensor is new.tensor):
        return
    if old.array.shape == new.array.shape and old.dtype == new.dtype and np.array_equal(old.array, new.array, equal_nan=old.dtype.kind == "f"):
        new.kind = "constant"
        return
    raise CaptureError(
        f"{instr.op.__name__} uses an array, {describe(new.array)}, that the step made or found outside and that was another one in the "
        "call before; pass it as an input, or draw it with the library's own random operations"
    )
