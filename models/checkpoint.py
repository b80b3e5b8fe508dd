"""Weights and whole runs as files. A run that is read back goes on bit for bit as the one that was written.

That holds on the same machine, with the same back end, versions and number of threads: sums may be added in another
order elsewhere. The back end is one of the settings, so a run goes on with the one that it began with, unless told.
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.files import Arrays, RunError, load_arrays, save_arrays
from models.settings import Settings
from models.training import Epoch, Partial, Run, new_run
from tinygrad_scratch.data import DataLoader
from tinygrad_scratch.nn import Module

WEIGHTS = "weights of a tinygrad_scratch model, version 1"
CHECKPOINT = "checkpoint of a tinygrad_scratch run, version 1"


def save_weights(path: Path, model: Module) -> None:
    """Write the parameters, by their names, as a safetensors file that other tools can read too."""
    save_arrays(path, model.state_dict(), WEIGHTS)


def load_weights(path: Path, model: Module) -> None:
    """Put the weights in the file into the model: all of them, or none and a RunError."""
    arrays, _ = load_arrays(path, WEIGHTS)
    _check_same(path, arrays, model.state_dict())
    model.load_state_dict(arrays)


def save_checkpoint(path: Path, run: Run) -> None:
    """Write everything that the next step depends on: weights, momentum, random states, history, settings."""
    optimizer = run.optimizer.state_dict()
    arrays = {f"model.{name}": array for name, array in run.model.state_dict().items()}
    for index, buffers in optimizer["state"].items():
        arrays |= {f"optimizer.{index}.{name}": array for name, array in buffers.items()}
    state = {
        "settings": run.settings.to_json(),
        "param_groups": optimizer["param_groups"],
        "schedule": run.schedule.state_dict(),
        "pretrained": run.pretrained,
        "order": run.order,
        "streams": [rng.bit_generator.state for rng in run.generators],
        "history": [asdict(epoch) for epoch in run.history],
        "partial": asdict(run.partial),
        "watch": run.watch and run.watch.state_dict(),
    }
    save_arrays(path, arrays, CHECKPOINT, state)


def load_checkpoint(path: Path, **changes: Any) -> Run:
    """The run in the file, with `changes` of its settings. RunError if the file is damaged or foreign."""
    arrays, state = load_arrays(path, CHECKPOINT)
    try:
        run = new_run(replace(Settings.from_json(state["settings"], path), **changes))
        run.history = [Epoch(**epoch) for epoch in state["history"]]
        run.partial = Partial(**state["partial"])
        run.pretrained = [float(loss) for loss in state["pretrained"]]
        run.order = state["order"]
        for rng, stream in zip(run.generators, state["streams"], strict=True):
            rng.bit_generator.state = stream
        if run.order is not None:  # does it fit?
            examples, size = np.arange(run.settings.training_examples()), run.settings.batch_size
            DataLoader(examples, batch_size=size, shuffle=True).load_state_dict(run.order)
        if run.watch:
            run.watch.load_state_dict(state["watch"])
        _restore(path, run, arrays, state["param_groups"])
        run.schedule.load_state_dict(state["schedule"])
    except RunError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{path}: not a checkpoint that this version can read: {error!r}") from None
    return run


def _restore(path: Path, run: Run, arrays: Arrays, param_groups: list[dict[str, Any]]) -> None:
    """Load the arrays of a checkpoint into the run's model and optimizer."""
    weights = {name.removeprefix("model."): array for name, array in arrays.items() if name.startswith("model.")}
    _check_same(path, weights, run.model.state_dict())
    run.model.load_state_dict(weights)
    buffers: dict[int, Arrays] = {}
    for name in sorted(arrays.keys() - {f"model.{name}" for name in weights}):
        _, index, buffer = name.split(".")
        buffers.setdefault(int(index), {})[buffer] = arrays[name]
    run.optimizer.load_state_dict({"state": buffers, "param_groups": param_groups})


def _check_same(path: Path, found: Arrays, wanted: Arrays) -> None:
    """RunError unless both hold the same names with the same shapes and types."""
    for name in sorted(found.keys() | wanted.keys()):
        if name not in wanted:
            raise RunError(f"{path}: holds {name}, which the network of the settings does not have")
        if name not in found:
            raise RunError(f"{path}: lacks {name}, which the network of the settings has")
        have, want = found[name], wanted[name]
        if (have.shape, have.dtype) != (want.shape, want.dtype):
            wanted_text = f"the network has {want.dtype} {want.shape}"
            raise RunError(f"{path}: {name} is {have.dtype} {have.shape}, but {wanted_text}")
