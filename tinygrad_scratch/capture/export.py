"""A captured step as a file of its own: NumPy and nothing else."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_scratch.capture.carry import carried
from tinygrad_scratch.capture.emit_numpy import write
from tinygrad_scratch.errors import CaptureError

_STATE = '''state = dict(np.load(Path(__file__).with_suffix(".npz")))
"""Parameters, and what the optimizer keeps, as they were when this was written. A call of step() changes them in place."""

memory = [np.empty(size, np.uint8) for size in {sizes}]
'''


def export(plan: Any, path: Path) -> Path:
    """Write `path` and, beside it, its state as .npz. CaptureError for a row that needs more than NumPy and source."""
    source, writer = write(plan)
    streams, functions = [], {}
    for name, value in writer.objects.items():
        if isinstance(value, np.random.Generator):
            streams += _stream(name, value)
        elif callable(value):
            functions[name] = value
        else:
            raise CaptureError(f"cannot export {name}, an option that is {type(value).__name__}; use numbers and words")
    state = _STATE.format(sizes=tuple(plan.source_memory.slabs))
    source = source.replace("import numpy as np\n", "from pathlib import Path\n\nimport numpy as np\n", 1)
    marker = "\n# read, and where"
    rows = [carried(functions)] if functions else []
    source = source.replace(marker, "\n" + "\n".join([*rows, state, *streams]) + marker, 1)
    arrays = {v.name: v.array for v in plan.state}
    _atomically(path.with_suffix(".npz"), lambda file: np.savez(file, **arrays))
    _atomically(path, lambda file: file.write(source.encode()))
    return path


def _stream(name: str, rng: np.random.Generator) -> list[str]:
    kind = type(rng.bit_generator).__name__
    return [
        f"{name} = np.random.Generator(np.random.{kind}())",
        f"{name}.bit_generator.state = {rng.bit_generator.state!r}",
    ]


def _atomically(path: Path, fill: Callable[[Any], Any]) -> None:
    """Write to a temporary name beside `path`, flush, rename: a crash or a full disk leaves the old file."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            file.close()
            os.unlink(file.name)
            raise
    os.replace(file.name, path)
