"""Convolution and pooling in compiled steps, image by image, so that what a product reads was just written to a core's own cache.

Generated steps import this module. Its functions are compiled into each step, where all sizes are constants. Of arrays they take
a pointer and the place of the first element; `first` and `last` are the images (or planes, an image's channels) to be done.

at: (channels, height, width, kernel down, across, step down, across, dilation down, across, padding above, on the left, padded
height, width, windows down, across, distance of the columns' rows).
"""
# mypy: disable-error-code="no-untyped-call,attr-defined,call-arg,call-overload,misc,untyped-decorator"
# (numba's decorators and intrinsics have no types)

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from tinygrad_scratch.capture.runtime_numba import PART_OPTIONS, dgemm, get, kernel, larger, put, sgemm

inline = njit(**PART_OPTIONS, forceinline=True)

_LANES = 8


def _at(builder: Any, pointer: Any, offset: Any) -> Any:
    return builder.gep(pointer, [offset])


@intrinsic
def copy_row(typing_context: Any, target: Any, to: Any, source: Any, start: Any, count: Any) -> Any:
    """target[to : to + count] = source[start : start + count]"""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a, b = _at(builder, args[0], args[1]), _at(builder, args[2], args[3])
        cgutils.raw_memcpy(builder, a, b, args[4], context.get_abi_sizeof(a.type.pointee))
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp, types.intp), generate


@intrinsic
def add_row(typing_context: Any, target: Any, to: Any, source: Any, start: Any, count: Any) -> Any:
    """target[to : to + count] += source[start : start + count], several at a time whatever the count."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a, b, count = _at(builder, args[0], args[1]), _at(builder, args[2], args[3]), args[4]
        size, lanes = context.get_abi_sizeof(a.type.pointee), ir.Constant(count.type, _LANES)
        wide = ir.VectorType(a.type.pointee, _LANES).as_pointer()

        def add(k: Any, kind: Any) -> None:
            x, y = (builder.bitcast(_at(builder, p, k), kind) for p in (a, b))
            builder.store(builder.fadd(builder.load(x, align=size), builder.load(y, align=size)), x, align=size)

        whole = builder.sdiv(count, lanes)
        with cgutils.for_range(builder, whole) as loop:
            add(builder.mul(loop.index, lanes), wide)
        done = builder.mul(whole, lanes)
        with cgutils.for_range(builder, builder.sub(count, done)) as loop:
            add(builder.add(done, loop.index), a.type)
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp, types.intp), generate


def product(ta: Any, tb: Any, m: Any, n: Any, k: Any, alpha: Any, a: Any, a0: Any, lda: Any, b: Any, b0: Any, ldb: Any, beta: Any,
            c: Any, c0: Any, ldc: Any) -> None:  # fmt: skip
    """sgemm or dgemm, by the pointers' type."""


@overload(product)
def _product(ta, tb, m, n, k, alpha, a, a0, lda, b, b0, ldb, beta, c, c0, ldc):  # type: ignore[no-untyped-def]
    gemm = sgemm if a.dtype == types.float32 else dgemm
    return lambda ta, tb, m, n, k, alpha, a, a0, lda, b, b0, ldb, beta, c, c0, ldc: gemm(
        ta, tb, m, n, k, alpha, a, a0, lda, b, b0, ldb, beta, c, c0, ldc
    )


@inline
def clear(x: Any, x0: Any, count: Any, one: Any) -> Any:
    for k in range(count):
        put(x, x0 + k, one - one, 0)


# -- windows as columns, and back --------------------------------------------------------------------------------------


@kernel
def fill_columns(x: Any, x0: Any, strides: Any, room: Any, r0: Any, columns: Any, c0: Any, at: Any) -> Any:
    """One image's windows as a matrix (channels kh kw, oh ow). `room` holds the padded image, zeros on its margins."""
    channels, height, width, kh, kw, sh, sw, dh, dw, top, left, whole_height, whole_width, oh, ow, lead = at
    _, plane, row, step = strides
    padded = whole_height != height or whole_width != width or step != 1
    if padded:
        for c in range(channels):
            for p in range(height):
                to, start = r0 + (c * whole_height + p + top) * whole_width + left, x0 + c * plane + p * row
                if step == 1:
                    copy_row(room, to, x, start, width)
                else:
                    for q in range(width):
                        put(room, to + q, get(x, start + q * step, 0), 0)
    for c in range(channels):
        for i in range(kh):
            for j in range(kw):
                to = c0 + ((c * kh + i) * kw + j) * lead
                for p in range(oh):
                    if padded:
                        _window_row(
                            columns,
                            to + p * ow,
                            room,
                            r0 + (c * whole_height + p * sh + i * dh) * whole_width + j * dw,
                            sw,
                            ow,
                        )
                    else:
                        _window_row(columns, to + p * ow, x, x0 + c * plane + (p * sh + i * dh) * row + j * dw, sw, ow)


