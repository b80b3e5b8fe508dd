"""Run a plan's source: the NumPy back end."""

import linecache
from collections.abc import Callable
from itertools import count
from typing import Any

from tinygrad_scratch.capture.emit_numpy import write

_number = count(1)


def compile_plan(plan: Any) -> Callable[..., Any]:
    """The step as a Python function over buffers that are allocated once. Tracebacks show its source."""
    source, writer = write(plan)
    filename = f"<captured step {next(_number)}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    namespace: dict[str, Any] = {
        "state": {v.name: v.array for v in plan.state},
        "memory": plan.source_memory.allocate(),
        **writer.objects,
    }
    exec(compile(source, filename, "exec"), namespace)
    return namespace["step"]  # type: ignore[no-any-return]
