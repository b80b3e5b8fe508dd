"""Work that threads share in compiled steps: the step posts a job, and whoever comes first does its next piece.

Generated steps import this module. A step never waits for a thread that has not come: it does all pieces itself then. What a
piece computes depends on its number alone, so the bits of the answer are the same for any number of threads.

team: a pointer to words that all threads see (see _team.py).
"""
# mypy: disable-error-code="no-untyped-call,attr-defined,call-arg,call-overload,misc,untyped-decorator"
# (numba's decorators and intrinsics have no types)

import ctypes
from typing import Any

import llvmlite.binding as llvm
from numba import njit, types
from numba.extending import intrinsic

from tinygrad_scratch._team import AWAY, DONE, PART, WORD
from tinygrad_scratch.capture.runtime_numba import kernel

_PATIENCE = (
    100_000  # looks for work, a tenth of a millisecond, before a thread sleeps between them: others may need the core
)


@intrinsic
def _read(typing_context: Any, pointer: Any, index: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(builder.gep(args[0], [args[1]]), "acquire", 8)

    return types.int64(pointer, types.intp), generate


@intrinsic
def _write(typing_context: Any, pointer: Any, index: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = context.cast(builder, args[2], signature.args[2], types.int64)
        builder.store_atomic(value, builder.gep(args[0], [args[1]]), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, value), generate


@intrinsic
def _increment(typing_context: Any, pointer: Any, index: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        one = context.get_constant(types.int64, 1)
        builder.atomic_rmw("add", builder.gep(args[0], [args[1]]), one, "seq_cst")
        return context.get_dummy_value()

    return types.void(pointer, types.intp), generate


@intrinsic
def _replace(typing_context: Any, pointer: Any, index: Any, old: Any, new: Any) -> Any:
    """Write `new` if `old` is there still; whether it was."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        found = builder.cmpxchg(builder.gep(args[0], [args[1]]), args[2], args[3], "seq_cst", "seq_cst")
        return builder.extract_value(found, 1)

    return types.boolean(pointer, types.intp, types.int64, types.int64), generate


@intrinsic
def _perform(typing_context: Any, address: Any, table: Any, job: Any, piece: Any, place: Any) -> Any:
    """A call of the function `part`, by its address: so that it is compiled once, and not again for each caller."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = [signature.args[1], *[types.int64] * 3]
        kind = context.call_conv.get_function_type(types.void, kinds)
        part = builder.inttoptr(args[0], kind.as_pointer())
        context.call_conv.call_function(builder, part, types.void, kinds, args[1:])
        return context.get_dummy_value()

    return types.void(types.int64, table, types.int64, types.int64, types.int64), generate


def address_of(part: Any) -> int:
    """The address of a compiled function of one signature, for _perform."""
    (found,) = part.overloads.values()
    return int(found.library.get_pointer_to_function(found.fndesc.llvm_func_name))


if hasattr(ctypes.pythonapi, "usleep"):
    llvm.add_symbol("tinygrad_scratch_usleep", ctypes.cast(ctypes.pythonapi.usleep, ctypes.c_void_p).value)
    _sleep = types.ExternalFunction("tinygrad_scratch_usleep", types.int32(types.int32))
else:

    @njit(nogil=True)
    def _sleep(microseconds: Any) -> Any:
        """Where C has none, look on."""


@kernel
def together(table: Any, team: Any, job: Any, pieces: Any) -> Any:
    """Have all pieces of a job done."""
    _write(team, DONE, 0)
    number = ((_read(team, WORD) >> 32) + 1) & 0x7FFFFFFF
    _write(team, WORD, number << 32 | job << 16 | pieces << 8)
    while _do_a_piece(table, team, 0):
        pass
    looks = 0
    while _read(team, DONE) < pieces:
        looks = _rest(looks)


@kernel
def assist(table: Any, team: Any, place: Any) -> Any:
    """Do pieces of whatever jobs there are, until the step is over."""
    looks = 0
    while _read(team, AWAY) == 0:
        looks = 0 if _do_a_piece(table, team, place) else _rest(looks)


@kernel
def _do_a_piece(table: Any, team: Any, place: Any) -> Any:
    """Do the next piece of the job; whether there was one."""
    while True:
        word: Any = _read(team, WORD)
        if word & 255 >= (word >> 8) & 255:
            return False
        if _replace(team, WORD, word, word + 1):
            _perform(_read(team, PART), table, (word >> 16) & 0xFFFF, word & 255, place)
            _increment(team, DONE)
            return True


@kernel
def _rest(looks: Any) -> Any:
    """Let some time pass; looks: how many times already."""
    if looks < _PATIENCE:
        return looks + 1
    _sleep(20)
    return looks
