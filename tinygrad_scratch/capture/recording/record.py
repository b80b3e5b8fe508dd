"""One call, recorded: its inputs, its results, what it read and what it left behind; and how two recordings differ."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinygrad_scratch._typing import Array
from tinygrad_scratch.capture.recording.frames import watching
from tinygrad_scratch.capture.recording.guards import Guard, frozen, guards_of, mask_count, optimizer, same_bytes
from tinygrad_scratch.capture.recording.names import known_names
from tinygrad_scratch.capture.recording.places import Place
from tinygrad_scratch.capture.recording.reads import Reads
from tinygrad_scratch.capture.recording.trace import Slot, Trace, Var, place_of
from tinygrad_scratch.context import is_grad_enabled, listening
from tinygrad_scratch.errors import CaptureError, describe
from tinygrad_scratch.tensor import NOT_KEPT, Tensor, wrap
from tinygrad_scratch.trees import leaves, rebuild
from tinygrad_scratch.values import refuse_mask


@dataclass
class Recording:
    """What one call did.

    gradients: each Tensor whose gradient it set, and what that is afterwards: a
    Var, None or NOT_KEPT. stored: Tensors of the step that it put into attributes, globals or cells.
    """

    trace: Trace
    inputs: list[Var]
    outputs: list[Var]
    tree: Any = None  # of the result, with ... for its leaves
    values: list[Array] = field(default_factory=list)  # of these
    given: list[Any] = field(default_factory=list)  # the arguments, leaf by leaf
    gradients: list[tuple[Tensor, Any]] = field(default_factory=list)
    stored: list[tuple[Place, Var]] = field(default_factory=list)
    updated: list[Tensor] = field(default_factory=list)  # Tensors that it changed in place
    leaves: list[list[Var]] = field(default_factory=list)  # of the graph of each result
    stale: set[int] = field(default_factory=set)  # results with a graph that the step has itself changed the leaves of
    names: dict[int, str] = field(default_factory=dict)
    quick: tuple[Any, ...] | None = (
        None  # type, shape, dtype and strides of each argument, if all are plain arrays or Tensors
    )

    @property
    def slots(self) -> list[Slot]:
        return [*self.trace.slots.values()]

    def guards(self) -> list[Guard]:
        """What must hold for the step to be this one."""
        outside = {
            id(v.tensor): v.tensor for v in self.trace.vars.values() if v.kind == "external" and v.tensor is not None
        }
        return [
            *guards_of(self.trace.reads),
            *map(frozen, outside.values()),
            *map(optimizer, self.trace.optimizers.values()),
            *(mask_count(v.array, n) for v, n in self.trace.masks),
        ]

    def forget(self) -> None:
        """Let go of the recorded values, and of what makes the recording refer to itself in circles."""
        for var in [*self.trace.vars.values(), *(i.out for i in self.trace.instrs)]:
            var.maker = None
            if var.kind == "answer":
                var.array = np.broadcast_to(np.zeros((), var.dtype), var.shape)
        self.trace.vars.clear()
        self.trace.instrs.clear()


def record(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], dense: bool) -> Recording:
    """Call `function` once, eagerly, listening. dense: inputs as the compiled back end takes them, in C order."""
    trace = Trace(Reads(function))
    trace.grad = is_grad_enabled()
    inputs: list[Var] = []
    tree = (args, kwargs)
    names = iter(_argument_names(function, args, kwargs))
    fresh = iter([_wrapped(leaf, next(names), trace, inputs, dense) for leaf in leaves(tree, nodes=False)])
    args, kwargs = rebuild(tree, fresh, nodes=False)
    with listening(trace), watching(trace.reads):
        made = function(*args, **kwargs)
    outputs = [_output(leaf, trace) for leaf in leaves(made)]
    recording = Recording(trace, inputs, outputs, names=known_names(function), quick=_quick(tree))
    _note_left(recording)
    recording.given = [leaf for leaf in leaves(tree, nodes=False) if isinstance(leaf, (Tensor, np.ndarray, np.generic))]
    _refuse_aliases(recording)
    variables = {id(v.tensor): v for v in [*trace.vars.values(), *inputs] if v.tensor is not None}
    changed = {id(t) for t in recording.updated}
    for k, result in enumerate(leaves(made)):
        found = leaves_of(result) if trace.grad else []
        if any(id(t) in changed for t in found):
            recording.stale.add(k)
            found = []
        recording.leaves.append([variables[id(t)] for t in found if id(t) in variables])
    recording.values = [v.array.copy(order="K") for v in outputs]
    recording.tree = rebuild(made, [...] * len(outputs))
    return recording


def _quick(tree: tuple[tuple[Any, ...], dict[str, Any]]) -> tuple[Any, ...] | None:
    """Type, shape, dtype and strides of each argument, if all are plain arrays, or Tensors that ask for no gradient."""
    args, kwargs = tree
    plain = all(
        (type(a) is np.ndarray and a.dtype.isnative) or (isinstance(a, Tensor) and not a.requires_grad) for a in args
    )
    if not plain or kwargs:
        return None
    return tuple((type(a), a.shape, a.dtype, getattr(a, "_data", a).strides) for a in args)


def _argument_names(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
    try:
        parameters = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        parameters = []
    top = [parameters[i] if i < len(parameters) else f"input_{i}" for i in range(len(args))] + list(kwargs)
    names = []
    for name, tree in zip(top, (*args, *kwargs.values()), strict=True):
        count = len(leaves(tree, nodes=False))
        names += [name] if count == 1 else [f"{name}_{i}" for i in range(count)]
    return names


def _wrapped(leaf: Any, name: str, trace: Trace, inputs: list[Var], dense: bool) -> Any:
    """The argument as the step sees it: a Tensor of its own, a copy, which nothing from outside shares memory with. Numbers and
    strings are part of the program."""
    if not isinstance(leaf, (Tensor, np.ndarray, np.generic)):
        return leaf
    array = leaf._data if isinstance(leaf, Tensor) else np.asarray(refuse_mask(leaf))
    if array.dtype.kind not in "fiub":
        raise CaptureError(f"input {name} is {describe(array)}: a captured step takes real numbers")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    tensor = wrap(array.copy(order="C") if dense else twin(array))
    tensor._requires_grad = isinstance(leaf, Tensor) and leaf.requires_grad
    inputs.append(trace.add_input(tensor, name))
    return tensor


def twin(array: Array) -> Array:
    """A copy that lies as the array does, gaps and all: sums over it are added up in the same order."""
    low = sum(min(0, (n - 1) * s) for n, s in zip(array.shape, array.strides, strict=True))
    high = sum(max(0, (n - 1) * s) for n, s in zip(array.shape, array.strides, strict=True))
    if not array.size or array.flags.c_contiguous or array.flags.f_contiguous:
        return array.copy(order="K")
    memory = np.empty(high - low + array.itemsize, np.uint8)
    copy: Array = np.ndarray(array.shape, array.dtype, memory, -low, array.strides)
    copy[...] = array
    return copy


def _output(leaf: Any, trace: Trace) -> Var:
    if not isinstance(leaf, Tensor):
        raise CaptureError(
            f"a captured step returns Tensors, None, or lists and dicts of them, not {type(leaf).__name__}; {describe(leaf)}"
        )
    var = trace.known(leaf._data)
    return trace.outside(leaf) if var is None else var


def _note_left(recording: Recording) -> None:
    """What the call left behind: Tensors that it changed, gradients that it set, Tensors of its own that it stored."""
    trace = recording.trace
    changed = {id(i.out.root) for i in trace.instrs if i.in_place}
    outside = [v for v in trace.vars.values() if v.kind == "external" and v.tensor is not None]
    recording.updated = [v.tensor for v in outside if id(v) in changed]  # type: ignore[misc]
    updated = {id(t) for t in recording.updated}
    inner = {id(v.tensor): v.name for v in recording.inputs}
    for slot in trace.slots.values():
        now = slot.tensor._grad
        if now is None or now is NOT_KEPT:
            final = now
        elif id(slot.tensor) in inner:
            raise CaptureError(
                f"the step leaves a gradient in its input {inner[id(slot.tensor)]}: return it instead (tg.gradients, tg.grad)"
            )
        else:
            gradient = trace.known(now._data) or trace.outside(now)
            final = NOT_KEPT if id(slot.tensor) in updated and not slot.read else gradient
            if gradient is not slot.before:
                slot.tensor._grad = wrap(now._data.copy())
        if final is not slot.before or not slot.read:
            recording.gradients.append((slot.tensor, final))
    for place in trace.reads.written.values():
        value = place.look()
        if isinstance(value, Tensor) and (var := trace.vars.get(id(value._data))) is not None and var.kind == "answer":
            recording.stored.append((place, var))


def _refuse_aliases(recording: Recording) -> None:
    """CaptureError if an argument shares memory with an array from outside that the step changes."""
    changed = {id(i.out.root): i.out.root for i in recording.trace.instrs if i.in_place}
    for var in changed.values():
        for leaf in recording.given if var.kind == "external" else ():
            refuse_alias(getattr(leaf, "_data", leaf), var.array)


def refuse_alias(argument: Any, changed: Array) -> None:
    """CaptureError if they share memory."""
    if np.may_share_memory(argument, changed):
        raise CaptureError(
            f"an argument, {describe(argument)}, shares memory with {describe(changed)}, which the step changes in place, so "
            "what it reads of the argument would depend on the order of its operations; pass a copy"
        )


def leaves_of(made: Tensor) -> list[Tensor]:
    """The leaves of a Tensor's graph that require a gradient."""
    if not made._requires_grad:
        return []
    found: list[Tensor] = []
    seen, waiting = {id(made)}, [made]
    while waiting:
        tensor = waiting.pop()
        if tensor._node is None:
            found.append(tensor)
            continue
        for parent in tensor._node[1]:
            if parent is not None and parent._requires_grad and id(parent) not in seen:
                seen.add(id(parent))
                waiting.append(parent)
    return found


