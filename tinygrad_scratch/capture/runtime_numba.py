"""What compiled steps are made of: typed pointers, sums that may be reordered, a vectorisable exp, and NumPy's own BLAS.

Generated steps import this module. Only the modules runtime_* import numba as they are loaded.
"""
# mypy: disable-error-code="no-untyped-call,attr-defined,call-arg,call-overload"
# (numba's intrinsics are called without their typing context, which its annotations do not say)

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils, config
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import register_pass
from numba.core.errors import RequireLiteralValue
from numba.core.runtime import rtsys
from numba.core.typed_passes import NativeLowering
from numba.extending import intrinsic

from tinygrad_scratch._blas import numpy_blas

f32, f64, i64 = np.float32, np.float64, np.int64
STEP_OPTIONS = {"fastmath": {"contract"}, "error_model": "numpy", "nogil": True, "cache": True, "boundscheck": False}


def compiled(signature: Any, cache: bool = True) -> Callable[..., Any]:
    """Decorator: a function of one signature, compiled; its machine code from the cache, if it is there."""

    def wrap(function: Any) -> Any:
        dispatcher = njit(**{**STEP_OPTIONS, "cache": cache})(function)
        if not (cache and _from_cache(dispatcher, signature)):
            dispatcher.compile(signature)
        dispatcher.disable_compile()
        return dispatcher

    return wrap


def _from_cache(dispatcher: Any, signature: Any) -> bool:
    """Load machine code as ``dispatcher.compile`` does, but for making numba ready to compile, which takes four times as long
    (and imports SciPy, where that is installed). False where there is none, or where this numba has other insides."""
    try:
        with global_compiler_lock:
            rtsys.initialize(dispatcher.targetctx)  # names that the code is linked to
            found = dispatcher._cache._load_overload(signature, dispatcher.targetctx)
            if found is None:
                return False
            dispatcher.targetctx.insert_user_function(found.entry_point, found.fndesc, [found.library])
            dispatcher.add_overload(found)
    except Exception:  # a cache must never stand in the way
        return False
    return True


@register_pass(mutates_CFG=True, analysis_only=False)
class _LightLowering(NativeLowering):
    """Machine code with little optimisation. Nobody runs it: what counts is where the function is compiled into a step, which
    knows its sizes. For all sizes there could be, loops are unrolled and split in so many ways that it took most of the time."""

    _name = "light_lowering"

    def run_pass(self, state: Any) -> Any:
        before = config.OPT, config.LOOP_VECTORIZE, config.SLP_VECTORIZE
        config.OPT, config.LOOP_VECTORIZE, config.SLP_VECTORIZE = type(config.OPT)(1), 0, 0
        try:  # under numba's lock: nothing else is compiled meanwhile
            return super().run_pass(state)
        finally:
            config.OPT, config.LOOP_VECTORIZE, config.SLP_VECTORIZE = before


class Part(CompilerBase):
    """The compiler of functions that are parts of steps."""

    def define_pipelines(self) -> list[Any]:
        """numba's own way, but for the last thing."""
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
        passes.passes[:] = [(_LightLowering if p is NativeLowering else p, why) for p, why in passes.passes]
        passes.finalize()
        return [passes]


PART_OPTIONS = {**STEP_OPTIONS, "cache": False, "pipeline_class": Part}
kernel = njit(**PART_OPTIONS, inline="never")
"""Decorator: a function that steps call."""


def _pointer(dtype: Any, name: str) -> Any:
    """An intrinsic: the address `table[i]` as a pointer to `dtype`."""
    pointer = types.CPointer(dtype)

    @intrinsic
    def cast(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(pointer))

        return pointer(types.intp), generate

    cast.__name__ = name
    return cast


POINTERS = {
    "float32": _pointer(types.float32, "float32"),
    "float64": _pointer(types.float64, "float64"),
    "bool": _pointer(types.uint8, "bool"),
    **{
        name: _pointer(getattr(types, name), name)
        for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    },
}
p_float32, p_float64, p_bool = POINTERS["float32"], POINTERS["float64"], POINTERS["bool"]
p_int8, p_int16, p_int32, p_int64 = (POINTERS[f"int{n}"] for n in (8, 16, 32, 64))
p_uint8, p_uint16, p_uint32, p_uint64 = (POINTERS[f"uint{n}"] for n in (8, 16, 32, 64))


@intrinsic
def opaque(typing_context: Any, number: Any) -> Any:
    """The number, in a way that the optimizer cannot see through: no instruction, whose answer could be anything."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        return builder.asm(ir.FunctionType(word, [word]), "", "=r,0", [args[0]], side_effect=False)

    return types.int64(types.int64), generate


def _tag(module: Any, access: Any, place: int) -> None:
    """Tell LLVM that arrays in different places share no memory. `place` is number + 1000 * how many; 0: nothing is known."""
    if place:
        number, many = place % 1000, place // 1000
        domain = module.add_metadata(["tinygrad_scratch"])
        scopes = [module.add_metadata([f"place {n}", domain]) for n in range(many)]
        access.set_metadata("alias.scope", module.add_metadata([scopes[number]]))
        access.set_metadata("noalias", module.add_metadata([s for n, s in enumerate(scopes) if n != number]))


def _literal(place: Any) -> int:
    if not isinstance(place, types.IntegerLiteral):
        raise RequireLiteralValue(place)
    return int(place.literal_value)


@intrinsic
def get(typing_context: Any, pointer: Any, index: Any, place: Any) -> Any:
    """pointer[index], without checks."""
    where = _literal(place)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        load = builder.load(builder.gep(args[0], [args[1]]))
        _tag(builder.module, load, where)
        return load

    return pointer.dtype(pointer, types.intp, place), generate


@intrinsic
def put(typing_context: Any, pointer: Any, index: Any, value: Any, place: Any) -> Any:
    """pointer[index] = value, without checks."""
    where = _literal(place)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = context.cast(builder, args[2], signature.args[2], pointer.dtype)
        store = builder.store(value, builder.gep(args[0], [args[1]]))
        _tag(builder.module, store, where)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, value, place), generate


@intrinsic
def plus(typing_context: Any, a: Any, b: Any) -> Any:
    """a + b in a sum whose order does not matter, so that the compiler may use all lanes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fadd(args[0], args[1], flags=("reassoc", "contract"))

    return a(a, a), generate


