"""Reverse mode against finite differences or the complex step: the one check that needs no formula.

Where it fails it says which argument, element and operation are wrong, and whether there is a kink.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from tinygrad_scratch._typing import Array
from tinygrad_scratch.backward import project
from tinygrad_scratch.errors import describe
from tinygrad_scratch.tensor import Tensor
from tinygrad_scratch.transforms import gradients

_LOOKED_AT = 512  # elements of an argument that a failed check compares one by one


def check_grad(
    f: Callable[..., Any],
    *arrays: Any,
    order: int = 1,
    step: float = 1e-4,
    rtol: float = 1e-6,
    atol: float = 1e-8,
    rng: Any = 0,
    method: str = "differences",
    kinks: bool = False,
) -> None:
    """Assert that the gradients of `f` are its derivatives, along a random direction of each argument.

    Parameters
    ----------
    f: takes Tensors, returns a Tensor of any shape (one that is not a scalar is contracted with a random cotangent).
    arrays: where to check. float64; arrays of integers and booleans are passed on as constants.
    order: 2 also checks the gradient of the gradient, and so on.
    step: half-width of the differences: five-point stencil (Abramowitz & Stegun 25.3.6), error of order ``step**4``.
        Where a kink lies within two steps, but not at the arrays, smaller steps decide.
    rtol, atol: the difference allowed, relative to the derivative, and to the value of `f` where that is above 1.
    rng: Generator or seed of the directions and cotangents.
    method: "complex" takes Im f(x + ih) / h (Squire and Trapp 1998), which has no rounding: for an `f` of NumPy functions
        that are analytic, on arrays. For order 1.
    kinks: where the slopes from the two sides differ, any slope between them is right. Else a kink is named and fails.

    Raises
    ------
    AssertionError: names the argument, its worst element, both derivatives there, and the operation whose rule is wrong.
    TypeError: dtypes other than float64, whose rounding would drown the differences; a function that returns no Tensor.

    >>> check_grad(lambda x: np.sum(np.sin(x)), np.ones(3), order=2)
    >>> check_grad(lambda x: np.sin(x) + np.cos(x.detach()), np.ones(3))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    AssertionError: gradient of argument 0 ('x'), float64(3,): 3 of 3 elements are wrong, worst at (...
    """
    if method not in ("differences", "complex") or (method == "complex" and order > 1):
        raise ValueError(f"check_grad: method is 'differences', or 'complex' for order 1, not {method!r} for {order}")
    generator = np.random.default_rng(rng)
    points: list[Array] = [_point(array, i) for i, array in enumerate(arrays)]
    wanted = [i for i, point in enumerate(points) if point.dtype.kind == "f"]
    names = _names(f, len(points))
    for depth in range(1, order + 1):
        cotangent = generator.standard_normal(_evaluate(f, points).shape)
        check = _Check(f, points, cotangent, step, rtol, atol, method, kinks, generator)
        found = _gradients(f, points, wanted, cotangent)
        for i, gradient in zip(wanted, found, strict=True):
            check.compare(i, gradient, f"{'gradient of ' * depth}{names[i]}, {describe(points[i])}")
        if depth < order:
            f = _slope(f, wanted, cotangent, [np.asarray(generator.standard_normal(points[i].shape)) for i in wanted])


@dataclass
class _Check:
    """One function at one place: what its derivatives are by differences, and how far from them is allowed."""

    f: Callable[..., Any]
    points: list[Array]
    cotangent: Array
    step: float
    rtol: float
    atol: float
    method: str
    kinks: bool
    generator: np.random.Generator

    def value(self, i: int, point: Any) -> float:
        """The function, contracted with the cotangent, with another argument i."""
        return float(np.vdot(self.cotangent, _evaluate(self.f, [*self.points[:i], point, *self.points[i + 1 :]])._data))

    def compare(self, i: int, gradient: Array, what: str) -> None:
        """The gradient of argument i, contracted with a direction, and the difference along it."""
        point = self.points[i]
        assert gradient.shape == point.shape, f"{what}: its shape is {gradient.shape}"
        direction = np.asarray(self.generator.standard_normal(point.shape))
        direction = direction / max(float(np.linalg.norm(direction)), 1e-300)
        derived, difference = float(np.vdot(gradient, direction)), self.difference(i, direction)
        assert np.isfinite([derived, difference]).all(), f"{what} is not finite: {derived}, by differences {difference}"
        if not self.close(i, derived, difference) and not self.explained(i, direction, derived):
            where = self.worst(i, gradient)
            raise AssertionError(
                f"{what}: {where}; along a random direction {derived:.9g}, by differences {difference:.9g}"
                f"{'' if 'a kink' in where else self.culprit()}"
            )

    def close(self, i: int, derived: float, difference: float, looser: float = 1) -> bool:
        """Whether two derivatives agree, up to the tolerances."""
        scale = max(1.0, abs(self.value(i, self.points[i])))
        allowed = self.rtol * max(abs(derived), abs(difference)) + self.atol * scale
        return abs(derived - difference) <= allowed * looser

    def difference(self, i: int, direction: Array, step: float | None = None) -> float:
        """The derivative along a direction, without a rule."""
        point, step = self.points[i], step or self.step
        if self.method == "complex":
            moved = _on_arrays(self.f, [*self.points[:i], point + 1e-30j * direction, *self.points[i + 1 :]])
            return float(np.vdot(self.cotangent, np.imag(moved))) / 1e-30
        near, far = (
            self.value(i, point + n * step * direction) - self.value(i, point - n * step * direction) for n in (1, 2)
        )
        return (8 * near - far) / (12 * step)

    def slopes(self, i: int, direction: Array) -> tuple[float, float]:
        """The slopes along a direction from below and from above, to second order."""
        point, h = self.points[i], 1e-5
        here = self.value(i, point)
        sides = []
        for sign in (-1, 1):
            one, two = (self.value(i, point + sign * n * h * direction) - here for n in (1, 2))
            sides.append(sign * (4 * one - two) / (2 * h))
        return sides[0], sides[1]

    def kinked(self, i: int, direction: Array) -> tuple[float, float] | None:
        """The two slopes at a kink; None where they are one."""
        below, above = self.slopes(i, direction)
        return None if abs(below - above) <= 1e-4 * max(1.0, abs(below), abs(above)) else (below, above)

    def explained(self, i: int, direction: Array, derived: float) -> bool:
        """Whether a kink is why: one nearby, which smaller steps do not reach; or, if that is allowed, one here."""
        if self.method == "complex":
            return False
        sides = self.kinked(i, direction)
        if sides is not None:
            return self.kinks and min(sides) - 1e-4 <= derived <= max(sides) + 1e-4
        smaller = [self.difference(i, direction, self.step * shorter) for shorter in (1e-1, 1e-2)]
        return any(self.close(i, derived, s, 10) for s in smaller) and self.wobbles(i, direction, smaller[-1])

    def wobbles(self, i: int, direction: Array, slope: float) -> bool:
        """Whether the difference over whole steps is far from that over short ones: something lies in between."""
        return not self.close(i, self.difference(i, direction), slope, 1e2)

    def worst(self, i: int, gradient: Array) -> str:
        """Which element is wrong most: found only once the check has failed."""
        point = self.points[i]
        looked_at = self.generator.permutation(point.size)[:_LOOKED_AT]
        errors, pairs = [], []
        for flat in looked_at:
            pairs.append((float(gradient.flat[flat]), self.difference(i, _unit(point, flat))))
            errors.append(abs(pairs[-1][0] - pairs[-1][1]))
        k = int(np.argmax(errors))
        wrong = sum(error > 1e-5 * max(1.0, *map(abs, pair)) for error, pair in zip(errors, pairs, strict=True))
        index = tuple(map(int, np.unravel_index(looked_at[k], point.shape)))
        sides = None if self.method == "complex" else self.kinked(i, _unit(point, looked_at[k]))
        kink = "" if sides is None else f", a kink: the slopes from its sides are {sides[0]:.6g} and {sides[1]:.6g}"
        return (
            f"{wrong} of {len(looked_at)} elements are wrong, worst at {index}{kink}: "
            f"{pairs[k][0]:.9g}, by differences {pairs[k][1]:.9g} (error {errors[k]:.3g})"
        )

    def culprit(self) -> str:
        """Which operation of the graph has a rule that is not its derivative, if it is one alone that can be found."""
        output = _evaluate(self.f, self.points)
        found = [text for tensor in _graph(output) if (text := _broken_rule(tensor, self.generator))]
        return f"; the rule of {found[0]} is wrong" if found else ""


def _unit(point: Array, flat: Any) -> Array:
    unit = np.zeros(point.size)
    unit[flat] = 1.0
    return unit.reshape(point.shape)


def _on_arrays(f: Callable[..., Any], points: list[Any]) -> Any:
    try:
        return np.asarray(f(*points))
    except TypeError as error:
        error.add_note(
            "check_grad(method='complex') calls the function with complex arrays: write it in NumPy functions"
        )
        raise


def _graph(output: Tensor) -> list[Tensor]:
    """The Tensors that `output` was made of, newest first."""
    seen: dict[int, Tensor] = {}
    waiting = [output]
    while waiting:
        tensor = waiting.pop()
        if tensor._node is not None and id(tensor) not in seen:
            seen[id(tensor)] = tensor
            waiting += [p for p in tensor._node[1] if p is not None]
    return sorted(seen.values(), key=lambda x: -x._rank)


def _broken_rule(tensor: Tensor, generator: np.random.Generator) -> str:
    """``argument 0 of exp(float64(3,))`` where its rule is not the derivative at the values that it was given."""
    op, parents, values, options = tensor._node  # type: ignore[misc]
    g = np.asarray(generator.standard_normal(tensor.shape))
    for i, parent in enumerate(parents):
        rule = op.rules[0] if op.variadic else op.rules[i]
        if parent is None or not parent.requires_grad or rule is None:
            continue
        part = rule(g, tensor._data, *values, **options)
        part = project(part(i) if op.variadic else part, parent.shape, np.dtype(np.float64))
        direction = np.asarray(generator.standard_normal(parent.shape))

        def at(t: float, i: int = i, direction: Array = direction) -> float:
            moved = [v + t * direction if i == j else v for j, v in enumerate(values)]
            return float(np.vdot(g, op.fn(*moved, **options)))

        h = 1e-5
        try:
            slope, derived = (at(h) - at(-h)) / (2 * h), float(np.vdot(part, direction))
        except (ValueError, TypeError):  # an operation that takes no input beside this one, symmetric matrices say
            continue
        if not abs(slope - derived) <= 1e-4 * max(1.0, abs(slope), abs(derived)):
            return f"argument {i} of {op.__name__}({', '.join(map(describe, values))})"
    return ""


def _slope(
    f: Callable[..., Any], wanted: list[int], cotangent: Array, directions: Sequence[Array]
) -> Callable[..., Tensor]:
    """The gradient of `f` along `directions`, as a function that can be differentiated again."""

    def slope(*tensors: Any) -> Tensor:
        found = gradients(f(*tensors), [tensors[i] for i in wanted], cotangent, create_graph=True)
        return reduce(add, [np.sum(g * d) for g, d in zip(found, directions, strict=True)], Tensor(0.0))

    return slope


def _gradients(f: Callable[..., Any], points: list[Array], wanted: list[int], cotangent: Array) -> list[Array]:
    tensors = _tensors(points)
    return [g._data for g in gradients(f(*tensors), [tensors[i] for i in wanted], cotangent)]


def _evaluate(f: Callable[..., Any], points: list[Array]) -> Tensor:
    output = f(*_tensors(points))
    if not isinstance(output, Tensor):
        raise TypeError(f"check_grad: the function returned {describe(output)}, not a Tensor, so its graph is lost")
    return output


def _tensors(points: list[Array]) -> list[Any]:
    return [Tensor(point, requires_grad=True) if point.dtype.kind == "f" else point for point in points]


def _point(array: Any, i: int) -> Array:
    point = np.asarray(array._data if isinstance(array, Tensor) else array)
    if point.dtype == np.float64 or point.dtype.kind in "iub":
        return point
    raise TypeError(
        f"check_grad: argument {i} is {describe(point)}, whose rounding would drown the differences; "
        "pass x.astype(np.float64)"
    )


def _names(f: Callable[..., Any], count: int) -> list[str]:
    try:
        parameters = list(inspect.signature(f).parameters.values())[:count]
    except (TypeError, ValueError):
        parameters = []
    known = [f" ({p.name!r})" if p.kind is not p.VAR_POSITIONAL else "" for p in parameters]
    return [f"argument {i}{known[i] if i < len(known) else ''}" for i in range(count)]