# -- how two recordings differ -------------------------------------------------------------------------------------------


def difference(one: Recording, two: Recording) -> str:
    """What in words is otherwise in the second of two recordings; "" if both are of the same step.

    CaptureError if an array that neither is read from outside nor follows from what is, was another one.
    """
    return _read_otherwise(one, two) or _done_otherwise(one, two) or _settle_constants(one, two)


def _read_otherwise(one: Recording, two: Recording) -> str:
    """The first thing that was read in both, and was not the same."""
    before, after = one.trace.reads, two.trace.reads
    for key, found in after.found.items():
        known = before.found.get(key)
        if known is not None and known.deep == found.deep and known.shape != found.shape and not found.counted:
            return f"{found.place.text} (it was {_shown(known.value)}, then {_shown(found.value)})"
    for key, memory in after.outside.items():
        earlier = before.outside.get(key)
        for number, (_, content, where) in memory.arrays.items() if memory.is_read and earlier is not None else ():
            known_array = earlier.arrays.get(number)  # type: ignore[union-attr]
            if known_array is not None and not same_bytes(known_array[1], content):
                advice = "(tg.as_tensor(a) in its place is followed)"
                return f"the elements of {describe(content)}, {where}, which NumPy alone reads {advice}"
    for earlier_values, values in zip(before.values, after.values, strict=False):
        if earlier_values.shape != values.shape or not same_bytes(earlier_values, values):
            return f"the elements of {describe(values)}, which NumPy alone reads"
    return ""


