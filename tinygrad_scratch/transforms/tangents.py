"""Forward mode: jvp, linearize and, forward over reverse, hvp."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_scratch.context import set_grad_enabled, state
from tinygrad_scratch.forward import push
from tinygrad_scratch.tensor import Tensor, as_tensor, wrap
from tinygrad_scratch.transforms.common import Run, run, tensors_of, zeros_like
from tinygrad_scratch.transforms.reverse import grad
from tinygrad_scratch.trees import leaves_like, rebuild


def jvp(f: Callable[..., Any], primals: Any, tangents: Any) -> tuple[Any, Any]:
    """(f(*primals), its derivative along `tangents`).

    primals, tangents: tuples (or lists) of the same form; f may return arrays in lists, tuples and dicts. ValueError
    where a tangent has another shape than its primal. Differentiable in both, forward and in reverse.

    >>> jvp(lambda a, b: a * b, (2.0, 3.0), (1.0, 10.0))
    (np.float64(6.0), np.float64(23.0))
    """
    value, push_forward = linearize(f, *_tuple(primals, "primals"))
    return value, push_forward(*_tuple(tangents, "tangents"))


def _tuple(given: Any, what: str) -> Any:
    if not isinstance(given, (tuple, list)):
        raise TypeError(f"jvp: {what} must be a tuple, one for each argument of the function: (x,) for one")
    return given


def linearize(f: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """(f(*primals), the linear function that maps tangents of the primals to that of the output); f is called once.

    >>> value, slope = linearize(np.sin, np.zeros(2))
    >>> slope(np.array([1.0, 2.0])), slope(np.array([0.0, 3.0]))
    (array([1., 2.]), array([0., 3.]))
    """
    call = run(f, primals, {}, None)
    outputs = tensors_of(call.output)

    def push_forward(*tangents: Any) -> Any:
        """The tangent of the output for tangents of the primals."""
        given = leaves_like(primals, tangents, "the tangents")
        nested = call.nested or any(isinstance(t, Tensor) and t.requires_grad for t in given)
        found = pushed(call, outputs, given, nested)
        return rebuild(call.output, found if nested else [call.outward(t) for t in found])

    values = outputs if call.nested else [wrap(x._data) for x in outputs]
    return rebuild(call.output, map(call.outward, values)), push_forward


def pushed(call: Run, outputs: list[Tensor], tangents: list[Any], nested: bool) -> list[Tensor]:
    """The tangents of `outputs` for one of each variable, as Tensors; zeros where they do not depend on one."""
    mode = state.mode
    lift = nested or (not isinstance(mode, bool) and mode.lift)
    seeds: dict[int, Any] = {}
    for x, t in zip(call.variables, tangents, strict=True):
        seeds[id(x)] = as_tensor(t, x.dtype) if lift else np.asarray(getattr(t, "_data", t), x.dtype)
    with set_grad_enabled(nested), np.errstate(all="ignore"):
        found = push(outputs, seeds, lift)
    complete = [zeros_like(y) if t is None else t for y, t in zip(outputs, found, strict=True)]
    return [t if isinstance(t, Tensor) else wrap(_own(t, seeds)) for t in complete]


def _own(t: Any, seeds: dict[int, Any]) -> Any:
    """A tangent that shares no memory with what the caller gave, and can be written."""
    t = np.asarray(t)
    shared = not t.flags.writeable or any(np.may_share_memory(t, given) for given in seeds.values())
    return t.copy() if shared else t


def hvp(f: Callable[..., Any], primals: Any, tangents: Any) -> Any:
    """The Hessian of `f`, which returns one element, times `tangents`: forward over reverse, at the cost of few gradients.

    primals, tangents: tuples, as in jvp. Returns what grad(f, all arguments) would: one for each, or for the only one.

    >>> hvp(lambda v: np.sum(v**3), (np.array([1.0, 2.0]),), (np.array([1.0, 1.0]),))
    array([ 6., 12.])
    """
    primals = _tuple(primals, "primals")
    product = jvp(grad(f, argnums=tuple(range(len(primals)))), primals, tangents)[1]
    return product[0] if len(primals) == 1 else product
