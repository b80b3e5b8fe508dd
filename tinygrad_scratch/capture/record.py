"""One call, recorded: its inputs, its results, and what it left behind; and whether two recordings are of the same step."""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinygrad_scratch.capture.names import known_names
from tinygrad_scratch.capture.trace import Trace, Var, place_of
from tinygrad_scratch.context import is_grad_enabled, listening
from tinygrad_scratch.errors import CaptureError, describe
from tinygrad_scratch.tensor import Tensor, wrap
from tinygrad_scratch.trees import leaves, rebuild


@dataclass
class Recording:
    """What one call did."""

    trace: Trace
    inputs: list[Var]
    outputs: list[Var | None]
    result: Any
    grads: list[tuple[Tensor, Var]] = field(default_factory=list)  # gradients that the call leaves behind
    cleared: list[Tensor] = field(
        default_factory=list
    )  # whose gradients the program forgot between the last call and this
    updated: list[Tensor] = field(default_factory=list)  # Tensors that it changed in place
    leaves: list[Tensor] = field(default_factory=list)  # Tensors from outside that may have gradients
    fates: dict[int, str] = field(
        default_factory=dict
    )  # id of a Tensor -> what became of the gradient that it had before
    names: dict[int, str] = field(default_factory=dict)
    quick: tuple[Any, ...] | None = None  # type, shape and dtype of each argument, if all are plain arrays or Tensors

    def forget(self) -> None:
        """Let go of the recorded values: the program that the recording is refers to itself in circles."""
        for var in [*self.trace.vars.values(), *(i.out for i in self.trace.instrs)]:
            var.maker = var.base = var.tensor = None
            var.array = np.empty(0)
        self.trace.vars.clear()
        self.trace.instrs.clear()


def record(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    dense: bool,
    earlier: Recording | None,
    watched: Iterable[Tensor] = (),
) -> Recording:
    """Call `function` once, eagerly, listening. dense: inputs as the compiled back end takes them, in C order.

    earlier: the recording of the call before, if there is one. watched: Tensors that the step is known to use, in other calls
    perhaps: whether it forgets their gradients is seen in a call before which they have some.
    """
    trace = Trace()
    trace.grad = is_grad_enabled()
    inputs: list[Var] = []
    tree = (args, kwargs)
    names = iter(_argument_names(function, args, kwargs))
    fresh = iter([_wrapped(leaf, next(names), trace, inputs, dense) for leaf in leaves(tree, nodes=False)])
    args, kwargs = rebuild(tree, fresh, nodes=False)
    before = [(tensor, tensor.grad) for tensor in watched if tensor.grad is not None]
    cleared = _cleared(earlier)
    with listening(trace):
        made = function(*args, **kwargs)
    outputs = [_output(leaf, trace) for leaf in leaves(made)]
    _refuse_lost_graph(inputs, leaves(made), trace)
    recording = Recording(trace, inputs, outputs, None, cleared=cleared)
    _after(recording)
    recording.fates = {**(earlier.fates if earlier is not None else {}), **{id(t): _fate(t, g) for t, g in before}}
    recording.result = rebuild(made, iter([None if v is None else wrap(v.array.copy()) for v in outputs]))
    recording.names = known_names(function)
    recording.quick = _quick(tree)
    return recording


def _cleared(earlier: Recording | None) -> list[Tensor]:
    """Whose gradients were forgotten since the last recording; not where that one shows that the step does so itself."""
    if earlier is None:
        return []
    return [t for t, _ in earlier.grads if t.grad is None and earlier.fates.get(id(t)) != "replaced"]


def _fate(tensor: Tensor, before: Tensor) -> str:
    if tensor.grad is None:
        return "forgotten"
    return "left" if tensor.grad is before else "replaced"


def _quick(tree: tuple[tuple[Any, ...], dict[str, Any]]) -> tuple[Any, ...] | None:
    """Type, shape and dtype of each argument, if all are plain arrays, or Tensors that ask for no gradient."""
    args, kwargs = tree
    plain = all(
        (type(a) is np.ndarray and a.dtype.isnative) or (isinstance(a, Tensor) and not a.requires_grad) for a in args
    )
    return tuple((type(a), a.shape, a.dtype) for a in args) if plain and not kwargs else None


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
    """The argument as the step sees it: a Tensor around its array. Numbers and strings are part of the program."""
    if not isinstance(leaf, (Tensor, np.ndarray, np.generic)):
        return leaf
    array = leaf._data if isinstance(leaf, Tensor) else np.asarray(leaf)
    if array.dtype.kind not in "fiub":
        raise CaptureError(f"input {name} is {describe(array)}: a captured step takes real numbers")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if dense and not array.flags.c_contiguous:
        array = array.copy(order="C")
    if any(np.may_share_memory(array, other.array) for other in inputs):  # each input has a place of its own
        array = array.copy(order="K")
    tensor = wrap(array.view())
    tensor.requires_grad = isinstance(leaf, Tensor) and leaf.requires_grad
    inputs.append(trace.add_input(tensor, name))
    return tensor


