"""The folder of a run: what is in it, when it may be written to, and what is put there.

    settings.json           what the run was told                    from the start
    checkpoint.safetensors  all that the next step depends on        from the start, after every epoch, when stopped
    history.csv             a row for each finished epoch            likewise
    weights.safetensors     the parameters, by name                  at the end, or when stopped
    results.json            accuracy, counts, versions, machine      at the end, or when stopped
    *.png                   learning curves; of a classifier, confusion matrix and the worst mistakes, of an
                            autoencoder, what it makes of some digits and of those that it is worst at
    watch.csv, watch.png    with --watch: norms, dead units and updates of each layer

Every file is written whole or not at all.
"""

import csv
import datetime
import io
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import tinygrad_scratch as tg
from models import plots
from models.autoencoder import Autoencoder
from models.checkpoint import load_weights, save_checkpoint, save_weights
from models.data import Array, Mnist
from models.files import RunError, read_json, write_atomically, write_json
from models.losses import LOSSES
from models.networks import NETWORKS
from models.settings import CLASSES, Settings
from models.training import Epoch, Examples, Measured, Run, as_inputs, build_model, predict, score
from tinygrad_scratch.nn import Module
from tinygrad_scratch.nn.watch import Look

SETTINGS, RESULTS, HISTORY = "settings.json", "results.json", "history.csv"
CHECKPOINT, WEIGHTS = "checkpoint.safetensors", "weights.safetensors"
CURVES, CONFUSION, MISTAKES = "learning_curves.png", "confusion_matrix.png", "misclassified.png"
RECONSTRUCTIONS = "reconstructions.png"
WATCH, WATCH_FIGURE = "watch.csv", "watch.png"
FILES = (
    *(SETTINGS, RESULTS, HISTORY, CHECKPOINT, WEIGHTS, CURVES, CONFUSION, MISTAKES, RECONSTRUCTIONS),
    *(WATCH, WATCH_FIGURE),
)


def open_folder(folder: Path, force: bool) -> None:
    """Make the folder ready for a new run. One that holds a run is refused, or, with `force`, cleared of its files."""
    held = [folder / name for name in FILES if (folder / name).exists()]
    if held and not force:
        raise RunError(f"{folder}: holds a run ({held[0].name}); continue it with --resume, or replace it with --force")
    folder.mkdir(parents=True, exist_ok=True)
    for path in held:
        path.unlink()


def write_settings(folder: Path, settings: Settings) -> None:
    """Write settings.json, which marks the folder as a run's."""
    write_json(folder / SETTINGS, settings.to_json())


def write_progress(folder: Path, run: Run) -> None:
    """Write what has to survive a crash: the checkpoint and the history so far."""
    save_checkpoint(folder / CHECKPOINT, run)
    _write_table(folder / HISTORY, [column.name for column in fields(Epoch)], map(astuple, run.history))
    if run.watch:
        _write_table(folder / WATCH, Look._fields, run.watch.rows)


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    write_atomically(path, text.getvalue().encode())


def write_results(folder: Path, run: Run, data: Mnist, *, interrupted: bool, figures: bool) -> Measured:
    """Test the network, and write its weights, the results and the figures. Returns its loss and accuracy."""
    save_weights(folder / WEIGHTS, run.model)
    logits, tested = _tested(run.settings, run.model, data)
    counts = confusion(data.y_test, logits.argmax(axis=1)) if run.classifies else None
    write_json(folder / RESULTS, _results(run, tested, counts, interrupted))
    if figures:
        title = f"{describe(run.settings)}; test {show(tested)}"
        names = run.settings.images.names
        probabilities = LOSSES[run.settings.loss].probabilities(logits)
        if run.history:
            write_atomically(folder / CURVES, plots.learning_curves(run.history, title))
        if run.watch and run.watch.rows:
            write_atomically(folder / WATCH_FIGURE, plots.watched(run.watch.rows, title))
        if counts is None:
            write_atomically(
                folder / RECONSTRUCTIONS, plots.reconstructions(data.x_test, data.y_test, probabilities, title)
            )
        else:
            write_atomically(folder / CONFUSION, plots.confusion_matrix(counts, title, names))
            drawn = plots.misclassified(data.x_test, data.y_test, probabilities, title, names)
            write_atomically(folder / MISTAKES, drawn)
    return tested


