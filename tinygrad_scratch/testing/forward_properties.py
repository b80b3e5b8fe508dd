"""What is promised of every row in forward mode, which follows from its kind word: it is the transpose of reverse mode."""

from collections.abc import Callable
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from tinygrad_scratch._typing import Array
from tinygrad_scratch.errors import describe
from tinygrad_scratch.registry import Op
from tinygrad_scratch.testing.properties import cotangent_for, differentiable, holds_for
from tinygrad_scratch.transforms import grad, jvp, vjp


def _primals(
    op: Op, inputs: list[Array], options: dict[str, Any]
) -> tuple[Callable[..., Any], list[Array], list[Array]]:
    """The row as a function of its real inputs alone, these, and a tangent for each."""
    real = [i for i, x in enumerate(inputs) if x.dtype.kind == "f"]

    def f(*xs: Any) -> Any:
        given = dict(zip(real, xs, strict=True))
        return op(*(given.get(i, x) for i, x in enumerate(inputs)), **options)

    return f, [inputs[i] for i in real], [1 + cotangent_for(inputs[i]) for i in real]


@holds_for(differentiable)
def forward_mode(op: Op, inputs: list[Array], options: dict[str, Any]) -> None:
    """What its kind word makes of tangents is the transpose of what its rules make of cotangents: <g, J t> = <J' g, t>."""
    f, primals, tangents = _primals(op, inputs, options)
    value, tangent = jvp(f, primals, tangents)
    g = cotangent_for(np.asarray(value))
    pulled = vjp(f, *primals)[1](g)
    assert (tangent.shape, tangent.dtype) == (value.shape, value.dtype), f"the tangent is {describe(tangent)}"
    products = [float(np.vdot(h, t)) for h, t in zip(pulled, tangents, strict=True)]
    size = sum(float(np.vdot(abs(h), abs(t))) for h, t in zip(pulled, tangents, strict=True))
    found = float(np.vdot(g, tangent))
    assert abs(found - sum(products)) <= 1e-10 * size, f"<g, J t> = {found}, <J' g, t> = {sum(products)}"


@holds_for(differentiable)
def forward_over_reverse(op: Op, inputs: list[Array], options: dict[str, Any]) -> None:
    """The Hessian of its sum of sines times a direction: forward over reverse, reverse over reverse and over forward."""
    f, primals, tangents = _primals(op, inputs, options)
    places = tuple(range(len(primals)))

    def loss(*xs: Any) -> Any:
        return np.sum(np.sin(f(*xs)))

    def slope(*xs: Any) -> Any:
        return reduce(add, [np.sum(g * t) for g, t in zip(grad(loss, places)(*xs), tangents, strict=True)])

    forward = jvp(grad(loss, places), primals, tangents)[1]
    back = grad(slope, places)(*primals)
    mixed = grad(lambda *xs: jvp(loss, xs, tangents)[1], places)(*primals)
    for i, (x, y, z) in enumerate(zip(forward, back, mixed, strict=True)):
        scale = 1e-9 * float(np.max(np.abs(y), initial=1.0))
        assert np.allclose(x, y, 1e-9, scale), f"input {i}: forward over reverse {x}, reverse over reverse {y}"
        assert np.allclose(z, y, 1e-9, scale), f"input {i}: reverse over forward {z}, reverse over reverse {y}"