@intrinsic
def _bits_to_float(typing_context: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def _float_to_bits(typing_context: Any, x: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), generate


@njit(inline="always", fastmath={"contract"})
def exp_f32(x: Any) -> Any:
    """exp in float32 within 2 units in the last place, in operations that vectorise (Cephes, expf: Moshier 1989).

    x = n log 2 + r with |r| <= log(2) / 2; a polynomial for exp(r); two powers of two, so that subnormal and overflowing
    answers come out right.
    """
    clipped = min(max(x, f32(-104.0)), f32(89.0))
    shifted = clipped * f32(1.44269504088896341) + f32(12582912.0)  # adding 1.5 * 2**23 rounds to an integer
    n = shifted - f32(12582912.0)
    r = clipped - n * f32(0.693359375) - n * f32(-2.12194440e-4)
    p = f32(1.9875691500e-4)
    p = p * r + f32(1.3981999507e-3)
    p = p * r + f32(8.3334519073e-3)
    p = p * r + f32(4.1665795894e-2)
    p = p * r + f32(1.6666665459e-1)
    p = p * r + f32(5.0000001201e-1)
    y = p * (r * r) + r + f32(1.0)
    k = np.int32(_float_to_bits(shifted) - np.int32(0x4B400000))
    half = np.int32(k >> np.int32(1))
    low = _bits_to_float(np.int32((half + np.int32(127)) << np.int32(23)))
    high = _bits_to_float(np.int32((k - half + np.int32(127)) << np.int32(23)))
    return y * low * high if x == x else x


@njit(inline="always")
def larger(a: Any, b: Any) -> Any:
    """np.maximum: NaN wins."""
    return a if (a >= b or a != a) else b


@njit(inline="always")
def smaller(a: Any, b: Any) -> Any:
    """np.minimum: NaN wins."""
    return a if (a <= b or a != a) else b


# -- NumPy's BLAS ------------------------------------------------------------------------------------------------------


def register_products() -> bool:
    """Make NumPy's own products known to the linker, so that no second BLAS has threads. False if they cannot be found."""
    library = numpy_blas()
    for name, address in library.address.items() if library is not None else ():
        llvm.add_symbol(f"tinygrad_scratch_{name}", address)
    return library is not None


def _call_blas(name: str, real: Any, forms: str) -> Callable[..., Any]:
    """What generates a call of CBLAS, row-major. forms: of each argument that follows the order, "e" (one of its enums), "n" (an
    integer of its size), "x" (a number), "p" (a pointer and, in an argument of its own, a place)."""
    library, word = numpy_blas(), ir.IntType(32)
    size = ir.IntType(64 if library is None else library.bits)
    number = ir.FloatType() if real is types.float32 else ir.DoubleType()
    kinds = {"e": word, "n": size, "x": number, "p": ir.IntType(8).as_pointer()}

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        given, passed = iter(args), [ir.Constant(word, 101)]
        for form in forms:
            value = next(given)
            if form == "p":
                value = builder.bitcast(builder.gep(value, [next(given)]), kinds["p"])
            elif form != "x" and value.type != kinds[form]:
                value = builder.trunc(value, kinds[form])
            passed.append(value)
        kind = ir.FunctionType(ir.VoidType(), [word, *(kinds[form] for form in forms)])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, f"tinygrad_scratch_{name}"), passed)
        return context.get_dummy_value()

    return generate


def _gemm(kind: str, real: Any) -> Any:
    generate, i = _call_blas(f"{kind}gemm", real, "eennnxpnpnxpn"), types.int64

    @intrinsic
    def gemm(typing_context: Any, ta: Any, tb: Any, m: Any, n: Any, k: Any, alpha: Any, a: Any, oa: Any, lda: Any, b: Any, ob: Any,
             ldb: Any, beta: Any, c: Any, oc: Any, ldc: Any) -> Any:  # fmt: skip
        return types.void(i, i, i, i, i, real, a, i, i, b, i, i, real, c, i, i), generate

    return gemm


sgemm, dgemm = _gemm("s", types.float32), _gemm("d", types.float64)
"""C = alpha op(A) op(B) + beta C, row-major; 111 plain, 112 transposed; each array a pointer and an offset."""


def _gemv(kind: str, real: Any) -> Any:
    generate, i = _call_blas(f"{kind}gemv", real, "ennxpnpnxpn"), types.int64

    @intrinsic
    def gemv(typing_context: Any, ta: Any, m: Any, n: Any, alpha: Any, a: Any, oa: Any, lda: Any, x: Any, ox: Any, dx: Any,
             beta: Any, y: Any, oy: Any, dy: Any) -> Any:  # fmt: skip
        return types.void(i, i, i, real, a, i, i, x, i, i, real, y, i, i), generate

    return gemv


sgemv, dgemv = _gemv("s", types.float32), _gemv("d", types.float64)
"""y = alpha op(A) x + beta y, A (m, n) row-major; dx, dy: distances of the vectors' elements."""
