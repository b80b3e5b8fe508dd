"""Run a plan as one compiled function: the numba back end. Compiled code is cached on disk, keyed by source and versions."""

import hashlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_scratch._typing import Array
from tinygrad_scratch.capture import compile_numpy
from tinygrad_scratch.capture.emit_numba import Emitter
from tinygrad_scratch.capture.lower import Unsupported, lower, needed_outside
from tinygrad_scratch.capture.memory import Memory, lay_out
from tinygrad_scratch.capture.trace import Var

HEAD = '''"""A step compiled by tinygrad_scratch. Generated; safe to delete."""
import math

import numpy as np
from numba import njit, types
from tinygrad_scratch.capture.runtime_numba import *


'''


def compile_plan(plan: Any) -> Callable[..., Any]:
    """The step as one compiled function; on NumPy, with the reason in ``explain()``, if a row has no lowering."""
    try:
        return _compile(plan)
    except Unsupported as reason:
        plan.fallback = f"NumPy instead of compiled code: no lowering for {reason}"
        return compile_numpy.compile_plan(plan)


@dataclass(eq=False)
class Compiled:
    """A compiled step: its functions, and the memory that its table of addresses points into."""

    core: str  # source
    step: Any
    table: Array
    owners: list[Array]  # kept alive: the table holds addresses
    emitter: Emitter
    inputs: list[Var]
    results: list[Any]
    draws: list[tuple[np.random.Generator, Array]] = field(default_factory=list)
    epoch: Any = None

    def __call__(self, *arrays: Any) -> list[Array]:
        for rng, array in self.draws:
            rng.random(out=array, dtype=array.dtype)
        try:
            code = self.step(self.table, *arrays)
        except TypeError:  # an input that is not in C order, or not of the machine's byte order
            arrays = tuple(np.ascontiguousarray(a, v.dtype).reshape(v.shape) for a, v in zip(arrays, self.inputs, strict=True))
            code = self.step(self.table, *arrays)
        if code:
            refuse(code)
        return [r.copy() if not isinstance(r, int) else np.array(arrays[r]) for r in self.results]


def _compile(plan: Any) -> Compiled:
    draws = [i for i in plan.instrs if i.op.__name__ == "random"]
    for instr in draws:  # drawn before the step, by NumPy, in the order of the program: the same stream as eagerly
        instr.out.kind, instr.out.array = "external", np.empty(instr.out.shape, instr.out.dtype)
    items = lower([i for i in plan.instrs if i.op.__name__ != "random"], plan.outputs)
    kept = needed_outside(items, plan.outputs)
    memory = lay_out([item.use(kept) for item in items], plan.outputs)
    emitter = Emitter(items, kept, plan.inputs, _places(plan, memory))
    core = f"@njit(types.int64(types.int64[::1]), **STEP_OPTIONS)\n{emitter.source('core')}"
    first = len(emitter.table)
    inputs = "".join(f", a_{n}" for n in range(len(plan.inputs)))
    lines = [f"    table[{first + n}] = a_{n}.ctypes.data" for n in range(len(plan.inputs))]
    signature = ", ".join(["types.int64[::1]", *map(array_type, plan.inputs)])
    wrapper = "\n".join(
        [f"\n\n@njit(types.int64({signature}), **STEP_OPTIONS)", f"def step(table{inputs}):", *lines, "    return core(table)", ""]
    )
    step = load(f"{HEAD}{core}{wrapper}").step
    slabs = memory.allocate()
    arrays = {id(v): _in_slab(v, slabs[memory.place[id(v)]]) for v in emitter.table if id(v) in memory.place}
    owners = [arrays.get(id(v), v.array) for v in emitter.table]
    table = np.array([*(a.ctypes.data for a in owners), *(0 for _ in plan.inputs)], np.int64)
    results = [_result(v, arrays, plan.inputs) for v in plan.outputs]
    plan.memory = memory
    compiled = Compiled(core, step, table, owners, emitter, plan.inputs, results)
    compiled.draws = [(i.options["rng"], i.out.array) for i in draws]
    return compiled


