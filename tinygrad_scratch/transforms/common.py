"""What every transform does first and last: variables of its own, a call that keeps a graph, results of the right kind."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from tinygrad_scratch.context import enable_grad, is_grad_enabled, state
from tinygrad_scratch.errors import GraphError, describe
from tinygrad_scratch.tensor import Tensor
from tinygrad_scratch.trees import leaves, node_of, rebuild

Argnums = int | Sequence[int]


class _inside:  # noqa: N801
    """Counts how many transforms of this thread are running: within another one, gradients keep a graph."""

    def __enter__(self) -> None:
        state.transforms += 1

    def __exit__(self, *_: Any) -> None:
        state.transforms -= 1


class Run:
    """One call of a function on variables of its own.

    trees: the arguments that are differentiated; variables: their leaves, as Tensors; output: what the function returned.
    nested: whether the results are to be differentiated again. tensors: whether they are Tensors, or arrays.
    """

    def __init__(self, trees: tuple[Any, ...], variables: list[Tensor], output: Any, nested: bool, tensors: bool):
        self.trees = trees
        self.variables = variables
        self.output = output
        self.nested = nested
        self.tensors = tensors

    def given(self, values: Sequence[Any]) -> tuple[Any, ...]:
        """`values`, one for each variable, in the form of the arguments, with dicts for modules."""
        return rebuild(self.trees, values, nodes="dict")  # type: ignore[no-any-return]

    def outward(self, x: Any) -> Any:
        """A result as it is handed out: a Tensor, an array, or a number for 0-d."""
        if self.tensors or not isinstance(x, Tensor):
            return x
        return x._data if x.ndim else x._data[()]


def run(f: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], argnums: Argnums | None) -> Run:
    """Call `f` with the leaves of the arguments `argnums` (None: of all) replaced by variables, keeping a graph."""
    numbers = range(len(args)) if argnums is None else normalize_axis_tuple(argnums, len(args), "argnums")
    trees = tuple(args[n] for n in numbers)
    given = leaves(trees)
    nested = is_grad_enabled() and (state.transforms > 0 or any(map(_asks, trees)))
    with enable_grad(), _inside():
        variables = [_variable(x) for x in given]
        fresh = iter(
            [x * 1 if state.rewriting else x for x in variables]
        )  # a name that the function may give new values
        replaced = {n: rebuild(args[n], fresh) for n in numbers}
        output = f(*(replaced.get(n, a) for n, a in enumerate(args)), **kwargs)
    return Run(trees, variables, output, nested, nested or any(isinstance(x, Tensor) for x in given))


def _asks(tree: Any) -> bool:
    """Whether a leaf asks for results that can be differentiated again: not a module's, whose parameters always do."""
    if isinstance(tree, (dict, list, tuple)):
        return any(map(_asks, tree.values() if isinstance(tree, dict) else tree))
    return isinstance(tree, Tensor) and tree.requires_grad and node_of(tree) is None


def _variable(x: Any) -> Tensor:
    """A Tensor of its own for this differentiation, so that the same Tensor used by a closure counts as a constant."""
    if not isinstance(x, Tensor) or not x.requires_grad:
        traced = isinstance(x, Tensor) and not isinstance(state.mode, bool)  # a copy would be lost to the trace
        return x.detach().requires_grad_() if traced else Tensor(x, requires_grad=True)
    variable: Tensor = x * 1
    variable.__class__ = x.__class__  # a module's Parameter stays one, which the module lists
    return variable


def split_aux(output: Any, has_aux: bool) -> tuple[Any, Any]:
    """(what is differentiated, what is handed through) of what a function returned."""
    if not has_aux:
        return output, None
    if not isinstance(output, tuple) or len(output) != 2:
        raise TypeError(f"with has_aux=True the function must return (value, aux), it returned {describe(output)}")
    return output


def tensors_of(output: Any) -> list[Tensor]:
    """The leaves of what a function returned. GraphError for one that is no Tensor."""
    found = leaves(output)
    for x in found:
        if not isinstance(x, Tensor):
            raise GraphError(
                f"the function returned {describe(x)}, which is no Tensor, so its graph is lost: "
                "float(), .item(), .numpy() and constants have no gradient"
            )
    return found


def one_element(output: Any) -> Tensor:
    """The output of a function that has a gradient. GraphError for any other."""
    if not isinstance(output, Tensor):
        tensors_of(output)
        raise GraphError(
            f"the function must return one element to have a gradient, it returned a {type(output).__name__}"
        )
    if output.size != 1:
        raise GraphError(
            f"the function must return one element to have a gradient, it returned {describe(output)}; sum or mean it"
        )
    return output


def zeros_like(x: Tensor) -> Any:
    return np.zeros(x.shape, x.dtype)