def _shown(value: Any) -> str:
    return describe(value)


def _done_otherwise(one: Recording, two: Recording) -> str:
    a, b = one.trace.instrs, two.trace.instrs
    if [n for _, n in one.trace.masks] != [n for _, n in two.trace.masks]:
        return "how many elements of a mask are True, which np.where(mask, x, 0) does not depend on"
    for x, y in zip(a, b, strict=False):
        if x.signature() != y.signature():
            return f"{y.op.__name__} where {x.op.__name__} was, or other operands of it"
    if len(a) != len(b):
        return f"{len(b)} operations where {len(a)} were"
    before, after = _order(one), _order(two)
    number = ({id(v): n for n, v in enumerate(before)}, {id(v): n for n, v in enumerate(after)})
    if [number[0].get(id(v)) for v in _read(one)] != [number[1].get(id(v)) for v in _read(two)]:
        return "which results it uses, or returns"
    if _of_gradients(one, two, number[0]) != _of_gradients(two, one, number[1]):
        return "which Tensors have gradients, before it or after it"
    places = [{p.key for p, _ in recording.stored} for recording in (one, two)]
    both = places[0] & places[1]  # the others are places of what was made in the call
    one.stored, two.stored = ([(p, v) for p, v in recording.stored if p.key in both] for recording in (one, two))
    if [(p.key, number[0][id(v)]) for p, v in one.stored] != [(p.key, number[1][id(v)]) for p, v in two.stored]:
        return "what it stores"
    return ""


