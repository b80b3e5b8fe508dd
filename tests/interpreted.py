"""The source of a compiled step, run by Python: what was written is checked in thousands of programs, and every access to memory.

Compiling a step takes a second, running its source as Python some milliseconds. Here pointers know how long their arrays
are, reads and writes outside them are errors, and so are two arrays that share memory though the compiler is told that they
do not, or that are read before they were written (they are filled with NaN).
"""

import ctypes
import math
from types import FunctionType, SimpleNamespace

import numpy as np

from tinygrad_scratch import _team

NUMBERS = ("float32", "float64", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


class Pointer:
    """An address and what lies there."""

    def __init__(self, dtype, address):
        self.dtype, self.address, self.size = np.dtype(dtype), int(address), np.dtype(dtype).itemsize

    def view(self, offset, shape, strides):
        """Elements of memory as an array; strides in elements."""
        lowest = self.address + self.size * (
            offset + sum(min(0, (n - 1) * s) for n, s in zip(shape, strides, strict=True))
        )
        span = 1 + sum((n - 1) * abs(s) for n, s in zip(shape, strides, strict=True))
        flat = np.frombuffer((ctypes.c_char * (span * self.size)).from_address(int(lowest)), self.dtype)
        return np.lib.stride_tricks.as_strided(flat, shape, [s * self.size for s in strides])


class Memory:
    """Reads and writes, and which bytes each place has."""

    def __init__(self):
        self.places = {}

    def note(self, pointer, index, place):
        if place:
            address = pointer.address + index * pointer.size
            taken = self.places.setdefault(address, place)
            assert taken == place, f"one address in places {taken % 1000} and {place % 1000}"

    def get(self, pointer, index, place):
        self.note(pointer, index, place)
        value = pointer.view(index, (1,), (1,))[0]
        return value if pointer.dtype.kind == "f" else int(value)

    def put(self, pointer, index, value, place):
        self.note(pointer, index, place)
        if pointer.dtype.kind in "iu" and pointer.dtype.itemsize < 8:
            value = np.int64(int(value)).astype(pointer.dtype)
        pointer.view(index, (1,), (1,))[0] = value


def gemm(real):
    """C = alpha op(A) op(B) + beta C, row-major, as BLAS has it: 111 plain, 112 transposed."""

    def matrix(pointer, offset, rows, columns, lead, order):
        assert lead >= (columns if order == 111 else rows), "a leading dimension that BLAS refuses"
        return pointer.view(offset, (rows, columns), (lead, 1) if order == 111 else (1, lead))

    def product(ta, tb, m, n, k, alpha, a, oa, lda, b, ob, ldb, beta, c, oc, ldc):
        assert a.dtype == b.dtype == c.dtype == real
        left, right = matrix(a, oa, m, k, lda, ta), matrix(b, ob, k, n, ldb, tb)
        target = matrix(c, oc, m, n, ldc, 111)
        assert not np.shares_memory(left, target)
        assert not np.shares_memory(right, target)
        made = real(alpha) * (left @ right)
        target[...] = made if beta == 0 else made + real(beta) * target

    return product


def gemv(real):
    """y = alpha op(A) x + beta y, A (m, n) row-major."""

    def product(ta, m, n, alpha, a, oa, lda, x, ox, dx, beta, y, oy, dy):
        assert a.dtype == x.dtype == y.dtype == real
        assert lda >= n, "a leading dimension that BLAS refuses"
        matrix = a.view(oa, (m, n), (lda, 1))
        matrix = matrix if ta == 111 else matrix.T
        target = y.view(oy, (matrix.shape[0],), (dy,))
        made = real(alpha) * (matrix @ x.view(ox, (matrix.shape[1],), (dx,)))
        target[...] = made if beta == 0 else made + real(beta) * target

    return product


def _exact(function, like=np.float64):
    """A function of `math` with the answers of C, where Python's raises, in the argument's precision."""
    return lambda *args: function(*(np.asarray(a, np.result_type(*args, np.float32))[()] for a in args))


MATH = SimpleNamespace(
    **{name: _exact(getattr(np, name)) for name in "exp log log1p expm1 sqrt sin cos tan tanh sinh cosh log2 log10 hypot".split()},
    **{f"a{name}": _exact(getattr(np, f"arc{name}")) for name in "sin cos tan tan2 sinh cosh tanh".split()},
    **{name: np.vectorize(getattr(math, name), otypes="d") for name in ("erf", "erfc")},
    isnan=np.isnan, isinf=np.isinf, isfinite=np.isfinite, pow=_exact(np.power), nan=math.nan, inf=math.inf,
)  # fmt: skip


def windows(memory):
    """Functions of convolution and pooling, which steps call: their own source, over these pointers."""
    from tinygrad_scratch.capture import runtime_windows

    def copy_row(target, to, source, start, count):
        if count > 0:
            target.view(to, (count,), (1,))[...] = source.view(start, (count,), (1,))

    def add_row(target, to, source, start, count):
        if count > 0:
            target.view(to, (count,), (1,))[...] += source.view(start, (count,), (1,))

    def product(*arguments):
        gemm(np.float32 if arguments[6].dtype == np.float32 else np.float64)(*arguments)

    names = {**vars(runtime_windows), "get": memory.get, "put": memory.put, "larger": larger}
    names |= {"copy_row": copy_row, "add_row": add_row, "product": product}
    own = {k: v.py_func for k, v in vars(runtime_windows).items() if getattr(v, "__module__", "") == runtime_windows.__name__
           and hasattr(v, "py_func")}  # fmt: skip
    made = {name: FunctionType(f.__code__, names, name, f.__defaults__) for name, f in own.items()}
    names |= made
    return {**made, "copy_row": copy_row}


PARTS = {}
"""The functions that do the pieces of jobs, by what stands for their address."""


def address_of(part):
    PARTS[id(part)] = part
    return id(part)


def together(table, team, job, pieces):
    """A job's pieces, done by two threads that take turns, the last piece first."""
    part = PARTS[int(team.view(_team.PART, (1,), (1,))[0])]
    for piece in reversed(range(pieces)):
        part(table, job, piece, piece % 2)


def larger(a, b):
    return a if (a >= b or a != a) else b


def smaller(a, b):
    return a if (a <= b or a != a) else b


MEMORY = Memory()
"""Of the step that runs: its jobs, which are a source of their own, note their places with it."""


def run_source(source):
    """What compile_numba.load gives, for a step, an epoch or their jobs, in Python."""
    memory = MEMORY
    f32, f64 = np.float32, np.float64

    def integer(x):
        return int(x) if -(2.0**63) <= x < 2.0**63 else -(2**63)

    names = {
        "np": np, "math": MATH, "f32": f32, "f64": f64, "i64": integer, "get": memory.get, "put": memory.put,
        "plus": lambda a, b: a + b, "opaque": int, "larger": larger, "smaller": smaller, "exp_f32": lambda x: np.exp(f32(x)),
        "sgemm": gemm(f32), "dgemm": gemm(f64), "sgemv": gemv(f32), "dgemv": gemv(f64),
        **{f"p_{name}": lambda address, dtype=name: Pointer(dtype, address) for name in NUMBERS},
    }  # fmt: skip
    text = source[source.rindex("import *") + len("import *") :]
    text = "\n".join("" if line.startswith("@compiled") else line for line in text.split("\n"))
    names |= windows(memory)
    names |= {"together": together, "address_of": address_of}
    exec(compile(text, "<interpreted step>", "exec"), names)

    def wrapped(function):
        def run(*arrays):
            memory.places.clear()
            if not all(a.flags.c_contiguous and a.dtype.isnative for a in arrays if isinstance(a, np.ndarray)):
                raise TypeError("an array is not in C order")
            with np.errstate(all="ignore"):
                return function(*arrays)

        return run

    return SimpleNamespace(**{name: wrapped(names[name]) for name in ("step", "core", "epoch") if name in names},
                           part=names.get("part"),
                           address_of=names["address_of"], helper=lambda table, place: None)  # fmt: skip