@inline
def _window_row(target: Any, to: Any, source: Any, start: Any, step: Any, count: Any) -> Any:
    if step == 1:
        copy_row(target, to, source, start, count)
    else:
        for q in range(count):
            put(target, to + q, get(source, start + q * step, 0), 0)


@kernel
def add_columns(columns: Any, c0: Any, room: Any, r0: Any, x: Any, x0: Any, at: Any, one: Any) -> Any:
    """The transpose of fill_columns, into an image in C order."""
    channels, height, width, kh, kw, sh, sw, dh, dw, top, left, whole_height, whole_width, oh, ow, lead = at
    for c in range(channels):
        base = r0 + c * whole_height * whole_width
        clear(room, base, whole_height * whole_width, one)
        for i in range(kh):
            for j in range(kw):
                for p in range(oh):
                    to, start = (
                        base + (p * sh + i * dh) * whole_width + j * dw,
                        c0 + ((c * kh + i) * kw + j) * lead + p * ow,
                    )
                    if sw == 1:
                        add_row(room, to, columns, start, ow)
                    else:
                        for q in range(ow):
                            put(room, to + q * sw, get(room, to + q * sw, 0) + get(columns, start + q, 0), 0)
        for p in range(height):
            copy_row(x, x0 + (c * height + p) * width, room, base + (p + top) * whole_width + left, width)


# -- convolution -------------------------------------------------------------------------------------------------------


@inline
def _columns(x: Any, x0: Any, strides: Any, room: Any, r0: Any, columns: Any, c0: Any, at: Any, direct: Any) -> Any:
    """One image's windows as a matrix, (pointer, place, distance of its rows): the image itself if `direct`."""
    if direct:
        return x, x0, at[13] * at[14]
    fill_columns(x, x0, strides, room, r0, columns, c0, at)
    return columns, c0, at[15]


@kernel
def conv2d(x: Any, x0: Any, strides: Any, w: Any, w0: Any, bias: Any, b0: Any, y: Any, y0: Any, room: Any, r0: Any, columns: Any,
           c0: Any, first: Any, last: Any, groups: Any, out: Any, at: Any, direct: Any, shift: Any, relu: Any,
           one: Any) -> Any:  # fmt: skip
    """y = conv2d(x, w), with `shift` + bias, with `relu` no less than 0. `direct`: the image is its own columns."""
    inner, outer = at[0] // groups * at[3] * at[4], at[13] * at[14]
    if not direct:
        clear(room, r0, at[0] * at[11] * at[12], one)
    for n in range(first, last):
        source, start, lead = _columns(x, x0 + n * strides[0], strides, room, r0, columns, c0, at, direct)
        for k in range(groups):
            product(111, 111, out, outer, inner, 1.0, w, w0 + k * out * inner, inner, source, start + k * inner * lead, lead,
                    0.0, y, y0 + (n * groups + k) * out * outer, outer)  # fmt: skip
        if shift or relu:
            _finish(y, y0 + n * groups * out * outer, bias, b0, groups * out, outer, shift, relu, one - one)


@inline
def _finish(y: Any, y0: Any, bias: Any, b0: Any, channels: Any, count: Any, shift: Any, relu: Any, zero: Any) -> Any:
    for o in range(channels):
        add = get(bias, b0 + o, 0) if shift else zero
        for k in range(count):
            value: Any = get(y, y0 + o * count + k, 0) + add
            put(y, y0 + o * count + k, larger(value, zero) if relu else value, 0)


@kernel
def conv2d_input(g: Any, g0: Any, w: Any, w0: Any, x: Any, x0: Any, room: Any, r0: Any, columns: Any, c0: Any, first: Any,
                 last: Any, groups: Any, out: Any, at: Any, direct: Any, one: Any) -> Any:  # fmt: skip
    """x = conv2d_input(g, w)"""
    inner, outer = at[0] // groups * at[3] * at[4], at[13] * at[14]
    target, to, lead = columns, c0, at[15]
    for n in range(first, last):
        image = x0 + n * at[0] * at[1] * at[2]
        if direct:
            target, to, lead = x, image, outer
        for k in range(groups):
            product(112, 111, inner, outer, out, 1.0, w, w0 + k * out * inner, inner, g, g0 + (n * groups + k) * out * outer, outer,
                    0.0, target, to + k * inner * lead, lead)  # fmt: skip
        if not direct:
            add_columns(columns, c0, room, r0, x, image, at, one)


@kernel
def conv2d_weight(g: Any, g0: Any, x: Any, x0: Any, strides: Any, sums: Any, s0: Any, room: Any, r0: Any, columns: Any, c0: Any,
                  first: Any, last: Any, groups: Any, out: Any, at: Any, direct: Any, one: Any) -> Any:  # fmt: skip
    """sums (groups, inner, out) = the transpose of conv2d_weight(g, x): this way round BLAS packs the smaller operand."""
    inner, outer = at[0] // groups * at[3] * at[4], at[13] * at[14]
    clear(sums, s0, groups * inner * out, one)
    if not direct:
        clear(room, r0, at[0] * at[11] * at[12], one)
    for n in range(first, last):
        source, start, lead = _columns(x, x0 + n * strides[0], strides, room, r0, columns, c0, at, direct)
        for k in range(groups):
            product(111, 112, inner, out, outer, 1.0, source, start + k * inner * lead, lead, g,
                    g0 + (n * groups + k) * out * outer, outer, 1.0, sums, s0 + k * inner * out, out)  # fmt: skip