def array_type(var: Var, ndim: int | None = None) -> str:
    """The numba type of an input: in C order, perhaps read-only."""
    kind = "boolean" if var.dtype.kind == "b" else str(var.dtype)
    return f"types.Array(types.{kind}, {len(var.shape) if ndim is None else ndim}, 'C', readonly=True)"


def _places(plan: Any, memory: Memory) -> dict[int, int]:
    """A number for each owner of memory, the same for owners that share some; inputs, which change, have none."""
    places = dict(memory.place)
    count = len(memory.slabs)
    outside: list[tuple[int, Var]] = []
    for var in [*plan.state, *(i.out for i in plan.instrs if i.op.__name__ == "random")]:
        shared = next((n for n, other in outside if np.may_share_memory(other.array, var.array)), None)
        number = count + len(outside) if shared is None else shared
        outside.append((number, var))
        places[id(var)] = number
    return places


def refuse(code: int) -> None:
    """Raise what a compiled step answered instead of 0."""
    if code > 0:
        raise IndexError(f"a label is out of bounds: there are {code} classes, 0 to {code - 1}")
    raise IndexError("an index is out of bounds for the array that it indexes")


def _in_slab(var: Var, slab: Any) -> Any:
    return slab[: max(int(np.prod(var.shape)) * var.dtype.itemsize, 0)].view(var.dtype)


def _result(var: Var, arrays: dict[int, Any], inputs: list[Var]) -> Any:
    """An array that shows a result after each call; the number of the input if it is (a view of) one."""
    owner = var.root
    if owner in inputs:
        if var is not owner:
            raise Unsupported("returning a view of an input")
        return inputs.index(owner)
    flat = arrays.get(id(owner))
    if flat is None:
        flat = owner.array
        if var is owner:
            return flat
        raise Unsupported("returning a view of what was outside")
    strides: Any = var.strides
    return np.lib.stride_tricks.as_strided(flat[var.offset :], var.shape, [s * var.dtype.itemsize for s in strides])


# -- the cache ---------------------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Where compiled steps are kept: TINYGRAD_SCRATCH_CACHE, or the user's cache folder."""
    named = os.environ.get("TINYGRAD_SCRATCH_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tinygrad_scratch"


def load(source: str) -> Any:
    """The module of a source, compiled. A cache that is stale or broken is made anew; without one, it is compiled afresh."""
    import llvmlite
    import numba

    from tinygrad_scratch import __version__

    numba_blas()
    versions = f"{__version__} {numba.__version__} {llvmlite.__version__} {np.__version__} {sys.version} {_cpu()}"
    key = hashlib.sha256(f"{versions}\n{source}".encode()).hexdigest()[:24]
    folder = cache_folder()
    path = folder / f"step_{key}.py"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != source:
            _write(path, source)
    except OSError:  # no place to keep it: compile for this process alone
        path = Path(tempfile.mkdtemp(prefix="tinygrad_scratch_")) / path.name
        path.write_text(source)
    try:
        return _import(path)
    except Exception:  # a broken cache must never stand in the way of a right answer
        for stale in (path.parent / "__pycache__").glob(f"{path.stem}*"):
            stale.unlink(missing_ok=True)
        return _import(path)


def _write(path: Path, source: str) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
        file.write(source)
    os.replace(file.name, path)


def _import(path: Path) -> Any:
    spec: Any = importlib.util.spec_from_file_location(f"tinygrad_scratch_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _cpu() -> str:
    import llvmlite.binding as llvm

    return f"{llvm.get_host_cpu_name()}"


def numba_blas() -> None:
    """Make NumPy's gemm known to the linker. Unsupported if it cannot be found."""
    from tinygrad_scratch.capture.runtime_numba import register_products

    if not register_products():
        raise Unsupported("products: the BLAS of this NumPy has no CBLAS interface that can be called")
