"""A whole pass over a data set: in compiled code many steps at a time, on NumPy one after the other."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinygrad_scratch._typing import Array
from tinygrad_scratch.capture.draws import Stream
from tinygrad_scratch.capture.recording.trace import Var
from tinygrad_scratch.tensor import Tensor
from tinygrad_scratch.trees import leaves, rebuild

CHUNK_SECONDS = 0.05
Progress = Callable[[int, int, Any], Any]


def run_epoch(step: Any, arrays: Sequence[Any], order: Any, batch_size: int, progress: Progress | None) -> Any:
    """See ``Captured.epoch``."""
    data, order = _checked(arrays, order, batch_size)
    steps, done, chunk = -(-len(order) // batch_size), 0, 1
    full = len(order) // batch_size
    parts: list[Any] = []
    if (
        _fitting(step, data, batch_size) is None
    ):  # after a smaller batch, or a switch; a single call would have to be compiled
        step.find(*(np.empty((batch_size, *a.shape[1:]), a.dtype) for a in data))
    single = False  # whether the next step is one that the plan refused
    while done < steps:
        began = time.perf_counter()
        plan = _fitting(step, data, batch_size) if done < full and not single else None
        if plan is not None:
            wanted = min(chunk, full - done)
            made, count = run_many(plan, data, order, batch_size, done, done + wanted)
            single = count < wanted
        else:
            count, single = 1, False
            made = step(*(a[order[done * batch_size : (done + 1) * batch_size]] for a in data))
            made = rebuild(
                made, iter([None if t is None else t._data[None] if not t.ndim else t._data for t in leaves(made)])
            )
        done += count
        parts.append(made)
        seconds = time.perf_counter() - began
        chunk = max(1, min(4 * count, int(count * CHUNK_SECONDS / max(seconds, 1e-9))))
        if progress is not None and progress(done, steps, made):
            break
    joined = zip(*(leaves(p) for p in parts), strict=True)
    return rebuild(parts[0], iter([None if p[0] is None else np.concatenate(p) for p in joined]))


def _checked(arrays: Sequence[Any], order: Any, batch_size: int) -> tuple[list[Array], Array]:
    data = [a._data if isinstance(a, Tensor) else np.asarray(a) for a in arrays]
    if not data or any(a.ndim == 0 or len(a) != len(data[0]) for a in data):
        raise ValueError(f"epoch takes arrays of equally many examples, not of shapes {[a.shape for a in data]}")
    order = np.arange(len(data[0])) if order is None else np.asarray(order)
    if order.ndim != 1 or order.dtype.kind not in "iu" or not order.size:
        raise ValueError(f"order must be a non-empty list of indices, not {order.dtype}{order.shape}")
    if order.min() < 0 or order.max() >= len(data[0]):
        raise IndexError(
            f"order has index {order.min()} to {order.max()}, but there are {len(data[0])} examples, 0 to {len(data[0]) - 1}"
        )
    if not 1 <= batch_size <= len(order):
        raise ValueError(f"batch_size is {batch_size}: it must be from 1 to the number of examples, {len(order)}")
    return data, order.astype(np.int64)


def _fitting(step: Any, data: list[Array], batch_size: int) -> Any:
    """The plan at hand (which other threads' calls may replace at any time) if it can do many of the steps."""
    plan = step._last
    return plan if plan is not None and plan.can_run_many(data, batch_size) and step.is_current(plan) else None


def run_many(plan: Any, data: list[Array], order: Array, batch_size: int, first: int, last: int) -> tuple[Any, int]:
    """Steps `first` to `last` - 1 of the epoch, without returning to Python between them but to draw: (results, how many).

    They are fewer where the next step has labels that the plan has no place for.
    """
    with plan._lock:
        plan.prepare(data)
        compiled = plan._run
        if compiled.epoch is None:
            compiled.epoch = _compile_epoch(compiled, plan.outputs)
        results = [np.empty((last - first, *v.shape), v.dtype) for v in plan.outputs]
        flat = [a.reshape(-1) for a in data]
        many = min((s.rows for s in compiled.streams), default=last - first)
        done = last - first
        try:
            for start in range(first, last, many):
                stop = min(start + many, last)
                kept = [r[start - first : stop - first].reshape(-1) for r in results]
                reached = _run_block(plan, start, stop, order, flat, kept)
                if reached < stop:
                    done = reached - first
                    break
        finally:
            for slot, array in _drawn(compiled):
                compiled.table[slot] = array.ctypes.data
    results = [r[:done] for r in results]
    joined = [r if r.ndim == 1 else r.reshape(r.shape[0] * r.shape[1], *r.shape[2:]) for r in results]
    return rebuild(plan.tree, joined), done


def _run_block(plan: Any, start: int, stop: int, order: Array, flat: list[Array], kept: list[Array]) -> int:
    """Draw for these steps, then do them; the number of the step to go on with. Where one refuses what it is given, it is the
    last that has drawn; labels it refuses before it draws."""
    compiled = plan._run
    function, staging = compiled.epoch
    drawn = [stream.draw(stop - start) for stream in compiled.streams]
    reached = np.array([stop])
    run = plan.threads.steady if plan.threads is not None else _plainly
    code = run(function, (compiled.table, start, stop, order, reached, *staging, *flat, *drawn, *kept))
    done = int(reached[0])
    plan.finish(done - start)
    unlabelled = code > 0 and plan.checked
    if code:
        for stream in compiled.streams:
            stream.rewind(done + (not unlabelled) - start)
    if code and not unlabelled:
        compiled.refuse(code)
    return done


def _plainly(function: Any, arguments: Any) -> Any:
    return function(*arguments)


def _compile_epoch(compiled: Any, outputs: list[Var]) -> Any:
    """The step's code in a loop that gathers each batch, runs it and keeps its results."""
    from tinygrad_scratch.capture.compile_numba import HEAD, array_type, load

    inputs, emitter, streams = compiled.inputs, compiled.emitter, compiled.streams
    many = len(inputs)
    names = [f"b_{n}" for n in range(many)] + [f"a_{n}" for n in range(many)]
    names += [f"d_{n}" for n in range(len(streams))] + [f"r_{n}" for n in range(len(outputs))]
    body = [f"def epoch(table, first, last, order, reached, {', '.join(names)}):", "    for s in range(first, last):"]
    body += [line for n, var in enumerate(inputs) for line in _gather(n, var, len(emitter.table) + n)]
    body += [line for n, stream in enumerate(streams) for line in _point(n, stream, emitter)]
    body += [
        "        code = core(table)",
        "        if code != 0:",
        "            reached[0] = s",
        "            return code",
    ]
    body += [line for n, var in enumerate(outputs) for line in _keep_result(n, var, emitter)]
    body.append("    return 0\n")
    kinds = [array_type(v, 1).replace(", readonly=True", "") for v in inputs] + [array_type(v, 1) for v in inputs]
    kinds += [f"types.{s.dtype}[::1]" for s in streams]
    kinds += [array_type(v, 1).replace(", readonly=True", "") for v in outputs]
    numbers = "types.int64[::1], types.int64, types.int64, types.int64[::1], types.int64[::1]"
    core = f"@compiled(types.int64(types.int64[::1]))\n{emitter.function('core', direct=False)}"
    head = f"{HEAD}{core}\n\n@compiled(types.int64({numbers}, {', '.join(kinds)}))\n"
    module = load(head + "\n".join(body))
    return compiled.helped(module.epoch), [np.empty(int(np.prod(v.shape)), v.dtype) for v in inputs]


def _gather(n: int, var: Var, slot: int) -> list[str]:
    """Have an input lie where the table says: the examples of the step, one after the other."""
    batch, size = var.shape[0], int(np.prod(var.shape[1:]))
    if batch == 1:
        return [f"        table[{slot}] = a_{n}.ctypes.data + order[s] * {size * var.dtype.itemsize}"]
    return [
        f"        p_{n}, q_{n} = p_{var.dtype}(b_{n}.ctypes.data), p_{var.dtype}(a_{n}.ctypes.data)",
        f"        table[{slot}] = b_{n}.ctypes.data",
        f"        for i in range({batch}):",
        f"            copy_row(p_{n}, i * {size}, q_{n}, order[s * {batch} + i] * {size}, {size})",
    ]


def _point(n: int, stream: Stream, emitter: Any) -> list[str]:
    """Have the table say where the numbers lie that are drawn for the step."""
    size = stream.dtype.itemsize
    return [
        f"        table[{slot}] = d_{n}.ctypes.data + ((s - first) * {stream.width} + {start}) * {size}"
        for start, array in zip(stream.starts, stream.arrays, strict=True)
        for slot in _slots(array, emitter)
    ]


def _slots(array: Array, emitter: Any) -> list[int]:
    """Where the table has the address of what is drawn; nowhere if nothing reads it."""
    return [slot for slot, var in enumerate(emitter.table) if var.array is array]


def _drawn(compiled: Any) -> list[tuple[int, Array]]:
    return [(slot, array) for _, array in compiled.draws for slot in _slots(array, compiled.emitter)]


def _keep_result(n: int, var: Var, emitter: Any) -> list[str]:
    """Copy one result of the step that has just run."""
    size = int(np.prod(var.shape))
    slot = emitter.table.index(var.root)
    lines = [f"        o_{n} = p_{var.dtype}(table[{slot}])"]
    strides: Any = var.strides
    index, depth = [f"(s - first) * {size}"], 2
    place = [str(var.offset)]
    for k, length in enumerate(var.shape):
        lines.append("    " * depth + f"for k{k} in range({length}):")
        index.append(f"k{k} * {int(np.prod(var.shape[k + 1 :]))}")
        place.append(f"k{k} * {strides[k]}")
        depth += 1
    value = f"get(o_{n}, {' + '.join(place)}, 0)"
    if var.dtype.kind == "b":
        value += " != 0"
    return [*lines, "    " * depth + f"r_{n}[{' + '.join(index)}] = {value}"]