def _of_gradients(recording: Recording, other: Recording, number: dict[int, int]) -> Any:
    """What it did with the gradients of Tensors that both calls met."""

    def shown(x: Any) -> Any:
        return number.get(id(x), "another") if isinstance(x, Var) else repr(x)

    slots = {s: slot for s, slot in recording.trace.slots.items() if s in other.trace.slots}
    finals = [(id(t), shown(v)) for t, v in recording.gradients if id(t) in slots]
    return [(s, slot.read, shown(slot.before) if slot.read else None) for s, slot in slots.items()], finals


def _settle_constants(one: Recording, two: Recording) -> str:
    """Mark what each call made anew, and alike. CaptureError where it was another one."""
    before, after, b = _order(one), _order(two), two.trace.instrs
    user = {id(x): i.op.__name__ for i in reversed(b) for x in i.vars}
    pairs = [(u, v) for u, v in zip(before, after, strict=True) if u.kind == "external" or v.kind == "external"]
    constants = [v for u, v in pairs if not _by_reference(u, v) and _is_constant(u, v, user.get(id(v), "the result"))]
    changed = {id(i.out.root) for i in b if i.in_place}
    _refuse_shared([v for v in after if v.kind == "external"], changed)
    for var in constants:
        if id(var) in changed:
            raise CaptureError(
                f"{describe(var.array)} is made in the step from an array and then changed in place, so later calls would go on "
                "from what this one left; write a = a + x instead of a += x"
            )
        var.kind = "constant"
    two.trace.slots = {s: slot for s, slot in two.trace.slots.items() if s in one.trace.slots}
    two.gradients = [(t, v) for t, v in two.gradients if id(t) in two.trace.slots]
    two.updated = [t for t in two.updated if any(t is u for u in one.updated)]
    return ""


def _read(recording: Recording) -> list[Any]:
    """What is read, in order: by the rows, and as results."""
    return [*(x for i in recording.trace.instrs for x in i.vars), *recording.outputs]


def _order(recording: Recording) -> list[Var]:
    """All that is read or made, each once, in the order in which it first appears."""
    seen: dict[int, Var] = {}
    for instr in recording.trace.instrs:
        for var in [*instr.vars, instr.out]:
            seen.setdefault(id(var), var)
    left = [v for _, v in [*recording.gradients, *recording.stored] if isinstance(v, Var)]
    for var in [*recording.outputs, *left]:
        seen.setdefault(id(var), var)
    return list(seen.values())


def _by_reference(old: Var, new: Var) -> bool:
    return place_of(old.array) == place_of(new.array) or (new.tensor is not None and old.tensor is new.tensor)


def _is_constant(old: Var, new: Var, user: str) -> bool:
    """Of an array that each call made anew: True if it was equal both times, else CaptureError."""
    same = old.kind == new.kind and old.array.shape == new.array.shape and old.dtype == new.dtype
    if same and np.array_equal(old.array, new.array, equal_nan=old.dtype.kind == "f"):
        return True
    raise CaptureError(
        f"{user} uses an array, {describe(new.array)}, that the step made or found outside and that was another one in the "
        "call before; pass it as an input, or draw it with the library's own random operations"
    )


def _refuse_shared(outside: list[Var], changed: set[int]) -> None:
    """CaptureError if two arrays from outside share memory and one is changed: the order of reads and writes would matter."""
    for one in outside:
        for other in outside if id(one) in changed else ():
            if other is not one and np.may_share_memory(one.array, other.array):
                raise CaptureError(
                    f"{describe(one.array)} is changed in place, and another array of the step, "
                    f"{describe(other.array)}, shares memory with it; use one Tensor for both, or copy it"
                )
