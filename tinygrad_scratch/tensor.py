"""The Tensor: a NumPy array that remembers how it was made.

Operators and most methods are bound from the rows of the table by ``record``; here is what a Tensor is and refuses.
"""

from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_scratch import protocols
from tinygrad_scratch._memory import Slab
from tinygrad_scratch._typing import Array, Shape
from tinygrad_scratch.backward import own, pull
from tinygrad_scratch.context import during, is_grad_enabled, met, set_grad_enabled, state
from tinygrad_scratch.errors import GraphError, describe

next_rank = count(1).__next__
"""One counter for the whole process: a Tensor of a graph ranks above its inputs, a leaf where it was last changed."""

_FLOATS = (np.dtype(np.float64), np.dtype(np.float32), np.dtype(np.float16))


class Tensor:
    """An array whose operations are recorded, so that ``backward`` can differentiate them.

    Parameters
    ----------
    data: array_like of real numbers. Copied (``as_tensor`` shares memory instead).
    dtype: NumPy dtype; without it, data keep NumPy's rules (Python floats are float64, float32 arrays stay float32).
    requires_grad: whether gradients are wanted. Floating point only.

    Raises
    ------
    TypeError: complex, object or text data; requires_grad with integers or booleans.

    >>> x = Tensor([0.0, 1.0], requires_grad=True)
    >>> y = np.sum(np.exp(x) * x)
    >>> y.backward()
    >>> x.grad
    Tensor([1.        , 5.43656366])
    """

    __slots__ = ("__weakref__", "_data", "_node", "_rank", "grad", "requires_grad")
    __hash__ = object.__hash__

    _data: Array
    _node: tuple[Any, tuple["Tensor | None", ...], tuple[Any, ...], dict[str, Any]] | None
    _rank: int
    grad: "Tensor | None"
    requires_grad: bool

    def __init__(self, data: Any, dtype: Any = None, requires_grad: bool = False):
        if isinstance(data, Tensor):
            data = data._data
        self._data = _real(np.array(data, dtype=dtype))
        self._node = None
        self._rank = 0
        self.grad = None
        self.requires_grad = False
        if requires_grad:
            self.requires_grad_()

    def requires_grad_(self, requires_grad: bool = True) -> "Tensor":
        """Switch on (or off) whether gradients of this leaf are wanted; returns self. TypeError: no floating point."""
        if requires_grad and self._data.dtype.kind != "f":
            raise TypeError(
                f"only floating-point Tensors can require gradients, this one is {describe(self)}; "
                "make it floating with dtype=np.float64 (or float32), or .astype(np.float64)"
            )
        if self._node is not None and not requires_grad:
            raise GraphError("a Tensor with a graph cannot stop requiring gradients; use .detach()")
        self.requires_grad = requires_grad
        return self

    # -- what it holds ---------------------------------------------------------------------------------------------

    @property
    def data(self) -> Array:
        """The array itself. Writing into it is not seen by the graph: prefer ``with no_grad(): x -= step``."""
        return value_of(self, ".data")

    @data.setter
    def data(self, array: Any) -> None:
        if self._node is not None:
            raise GraphError(
                f".data = v: {describe(self)} has a graph, which would no longer be true; make a new Tensor"
            )
        array = _real(np.asarray(array))
        if self.requires_grad and array.dtype.kind != "f":
            raise TypeError(f".data = v: this Tensor requires gradients, so it cannot hold {describe(array)}")
        self._data = array
        self._rank = next_rank()

    shape: Shape = property(lambda self: self._data.shape, doc="The lengths of the axes.")  # type: ignore[assignment]
    dtype: np.dtype[Any] = property(lambda self: self._data.dtype, doc="The dtype.")  # type: ignore[assignment]
    ndim: int = property(lambda self: self._data.ndim, doc="The number of axes.")  # type: ignore[assignment]
    size: int = property(lambda self: self._data.size, doc="The number of elements.")  # type: ignore[assignment]

    @property
    def is_leaf(self) -> bool:
        """Whether it was made by the user, not by an operation that is recorded."""
        return self._node is None

    @property
    def T(self) -> "Tensor":  # noqa: N802  (NumPy's name)
        """All axes reversed."""
        return self.transpose()

    @property
    def mT(self) -> "Tensor":  # noqa: N802
        """The last two axes swapped."""
        return self.swapaxes(-1, -2)

    def __len__(self) -> int:
        if not self._data.ndim:
            raise TypeError("len() of a 0-d Tensor")
        return len(self._data)

    def __iter__(self) -> Iterator["Tensor"]:
        return (self[i] for i in range(len(self)))

    # -- its values ------------------------------------------------------------------------------------------------

    def numpy(self) -> Array:
        """The values, without a graph: a read-only view (copy it to write)."""
        view = value_of(self, ".numpy()").view()
        view.flags.writeable = False
        return view

    def detach(self) -> "Tensor":
        """The same values as a new Tensor without a graph. It shares memory, so it cannot be changed in place."""
        met(self)
        return wrap(self._data.view())

    def item(self) -> float:
        """The value of a Tensor of one element, as a Python number."""
        return value_of(self, ".item()").item()  # type: ignore[no-any-return]

    def tolist(self) -> Any:
        """The values as nested Python lists."""
        return value_of(self, ".tolist()").tolist()

    def copy(self) -> "Tensor":
        """A copy that stays in the graph."""
        return np.copy(self)  # type: ignore[return-value]

    clone = copy

    def __float__(self) -> float:
        return float(value_of(self, "float()").item())

    def __int__(self) -> int:
        return int(value_of(self, "int()").item())

    def __index__(self) -> int:
        return value_of(self, "index").__index__()

    def __bool__(self) -> bool:
        return bool(value_of(self, "bool() (an if, while, and, or, not)"))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if self.requires_grad and is_grad_enabled():
            raise TypeError(
                f"np.asarray of {describe(self)}, which requires a gradient, would lose the graph; use t.detach() or "
                "t.numpy() for its values, a NumPy function that is a row of the table to stay in it, or no_grad()"
            )
        return np.array(self.numpy(), dtype=dtype, copy=copy)  # where it shares memory, it is read-only

    @staticmethod
    def wrap(array: Array) -> "Tensor":
        """A Tensor around `array`, without a copy and without a graph."""
        return wrap(array)

    __array_ufunc__ = protocols.array_ufunc
    __array_function__ = protocols.array_function

    def __repr__(self) -> str:
        body = repr(self._data).removeprefix("array")
        flag = ", requires_grad=True)" if self.requires_grad else ")"
        return f"Tensor{body.removesuffix(')')}{flag}"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec and self.size == 1 else format(str(self), spec)

    def __str__(self) -> str:
        return str(value_of(self, "str()"))

    def __reduce__(self) -> Any:
        if self._node is not None:
            raise TypeError("a Tensor with a graph cannot be pickled or deep-copied; use .detach()")
        return _rebuild, (type(self), self._data, self.requires_grad)

    # -- gradients -------------------------------------------------------------------------------------------------

    def backward(self, gradient: Any = None, create_graph: bool = False) -> None:
        """Add d(self)/d(leaf), contracted with `gradient`, to the ``grad`` of every leaf that requires one.

        gradient: array_like of self's shape; 1 for a Tensor of one element.
        create_graph: record this too, so that the gradients can be differentiated again.

        GraphError: no graph, or several elements and no gradient. ValueError: a gradient of another shape.

        >>> x = Tensor([1.0, 2.0], requires_grad=True)
        >>> (x * x).backward([1.0, 10.0])
        >>> x.grad.tolist()
        [2.0, 40.0]
        """
        if not self.requires_grad:
            raise GraphError(
                "backward() of a Tensor that has no graph: no input required a gradient, or it was made under "
                "no_grad(); "
                "make the leaves with requires_grad=True"
            )
        mode = state.mode
        lift = create_graph or (mode is not True and mode is not False and mode.lift)
        seed = seed_cotangent(self, gradient, lift)
        if lift:
            with set_grad_enabled(create_graph), np.errstate(all="ignore"), during("backward"):
                for leaf, g in pull(self, seed, True).values():
                    leaf.grad = g if leaf.grad is None else leaf.grad + g
            return
        with np.errstate(all="ignore"):
            found = pull(self, seed, False).values()
        arrays = own([g for _, g in found], [self._data, seed])
        for (leaf, _), array in zip(found, arrays):
            leaf.grad = wrap(array if leaf.grad is None else np.asarray(leaf.grad._data + array))

    def zero_grad(self) -> None:
        """Forget the gradient: ``grad`` is None again."""
        self.grad = None
        met(self)

    # -- changing it -----------------------------------------------------------------------------------------------

    def astype(self, dtype: Any) -> "Tensor":
        """The values in another dtype; its gradient comes back in this one."""
        return np.astype(self, dtype)  # type: ignore[call-overload,no-any-return]

    def reshape(self, *shape: Any) -> "Tensor":
        """``x.reshape(2, 3)`` or ``x.reshape((2, 3))``."""
        return np.reshape(self, shape[0] if len(shape) == 1 else shape)  # type: ignore[return-value]

    def transpose(self, *axes: Any) -> "Tensor":
        """``x.transpose()``, ``x.transpose(1, 0)`` or ``x.transpose((1, 0))``."""
        return np.transpose(self, axes[0] if len(axes) == 1 else axes or None)  # type: ignore[return-value]

    def flatten(self) -> "Tensor":
        """One axis, in C order."""
        return self.reshape(-1)

    ravel = flatten

    if TYPE_CHECKING:  # bound from rows by record.py

        def __add__(self, other: Any) -> "Tensor": ...
        def __radd__(self, other: Any) -> "Tensor": ...
        def __sub__(self, other: Any) -> "Tensor": ...
        def __rsub__(self, other: Any) -> "Tensor": ...
        def __mul__(self, other: Any) -> "Tensor": ...
        def __rmul__(self, other: Any) -> "Tensor": ...
        def __truediv__(self, other: Any) -> "Tensor": ...
        def __rtruediv__(self, other: Any) -> "Tensor": ...
        def __matmul__(self, other: Any) -> "Tensor": ...
        def __rmatmul__(self, other: Any) -> "Tensor": ...
        def __pow__(self, other: Any) -> "Tensor": ...
        def __rpow__(self, other: Any) -> "Tensor": ...
        def __neg__(self) -> "Tensor": ...
        def __abs__(self) -> "Tensor": ...
        def __gt__(self, other: Any) -> "Tensor": ...
        def __ge__(self, other: Any) -> "Tensor": ...
        def __lt__(self, other: Any) -> "Tensor": ...
        def __le__(self, other: Any) -> "Tensor": ...
        def __getitem__(self, index: Any) -> "Tensor": ...
        def __setitem__(self, index: Any, value: Any) -> None: ...
        def __iadd__(self, other: Any) -> "Tensor": ...
        def __isub__(self, other: Any) -> "Tensor": ...
        def __imul__(self, other: Any) -> "Tensor": ...
        def __itruediv__(self, other: Any) -> "Tensor": ...
        def swapaxes(self, axis1: int, axis2: int) -> "Tensor": ...
        def sum(self, axis: Any = None, keepdims: bool = False) -> "Tensor": ...
        def mean(self, axis: Any = None, keepdims: bool = False) -> "Tensor": ...
        def max(self, axis: Any = None, keepdims: bool = False) -> "Tensor": ...
        def min(self, axis: Any = None, keepdims: bool = False) -> "Tensor": ...

        at: Any

        def __getattr__(self, name: str) -> Any: ...


