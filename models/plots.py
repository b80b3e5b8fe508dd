"""Figures of a run, as PNG bytes. matplotlib is imported when the first one is drawn, and never opens a window."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from models.data import Array
from models.training import Epoch
from tinygrad_scratch.nn.watch import Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, GREY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#8c8c8c"  # distinct to the colour-blind


def learning_curves(history: Sequence[Epoch], title: str) -> bytes:
    """Loss, and a classifier's accuracy, by epoch: on the training examples (while trained on) and on the held-out ones."""
    from matplotlib.ticker import MaxNLocator

    epochs = [epoch.epoch for epoch in history]
    panels = [("loss", 1), *([("accuracy", 100)] if history[0].train_accuracy is not None else [])]
    figure = new_figure(5 * len(panels) + 1.5 * (len(panels) == 1), 4.2, title)
    for position, (name, scale) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), position + 1)
        for part, colour in [("train", BLUE), ("validation", ORANGE)]:
            values = [getattr(epoch, f"{part}_{name}") for epoch in history]
            if None not in values:
                last = f"{values[-1] * scale:.2f} %" if scale == 100 else f"{values[-1]:.4f}"
                label = (
                    f"{'training, mean of the epoch' if part == 'train' else 'validation, end of the epoch'}: {last}"
                )
                axes.plot(epochs, np.multiply(values, scale), color=colour, marker="o", markersize=4, label=label)
        axes.set(xlabel="epoch", ylabel="loss" if scale == 1 else "accuracy (%)")
        axes.set_xlim(0.5, max(epochs) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e5e5e5")
        axes.legend(frameon=False)
    return png(figure)


def confusion_matrix(counts: Array, title: str, names: Sequence[str] = "0123456789") -> bytes:
    """How often each class (row) was taken for each class (column), counts (10, 10) of ints, and the recall by row.

    The colours show the mistakes, as shares of their row; the diagonal, which would outshine them, is left plain.
    """
    from matplotlib import colormaps

    figure = new_figure(8.4, 6.4, title)
    axes = figure.add_subplot()
    totals = counts.sum(axis=1)
    shares = counts / np.maximum(totals, 1)[:, None]
    np.fill_diagonal(shares, np.nan)
    top = max(float(np.nanmax(shares)), 1e-9)
    image = axes.imshow(100 * shares, cmap=colormaps["Oranges"].with_extremes(bad="#e6f2ec"), vmin=0, vmax=100 * top)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.6 * top else "black"
            weight = "bold" if row == column else "normal"
            axes.text(column, row, f"{count}", ha="center", va="center", color=colour, weight=weight)
    for row, total in enumerate(totals):
        text = f"{100 * counts[row, row] / total:.1f} %" if total else "none"
        axes.text(len(counts) - 0.35, row, text, ha="left", va="center", color=GREEN)
    axes.text(len(counts) - 0.35, -0.75, "right", ha="left", va="center", color=GREEN)
    axes.set(xlabel="taken for", ylabel="is")
    axes.set_xticks(range(len(counts)), names)
    axes.set_yticks(range(len(counts)), names)
    axes.set_xticks(np.arange(len(counts) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(counts) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white")
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.7, pad=0.11, label="mistakes, % of the row")
    bar.outline.set_visible(False)
    return png(figure)


def misclassified(
    images: Array,
    labels: Array,
    probabilities: Array,
    title: str,
    names: Sequence[str] = "0123456789",
    rows: int = 4,
    columns: int = 6,
) -> bytes:
    """The test images that the network got most wrong, worst first, each with its ten probabilities.

    images (N, 28, 28) or (N, 3, height, width), labels (N,), probabilities (N, 10), names of the classes.
    """
    worst = worst_mistakes(labels, probabilities, rows * columns)
    figure = new_figure(1.8 * columns, 2.5 * rows, title)
    if not len(worst):
        figure.text(0.5, 0.5, "no image was misclassified", ha="center")
        return png(figure)
    grid = figure.add_gridspec(2 * rows, columns, height_ratios=[3, 1] * rows)
    for place, index in enumerate(worst):
        row, column = divmod(place, columns)
        upper = figure.add_subplot(grid[2 * row, column])
        lower = figure.add_subplot(grid[2 * row + 1, column])
        _draw_image(upper, images[index], int(index), int(labels[index]), probabilities[index], names)
        _draw_probabilities(lower, int(labels[index]), probabilities[index])
    return png(figure)


def worst_mistakes(labels: Array, probabilities: Array, count: int) -> Array:
    """Which examples were got wrong with the greatest confidence: the indices of at most `count`, worst first.

    labels (N,), probabilities (N, C). Confidence is the probability of the answer less that of the label.

    >>> worst_mistakes(np.array([0, 0, 0]), np.array([[0.9, 0.1], [0.4, 0.6], [0.1, 0.9]]), 5).tolist()
    [2, 1]
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    confidence = probabilities[wrong].max(axis=1) - probabilities[wrong, labels[wrong]]
    worst: Array = wrong[np.argsort(-confidence, kind="stable")][:count]
    return worst


def watched(rows: Sequence[Look], title: str) -> bytes:
    """What a Watch saw: activations, gradients, dead units and updates of each layer, by step, in four panels."""
    from matplotlib import colormaps

    panels = [
        ("activation", "root mean square of the outputs", "log"),
        ("gradient", "norm of the loss's gradient by the outputs", "log"),
        ("dead", "units with the same output for all (%)", "linear"),
        ("update", "norm of a step / norm of the weights", "log"),
    ]
    names = list(dict.fromkeys((row.layer, row.kind) for row in rows))
    colours = colormaps["viridis"](np.linspace(0, 0.92, len(names)))
    figure = new_figure(12, 7.6, title)
    grid: Any = figure.subplots(2, 2, sharex=True)
    for axes, (name, label, scale) in zip(grid.flat, panels, strict=True):
        for (layer, kind), colour in zip(names, colours, strict=True):
            seen = [(row.step, getattr(row, name)) for row in rows if (row.layer, row.kind) == (layer, kind)]
            points = [(step, value) for step, value in seen if value is not None and (value > 0 or scale == "linear")]
            if points:
                steps, values = np.array(points).T
                axes.plot(
                    steps, values * (100 if name == "dead" else 1), ".-", color=colour, label=f"{layer} {kind}", lw=1
                )
        axes.set_yscale(scale)
        if scale == "linear":
            axes.set_ylim(0, max(10, axes.get_ylim()[1]))
        axes.set(ylabel=label, xlabel="step")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e5e5e5")
    handles, labels = grid.flat[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside right center", frameon=False, title="layer")
    return png(figure)


def reconstructions(images: Array, labels: Array, made: Array, title: str, columns: int = 10) -> bytes:
    """Images above what an autoencoder makes of them: the first of each class, and those that it is worst at.

    images (N, 28, 28) or (N, 3, height, width) of bytes, labels (N,), made (N, pixels) in [0, 1].
    """
    errors = np.square(images.reshape(made.shape) / 255 - made).sum(axis=1)
    first = np.array([np.flatnonzero(labels == digit)[0] for digit in np.unique(labels)])[:columns]
    worst = np.argsort(-errors, kind="stable")[:columns]
    figure = new_figure(columns, 5.6, title)
    parts: Any = figure.subfigures(2, 1)
    for part, chosen, heading in zip(parts, (first, worst), ("the first of each class", "the worst"), strict=True):
        part.suptitle(f"{heading}: above as it is, below as the code gives it back, and its squared error", fontsize=9)
        grid: Array = part.subplots(2, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for (above, below), index in zip(grid.T, chosen, strict=False):
            _show(above, images[index] / 255)
            _show(below, made[index].reshape(images.shape[1:]))
            below.set_title(f"{errors[index]:.1f}", fontsize=8, color=GREY)
    return png(figure)


def _draw_image(axes: "Axes", image: Array, index: int, label: int, probabilities: Array, names: Sequence[str]) -> None:
    guess = int(probabilities.argmax())
    _show(axes, image / 255)
    axes.set_title(f"{names[label]} taken for {names[guess]}", fontsize=10 if len(names[0]) == 1 else 8)
    axes.set_xlabel(f"test image {index}", fontsize=7, color=GREY, labelpad=2)
    for place, side, digit, colour in ((0, "left", guess, RED), (1, "right", label, GREEN)):
        text = (
            f"{names[digit]}: {_percent(probabilities[digit])}"
            if len(names[0]) == 1
            else _percent(probabilities[digit])
        )
        axes.text(place, -0.13, text, transform=axes.transAxes, color=colour, fontsize=7.5, ha=side, va="top")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color("#d0d0d0")


def _show(axes: "Axes", image: Array) -> None:
    """Draw an image of ink in [0, 1], (height, width), or of red, green and blue, (3, height, width)."""
    if image.ndim == 2:
        axes.imshow(image, cmap="gray_r", vmin=0, vmax=1)
    else:
        axes.imshow(np.moveaxis(image, 0, -1))


def _draw_probabilities(axes: "Axes", label: int, probabilities: Array) -> None:
    guess = int(probabilities.argmax())
    colours = [GREEN if digit == label else RED if digit == guess else GREY for digit in range(len(probabilities))]
    axes.bar(range(len(probabilities)), probabilities, color=colours)
    axes.set_ylim(0, 1)
    axes.set_xticks(range(len(probabilities)))
    axes.tick_params(labelsize=7, length=0, pad=1)
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)


def _percent(share: float) -> str:
    """A probability in a few characters; one that rounds to none or all is not called so."""
    percent = 100 * share
    return "<0.01 %" if percent < 0.01 else ">99.99 %" if percent > 99.99 else f"{percent:.2f} %"


def new_figure(width: float, height: float, title: str) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, fontsize=12)
    return figure


def png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