def _tested(settings: Settings, model: Module, data: Mnist) -> tuple[Array, Measured]:
    """The network's logits for the test images, and how good they are."""
    examples = Examples(as_inputs(settings, data.x_test), data.y_test)
    logits = predict(model, examples.x)
    return logits, score(logits, LOSSES[settings.loss], examples, not NETWORKS[settings.model].reconstructs)


def evaluate(folder: Path) -> Measured:
    """Read the settings and the weights in a run's folder back and test the network. RunError if they are not there."""
    settings, model = trained(folder)
    return _tested(settings, model, settings.images.load())[1]


def trained(folder: Path) -> tuple[Settings, Module]:
    """The settings and the network, with the weights that it ended with, of a run's folder. RunError if there is none."""
    if not (folder / SETTINGS).is_file():
        raise RunError(f"{folder}: holds no run (no {SETTINGS})")
    if not (folder / WEIGHTS).is_file():
        raise RunError(f"{folder}: has no {WEIGHTS}, which is written at the end of training; finish it with --resume")
    settings = Settings.from_json(read_json(folder / SETTINGS), folder / SETTINGS)
    model = build_model(settings)
    load_weights(folder / WEIGHTS, model)
    return settings, model


def start_from(folder: Path, run: Run) -> None:
    """Give the first layers of the run's MLP the weights of the encoder in an autoencoder's folder.

    RunError unless the layers of the MLP begin as the encoder's do.
    """
    settings, model = trained(folder)
    if not isinstance(model, Autoencoder):
        raise RunError(f"start {folder}: holds a run of {settings.model}, not of an autoencoder")
    own, count = run.settings, len(settings.sizes)
    if own.sizes[:count] != settings.sizes or len(own.sizes) == count or own.activation != settings.activation:
        layers = f"{','.join(map(str, settings.sizes))},10 and --activation {settings.activation}"
        raise RunError(f"start {folder}: its encoder does not fit {describe(own)}: give --sizes {layers}")
    run.model.load_state_dict(model.encoder.state_dict(), strict=False)


def confusion(labels: Array, guesses: Array) -> Array:
    """How often each label (row) was taken for each class (column): int (10, 10).

    >>> confusion(np.array([1, 1, 0]), np.array([1, 0, 0]))[:2, :2]
    array([[1, 0],
           [1, 1]])
    """
    return np.bincount(labels.astype(int) * CLASSES + guesses, minlength=CLASSES**2).reshape(CLASSES, CLASSES)


def describe(settings: Settings) -> str:
    """A network in a few words.

    >>> describe(Settings())
    '784-256-10, relu, cross entropy'
    """
    return f"{NETWORKS[settings.model].describe(settings)}, {settings.loss.replace('_', ' ')}"


def show(measured: Measured) -> str:
    """Loss and, of a classifier, accuracy.

    >>> show(Measured(0.25, 0.9812)), show(Measured(61.2, None))
    ('loss 0.2500, accuracy 98.12 %', 'loss 61.2000')
    """
    accuracy = "" if measured.accuracy is None else f", accuracy {100 * measured.accuracy:.2f} %"
    return f"loss {measured.loss:.4f}{accuracy}"


def _results(run: Run, tested: Measured, counts: Array | None, interrupted: bool) -> Mapping[str, Any]:
    seconds = sum(epoch.seconds for epoch in run.history) + run.partial.seconds
    seen = len(run.history) * run.settings.training_examples() + run.partial.seen
    return {
        "test": tested._asdict(),
        "last_epoch": asdict(run.history[-1]) if run.history else None,
        "pretraining_losses": run.pretrained,
        "epochs": len(run.history),
        "steps_of_unfinished_epoch": run.partial.steps,
        "interrupted": interrupted,
        "training_seconds": seconds,
        "examples_per_second": seen / seconds,
        "backend": run.settings.backend,
        "fallback": next((plan.fallback for plan in getattr(run.step, "plans", ()) if plan.fallback), None),
        "parameters": sum(array.size for array in run.model.state_dict().values()),
        "confusion": None if counts is None else counts.tolist(),
        "seed": run.settings.seed,
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            **({"numba": version("numba")} if run.settings.backend == "numba" else {}),
            "tinygrad_scratch": tg.__version__,
        },
        "machine": {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()},
    }