def _refuse_lost_graph(inputs: list[Var], made: list[Any], trace: Trace) -> None:
    """CaptureError if a result could be differentiated by an input, which the results of later calls cannot."""
    wanted = [v.name for v in inputs if v.tensor is not None and v.tensor.requires_grad]
    if wanted and not trace.differentiated and any(isinstance(t, Tensor) and t.requires_grad for t in made):
        raise CaptureError(
            f"input {', '.join(wanted)} requires a gradient, but results of a captured step have no graph; differentiate "
            "inside the step (tg.gradients) and return the gradient, or pass x.detach(), or call it under no_grad()"
        )


def _output(leaf: Any, trace: Trace) -> Var | None:
    if leaf is None:
        return None
    if not isinstance(leaf, Tensor):
        raise CaptureError(
            f"a captured step returns Tensors, None, or lists and dicts of them, not {type(leaf).__name__}; {describe(leaf)}"
        )
    var = trace.known(leaf._data)
    return trace.outside(leaf) if var is None else var


def _after(recording: Recording) -> None:
    """What the call left behind: Tensors that it changed, gradients that it set; and whether it added to older gradients."""
    trace = recording.trace
    changed = {id(i.out.root) for i in trace.instrs if i.in_place}
    outside = [v for v in trace.vars.values() if v.kind in ("external", "input") and v.tensor is not None]
    older = {id(grad) for _, grad in trace.leaf_grads}
    for var in outside:
        tensor: Any = var.tensor
        if tensor.requires_grad and var.kind == "external":
            recording.leaves.append(tensor)
        if id(tensor) in older:
            raise CaptureError(
                "the step adds to gradients that an earlier call left; call optimizer.zero_grad() in it before backward()"
            )
        if id(var) in changed:
            recording.updated.append(tensor)
        if tensor.grad is not None and (gradient := trace.known(tensor.grad._data)) is not None:
            if var.kind == "input":
                raise CaptureError(
                    f"the step leaves a gradient in its input {var.name}: return it instead (tg.gradients, tg.grad)"
                )
            recording.grads.append((tensor, gradient))
            tensor.grad = wrap(tensor.grad._data.copy())


def settle_gradients(recording: Recording) -> None:
    """Which gradients stay in ``grad`` after a call: not those of Tensors that the step updates and whose gradients it
    forgets by itself, so that they need not be stored. Those that the program forgets between two calls it may want to see."""
    updated, cleared = set(map(id, recording.updated)), set(map(id, recording.cleared))
    for tensor, _ in recording.grads:
        if id(tensor) in updated - cleared:
            tensor.grad = None
    recording.grads = [(t, v) for t, v in recording.grads if id(t) not in updated - cleared]
    kept = {id(t) for t, _ in recording.grads}
    recording.cleared = [t for t in recording.cleared if id(t) in kept]


def same_step(one: Recording, two: Recording) -> bool:
    """Whether two recordings are of the same step. CaptureError if an array from outside changed that should be an input."""
    a, b = one.trace.instrs, two.trace.instrs
    if len(a) != len(b) or any(x.signature() != y.signature() for x, y in zip(a, b, strict=True)):
        return False
    before, after = _order(one), _order(two)
    number = ({id(v): n for n, v in enumerate(before)}, {id(v): n for n, v in enumerate(after)})
    if [number[0].get(id(v)) for v in _read(one)] != [number[1].get(id(v)) for v in _read(two)]:
        return False
    if [(id(t), number[0][id(v)]) for t, v in one.grads] != [(id(t), number[1][id(v)]) for t, v in two.grads]:
        return False
    user = {id(x): i.op.__name__ for i in reversed(b) for x in i.vars}
    pairs = [(u, v) for u, v in zip(before, after, strict=True) if u.kind == "external" or v.kind == "external"]
    constants = [
        v for u, v in pairs if not _by_reference(u, v) and _is_constant(u, v, user.get(id(v), "the result"), two)
    ]
    changed = {id(i.out.root) for i in b if i.in_place}
    _refuse_shared([v for v in after if v.kind == "external"], changed)
    for var in constants:
        if id(var) in changed:
            raise CaptureError(
                f"{describe(var.array)} is made in the step from an array and then changed in place, so later calls would go on "
                "from what this one left; write a = a + x instead of a += x"
            )
        var.kind = "constant"
    return True


def _read(recording: Recording) -> list[Any]:
    """What is read, in order: by the rows, and as results."""
    return [*(x for i in recording.trace.instrs for x in i.vars), *recording.outputs]


def _order(recording: Recording) -> list[Var]:
    """All that is read or made, each once, in the order in which it first appears."""
    seen: dict[int, Var] = {}
    for instr in recording.trace.instrs:
        for var in [*instr.vars, instr.out]:
            seen.setdefault(id(var), var)
    for var in [*(v for v in recording.outputs if v is not None), *(v for _, v in recording.grads)]:
        seen.setdefault(id(var), var)
    return list(seen.values())


def _by_reference(old: Var, new: Var) -> bool:
    return place_of(old.array) == place_of(new.array) or (new.tensor is not None and old.tensor is new.tensor)


def _is_constant(old: Var, new: Var, user: str, recording: Recording) -> bool:
    """Of an array that each call made anew: True if it was equal both times, else CaptureError."""
    same = old.kind == new.kind and old.array.shape == new.array.shape and old.dtype == new.dtype
    if (
        same
        and np.array_equal(old.array, new.array, equal_nan=old.dtype.kind == "f")
        and id(new.array) not in recording.names
    ):
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