def wrap(array: Array) -> Tensor:
    """A Tensor around `array`, without a copy and without a graph."""
    tensor = Tensor.__new__(Tensor)
    tensor._data = array
    tensor._node = None
    tensor._rank = 0
    tensor.grad = None
    tensor.requires_grad = False
    return tensor


def as_tensor(data: Any, dtype: Any = None) -> Tensor:
    """`data` as a Tensor that shares its memory where it can; a Tensor is returned as it is.

    >>> a = np.zeros(2)
    >>> bool(np.shares_memory(as_tensor(a).numpy(), a))
    True
    """
    if isinstance(data, Tensor):
        return data if dtype is None or data.dtype == dtype else data.astype(dtype)
    return wrap(_real(np.asarray(data, dtype=dtype)))


def seed_cotangent(tensor: Tensor, gradient: Any, lift: bool) -> Any:
    """The cotangent to start from: `gradient`, checked and in the Tensor's dtype, or 1 for one element."""
    data = tensor._data
    if gradient is None:
        if data.size != 1:
            raise GraphError(
                f"backward() of {describe(tensor)}: a gradient can be left out only for one element; "
                "reduce it (.sum() or .mean()) or pass gradient= of its shape"
            )
        seed: Any = np.empty(data.shape, data.dtype)
        seed.fill(1)  # np.ones takes twice as long
    elif isinstance(gradient, Tensor):
        seed = gradient if lift else gradient._data
    else:
        seed = _real(np.asarray(gradient))
    if seed.shape != data.shape:
        raise ValueError(
            f"gradient has shape {tuple(seed.shape)}, but the Tensor has shape {data.shape}; they must be equal"
        )
    if seed.dtype != data.dtype:
        seed = seed.astype(data.dtype)
    return as_tensor(seed) if lift else seed


