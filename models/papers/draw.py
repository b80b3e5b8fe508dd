"""The figures' common forms: panels of curves, bars, images. Each is given plain numbers and gives PNG bytes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from models.data import Array
from models.plots import BLUE, GREEN, GREY, ORANGE, RED, new_figure, png

COLOURS = (BLUE, ORANGE, GREEN, RED, "#cc79a7", "#56b4e9", GREY, "#000000")


@dataclass(frozen=True)
class Curve:
    """y by x. faint: many noisy points, which are drawn thin."""

    x: Sequence[float]
    y: Sequence[float]
    label: str = ""
    faint: bool = False


@dataclass(frozen=True)
class Panel:
    """Axes with curves. limits: of y. marks: vertical lines at x, with their labels."""

    title: str
    curves: Sequence[Curve]
    x: str
    y: str
    limits: tuple[float, float] | None = None
    logarithmic: bool = False
    marks: Sequence[tuple[float, str]] = field(default=())
    points: bool = False


def panels(title: str, parts: Sequence[Panel], columns: int = 1, width: float = 6.4, height: float = 4.2) -> bytes:
    """The panels, row by row."""
    rows = -(-len(parts) // columns)
    figure = new_figure(width * min(columns, len(parts)), height * rows, title)
    for place, part in enumerate(parts):
        _panel(figure.add_subplot(rows, columns, place + 1), part)
    return png(figure)


def _panel(axes: Any, part: Panel) -> None:
    for number, curve in enumerate(part.curves):
        colour = COLOURS[number % len(COLOURS)]
        options: dict[str, Any] = {"linewidth": 0.5, "alpha": 0.6} if curve.faint else {"linewidth": 1.6}
        if part.points or len(curve.x) == 1:
            options |= {"marker": "o", "markersize": 3.5}
        axes.plot(curve.x, curve.y, color=colour, label=curve.label or None, **options)
    axes.set(xlabel=part.x, ylabel=part.y, title=part.title)
    if part.limits is not None:
        axes.set_ylim(*part.limits)
    if part.logarithmic:
        axes.set_yscale("log")
    for x, label in part.marks:
        axes.axvline(x, color=GREY, linestyle=":", linewidth=1)
        axes.annotate(label, (x, axes.get_ylim()[0]), textcoords="offset points", xytext=(3, 4), fontsize=8, color=GREY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e5e5")
    if any(curve.label for curve in part.curves):
        many = sum(len(curve.x) for curve in part.curves) > 2_000  # too many to look for the best place
        axes.legend(frameon=False, fontsize=8, loc="upper right" if many else "best")


def scatter(title: str, points: Sequence[tuple[str, float, float]], x: str, y: str) -> bytes:
    """Named points, x on a logarithmic scale."""
    figure = new_figure(7, 4.6, title)
    axes = figure.add_subplot()
    for number, (name, across, up) in enumerate(points):
        axes.plot([across], [up], "o", color=COLOURS[number % len(COLOURS)])
        axes.annotate(name, (across, up), textcoords="offset points", xytext=(6, 4), fontsize=8)
    axes.set(xlabel=x, ylabel=y, xscale="log")
    axes.margins(x=0.25, y=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e5e5e5")
    return png(figure)


def images(title: str, pictures: Sequence[Array], titles: Sequence[str], columns: int = 8) -> bytes:
    """Small pictures (H, W) or (H, W, 3) of bytes, each with a line above it."""
    rows = max(1, -(-len(pictures) // columns))
    figure = new_figure(1.5 * columns, 1.8 * rows + 0.4, title)
    for place, (picture, text) in enumerate(zip(pictures, titles, strict=True)):
        axes = figure.add_subplot(rows, columns, place + 1)
        axes.imshow(np.asarray(picture), cmap="gray_r", vmin=0, vmax=255)
        axes.set_title(text, fontsize=8)
        axes.set(xticks=[], yticks=[])
    return png(figure)
