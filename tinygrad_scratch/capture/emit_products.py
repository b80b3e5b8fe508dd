"""Products of the compiled back end: calls of BLAS, and plain loops where a call would take longer."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_scratch._typing import Shape
from tinygrad_scratch.capture.emit_loops import literal
from tinygrad_scratch.capture.lower import Product
from tinygrad_scratch.capture.recording.trace import Var
from tinygrad_scratch.capture.simplify import Unsupported

if TYPE_CHECKING:
    from tinygrad_scratch.capture.emit_numba import Emitter

_SMALL_PRODUCT = 1024  # multiply-adds: below, plain loops are done before a call has begun
_LARGE_VECTOR = 1 << 22  # with a vector: from here on gemv takes half of gemm's time; far below it wakes threads


@dataclass(frozen=True)
class Matrix:
    """A Var as a matrix, or some of its rows or columns: `start` is where the first element lies, `tall` and `wide` how many
    rows and columns there are, in the words of the source."""

    var: Var
    rows: int
    columns: int
    strides: Shape
    start: str
    tall: str
    wide: str

    @property
    def turned(self) -> "Matrix":
        """The transpose."""
        return Matrix(self.var, self.columns, self.rows, self.strides[::-1], self.start, self.wide, self.tall)

    def some_rows(self, first: str, last: str) -> "Matrix":
        """Rows `first` to `last` - 1, of which nothing but the names is known."""
        return replace(self, start=f"{self.start} + {first} * {self.strides[0]}", tall=f"{last} - {first}")

    def some_columns(self, first: str, last: str) -> "Matrix":
        return self.turned.some_rows(first, last).turned

    @property
    def order(self) -> tuple[int, int]:
        """(111 plain or 112 transposed, leading dimension) for a row-major call."""
        strides, rows, columns = self.strides, self.rows, self.columns
        if strides[1] == 1 or columns == 1:
            lead = strides[0] if rows > 1 else columns
            if lead >= max(columns, 1):
                return 111, max(lead, 1)
        if strides[0] == 1 or rows == 1:
            lead = strides[1] if columns > 1 else rows
            if lead >= max(rows, 1):
                return 112, max(lead, 1)
        raise Unsupported("a product of matrices with gaps")


def matrix(var: Var) -> Matrix:
    """All of a Var."""
    rows, columns = var.shape
    strides: Any = var.strides
    return Matrix(var, rows, columns, strides, str(var.offset), str(rows), str(columns))


def write(item: Product, e: "Emitter") -> None:
    """A product of matrices, by BLAS, row-major."""
    left, right, target = matrix(item.a), matrix(item.b), matrix(item.out if item.into is None else item.into)
    if item.into is not None and item.flip:  # (a b)' = b' a'
        left, right = right.turned, left.turned
    with e.job(item.pieces):
        if e.pieces > 1 and (e.block or left.rows >= right.columns):
            left, target = (m.some_rows(*e.bounds(left.rows)) for m in (left, target))
        elif e.pieces > 1:
            right, target = (m.some_columns(*e.bounds(right.columns)) for m in (right, target))
        multiply(left, right, target, item, e)


def add(item: Product, total: Var, e: "Emitter") -> None:
    """Add the product over a block's rows, which it sums over, to what the piece has in `total` (pieces, rows, columns)."""
    left, right = matrix(item.a), matrix(item.b)
    left, right = left.some_columns(*e.bounds(left.columns)), right.some_rows(*e.bounds(left.columns))
    if total.shape[1:] != item.out.shape:
        left, right = right.turned, left.turned
    _, rows, columns = total.shape
    target = Matrix(total, rows, columns, (columns, 1), f"piece * {rows * columns}", str(rows), str(columns))
    multiply(left, right, target, replace(item, beta=1.0), e)


