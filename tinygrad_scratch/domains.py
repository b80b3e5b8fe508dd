"""Where a row's inputs may lie: intervals, kinks, shapes and options. Mathematics, so it lives beside the row.

>>> import numpy as np
>>> inputs, options = positive.sample(np.random.default_rng(0), ((2, 3),), {})
>>> inputs[0].shape, bool((inputs[0] > 0).all())
((2, 3), True)
"""

from __future__ import annotations  # np.random, named in them, would be imported: 8 ms

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tinygrad_scratch._typing import Array, Shape

Case = tuple[tuple[Shape, ...], dict[str, Any]]
"""The shapes of a row's inputs, and its options."""


@dataclass(frozen=True)
class Interval:
    """Real numbers from `low` to `high`, no closer than `margin` to any point of `kinks`."""

    low: float = -2.0
    high: float = 2.0
    kinks: tuple[float, ...] = ()
    margin: float = 0.05

    def sample(self, rng: np.random.Generator, shape: Shape) -> Array:
        values = rng.uniform(self.low, self.high, shape)
        for kink in self.kinks:
            near = np.abs(values - kink) < self.margin
            values = np.where(near, kink + np.where(values < kink, -2, 2) * self.margin, values)
        return np.asarray(values)


@dataclass(frozen=True)
class Distinct(Interval):
    """Real numbers that differ from each other by at least a few `margin`: for maxima and sorting."""

    def sample(self, rng: np.random.Generator, shape: Shape) -> Array:
        size = int(np.prod(shape))
        steps = self.low + (self.high - self.low) * (np.arange(size) + rng.uniform(0.3, 0.7)) / max(size, 1)
        return np.asarray(rng.permutation(steps).reshape(shape))


@dataclass(frozen=True)
class Grid(Interval):
    """Real numbers near the points of a grid of width 0.5: on grids whose `phase` differs by 0.25 they never meet."""

    phase: float = 0.0

    def sample(self, rng: np.random.Generator, shape: Shape) -> Array:
        points = self.low + 0.5 * rng.integers(0, int((self.high - self.low) / 0.5) + 1, shape)
        return np.asarray(points + self.phase + rng.uniform(-0.05, 0.05, shape))


@dataclass(frozen=True)
class Integers:
    """Integers from `low` to `high` - 1 (indices, labels): no gradient flows to them."""

    low: int = 0
    high: int = 2

    def sample(self, rng: np.random.Generator, shape: Shape) -> Array:
        return np.asarray(rng.integers(self.low, self.high, shape))


@dataclass(frozen=True)
class Booleans:
    """True and False (conditions)."""

    def sample(self, rng: np.random.Generator, shape: Shape) -> Array:
        return np.asarray(rng.integers(0, 2, shape).astype(bool))


@dataclass(frozen=True)
class Matrices:
    """Matrices in the last two axes, far from singular and from equal singular values: 0.7, 1.1, 1.5, a little off, if there
    are three, and between the same ends if there are more.

    kind: "general"; "symmetric", with eigenvalues of both signs; "positive", symmetric and positive definite.
    """

    kind: str = "general"

    def sample(self, rng: np.random.Generator, shape: Shape) -> Array:
        *stack, m, n = shape
        k = min(m, n)
        s = 0.7 + 0.8 / max(k - 1, 2) * (np.arange(k) + rng.uniform(-0.25, 0.25, (*stack, k)))
        u, _ = np.linalg.qr(rng.standard_normal((*stack, m, k)))
        if self.kind == "general":
            v, _ = np.linalg.qr(rng.standard_normal((*stack, n, k)))
            return np.asarray((u * s[..., None, :]) @ v.mT)
        signs = 1.0 if self.kind == "positive" else (-1.0) ** np.arange(k)
        a = (u * (s * signs)[..., None, :]) @ u.mT
        return np.asarray((a + a.mT) / 2)


Values = Interval | Integers | Booleans | Matrices


@dataclass(frozen=True)
class Domain:
    """The values of each input (the last repeats) and the cases to try; no cases: any shapes that broadcast."""

    values: tuple[Values, ...] = (Interval(),)
    cases: tuple[Case, ...] = field(default=())

    def sample(
        self, rng: np.random.Generator, shapes: tuple[Shape, ...], options: dict[str, Any]
    ) -> tuple[list[Array], dict[str, Any]]:
        """Draw float64 (or integer, or boolean) inputs of these shapes. Returns (inputs, options)."""
        values = self.values + self.values[-1:] * (len(shapes) - len(self.values))
        return [v.sample(rng, shape) for v, shape in zip(values, shapes, strict=False)], options

    def with_cases(self, *cases: Case) -> Domain:
        """This domain, tried at these cases only."""
        return replace(self, cases=cases)


def interval(low: float, high: float, *kinks: float) -> Domain:
    """Every input between `low` and `high`, away from `kinks`."""
    return Domain((Interval(low, high, kinks),))


def inputs(*values: Values) -> Domain:
    """One kind of values for each input."""
    return Domain(values)


def shapes(*shapes: Shape, **options: Any) -> Domain:
    """Real inputs of exactly these shapes."""
    return Domain(cases=((shapes, options),))


reals = Domain()
positive = interval(0.2, 3.0)
nonzero = interval(-2.0, 2.0, 0.0)
unit = interval(-0.9, 0.9)
distinct = Domain((Distinct(),))
