"""Recording: a listener that writes every operation of one call into a flat list of instructions.

Arrays are known by identity: each is an input of the step, something outside that is read by reference (a parameter, an
optimizer's buffer), or the answer of an instruction. A fused row is written as the rows it stands for (``expand``), so that
later passes see one small set of primitives.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygrad_scratch._typing import Array, Shape
from tinygrad_scratch.capture.expand import EXPANSIONS
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

    @property
    def shape(self) -> Shape:
        return self.array.shape

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
    """One row applied: ``out = op(*inputs, **options)``. With ``in_place``, out is also inputs[0] and is changed."""

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
        return (self.op.__name__, inputs, repr(sorted(self.options)), self.out.shape, self.in_place)


class Trace:
    """The listener of one call. ``instrs`` is what it heard."""

    lift = True

    def __init__(self) -> None:
        self.grad = True
        self.instrs: list[Instr] = []
        self.vars: dict[int, Var] = {}  # by id of the array; the Var keeps the array alive
        self.hypers: list[tuple[Var, Callable[[], dict[str, float]], str]] = []
        self.gradients: dict[int, Var] = {}  # id of a Var -> its cotangent, for names
        self.leaf_grads: list[tuple[Tensor, Tensor]] = []
        self.loss: Var | None = None  # what backward began from
        self.phase = "forward"

    # -- what the engine calls -------------------------------------------------------------------------------------

    def record(self, op: Op, values: tuple[Any, ...], options: dict[str, Any], answer: Array, parents: Any = ()) -> Array:
        inputs = [self._operand(v, parents[i] if i < len(parents) else None) for i, v in enumerate(values)]
        expansion = EXPANSIONS.get(op.__name__)
        if expansion is not None and "out" not in options:
            array = self._expand(expansion, inputs, options)
            self.vars[id(array)].hint = op.__name__
            return array
        if "out" in options:
            self.instrs.append(Instr(op, inputs, {}, inputs[0], self.phase, in_place=True))  # type: ignore[arg-type]
            return answer
        out = Var("answer", answer)
        instr = Instr(op, inputs, options, out, self.phase)
        out.maker = instr
        out.base = self._shown(answer, inputs)
        self._remember(out)
        self.instrs.append(instr)
        return answer

    def pulled(self, tensor: Any, i: int, g: Any, part: Any) -> None:
        """`part` is (a share of) the cotangent of argument i of the operation that made `tensor`: remembered to give it a name."""
        if self.loss is None:  # backward begins at its root
            self.loss = self.vars.get(id(tensor._data))
        parent = tensor._node[1][i]
        known, cotangent = self.vars.get(id(parent._data)), self.vars.get(id(getattr(part, "_data", part)))
        if known is not None and cotangent is not None:
            self.gradients[id(known)] = cotangent

    def reading(self, array: Array, what: str) -> None:
        raise CaptureError(
            f"{what} reads the value of {describe(array)} while a step is being captured, so it would be frozen into every "
            "later call; return the Tensor and read it outside, or use np.where instead of a branch on a value"
        )

    def hyper(self, look_up: Callable[[], dict[str, float]]) -> dict[str, Tensor]:
        """Numbers that are looked up before every call (a learning rate), as 0-d Tensors of the step."""
        made = {}
        for name, value in look_up().items():
            var = Var("hyper", np.asarray(value, dtype=np.float64), name)
            self._remember(var)
            made[name] = wrap(var.array)
            self.hypers.append((var, look_up, name))
        return made

    def outside(self, tensor: Tensor) -> Var:
        """A Tensor from outside that is read by reference."""
        var = Var("external", tensor._data, tensor=tensor)
        self._remember(var)
        return var

    # -- inside ----------------------------------------------------------------------------------------------------

    def add_input(self, array: Array, name: str) -> Var:
        var = Var("input", array, name)
        self._remember(var)
        return var

    def _remember(self, var: Var) -> None:
        self.vars[id(var.array)] = var

    def _operand(self, value: Any, parent: Tensor | None) -> Operand:
        if not isinstance(value, np.ndarray):
            return value  # type: ignore[no-any-return]
        var = self.vars.get(id(value))
        if var is None:
            var = Var("external", value, tensor=parent)
            self._remember(var)
            if parent is not None and parent.grad is not None:
                self.leaf_grads.append((parent, parent.grad))
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
