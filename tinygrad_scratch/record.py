"""How a row runs on Tensors: take the arrays out, run the function, keep how the answer was made.

One small function a row, specialised by its number of arguments when the row is registered, because this is what every
operation pays. The operators and methods of Tensor are bound to them here, but for those that change it (``writing``).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_scratch import registry
from tinygrad_scratch._typing import Array
from tinygrad_scratch.context import state
from tinygrad_scratch.errors import describe, explain
from tinygrad_scratch.ops import composed, indexing
from tinygrad_scratch.registry import OPS, Op
from tinygrad_scratch.tensor import Tensor, next_rank
from tinygrad_scratch.values import refuse_mask

_F32, _F64 = np.dtype(np.float32), np.dtype(np.float64)
PLAIN = frozenset({np.ndarray, float, int, bool, np.float32, np.float64})
_new, _ndarray = Tensor.__new__, np.ndarray


def constant(x: Any) -> Any:
    """An operand that is neither a Tensor nor a plain array or number: an array of real numbers, or TypeError."""
    if x is None:
        return x
    array = np.asarray(refuse_mask(x))
    if array.dtype.kind == "c":
        raise TypeError(
            "complex numbers are not supported yet; compute with the real and imaginary parts as two Tensors"
        )
    if array.dtype.kind not in "fiub":
        raise TypeError(f"operand of type {type(x).__name__} (dtype {array.dtype}) is no array of real numbers")
    return array if array.ndim or not isinstance(x, np.generic) else x


def _checked(y: Any, op: Op, values: tuple[Any, ...]) -> Array:
    """The answer as an array. TypeError for complex or object answers."""
    answer: Array = np.asarray(y)
    if answer.dtype.kind not in "fiub":
        operands, kind = ", ".join(map(describe, values)), answer.dtype
        raise TypeError(
            f"{op.__name__}({operands}) gives {kind}: complex numbers and objects are not supported; use real arrays"
        )
    return answer


def _keep(
    op: Op, y: Any, parents: tuple[Any, ...], values: tuple[Any, ...], options: dict[str, Any], needed: bool
) -> Tensor:
    """The Tensor around an answer, with its node if a graph is wanted."""
    out: Tensor = _new(Tensor)
    if type(y) is not _ndarray or (y.dtype is not _F32 and y.dtype is not _F64):
        y = _checked(y, op, values)
        needed = needed and y.dtype.kind == "f"  # astype(int), say: piecewise constant, so no gradient
    out._data = y
    out._grad = None
    mode = state.mode
    if mode is not True and mode is not False:
        out._data = mode.record(op, values, options, y, parents)
        mode = mode.grad
    if needed and mode:
        out._requires_grad = True
        out._node = (op, parents, values, options)
        out._rank = next_rank()
    else:
        out._requires_grad = False
        out._node = None
        out._rank = 0
    return out


def _unary(op: Op) -> Callable[..., Any]:
    fn, differentiable = op.fn, op.rules[0] is not None

    def apply(x: Any, **options: Any) -> Any:
        if not isinstance(x, Tensor):
            return fn(x, **options)
        v = x._data
        try:
            y = fn(v, **options) if options else fn(v)
        except Exception as error:
            explain(error, op, (x,), options)
            raise
        return _keep(op, y, (x,), (v,), options, differentiable and x._requires_grad)

    return apply


def _binary(op: Op) -> Callable[..., Any]:
    fn = op.fn
    left, right = (rule is not None for rule in op.rules)

    def apply(a: Any, b: Any, **options: Any) -> Any:
        if isinstance(a, Tensor):
            v, p, needed = a._data, a, left and a._requires_grad
            if isinstance(b, Tensor):
                w, q = b._data, b
                needed = needed or (right and b._requires_grad)
            else:
                w, q = b if type(b) in PLAIN else constant(b), None
        elif isinstance(b, Tensor):
            v, p = a if type(a) in PLAIN else constant(a), None
            w, q, needed = b._data, b, right and b._requires_grad
        else:
            return fn(a, b, **options)
        try:
            y = fn(v, w, **options) if options else fn(v, w)
        except Exception as error:
            explain(error, op, (a, b), options)
            raise
        return _keep(op, y, (p, q), (v, w), options, needed)

    return apply


def _ternary(op: Op) -> Callable[..., Any]:
    fn = op.fn
    first, second, third = (rule is not None for rule in op.rules)

    def apply(a: Any, b: Any, c: Any, **options: Any) -> Any:
        p = a if isinstance(a, Tensor) else None
        q = b if isinstance(b, Tensor) else None
        r = c if isinstance(c, Tensor) else None
        if p is None and q is None and r is None:
            return fn(a, b, c, **options)
        u = p._data if p is not None else a if type(a) in PLAIN else constant(a)
        v = q._data if q is not None else b if type(b) in PLAIN else constant(b)
        w = r._data if r is not None else c if type(c) in PLAIN else constant(c)
        try:
            y = fn(u, v, w, **options) if options else fn(u, v, w)
        except Exception as error:
            explain(error, op, (a, b, c), options)
            raise
        needed = (
            (p is not None and first and p._requires_grad)
            or (q is not None and second and q._requires_grad)
            or (r is not None and third and r._requires_grad)
        )
        return _keep(op, y, (p, q, r), (u, v, w), options, needed)

    return apply


def _many(op: Op) -> Callable[..., Any]:
    fn, rules = op.fn, op.rules

    def apply(*inputs: Any, **options: Any) -> Any:
        parents = tuple([x if isinstance(x, Tensor) else None for x in inputs])
        if all(p is None for p in parents):
            return fn(*inputs, **options)
        values = tuple([x._data if isinstance(x, Tensor) else x if type(x) in PLAIN else constant(x) for x in inputs])
        try:
            y = fn(*values, **options)
        except Exception as error:
            explain(error, op, inputs, options)
            raise
        wanted = rules * len(inputs) if op.variadic else rules
        needed = any(
            p is not None and p._requires_grad and r is not None for p, r in zip(parents, wanted, strict=False)
        )
        return _keep(op, y, parents, values, options, needed)

    return apply


def bind(op: Op) -> None:
    """Give a row its way of running on Tensors."""
    by_number = {1: _unary, 2: _binary, 3: _ternary}
    op.apply = (_many if op.variadic else by_number.get(len(op.rules), _many))(op)
    op.apply.__name__ = op.__name__
    op.apply.__doc__ = op.__doc__


def _getitem(x: Tensor, index: Any) -> Tensor:
    static, arrays = indexing.split_index(index)
    return indexing.getitem(x, *arrays, index=static)  # type: ignore[no-any-return]


def _power(a: Any, b: Any) -> Any:
    return OPS["square"].apply(a) if type(b) in (int, float) and b == 2 else OPS["power"].apply(a, b)


_NUMPYS = frozenset({"out", "dtype", "where", "initial", "correction"})
"""Options of methods that are left to the NumPy function: a row has none of them."""


def _method(op: Op) -> Callable[..., Tensor]:
    apply, keywords = op.apply, op.keywords

    def method(self: Tensor, *args: Any, **options: Any) -> Tensor:
        if args:
            if len(args) > len(keywords):
                raise TypeError(
                    f"{op.__name__}() takes at most {len(keywords)} arguments ({', '.join(keywords)}), not {len(args)}"
                )
            options = {**dict(zip(keywords, args, strict=False)), **options}
        if options:
            for key in [k for k, v in options.items() if v is None and k in ("out", "dtype")]:
                del options[key]
            if not _NUMPYS.isdisjoint(options):
                return getattr(np, op.__name__)(self, **options)  # type: ignore[no-any-return]
        return apply(self, **options)  # type: ignore[no-any-return]

    method.__name__ = op.__name__
    method.__doc__ = f"``tg.{op.__name__}(x)``; also ``np.{op.__name__}(x)`` where NumPy has it."
    return method


def _of_numpy(name: str) -> Callable[..., Any]:
    function = getattr(np, name)

    def method(self: Tensor, *args: Any, **options: Any) -> Any:
        return function(self, *args, **options)

    method.__name__, method.__doc__ = name, f"``np.{name}(x)``."
    return method


_OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "floordiv": "floor_divide",
    "mod": "remainder",
    "matmul": "matmul",
}  # fmt: skip
_COMPARISONS = {
    "gt": "greater",
    "ge": "greater_equal",
    "lt": "less",
    "le": "less_equal",
    "eq": "equal",
    "ne": "not_equal",
}
_LOGIC = {"and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor"}  # NumPy's: for booleans the logical ones
_UNARY = (
    "exp log log1p expm1 sqrt square reciprocal sin cos tan tanh sigmoid relu sign floor ceil trunc softplus "
    "sum mean var std prod max min argmax argmin argsort any all softmax log_softmax logsumexp leaky_relu "
    "squeeze swapaxes"
).split()
_COMPOSED = "clip cumsum take repeat diagonal trace dot".split()
_LATE = "round cumprod choose searchsorted nonzero conj argpartition".split()


def _bind_tensor() -> None:
    def swapped(apply: Callable[..., Any]) -> Callable[[Any, Any], Any]:
        return lambda self, other: apply(other, self)

    def set_method(name: str, function: Any) -> None:
        setattr(Tensor, name, function)

    for short, name in {**_OPERATORS, **_LOGIC}.items():
        set_method(f"__{short}__", OPS[name].apply)
        set_method(f"__r{short}__", swapped(OPS[name].apply))
    for short, name in _COMPARISONS.items():
        set_method(f"__{short}__", OPS[name].apply)
    set_method("__pow__", _power)
    set_method("__rpow__", swapped(_power))
    set_method("__neg__", OPS["negative"].apply)
    set_method("__pos__", composed.positive)
    set_method("__abs__", OPS["absolute"].apply)
    set_method("__invert__", OPS["invert"].apply)
    set_method("__getitem__", _getitem)
    for name in _UNARY:
        set_method(name, _method(OPS[name]))
    for name in _COMPOSED:
        set_method(name, getattr(composed, name))
    for name in _LATE:
        set_method(name, _of_numpy(name))
    set_method("abs", OPS["absolute"].apply)


registry.on_register(bind)
_bind_tensor()
