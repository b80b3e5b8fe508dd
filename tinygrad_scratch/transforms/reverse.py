"""Reverse mode: gradients, grad, value_and_grad and vjp."""

from collections.abc import Callable, Sequence
from functools import reduce, wraps
from operator import add
from typing import Any

import numpy as np

from tinygrad_scratch.backward import own, pull
from tinygrad_scratch.context import during, enable_grad, set_grad_enabled, state
from tinygrad_scratch.errors import GraphError, describe
from tinygrad_scratch.tensor import Tensor, as_tensor, seed_cotangent, wrap
from tinygrad_scratch.transforms.common import Argnums, one_element, run, split_aux, tensors_of
from tinygrad_scratch.trees import leaves, leaves_like, rebuild


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
    return cotangents(output, inputs, gradient, create_graph, keep={id(x) for x in inputs})


def cotangents(
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


def value_and_grad(
    f: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False
) -> Callable[..., tuple[Any, Any]]:
    """A function that returns (f(*args), its gradient with respect to the argument or arguments `argnums`).

    Arguments may be arrays, numbers, Tensors, modules, or lists, tuples and dicts of them; the gradient has the same
    structure, with a dict {path: gradient} for a module. Arrays in, arrays out. Given Tensors that require gradients, or
    called within another transform, both results are Tensors that can be differentiated again.
    `f` must return one element or, with `has_aux`, (one element, anything): then the result is ((value, aux), gradient).
    TypeError for integer arguments.

    >>> value, slope = value_and_grad(lambda v: np.sum(v**3))(np.array([1.0, 2.0]))
    >>> float(value), slope
    (9.0, array([ 3., 12.]))
    """

    @wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        call = run(f, args, kwargs, argnums)
        output, aux = split_aux(call.output, has_aux)
        value = one_element(output)
        found = cotangents(value, call.variables, None, call.nested, stop={id(x) for x in call.variables})
        slopes = call.given([call.outward(g) for g in found])
        if not call.nested:
            value = wrap(value._data)
            aux = rebuild(aux, [wrap(x._data) if isinstance(x, Tensor) else x for x in leaves(aux)])
        result = call.outward(value)
        if has_aux:
            result = result, rebuild(aux, map(call.outward, leaves(aux)))
        return result, slopes[0] if isinstance(argnums, int) else slopes

    return wrapped


def grad(f: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Any]:
    """The gradient of `f`, a function that returns one element; with `has_aux`, (gradient, aux). See value_and_grad.

    >>> grad(grad(lambda v: v**4))(2.0)
    np.float64(48.0)
    """
    both = value_and_grad(f, argnums, has_aux)

    @wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        value, slope = both(*args, **kwargs)
        return (slope, value[1]) if has_aux else slope

    return wrapped


def vjp(f: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """(f(*primals), the function that maps a cotangent of it to the cotangents of all `primals`).

    `f` may return an array of any shape, or lists, tuples and dicts of them: cotangents have that form, and the results
    the form of the primals. Linear in the cotangent, and differentiable in it and in the primals.

    >>> y, pull_back = vjp(lambda a, b: a * b, np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    >>> pull_back(np.array([1.0, 10.0]))
    (array([ 3., 40.]), array([ 1., 20.]))
    """
    call = run(f, primals, {}, None)
    outputs = tensors_of(call.output)

    def pull_back(cotangent: Any) -> tuple[Any, ...]:
        """Cotangents of the primals for one of the output."""
        seeds = leaves_like(call.output, cotangent, "the cotangent")
        nested = call.nested or any(isinstance(g, Tensor) and g.requires_grad for g in seeds)
        root, seed = one_root(outputs, seeds)
        found = cotangents(root, call.variables, seed, nested, stop={id(x) for x in call.variables})
        return call.given(found if nested else [call.outward(g) for g in found])

    values = outputs if call.nested else [wrap(x._data) for x in outputs]
    return rebuild(call.output, map(call.outward, values)), pull_back


def one_root(outputs: list[Tensor], seeds: list[Any]) -> tuple[Tensor, Any]:
    """One Tensor to begin from: of several outputs the sum of <cotangent, output>, whose cotangent is 1."""
    if len(outputs) == 1:
        return outputs[0], seeds[0]
    with enable_grad():
        terms = [np.sum(y * as_tensor(g).astype(y.dtype)) for y, g in zip(outputs, seeds, strict=True)]
        return reduce(add, terms, Tensor(0.0)), None
