"""Files that a crash cannot spoil: written whole or not at all, and checked when they are read.

Arrays are kept as safetensors: a JSON header and raw bytes, which many tools read and which cannot run code. The
header carries a SHA-256 of everything in the file, so that a changed byte is noticed and not trained on.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

LABEL = "tinygrad_scratch"  # the entry of the header's metadata that says what the file is

Arrays = dict[str, np.ndarray[Any, Any]]


class RunError(ValueError):
    """Something the user asked for or handed in cannot be used; the message is one line and says why."""


def write_atomically(path: Path, content: bytes) -> None:
    """Put `content` at `path`: under a temporary name in the same folder, flushed to the disk, then renamed.

    Whatever goes wrong on the way (full disk, Ctrl-C), the file that was at `path` before is still there, unchanged,
    and no temporary file is left behind; one that a killed program left is overwritten by the next write to `path`.
    Raises OSError, with the name of the file.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None  # a failed write does not say which file it was
        raise
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system lets a folder be opened (not on Windows)."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: Path, content: Mapping[str, Any] | list[Any]) -> None:
    """Write strict JSON, indented, atomically; a number that is not finite becomes null, which JSON has no word for."""
    write_atomically(path, (json.dumps(finite(content), indent=2, allow_nan=False) + "\n").encode())


def finite(value: Any) -> Any:
    """The same with None for each float that is not finite, for which JSON has no word."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; RunError if there is none."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: not readable as JSON: {error}") from None
    if not isinstance(content, dict):
        raise RunError(f"{path}: holds no JSON object")
    return content


def save_arrays(path: Path, arrays: Arrays, kind: str, state: Mapping[str, Any] | None = None) -> None:
    """Write named arrays, and `state` (anything JSON can say) beside them, as one safetensors file, atomically.

    `kind` says what the file is for; `load_arrays` refuses a file of another kind.
    """
    label = {"kind": kind, "state": json.dumps(state or {})}
    label["sha256"] = _digest(arrays, label)
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    # One entry, because safetensors writes several in a random order: the same content is to be the same bytes.
    write_atomically(path, safetensors.numpy.save(contiguous, {LABEL: json.dumps(label)}))


def load_arrays(path: Path, kind: str) -> tuple[Arrays, dict[str, Any]]:
    """The arrays and the state that `save_arrays` wrote. RunError if the file is cut short, changed or foreign."""
    if not path.is_file():
        raise RunError(f"{path}: no such file")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            label = json.loads((file.metadata() or {}).get(LABEL, "{}"))
            arrays = {name: np.array(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (safetensors.SafetensorError, TypeError, ValueError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: not a safetensors file, or cut short: {error}") from None
    if not isinstance(label, dict) or label.get("kind") != kind:
        raise RunError(f"{path}: not {kind}: it was written by another program or for another purpose")
    if label.pop("sha256", None) != _digest(arrays, label):
        raise RunError(f"{path}: damaged: the content does not have the SHA-256 that it was written with")
    return arrays, json.loads(label["state"])


def _digest(arrays: Arrays, label: Mapping[str, str]) -> str:
    """SHA-256 over the label and every name, dtype, shape and value, independent of the order in the file."""
    digest = hashlib.sha256(json.dumps(sorted(label.items())).encode())
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        digest.update(json.dumps([name, str(array.dtype), array.shape]).encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()
