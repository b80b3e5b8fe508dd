"""How a row runs on Tensors: take the arrays out, run the function, keep how the answer was made.

One small function a row, specialised by its number of arguments when the row is registered, because this is what every
operation pays. The operators and methods of Tensor are bound to them here.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_scratch import registry
from tinygrad_scratch._typing import Array
from tinygrad_scratch.context import is_grad_enabled, state
from tinygrad_scratch.errors import describe, explain
from tinygrad_scratch.ops import composed, indexing
from tinygrad_scratch.registry import OPS, Op
from tinygrad_scratch.tensor import Tensor, as_tensor, next_rank, writable

_F32, _F64 = np.dtype(np.float32), np.dtype(np.float64)
_PLAIN = frozenset({np.ndarray, float, int, bool, np.float32, np.float64})
_new, _ndarray = Tensor.__new__, np.ndarray


def _constant(x: Any) -> Any:
    """An operand that is neither a Tensor nor a plain array or number: an array of real numbers, or TypeError."""
    if x is None:
        return x
    if type(x).__module__.startswith("numpy.ma"):
        raise TypeError(f"operand of type {type(x).__name__}: masks are not supported; use .filled(value), or np.where")
    array = np.asarray(x)
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
    out.grad = None
    mode = state.mode
    if mode is not True and mode is not False:
        out._data = mode.record(op, values, options, y, parents)
        mode = mode.grad
    if needed and mode:
        out.requires_grad = True
        out._node = (op, parents, values, options)
        out._rank = next_rank()
    else:
        out.requires_grad = False
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
        return _keep(op, y, (x,), (v,), options, differentiable and x.requires_grad)

    return apply


def _binary(op: Op) -> Callable[..., Any]:
    fn = op.fn
    left, right = (rule is not None for rule in op.rules)

    def apply(a: Any, b: Any, **options: Any) -> Any:
        if isinstance(a, Tensor):
            v, p, needed = a._data, a, left and a.requires_grad
            if isinstance(b, Tensor):
                w, q = b._data, b
                needed = needed or (right and b.requires_grad)
            else:
                w, q = b if type(b) in _PLAIN else _constant(b), None
        elif isinstance(b, Tensor):
            v, p = a if type(a) in _PLAIN else _constant(a), None
            w, q, needed = b._data, b, right and b.requires_grad
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
        u = p._data if p is not None else a if type(a) in _PLAIN else _constant(a)
        v = q._data if q is not None else b if type(b) in _PLAIN else _constant(b)
        w = r._data if r is not None else c if type(c) in _PLAIN else _constant(c)
        try:
            y = fn(u, v, w, **options) if options else fn(u, v, w)
        except Exception as error:
            explain(error, op, (a, b, c), options)
            raise
        needed = (
            (p is not None and first and p.requires_grad)
            or (q is not None and second and q.requires_grad)
            or (r is not None and third and r.requires_grad)
        )
        return _keep(op, y, (p, q, r), (u, v, w), options, needed)

    return apply


def _many(op: Op) -> Callable[..., Any]:
    fn, rules = op.fn, op.rules

    def apply(*inputs: Any, **options: Any) -> Any:
        parents = tuple([x if isinstance(x, Tensor) else None for x in inputs])
        if all(p is None for p in parents):
            return fn(*inputs, **options)
        values = tuple([x._data if isinstance(x, Tensor) else x if type(x) in _PLAIN else _constant(x) for x in inputs])
        try:
            y = fn(*values, **options)
        except Exception as error:
            explain(error, op, inputs, options)
            raise
        wanted = rules * len(inputs) if op.variadic else rules
        needed = any(p is not None and p.requires_grad and r is not None for p, r in zip(parents, wanted, strict=False))
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


class At:
    """What ``x.at`` gives: ``x.at[i].set(v)`` and ``x.at[i].add(v)`` are new Tensors, differentiable in x and in v.

    >>> x = Tensor([1.0, 2.0, 3.0])
    >>> x.at[1].set(9.0).tolist(), x.at[[0, 0]].add(1.0).tolist()
    ([1.0, 9.0, 3.0], [3.0, 2.0, 3.0])
    """

    __slots__ = ("_index", "_tensor")

    def __init__(self, tensor: Tensor, index: Any = ...):
        self._tensor = tensor
        self._index = index

    def __getitem__(self, index: Any) -> "At":
        return At(self._tensor, index)

    def set(self, value: Any) -> Tensor:
        """A copy of the Tensor with `value` at the index."""
        static, arrays = indexing.split_index(self._index)
        return indexing.replace(self._tensor, value, *arrays, index=static)  # type: ignore[no-any-return]

    def add(self, value: Any) -> Tensor:
        """A copy of the Tensor with `value` added at the index, once for each time an element is named."""
        static, arrays = indexing.split_index(self._index)
        x = self._tensor
        spread = np.zeros(_getitem(x, self._index).shape, x.dtype) + value
        return x + indexing.scatter(as_tensor(spread), *arrays, index=static, shape=x.shape)  # type: ignore[no-any-return]


def _rewritten(x: Tensor, value: Any) -> bool:
    """Whether there is a graph to keep when `x` is changed, so that it makes a new value under the old name."""
    if not is_grad_enabled():
        return False
    return x._node is not None or (not x.requires_grad and isinstance(value, Tensor) and value.requires_grad)


def _rewrite(x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Give `x` what `change` makes of it. The value until now lives on as a parent, which backward finds by its rank."""
    old: Tensor = _new(Tensor)
    old._data, old._node, old._rank, old.requires_grad, old.grad = x._data, x._node, x._rank, x.requires_grad, None
    new = change(old)
    if new.shape != x.shape:
        raise ValueError(f"a Tensor of shape {x.shape} cannot hold the result of shape {new.shape}")
    new = new if new.dtype == x.dtype else new.astype(x.dtype)
    if new._node is None or new._node[1][0] is not old:  # the earlier value must be its first parent, to be found
        new = At(old).set(new)
    x._data, x._node, x._rank, x.requires_grad = new._data, new._node, new._rank, new.requires_grad
    return x


