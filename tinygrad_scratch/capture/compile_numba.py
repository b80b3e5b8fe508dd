"""Run a plan as one compiled function: the numba back end. Compiled code is cached on disk, keyed by source and versions."""

import hashlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tinygrad_scratch import _team
from tinygrad_scratch._typing import Array
from tinygrad_scratch.capture import compile_numpy
from tinygrad_scratch.capture.blocks import Blocks, arrange
from tinygrad_scratch.capture.draws import Stream, streams
from tinygrad_scratch.capture.emit_numba import Emitter
from tinygrad_scratch.capture.lower import lower, needed_outside
from tinygrad_scratch.capture.memory import Memory, lay_out
from tinygrad_scratch.capture.recording.trace import Var
from tinygrad_scratch.capture.replay import Unlabelled
from tinygrad_scratch.capture.simplify import Unsupported

HEAD = '''"""A step compiled by tinygrad_scratch. Generated; safe to delete."""
import math

import numpy as np
from numba import types
from tinygrad_scratch.capture.runtime_numba import *
from tinygrad_scratch.capture.runtime_team import *
from tinygrad_scratch.capture.runtime_windows import *


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
    """A step in compiled code, and the memory that its table of addresses points into.

    Each function is compiled when it is first wanted: many a step runs in epochs alone, which have it inlined.
    """

    table: Array
    owners: list[Array]  # kept alive: the table holds addresses
    emitter: Emitter
    inputs: list[Var]
    results: list[Any]
    draws: list[tuple[np.random.Generator, Array]] = field(default_factory=list)
    epoch: Any = None

    @cached_property
    def streams(self) -> list[Stream] | None:
        """Its draws, for epochs, which draw for many steps at once; None where that would give other numbers."""
        return streams(self.draws)

    @cached_property
    def team(self) -> Any:
        """The module of the jobs that the step posts, in single calls and in epochs; None if there are none."""
        source = self.emitter.team()
        return load(f"{HEAD}{source}") if source else None

    @cached_property
    def step(self) -> Callable[..., int]:
        """The function of a single call, of the table and the inputs."""
        kinds = ", ".join(["types.int64[::1]", *map(array_type, self.inputs)])
        source = self.emitter.function("step", direct=True)
        return self.helped(load(f"{HEAD}@compiled(types.int64({kinds}))\n{source}").step)

    def helped(self, function: Callable[..., int]) -> Callable[..., int]:
        """A compiled function of the table and more; if it posts jobs, with the help of the team's threads."""
        if self.team is None:
            return function
        part, helper, end = self.team.address_of(self.team.part), self.team.helper, self.emitter.table_size

        def run(table: Array, *arguments: Any) -> int:
            words = table[end:]
            words[_team.PART], words[_team.AWAY] = part, 0
            try:
                _team.helpers.call(_team.size() - 1, helper, table)
                with _team.products_alone():
                    return function(table, *arguments)
            finally:
                words[_team.AWAY] = 1

        return run

    def __call__(self, *arrays: Any) -> list[Array]:
        states = [rng.bit_generator.state for rng, _ in self.draws]
        for rng, array in self.draws:
            rng.random(out=array, dtype=array.dtype)
        try:
            code = self.step(self.table, *arrays)
        except TypeError:  # an input that is not in C order, or not of the machine's byte order
            arrays = tuple(
                np.require(a, v.dtype, ["C", "A", "E"]).reshape(v.shape)
                for a, v in zip(arrays, self.inputs, strict=True)
            )
            code = self.step(self.table, *arrays)
        if code > 0:  # before anything was done, but for the draws
            for (rng, _), state in zip(self.draws, states, strict=True):
                rng.bit_generator.state = state
        if code:
            self.refuse(code)
        return [r.copy() if isinstance(r, np.ndarray) else _shown(arrays[r[0]], r[1]) for r in self.results]

    def refuse(self, code: int) -> None:
        """Raise what a step answered instead of 0."""
        if code > 0:
            raise Unlabelled(f"a label is out of bounds: there are {code} classes, 0 to {code - 1}")
        if code == -1:
            raise IndexError("an index is out of bounds for the array that it indexes")
        raise self.emitter.errors[-2 - code]


def _compile(plan: Any) -> Compiled:
    draws = [i for i in plan.instrs if i.op.__name__ == "random"]
    for instr in draws:  # drawn before the step, by NumPy, in the order of the program: the same stream as eagerly
        instr.out.kind, instr.out.array = "external", np.empty(instr.out.shape, instr.out.dtype)
    rows = [replace(i, inputs=list(i.inputs)) for i in plan.instrs if i.op.__name__ != "random"]
    items = lower(rows, plan.outputs)  # which changes them: NumPy's source is of the plan's own
    kept = needed_outside(items, plan.outputs)
    program = arrange(items, kept, plan.outputs)
    blocks = [item for item in program if isinstance(item, Blocks)]
    memory = lay_out([item.use(kept) for item in program], plan.outputs, alone=[b.room for b in blocks])
    memory.asked += sum(v.array.nbytes for b in blocks for v in b.local.values())
    emitter = Emitter(program, kept, plan.inputs, _places(plan, memory, blocks))
    emitter.body()
    for var in plan.outputs:  # which an epoch reads, where no loop does
        emitter.pointer(var)
    numba_blas()
    slabs = memory.allocate()
    arrays = {id(v): _in_slab(v, slabs[memory.place[id(v)]]) for v in emitter.table if id(v) in memory.place}
    owners = [arrays.get(id(v), v.array) for v in emitter.table]
    table = np.zeros(emitter.table_size + _team.WORDS, np.int64)
    table[: len(owners)] = [a.ctypes.data for a in owners]
    results = [_result(v, arrays, plan.inputs) for v in plan.outputs]
    plan.memory = memory
    random = [(i.options["rng"], i.out.array) for i in draws]
    return Compiled(table, owners, emitter, plan.inputs, results, random)


def array_type(var: Var, ndim: int | None = None) -> str:
    """The numba type of an input: in C order, perhaps read-only."""
    kind = "boolean" if var.dtype.kind == "b" else str(var.dtype)
    return f"types.Array(types.{kind}, {len(var.shape) if ndim is None else ndim}, 'C', readonly=True)"


def _places(plan: Any, memory: Memory, blocks: list[Blocks]) -> dict[int, int]:
    """A number for each owner of memory, the same for owners that share some; inputs, which change, have none."""
    places = dict(memory.place)
    count = len(memory.slabs)
    outside: list[tuple[int, Var]] = []
    for var in [*plan.state, *(i.out for i in plan.instrs if i.op.__name__ == "random")]:
        shared = next((n for n, other in outside if np.may_share_memory(other.array, var.array)), None)
        number = count + len(outside) if shared is None else shared
        outside.append((number, var))
        places[id(var)] = number
    count += len(outside)
    for group in blocks:
        places |= {key: count + slab for key, slab in group.memory.place.items()}
        count += len(group.memory.slabs)
    return places


def _in_slab(var: Var, slab: Any) -> Any:
    return slab[: max(int(np.prod(var.shape)) * var.dtype.itemsize, 0)].view(var.dtype)


def _result(var: Var, arrays: dict[int, Any], inputs: list[Var]) -> Any:
    """An array that shows a result after each call; or, if it is (a view of) an input, its number and the Var."""
    owner = var.root
    if owner in inputs:
        return inputs.index(owner), var
    flat = arrays.get(id(owner))
    if flat is None:
        if var is owner:
            return owner.array
        flat = owner.array.ravel(order="K")
        if flat.size and not np.may_share_memory(flat, owner.array):
            raise Unsupported("returning a view of what has gaps")
    return _strided(flat, var)


def _shown(array: Array, var: Var) -> Array:
    """A copy of what `var` shows of an input, which lies in C order."""
    return _strided(array.reshape(-1), var).copy()


def _strided(flat: Array, var: Var) -> Array:
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
    versions = (
        f"{__version__} {numba.__version__} {llvmlite.__version__} {np.__version__} {sys.version} {_cpu()} {_runtime()}"
    )
    key = hashlib.sha256(f"{versions}\n{source}".encode()).hexdigest()[:24]
    folder = cache_folder()
    path = folder / f"step_{key}.py"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_bytes() != source.encode():
            _write(path, source)
        return _kept(path)
    except OSError:  # no place to keep it, or none left: compile for this process alone
        module = ModuleType(f"tinygrad_scratch_{path.stem}")
        exec(source.replace("@compiled(", "@compiled(cache=False, signature="), module.__dict__)
        return module


def _kept(path: Path) -> Any:
    """The module at `path`, its compiled code from the cache beside it if that is as it was written."""
    sums, compiled = path.with_suffix(".sums"), path.parent / "__pycache__"
    if not sums.exists() or sums.read_bytes() != _sums(path).encode():
        _forget(path)
    try:
        module = _import(path)
    except OSError:
        raise
    except Exception:  # a broken cache must never stand in the way of a right answer
        _forget(path)
        module = _import(path)
    if compiled.is_dir():
        with suppress(OSError):
            written = _sums(path)
            if not sums.exists() or sums.read_bytes() != written.encode():
                _write(sums, written)
    return module


def _forget(path: Path) -> None:
    for stale in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
        stale.unlink(missing_ok=True)


def _sums(path: Path) -> str:
    """A line for each file of compiled code: a flipped bit in machine code is no error, but a wrong answer."""
    files = sorted((path.parent / "__pycache__").glob(f"{path.stem}.*.nb?"))
    return "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()} {file.name}\n" for file in files)


@cache
def _runtime() -> str:
    """The version of what compiled steps are made of, which is compiled into them."""
    here = Path(__file__).parent
    files = [*sorted(here.glob("runtime_*.py")), here.parent / "_blas.py", here.parent / "_team.py"]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _write(path: Path, source: str) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
        file.write(source)
    os.replace(file.name, path)


def _import(path: Path) -> Any:
    spec: Any = importlib.util.spec_from_file_location(f"tinygrad_scratch_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # compiled code that is loaded from the cache looks for its module there
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