@kernel
def turn_sums(sums: Any, s0: Any, w: Any, w0: Any, pieces: Any, groups: Any, inner: Any, out: Any) -> Any:
    """w (groups, out, inner) = sums (pieces, groups, inner, out), added up and turned."""
    size = groups * inner * out
    for piece in range(1, pieces):
        add_row(sums, s0, sums, s0 + piece * size, size)
    for g in range(groups):
        for o in range(out):
            for k in range(inner):
                put(w, w0 + (g * out + o) * inner + k, get(sums, s0 + (g * inner + k) * out + o, 0), 0)


@kernel
def turn_weight(w: Any, w0: Any, turned: Any, t0: Any, groups: Any, out: Any, inner: Any, size: Any) -> Any:
    """turned (groups, inner, out, size) = w (groups, out, inner, size), the pixels in the other order."""
    for g in range(groups):
        for c in range(inner):
            for o in range(out):
                to, start = t0 + ((g * inner + c) * out + o) * size, w0 + ((g * out + o) * inner + c) * size
                for k in range(size):
                    put(turned, to + k, get(w, start + size - 1 - k, 0), 0)


# -- pooling -----------------------------------------------------------------------------------------------------------


@inline
def _largest(x: Any, x0: Any, p: Any, q: Any, at: Any, lowest: Any) -> Any:
    """The largest element of the window (p, q) of the plane at x0."""
    _, height, width, kh, kw, sh, sw, dh, dw, top, left, whole_height, whole_width, _, _, _ = at
    padded, most = whole_height != height or whole_width != width, lowest
    for i in range(kh):
        for j in range(kw):
            r, s = p * sh + i * dh - top, q * sw + j * dw - left
            if not padded or (0 <= r < height and 0 <= s < width):
                value: Any = get(x, x0 + r * width + s, 0)
                most = larger(most, value)
    return most


@kernel
def max_pool2d(x: Any, x0: Any, y: Any, y0: Any, first: Any, last: Any, at: Any, lowest: Any) -> Any:
    """y = max_pool2d(x), plane by plane."""
    for n in range(first, last):
        for p in range(at[13]):
            for q in range(at[14]):
                put(y, y0 + (n * at[13] + p) * at[14] + q, _largest(x, x0 + n * at[1] * at[2], p, q, at, lowest), 0)


@kernel
def max_pool2d_input(
    g: Any, g0: Any, x: Any, x0: Any, d: Any, d0: Any, first: Any, last: Any, at: Any, lowest: Any, one: Any
) -> Any:
    """d = max_pool2d_input(g, x), plane by plane."""
    _, height, width, kh, kw, sh, sw, dh, dw, top, left, whole_height, whole_width, oh, ow, _ = at
    padded, apart = whole_height != height or whole_width != width, sh >= kh and sw >= kw and dh == 1 and dw == 1
    for n in range(first, last):
        start, to = x0 + n * height * width, d0 + n * height * width
        if not (apart and kh == sh and kw == sw and oh * sh == height and ow * sw == width):
            clear(d, to, height * width, one)
        for p in range(oh):
            for q in range(ow):
                most, count = _largest(x, start, p, q, at, lowest), one - one
                for i in range(kh):
                    for j in range(kw):
                        r, s = p * sh + i * dh - top, q * sw + j * dw - left
                        if not padded or (0 <= r < height and 0 <= s < width):
                            count += one if get(x, start + r * width + s, 0) == most else one - one
                share = get(g, g0 + (n * oh + p) * ow + q, 0) / count
                for i in range(kh):
                    for j in range(kw):
                        r, s = p * sh + i * dh - top, q * sw + j * dw - left
                        if not padded or (0 <= r < height and 0 <= s < width):
                            part = share if get(x, start + r * width + s, 0) == most else share * (one - one)
                            put(d, to + r * width + s, part if apart else get(d, to + r * width + s, 0) + part, 0)


@kernel
def fold2d(g: Any, g0: Any, x: Any, x0: Any, first: Any, last: Any, at: Any, one: Any) -> Any:
    """x = fold2d(g), plane by plane."""
    _, height, width, kh, kw, sh, sw, dh, dw, _, _, _, _, oh, ow, _ = at
    for n in range(first, last):
        to = x0 + n * height * width
        clear(x, to, height * width, one)
        for i in range(kh):
            for j in range(kw):
                for p in range(oh):
                    start, row = g0 + (((n * kh + i) * kw + j) * oh + p) * ow, to + (p * sh + i * dh) * width + j * dw
                    for q in range(ow):
                        put(x, row + q * sw, get(x, row + q * sw, 0) + get(g, start + q, 0), 0)