def _setitem(self: Tensor, index: Any, value: Any) -> None:
    """``x[i] = v`` on a leaf, where it lies."""
    if state.rewriting and _rewritten(self, value):
        places = index if isinstance(index, tuple) else (index,)

        def change(old: Tensor) -> Tensor:
            return At(old, tuple([old if i is self else i for i in places])).set(old if value is self else value)

        _rewrite(self, change)
        return
    target = writable(self, value, "x[i] = v", "x = x.at[i].set(v)")
    raw = tuple([getattr(i, "_data", i) for i in index]) if isinstance(index, tuple) else getattr(index, "_data", index)
    target[raw] = getattr(value, "_data", value)
    self._rank = next_rank()


def _in_place(op: Op, sign: str) -> Callable[[Tensor, Any], Tensor]:
    """``x -= v`` on a leaf: the array is changed where it lies, and a graph that used it will notice."""
    fn = op.fn

    def change(self: Tensor, other: Any) -> Tensor:
        if state.rewriting and _rewritten(self, other):
            return _rewrite(self, lambda old: op.apply(old, old if other is self else other))
        target = writable(self, other, f"x {sign}= v", f"x = x {sign} v")
        value = other._data if isinstance(other, Tensor) else other
        fn(target, value, out=target, casting="same_kind")
        self._rank = next_rank()
        mode = state.mode
        if mode is not True and mode is not False:
            mode.record(
                op, (target, value), {"out": target}, target, (self, other if isinstance(other, Tensor) else None)
            )
        return self

    return change


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
_IN_PLACE = (
    ("iadd", "add", "+"), ("isub", "subtract", "-"), ("imul", "multiply", "*"), ("itruediv", "divide", "/"),
    ("ifloordiv", "floor_divide", "//"), ("imod", "remainder", "%"), ("ipow", "power", "**"),
)  # fmt: skip
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
    for short, name, sign in _IN_PLACE:
        set_method(f"__{short}__", _in_place(OPS[name], sign))
    set_method("__pow__", _power)
    set_method("__rpow__", swapped(_power))
    set_method("__neg__", OPS["negative"].apply)
    set_method("__pos__", composed.positive)
    set_method("__abs__", OPS["absolute"].apply)
    set_method("__invert__", OPS["invert"].apply)
    set_method("__getitem__", _getitem)
    set_method("__setitem__", _setitem)
    for name in _UNARY:
        set_method(name, _method(OPS[name]))
    for name in _COMPOSED:
        set_method(name, getattr(composed, name))
    for name in _LATE:
        set_method(name, _of_numpy(name))
    set_method("abs", OPS["absolute"].apply)
    set_method("at", property(At, doc=At.__doc__))


registry.on_register(bind)
_bind_tensor()
