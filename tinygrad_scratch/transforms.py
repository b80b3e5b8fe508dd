"""Functions of functions: grad and value_and_grad over arrays, lists, tuples and dicts. Nest them for higher orders."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from tinygrad_scratch.backward import own, pull
from tinygrad_scratch.context import during, enable_grad, is_grad_enabled, set_grad_enabled, state
from tinygrad_scratch.errors import GraphError, describe
from tinygrad_scratch.tensor import Tensor, seed_cotangent, wrap

Argnums = int | Sequence[int]


def gradients(
    output: Tensor, inputs: Sequence[Tensor], gradient: Any = None, create_graph: bool = False
) -> list[Tensor]:
    """Cotangents of `inputs` for one of `output`, touching no ``grad``. Zeros for an input it does not depend on.

    The inputs may be leaves or any Tensors on the way; each gets its whole cotangent.
    GraphError if one of them requires no gradient.

    >>> x = Tensor(3.0, requires_grad=True)
    >>> y = x * x
    >>> [g.item() for g in gradients(y * y, [x, y])]
    [108.0, 18.0]
    """
    if not all(x.requires_grad for x in inputs):
        lost = next(x for x in inputs if not x.requires_grad)
        raise GraphError(f"gradients: an input, {describe(lost)}, requires no gradient, so no operation on it was kept")
    return _cotangents(output, inputs, gradient, create_graph, keep={id(x) for x in inputs})


def _cotangents(
    output: Tensor, inputs: Sequence[Tensor], gradient: Any, create_graph: bool, **ends: set[int]
) -> list[Tensor]:
    """What gradients returns. ends: pull's ``keep``, or its ``stop`` where no input depends on another."""
    mode = state.mode
    lift = create_graph or (not isinstance(mode, bool) and mode.lift)
    seed = seed_cotangent(output, gradient, lift)
    with set_grad_enabled(create_graph), np.errstate(all="ignore"), during("backward"):
        found = pull(output, seed, lift, **ends) if output.requires_grad else {}
    parts = [found[id(x)][1] if id(x) in found else np.zeros_like(x._data) for x in inputs]
    if lift:
        return [p if isinstance(p, Tensor) else wrap(p) for p in parts]
    return [wrap(array) for array in own(parts, [output._data, seed])]


def value_and_grad(f: Callable[..., Any], argnums: Argnums = 0) -> Callable[..., tuple[Any, Any]]:
    """A function that returns (f(*args), its gradient with respect to the argument or arguments `argnums`).

    Arguments may be arrays, numbers, Tensors, or lists, tuples and dicts of them; the gradient has the same structure.
    Arrays in, arrays out. Given Tensors that require gradients, or called within another transform, both results are
    Tensors that can be differentiated again.
    `f` must return one element. TypeError for integer arguments.

    >>> value, slope = value_and_grad(lambda v: np.sum(v**3))(np.array([1.0, 2.0]))
    >>> float(value), slope
    (9.0, array([ 3., 12.]))
    """

    @wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        numbers = normalize_axis_tuple(argnums, len(args), "argnums")
        given = [leaf for n in numbers for leaf in leaves(args[n])]
        differentiable = state.transforms > 0 or any(isinstance(x, Tensor) and x.requires_grad for x in given)
        nested = is_grad_enabled() and differentiable
        with enable_grad(), _inside():
            variables = [_variable(x) for x in given]
            fresh = iter(variables)
            replaced = {n: rebuild(args[n], fresh) for n in numbers}
            output = f(*(replaced.get(n, a) for n, a in enumerate(args)), **kwargs)
        if not isinstance(output, Tensor):
            raise GraphError(
                f"the function returned {describe(output)}, which is no Tensor, so its graph is lost: "
                "float(), .item(), .numpy() and constants have no gradient"
            )
        if output.size != 1:
            raise GraphError(
                f"the function must return one element to have a gradient, it returned {describe(output)}; "
                "sum or mean it"
            )
        found = _cotangents(output, variables, None, nested, stop={id(x) for x in variables})
        tensors = nested or any(isinstance(x, Tensor) for x in given)
        results = iter(found if tensors else [g._data if g.ndim else g._data[()] for g in found])
        slopes = tuple(rebuild(args[n], results) for n in numbers)
        value = output if tensors else output._data[()]
        return value, slopes[0] if isinstance(argnums, int) else slopes

    return wrapped


def grad(f: Callable[..., Any], argnums: Argnums = 0) -> Callable[..., Any]:
    """The gradient of `f`, a function that returns one element. See value_and_grad.

    >>> grad(grad(lambda v: v**4))(2.0)
    np.float64(48.0)
    """
    both = value_and_grad(f, argnums)

    @wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return both(*args, **kwargs)[1]

    return wrapped


def leaves(tree: Any) -> list[Any]:
    """The arrays of nested lists, tuples and dicts, in order (dicts in insertion order)."""
    if isinstance(tree, dict):
        return [leaf for value in tree.values() for leaf in leaves(value)]
    if isinstance(tree, (list, tuple)):
        return [leaf for value in tree for leaf in leaves(value)]
    return [tree]


def rebuild(tree: Any, values: Any) -> Any:
    """`tree` with its leaves replaced, in order, by those that the iterator `values` gives."""
    if isinstance(tree, dict):
        return {key: rebuild(value, values) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        items = [rebuild(value, values) for value in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    return next(values)


class _inside:  # noqa: N801
    """Counts how many transforms of this thread are running: within another one, gradients keep a graph."""

    def __enter__(self) -> None:
        state.transforms += 1

    def __exit__(self, *_: Any) -> None:
        state.transforms -= 1


def _variable(x: Any) -> Tensor:
    """A Tensor of its own for this differentiation, so that the same Tensor used by a closure counts as a constant."""
    if isinstance(x, Tensor) and x.requires_grad:
        return x * 1
    return Tensor(x, requires_grad=True)
