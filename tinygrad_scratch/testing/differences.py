"""Reverse mode against finite differences: the one check that needs no formula."""

import inspect
from collections.abc import Callable, Sequence
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from tinygrad_scratch._typing import Array
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
) -> None:
    """Assert that the gradients of `f` are its derivatives, along a random direction of each argument.

    Parameters
    ----------
    f: takes Tensors, returns a Tensor of any shape (one that is not a scalar is contracted with a random cotangent).
    arrays: where to check. float64; arrays of integers and booleans are passed on as constants.
    order: 2 also checks the gradient of the gradient, and so on.
    step: half-width of the differences: five-point stencil (Abramowitz & Stegun 25.3.6), error of order ``step**4``.
        The function must be smooth within two steps of the arrays.
    rtol, atol: the difference allowed, relative to the derivative, and to the value of `f` where that is above 1.
    rng: Generator or seed of the directions and cotangents.

    Raises
    ------
    AssertionError: names the argument, its worst element, and both derivatives there.
    TypeError: dtypes other than float64, whose rounding would drown the differences; a function that returns no Tensor.

    >>> check_grad(lambda x: np.sum(np.sin(x)), np.ones(3), order=2)
    >>> check_grad(lambda x: np.sin(x) + np.cos(x.detach()), np.ones(3))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    AssertionError: gradient of argument 0 ('x'), float64(3,): 3 of 3 elements are wrong, worst at (...
    """
    generator = np.random.default_rng(rng)
    points: list[Array] = [_point(array, i) for i, array in enumerate(arrays)]
    wanted = [i for i, point in enumerate(points) if point.dtype.kind == "f"]
    names = _names(f, len(points))
    for depth in range(1, order + 1):
        cotangent = generator.standard_normal(_evaluate(f, points).shape)
        _compare(f, points, wanted, names, cotangent, depth, step, rtol, atol, generator)
        if depth < order:
            f = _slope(f, wanted, cotangent, [np.asarray(generator.standard_normal(points[i].shape)) for i in wanted])


def _compare(
    f: Callable[..., Any], points: list[Array], wanted: list[int], names: list[str], cotangent: Array, depth: int,
    step: float, rtol: float, atol: float, generator: np.random.Generator,
) -> None:  # fmt: skip
    """One order: each argument's gradient, contracted with a direction, and the difference along it."""

    def value(i: int, point: Any) -> float:
        return float(np.vdot(cotangent, _evaluate(f, [*points[:i], point, *points[i + 1 :]])._data))

    found = _gradients(f, points, wanted, cotangent)
    scale = max(1.0, abs(float(np.vdot(cotangent, _evaluate(f, points)._data))))
    for i, gradient in zip(wanted, found, strict=True):
        what = f"{'gradient of ' * depth}{names[i]}, {describe(points[i])}"
        assert gradient.shape == points[i].shape, f"{what}: its shape is {gradient.shape}"
        direction = np.asarray(generator.standard_normal(points[i].shape))
        direction = direction / max(float(np.linalg.norm(direction)), 1e-300)
        derived, difference = float(np.vdot(gradient, direction)), _difference(value, i, points[i], direction, step)
        assert np.isfinite([derived, difference]).all(), f"{what} is not finite: {derived}, by differences {difference}"
        if abs(derived - difference) > rtol * max(abs(derived), abs(difference)) + atol * scale:
            where = _worst(value, i, points[i], gradient, step, generator)
            raise AssertionError(
                f"{what}: {where}; along a random direction {derived:.9g}, by differences {difference:.9g}"
            )


def _difference(value: Callable[[int, Any], float], i: int, point: Array, direction: Any, step: float) -> float:
    near, far = (value(i, point + n * step * direction) - value(i, point - n * step * direction) for n in (1, 2))
    return (8 * near - far) / (12 * step)


def _worst(
    value: Callable[[int, Any], float],
    i: int,
    point: Array,
    gradient: Array,
    step: float,
    generator: np.random.Generator,
) -> str:
    """Which element is wrong most: found only once the check has failed."""
    looked_at = generator.permutation(point.size)[:_LOOKED_AT]
    errors, pairs = [], []
    for flat in looked_at:
        unit = np.zeros(point.size)
        unit[flat] = 1.0
        pairs.append((float(gradient.flat[flat]), _difference(value, i, point, unit.reshape(point.shape), step)))
        errors.append(abs(pairs[-1][0] - pairs[-1][1]))
    k = int(np.argmax(errors))
    wrong = sum(error > 1e-5 * max(1.0, *map(abs, pair)) for error, pair in zip(errors, pairs, strict=True))
    index = tuple(map(int, np.unravel_index(looked_at[k], point.shape)))
    return (
        f"{wrong} of {len(looked_at)} elements are wrong, worst at {index}: "
        f"{pairs[k][0]:.9g}, by differences {pairs[k][1]:.9g} (error {errors[k]:.3g})"
    )


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
