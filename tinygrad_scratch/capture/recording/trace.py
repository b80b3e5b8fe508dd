"""Recording: a listener that writes every operation of one call into a flat list of instructions.

Arrays are known by identity: each is an input of the step, something outside that is read by reference (a parameter, an
optimizer's buffer), or the answer of an instruction. A fused row is written as the rows it stands for (``expand``), so that
later passes see one small set of primitives.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinygrad_scratch._typing import Array, Shape
from tinygrad_scratch.capture.recording.expand import EXPANSIONS
from tinygrad_scratch.capture.recording.places import Place
from tinygrad_scratch.capture.recording.reads import Reads, owner_of
from tinygrad_scratch.errors import CaptureError, describe
from tinygrad_scratch.registry import Op
from tinygrad_scratch.tensor import Tensor, wrap


@dataclass(eq=False)
class Var:
    """An array of the step.

    kind: "input" (an argument), "external" (read by reference), "hyper" (a number that is looked up before every call),
    "constant" (made while tracing) or "answer".
    """

    kind: str
    array: Array
    name: str = ""
    tensor: Tensor | None = None
    base: "Var | None" = None  # the Var whose memory this one shows
    maker: "Instr | None" = None
    offset: int = 0  # of its first element in the owner's memory, in elements
    strides: Shape | None = None  # in elements; known once a plan is made
    hint: str = ""  # the fused row that it is the answer of
    compact: bool = True  # whether the recorded array had no gaps
    slot: Tensor | None = None  # whose gradient an input is, that an earlier call left

    @property
    def shape(self) -> Shape:
        shape: Shape = self.array.shape
        return shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    @property
    def root(self) -> "Var":
        """The Var that owns the memory."""
        var = self
        while var.base is not None:
            var = var.base
        return var


Operand = Var | int | float | bool | None


@dataclass(eq=False)
class Instr:
    """One row applied: ``out = op(*inputs, **options)``. With ``in_place``, out is also inputs[0] and is changed.

    The row of ``x[index] = value`` is ``replace``: of its inputs the first is the array, the second the value.
    """

    op: Op
    inputs: list[Any]
    options: dict[str, Any]
    out: Var
    phase: str
    in_place: bool = False

    @property
    def vars(self) -> list[Var]:
        return [x for x in self.inputs if isinstance(x, Var)]

    def signature(self) -> tuple[Any, ...]:
        """What must be equal for two traces to be of the same step."""
        inputs = tuple((x.kind, x.shape, x.dtype.str) if isinstance(x, Var) else repr(x) for x in self.inputs)
        return (self.op.__name__, inputs, option_key(self.options), self.out.shape, self.in_place)


def option_key(options: Any) -> Any:
    """Equal for options that say the same. Arrays are compared by their elements, other objects by what they show."""
    if isinstance(options, dict):
        return tuple(sorted((k, option_key(v)) for k, v in options.items()))
    if isinstance(options, np.ndarray):
        return (options.dtype.str, options.shape, options.tobytes())
    if isinstance(options, (tuple, list)):
        return (type(options).__name__, *map(option_key, options))
    return repr(options)


@dataclass(eq=False)
class Numbers:
    """Numbers of a step that are looked up before every call: what a group of parameters is updated with."""

    look_up: Callable[[], dict[str, float]]
    options: Any  # a group, which counts its changes
    values: dict[str, float]  # when they were looked up last
    variables: dict[str, Var] = field(default_factory=dict)
    version: int | None = None  # of the options then: while it is the same, nothing need be looked up

    def __post_init__(self) -> None:
        self.note()

    def note(self) -> None:
        """Remember how the options are; not if one of them is an array, which may change in place."""
        plain = not any(isinstance(value, (np.ndarray, Tensor)) for value in self.options.values())
        self.version = self.options.version if plain else None

    def same_step(self, values: dict[str, float]) -> bool:
        """Whether, of these values, those that shape the step are as they were."""
        return all(values[name] == value for name, value in self.values.items() if isinstance(value, bool))


@dataclass(eq=False)
class Slot:
    """The gradient of a Tensor, as the call met it. read: whether it looked at it before it set it; before: what was there: None,
    NOT_KEPT, or the input that it is."""

    tensor: Tensor
    read: bool
    before: Any = None


class Trace:
    """The listener of one call. ``instrs`` is what it heard; ``reads`` is what Python was seen to read."""

    lift = True

    def __init__(self, reads: Reads) -> None:
        self.reads = reads
        self.grad = True
        self.instrs: list[Instr] = []
        self.vars: dict[int, Var] = {}  # by id of the array; the Var keeps the array alive
        self.owners: list[Array] = []  # kept alive: ids are of arrays that live
        self.made: set[int] = set()  # ids of what owns the memory of answers
        self.places: dict[
            Any, Var
        ] = {}  # by where an array lies, for views of it that were made without a row (detach)
        self.numbers: list[Numbers] = []
        self.gradients: dict[int, Var] = {}  # id of a Var -> its cotangent, for names
        self.slots: dict[int, Slot] = {}  # by id of the Tensor
        self.masks: list[tuple[Var, int]] = []  # from outside, that say how many elements there are
        self.optimizers: dict[int, Any] = {}
        self.differentiated = False
        self.loss: Var | None = None  # what backward began from
        self.phase = "forward"

    # -- what the engine calls -------------------------------------------------------------------------------------

    def record(
        self, op: Op, values: tuple[Any, ...], options: dict[str, Any], answer: Array, parents: Any = ()
    ) -> Array:
        inputs = [self._operand(v, parents[i] if i < len(parents) else None) for i, v in enumerate(values)]
        expansion = EXPANSIONS.get(op.__name__)
        if expansion is not None and not any(v.dtype == np.float16 for v in (answer, *values) if hasattr(v, "dtype")):
            array = self._expand(expansion, inputs, options)
            self.vars[id(array)].hint = op.__name__
            return array
        self._refuse_arrays(op, options)
        if "out" in options:
            self._in_place(op, inputs, {k: v for k, v in options.items() if k != "out"})
            return answer
        if any(answer is v for v in values):  # np.squeeze of nothing, check_labels
            answer = answer.view()
        out = Var("answer", answer)
        instr = Instr(op, inputs, options, out, self.phase)
        out.maker = instr
        out.base = self._shown(answer, inputs)
        if op.__name__ == "getitem":
            for mask in (v for v in instr.vars[1:] if v.dtype.kind == "b"):
                self._count(mask)
        self._remember(out)
        if out.base is None:
            self.made.add(id(owner_of(answer)))
        self.instrs.append(instr)
        return answer

    def _count(self, mask: Var) -> None:
        """``x[mask]`` has as many elements as the mask has True: one from outside must go on having as many."""
        if mask.root.kind != "external":
            raise CaptureError(
                "x[mask] has as many elements as the mask has True, which may change from call to call, and a captured step has "
                "fixed shapes; keep all elements and use np.where(mask, x, 0)"
            )
        self.masks.append((mask, int(np.count_nonzero(mask.array))))

    def _in_place(self, op: Op, inputs: list[Any], options: dict[str, Any]) -> None:
        """What the row makes goes where its first input lies; of a gradient that an earlier call left, it is a new one."""
        target = inputs[0]
        if target.kind != "input":
            self.instrs.append(Instr(op, inputs, options, target, self.phase, in_place=True))
            return
        out = Var("answer", target.array.copy())
        out.maker = Instr(op, inputs, options, out, self.phase)
        self.instrs.append(out.maker)
        self.vars[id(target.array)] = self.places[place_of(target.array)] = out
        self.owners.append(target.array)

    @staticmethod
    def _refuse_arrays(op: Op, options: dict[str, Any]) -> None:
        """CaptureError for an array that is an option of a row: later calls would not see it change."""
        for key, value in options.items() if options else ():
            if key != "out" and isinstance(value, (np.ndarray, Tensor)):
                raise CaptureError(
                    f"{op.__name__}({key}=...) is given {describe(value)}, which a captured step would keep as it is now; make it "
                    "an operand of the row, or a number or tuple"
                )

    def pulled(self, tensor: Any, i: int, g: Any, part: Any) -> None:
        """`part` is (a share of) the cotangent of argument i of the operation that made `tensor`: remembered to give it a name."""
        if self.loss is None:  # backward begins at its root
            self.loss = self.vars.get(id(tensor._data))
        self.differentiated = True
        parent = tensor._node[1][i]
        known, cotangent = self.vars.get(id(parent._data)), self.vars.get(id(getattr(part, "_data", part)))
        if known is not None and cotangent is not None:
            self.gradients[id(known)] = cotangent

    def reading(self, array: Array, what: str) -> None:
        """A value leaves the graph: refused, but for an array from outside that the program handed over as it was, which is
        compared in later calls."""
        if id(array) in self.reads.lifted:
            self.reads.read_values(array)
            return
        raise CaptureError(
            f"{what} reads the value of {describe(array)} while a step is being captured, so it would be frozen into every "
            "later call; return the Tensor and read it outside, or use np.where instead of a branch on a value"
        )

    def hyper(self, look_up: Callable[[], dict[str, float]], options: dict[str, Any]) -> dict[str, Any]:
        """Numbers that are looked up before every call (a learning rate), as 0-d Tensors of the step; those that are bools
        shape the step, and stay as they are: another one is another step. options: what they are looked up in."""
        numbers = Numbers(look_up, options, look_up())
        self.numbers.append(numbers)
        made: dict[str, Any] = dict(numbers.values)
        for name, value in numbers.values.items():
            if not isinstance(value, bool):
                var = numbers.variables[name] = Var("hyper", np.asarray(value, np.float64), name)
                self._remember(var)
                made[name] = wrap(var.array)
        return made

    def met(self, tensor: Tensor) -> None:
        """A Tensor whose memory another Tensor will show: it is looked at in every call."""
        self._operand(tensor._data, tensor)

    def replaced(self, tensor: Tensor) -> None:
        raise CaptureError(
            f".data = v within a captured step, of {describe(tensor)}, would be done only while that is recorded; write with "
            "no_grad(): t[...] = v, which every call does"
        )

    def gradient_read(self, tensor: Tensor) -> None:
        """The gradient of a Tensor is looked at, or will be added to."""
        if id(tensor) in self.slots:
            return
        before: Any = tensor._grad
        if isinstance(before, Tensor):
            if self.known(before._data) is not None:
                raise CaptureError(
                    f"the gradient of {describe(tensor)} is an array that the step also uses otherwise, so it cannot be told which "
                    "of the two later calls should follow; give it a copy: p.grad = g.copy()"
                )
            before = Var("input", before._data, tensor=before, slot=tensor)
            self._remember(before)
        self.slots[id(tensor)] = Slot(tensor, True, before)

    def gradient_set(self, tensor: Tensor) -> None:
        """A Tensor is given a gradient, or none."""
        self.slots.setdefault(id(tensor), Slot(tensor, False))

    def used(self, optimizer: Any) -> None:
        """An optimizer whose groups are gone through."""
        self.optimizers.setdefault(id(optimizer), optimizer)

    def looked_through(self, module: Any) -> None:
        """A module whose parts are looked for."""
        self.reads.looked_through(module)

    def stored(self, module: Any, name: str, value: Any) -> None:
        """An attribute of a module is set."""
        place = Place("attribute", module, name, f"{name!r} of {type(module).__name__}")
        self.reads.wrote(place)

    def outside(self, tensor: Tensor) -> Var:
        """A Tensor from outside that is read by reference."""
        var = Var("external", tensor._data, tensor=tensor)
        self._remember(var)
        return var

    # -- inside ----------------------------------------------------------------------------------------------------

    def add_input(self, tensor: Tensor, name: str) -> Var:
        var = Var("input", tensor._data, name, tensor)
        self._remember(var)
        return var

    def _remember(self, var: Var) -> None:
        self.vars[id(var.array)] = var
        if var.array.size:
            self.places.setdefault(place_of(var.array), var)

    def known(self, array: Array) -> Var | None:
        """The Var of an array, or of one that lies just where it does (``detach()``)."""
        var = self.vars.get(id(array)) or self.places.get(place_of(array))
        if var is None and array.base is not None and id(owner_of(array)) in self.made:
            raise CaptureError(
                f"{describe(array)} is a view of a result of the step that was made outside the library's operations, so later "
                "calls cannot follow it; index or reshape the Tensor instead"
            )
        return var

    def _operand(self, value: Any, parent: Tensor | None) -> Operand:
        if not isinstance(value, np.ndarray):
            return value  # type: ignore[no-any-return]
        var = self.known(value)
        if var is None:
            var = Var("external", value, tensor=parent)
            self._remember(var)
        elif var.kind == "external" and parent is not None and var.array is not value and value.base is None:
            var.tensor = parent  # which owns the memory, where a view of it was seen first
            self.vars[id(value)] = var
            self.owners.append(value)  # an id in `vars` is of an array that lives
        elif var.kind == "external" and var.tensor is None:
            var.tensor = parent
        return var

    def _expand(self, expansion: Any, inputs: list[Operand], options: dict[str, Any]) -> Array:
        grad, self.grad = self.grad, False
        try:
            return expansion(*(wrap(x.array) if isinstance(x, Var) else x for x in inputs), **options)._data  # type: ignore[no-any-return]
        finally:
            self.grad = grad

    @staticmethod
    def _shown(answer: Array, inputs: list[Operand]) -> Var | None:
        """The input whose memory the answer shows. By memory, not by a flag: a reshape of a transpose copies."""
        for x in inputs:
            if isinstance(x, Var) and answer.size and np.may_share_memory(answer, x.array):
                return x
        return None


def place_of(array: Array) -> Any:
    """Equal for two arrays that show the same memory in the same way, while both live."""
    return array.ctypes.data, array.shape, array.strides, array.dtype
