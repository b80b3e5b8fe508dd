"""Run a plan's source: the NumPy back end."""

import linecache
from collections.abc import Callable
from itertools import count
from typing import Any

from tinygrad_scratch import _team
from tinygrad_scratch.capture.emit_numpy import write
from tinygrad_scratch.capture.replay import Unlabelled
from tinygrad_scratch.ops.convolution import conv2d, conv2d_affine, conv2d_input, conv2d_weight
from tinygrad_scratch.ops.windows import max_pool2d, max_pool2d_input

SHARED = frozenset({conv2d, conv2d_affine, conv2d_input, conv2d_weight, max_pool2d, max_pool2d_input})
"""Rows whose images threads share: in a step that has some of several images, products take one thread (see products_alone)."""

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
    if "check_labels" in namespace:
        namespace["check_labels"] = _labelled(namespace["check_labels"])
    step: Callable[..., Any] = namespace["step"]
    shares = any(instr.op in SHARED and instr.vars[0].shape[0] > 1 for instr in plan.instrs)
    return _team.products_alone()(step) if shares else step


def _labelled(check: Callable[..., Any]) -> Callable[..., Any]:
    """The check of labels, whose error says that they are the reason."""

    def check_labels(labels: Any, classes: int) -> Any:
        try:
            return check(labels, classes)
        except IndexError as error:
            raise Unlabelled(str(error)) from None

    return check_labels