def writable(tensor: Tensor, value: Any, what: str, instead: str) -> Array:
    """The array to write `value` into, or the reason why this Tensor is not changed in place."""
    wanted = tensor.requires_grad or (isinstance(value, Tensor) and value.requires_grad)
    if tensor._node is not None or (wanted and is_grad_enabled()):
        kind = "has a graph" if tensor._node is not None else "(or the value) requires a gradient"
        raise GraphError(
            f"{what}: {describe(tensor)} {kind}, so it is not changed in place; write {instead}, "
            "or use no_grad() on a leaf"
        )
    if tensor._data.base is not None and type(tensor._data.base) is not Slab:
        raise GraphError(
            f"{what}: this Tensor is a view of another array, which would change too; write {instead}, or copy it first"
        )
    return tensor._data


def value_of(tensor: Tensor, what: str) -> Array:
    """The array of a Tensor that leaves the graph as a plain value: a listener (capture) may refuse."""
    mode = state.mode
    if not isinstance(mode, bool):
        reading = getattr(mode, "reading", None)
        if reading is not None:
            reading(tensor._data, what)
    return tensor._data


def _real(array: Array) -> Array:
    kind = array.dtype.kind
    if kind == "c":
        raise TypeError("complex numbers are not supported yet; pass the real and imaginary parts as two Tensors")
    if kind not in "fiub":
        raise TypeError(
            f"a Tensor holds real numbers, not dtype {array.dtype}; convert the data with dtype=np.float64 first"
        )
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _rebuild(cls: type[Tensor], data: Array, requires_grad: bool) -> Tensor:
    tensor = cls.__new__(cls)
    Tensor.__init__(tensor, data, requires_grad=requires_grad)
    return tensor
