"""The Tensor: a NumPy array that remembers how it was made.

Operators and most methods are bound from the rows of the table by ``record``; here is what a Tensor is and refuses.
"""

from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_scratch import protocols
from tinygrad_scratch._typing import Array, Shape
from tinygrad_scratch.backward import own, pull
from tinygrad_scratch.context import changes, during, is_grad_enabled, is_lifted, set_grad_enabled, state, tell
from tinygrad_scratch.errors import CaptureError, GraphError, describe
from tinygrad_scratch.values import copied, real_numbers, refuse_mask

next_rank = count(1).__next__
"""One counter for the whole process: a Tensor of a graph ranks above its inputs, a leaf where it was last changed."""

NOT_KEPT: Any = type("NotKept", (), {"__repr__": lambda self: "a gradient that was not kept"})()
"""Stands for a gradient whose numbers a captured step did not store. Whatever is added to it is as unknown."""


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

    __slots__ = ("__weakref__", "_data", "_grad", "_node", "_rank", "_requires_grad")
    __hash__ = object.__hash__

    _data: Array
    _node: tuple[Any, tuple["Tensor | None", ...], tuple[Any, ...], dict[str, Any]] | None
    _rank: int
    _grad: "Tensor | None"
    _requires_grad: bool

    def __init__(self, data: Any, dtype: Any = None, requires_grad: bool = False):
        self._data = copied(data, dtype)
        self._node = None
        self._rank = 0
        self._grad = None
        if requires_grad:
            self._check_floating()
        self._requires_grad = bool(requires_grad)

    @property
    def requires_grad(self) -> bool:
        """Whether gradients are wanted: of a leaf, switched by the user; of what was made of others, whether one of them is."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        if wanted:
            self._check_floating()
        elif self._node is not None:
            raise GraphError("a Tensor with a graph cannot stop requiring gradients; use .detach()")
        if self._requires_grad is not bool(wanted):
            self._requires_grad = bool(wanted)
            changes.note()

    def requires_grad_(self, requires_grad: bool = True) -> "Tensor":
        """Set ``requires_grad`` of a leaf; returns self. TypeError: no floating point."""
        self.requires_grad = requires_grad
        return self

    def _check_floating(self) -> None:
        if self._data.dtype.kind != "f":
            raise TypeError(
                f"only floating-point Tensors can require gradients, this one is {describe(self)}; "
                "make it floating with dtype=np.float64 (or float32), or .astype(np.float64)"
            )

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
        array = real_numbers(np.asarray(array))
        if self.requires_grad and array.dtype.kind != "f":
            raise TypeError(f".data = v: this Tensor requires gradients, so it cannot hold {describe(array)}")
        tell("replaced", self)
        self._data = array
        self._rank = next_rank()
        changes.note()

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
        tell("met", self)
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

    @property
    def grad(self) -> "Tensor | None":
        """The gradient that backward has added up here: a Tensor of the same shape, or None.

        CaptureError where a captured step did not keep it: of a parameter that it updates, whose gradient it forgets first.
        """
        gradient = self._grad
        if gradient is NOT_KEPT:
            raise CaptureError(
                f"the gradient of {describe(self)} was not kept: the captured step that used it begins by forgetting it, so it "
                "is added into the parameter without being stored; return p.grad from the step to see it"
            )
        if state.mode is not True:
            tell("gradient_read", self)
        return gradient

    @grad.setter
    def grad(self, gradient: "Tensor | None") -> None:
        if gradient is not None:
            if not isinstance(gradient, Tensor):
                raise TypeError(
                    f".grad = v: a gradient is a Tensor or None, not {describe(gradient)}; write tg.Tensor(v)"
                )
            if gradient._data.shape != self._data.shape:
                raise ValueError(f".grad = v: v has shape {gradient.shape}, but the Tensor has shape {self.shape}")
        self._grad = gradient
        if state.mode is not True:
            tell("gradient_set", self)

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
        if not self._requires_grad:
            raise GraphError(
                "backward() of a Tensor that has no graph: no input required a gradient, or it was made under "
                "no_grad(); "
                "make the leaves with requires_grad=True"
            )
        lift = create_graph or is_lifted()
        seed = seed_cotangent(self, gradient, lift)
        if lift:
            with set_grad_enabled(create_graph), np.errstate(all="ignore"), during("backward"):
                for leaf, g in pull(self, seed, True).values():
                    tell("gradient_read", leaf)
                    before = leaf._grad
                    if before is not NOT_KEPT:
                        leaf.grad = g if before is None else before + g
            return
        with np.errstate(all="ignore"):
            found = pull(self, seed, False).values()
        arrays = own([g for _, g in found], [self._data, seed])
        for (leaf, _), array in zip(found, arrays):
            before = leaf._grad
            if before is not NOT_KEPT:
                leaf._grad = wrap(array if before is None else np.asarray(before._data + array))

    def zero_grad(self) -> None:
        """Forget the gradient: ``grad`` is None again."""
        self.grad = None

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
    tensor._grad = None
    tensor._requires_grad = False
    return tensor


def as_tensor(data: Any, dtype: Any = None) -> Tensor:
    """`data` as a Tensor that shares its memory where it can; a Tensor is returned as it is.

    >>> a = np.zeros(2)
    >>> bool(np.shares_memory(as_tensor(a).numpy(), a))
    True
    """
    if not isinstance(data, Tensor):
        data = wrap(real_numbers(np.asarray(refuse_mask(data), dtype=None if is_lifted() else dtype)))
    return data if dtype is None or data.dtype == dtype else data.astype(dtype)  # type: ignore[no-any-return]


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
    elif lift:
        seed = as_tensor(gradient)
    else:
        seed = gradient._data if isinstance(gradient, Tensor) else real_numbers(np.asarray(gradient))
    if seed.shape != data.shape:
        raise ValueError(
            f"gradient has shape {tuple(seed.shape)}, but the Tensor has shape {data.shape}; they must be equal"
        )
    if seed.dtype != data.dtype:
        seed = seed.astype(data.dtype)
    return as_tensor(seed) if lift else seed


def value_of(tensor: Tensor, what: str) -> Array:
    """The array of a Tensor that leaves the graph as a plain value: a listener (capture) may refuse."""
    mode = state.mode
    if not isinstance(mode, bool):
        reading = getattr(mode, "reading", None)
        if reading is not None:
            reading(tensor._data, what)
    return tensor._data


def _rebuild(cls: type[Tensor], data: Array, requires_grad: bool) -> Tensor:
    tensor = cls.__new__(cls)
    Tensor.__init__(tensor, data, requires_grad=requires_grad)
    return tensor