def multiply(left: Matrix, right: Matrix, target: Matrix, item: Product, e: "Emitter") -> None:
    """target = alpha left @ right + beta target, the way that is fastest for so many rows and columns."""
    dtypes = {item.a.dtype, item.b.dtype, item.out.dtype, target.var.dtype}
    if len(dtypes) > 1 or target.var.dtype not in (np.float32, np.float64):
        raise Unsupported(f"a product of {item.a.dtype} and {item.b.dtype}")
    if target.strides[1] != 1 and target.columns > 1:
        if target.strides[0] != 1 and target.rows > 1:
            raise Unsupported("a product into memory with gaps")
        left, right, target = right.turned, left.turned, target.turned  # column-major: compute the transpose
    work = left.rows * left.columns * right.columns
    if work <= _SMALL_PRODUCT:
        _loops(left, right, target, item, e)
    elif 1 in (left.rows, right.columns) and (e.block or (e.pieces == 1 and work >= _LARGE_VECTOR)):
        _gemv(left, right, target, item, e)
    else:
        _gemm(left, right, target, item, e)


def _gemm(left: Matrix, right: Matrix, target: Matrix, item: Product, e: "Emitter") -> None:
    (ta, lda), (tb, ldb), out = left.order, right.order, target.var
    ldc = max(target.strides[0] if target.rows > 1 else target.columns, target.columns, 1)
    e.write(
        0,
        f"{_letter(out)}gemm({ta}, {tb}, {left.tall}, {right.wide}, {left.wide}, {factor(item.alpha, out, e)}, "
        f"{e.pointer(left.var)}, {left.start}, {lda}, {e.pointer(right.var)}, {right.start}, {ldb}, "
        f"{factor(item.beta, out, e)}, {e.pointer(out)}, {target.start}, {ldc})",
    )


def _gemv(left: Matrix, right: Matrix, target: Matrix, item: Product, e: "Emitter") -> None:
    if right.columns != 1:  # y = x B as y' = B' x'
        left, right, target = right.turned, left.turned, target.turned
    (order, lead), out = left.order, target.var
    rows, columns = (left.tall, left.wide) if order == 111 else (left.wide, left.tall)
    e.write(
        0,
        f"{_letter(out)}gemv({order}, {rows}, {columns}, {factor(item.alpha, out, e)}, {e.pointer(left.var)}, {left.start}, "
        f"{lead}, {e.pointer(right.var)}, {right.start}, {right.strides[0]}, {factor(item.beta, out, e)}, {e.pointer(out)}, "
        f"{target.start}, {target.strides[0]})",
    )


def _loops(left: Matrix, right: Matrix, target: Matrix, item: Product, e: "Emitter") -> None:
    """A product that is smaller than the call of BLAS would be."""
    i, j, t, total = (e.fresh(stem) for stem in "kjts")  # never i64, which is a type
    c = target.var
    zero, one = literal(0, c.dtype), literal(1, c.dtype)
    alpha, beta = factor(item.alpha, c, e), factor(item.beta, c, e)
    e.write(0, f"for {i} in range({left.tall}):")
    e.write(1, f"for {j} in range({right.wide}):")
    e.write(2, f"{total} = {zero}")
    e.write(2, f"for {t} in range({left.wide}):")
    x, y = e.get(left.var, _element(left, i, t)), e.get(right.var, _element(right, t, j))
    e.write(3, f"{total} = plus({total}, {x} * {y})")
    place = _element(target, i, j)
    value = total if alpha == one else f"{alpha} * {total}"
    if beta != zero:
        value += f" + {'' if beta == one else beta + ' * '}{e.get(c, place)}"
    e.write(2, e.put(c, place, value))


def _element(m: Matrix, row: str, column: str) -> str:
    return f"{m.start} + {row} * {m.strides[0]} + {column} * {m.strides[1]}"


def _letter(out: Var) -> str:
    return "s" if out.dtype == np.float32 else "d"


def factor(x: Any, like: Var, e: "Emitter") -> str:
    """A number, a Var's, or the product of two, in the dtype of `like`."""
    if isinstance(x, tuple):
        return f"{factor(x[0], like, e)} * {factor(x[1], like, e)}"
    if isinstance(x, Var):
        return e.get(x, str(x.offset))
    return literal(x, like.dtype)
