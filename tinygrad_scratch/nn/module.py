"""Module: what has parameters, and parts that have parameters.

A module keeps its parameters, buffers and parts as ordinary attributes, and its ``__dict__`` is the register: nothing
is stored twice, reading ``self.weight`` costs no more than any attribute, and ``super().__init__()`` may be left out.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import numpy as np

from tinygrad_scratch._memory import settled
from tinygrad_scratch._typing import Array
from tinygrad_scratch.context import changes, is_lifted, state, tell
from tinygrad_scratch.errors import describe
from tinygrad_scratch.nn.hook import Hook
from tinygrad_scratch.tensor import Tensor
from tinygrad_scratch.writing import overwrite


class Parameter(Tensor):
    """A Tensor that a module learns: it requires a gradient, and a module that has it as an attribute lists it.

    data: array_like of floating point, copied. TypeError for integers while requires_grad is True.

    >>> Parameter([0.5])
    Parameter([0.5], requires_grad=True)
    """

    __slots__ = ()

    def __init__(self, data: Any, dtype: Any = None, requires_grad: bool = True):
        super().__init__(data, dtype, requires_grad)
        self._data = settled(self._data)

    def __repr__(self) -> str:
        return super().__repr__().replace("Tensor", "Parameter", 1)


_ABSENT = object()


def _no_forward(self: "Module", *inputs: Any) -> Any:
    """What a module computes: each module defines its own."""
    raise NotImplementedError(f"{type(self).__name__} computes nothing yet: define forward(self, x)")


class Module:
    """A part of a network: a function with parameters. Define ``forward``, call the module itself.

    Attributes that are Parameters or Modules are registered by being assigned; buffers (state that is saved but not
    learned) by ``register_buffer``. Names are paths such as ``"encoder.0.weight"``. Whatever goes wrong in ``forward``
    is raised with a note that says in which layer.

    >>> from tinygrad_scratch import nn
    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         self.hidden, self.out = nn.Linear(4, 3, rng=0), nn.Linear(3, 2, rng=1)
    ...     def forward(self, x):
    ...         return self.out(np.tanh(self.hidden(x)))
    >>> net = Net()
    >>> net(np.zeros((5, 4), np.float32)).shape
    (5, 2)
    >>> [name for name, _ in net.named_parameters()]
    ['hidden.weight', 'hidden.bias', 'out.weight', 'out.bias']
    """

    training: bool = True
    _persistent: Mapping[str, bool] = {}
    """The names of its buffers, and whether each is part of the state dict."""

    _hooks: Mapping[Hook, str] = {}
    """What is called around ``forward``: each hook, and whether it is for "before" or "after"."""

    forward: Callable[..., Any] = _no_forward

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        if state.mode is not True:
            tell("looked_through", self)
        try:
            if self._hooks:
                return self._hooked(inputs, options)
            return self.forward(*inputs, **options)
        except Exception as error:
            _locate(error, self)
            raise

    def __setattr__(self, name: str, value: Any) -> None:
        before = self.__dict__.get(name, _ABSENT)
        if before is not _ABSENT:
            _check_replacement(self, name, before, value)
        super().__setattr__(name, value)
        if value is not (getattr(type(self), name, _ABSENT) if before is _ABSENT else before):
            changes.note()
            tell("stored", self, name, value)

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        changes.note()

    # -- what it has -----------------------------------------------------------------------------------------------

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Make `tensor` the attribute `name`, listed by ``buffers()`` and, if persistent, part of the state dict."""
        _check(name, tensor, Tensor)
        self._persistent = {**self._persistent, name: persistent}
        setattr(self, name, tensor)

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Make `parameter` the attribute `name`."""
        _check(name, parameter, Parameter)
        setattr(self, name, parameter)

    def add_module(self, name: str, module: "Module | None") -> None:
        """Make `module` the attribute `name`, which may be a number, as in Sequential."""
        _check(name, module, Module)
        setattr(self, name, module)

    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        """(name, module) of its parts, each once."""
        seen: set[int] = set()
        for name, value in self.__dict__.items():
            if isinstance(value, Module) and id(value) not in seen:
                seen.add(id(value))
                yield name, value

    def children(self) -> Iterator["Module"]:
        """Its parts, each once."""
        return (module for _, module in self.named_children())

    def named_modules(self, prefix: str = "", remove_duplicate: bool = True) -> Iterator[tuple[str, "Module"]]:
        """(path, module) of itself, then of its parts and theirs, in the order of assignment.

        >>> from tinygrad_scratch import nn
        >>> [path for path, _ in nn.Sequential(nn.Sequential(Module())).named_modules()]
        ['', '0', '0.0']
        """
        return _walk(self, prefix, set() if remove_duplicate else None)

    def modules(self) -> Iterator["Module"]:
        """Itself, its parts and theirs, each once."""
        return (module for _, module in self.named_modules())

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """(path, parameter); one that is used in two places is listed once, unless remove_duplicate is False."""
        return _members(self, prefix, recurse, remove_duplicate, lambda _, name, value: isinstance(value, Parameter))

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Its parameters and, with recurse, those of its parts, each once."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """(path, buffer), as named_parameters."""
        return _members(self, prefix, recurse, remove_duplicate, lambda owner, name, _: name in owner._persistent)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Its buffers and, with recurse, those of its parts, each once."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    # -- what is called around it ----------------------------------------------------------------------------------

    def register_forward_pre_hook(self, hook: Callable[..., Any]) -> Hook:
        """Call ``hook(module, inputs)`` before each ``forward``; what it returns, if not None, are the inputs to take.

        inputs: a tuple; returned, also a single one. The answer's ``remove()`` takes the hook away.
        """
        return Hook(self, hook, "before")

    def register_forward_hook(self, hook: Callable[..., Any]) -> Hook:
        """Call ``hook(module, inputs, output)`` after each ``forward``; what it returns, if not None, is the output to take.

        The answer's ``remove()`` takes the hook away. A captured step is recorded anew after that, and after this; the hook
        itself runs while it is recorded, and what it does to Tensors is part of the step.

        >>> from tinygrad_scratch import nn
        >>> layer = nn.ReLU()
        >>> with layer.register_forward_hook(lambda module, inputs, output: output + 1):
        ...     y = layer(np.array([-1.0, 2.0]))
        >>> y.tolist(), layer(np.array([-1.0, 2.0])).tolist()
        ([1.0, 3.0], [0.0, 2.0])
        """
        return Hook(self, hook, "after")

    def _hooked(self, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """``forward`` with what is to be called before and after it."""
        for hook in [h for h, when in self._hooks.items() if when == "before"]:
            changed = hook.function(self, inputs)
            if changed is not None:
                inputs = changed if isinstance(changed, tuple) else (changed,)
        output = self.forward(*inputs, **options)
        for hook in [h for h, when in self._hooks.items() if when == "after"]:
            changed = hook.function(self, inputs, output)
            output = output if changed is None else changed
        return output

    # -- its state -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Array]:
        """{path: a copy of the values} of every parameter and persistent buffer, in torch's order and by its names.

        Arrays; within a captured step Tensors, which another module's ``load_state_dict`` takes in every call.

        >>> from tinygrad_scratch import nn
        >>> {name: array.shape for name, array in nn.Linear(3, 2).state_dict().items()}
        {'weight': (2, 3), 'bias': (2,)}
        """
        if is_lifted():  # copies that are made again in every call
            return {name: np.copy(tensor.detach()) for name, tensor in self._saved()}
        return {name: tensor._data.copy() for name, tensor in self._saved()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> tuple[list[str], list[str]]:
        """Copy the values of `state_dict` into the parameters and buffers of these names: all or, on an error, none.

        Values: arrays (or what np.asarray takes) of the same shape; they are cast, so that a parameter keeps its dtype.
        Returns the names that are (missing, unexpected). RuntimeError that lists every problem: values of another
        shape or that are no numbers and, if strict, names that are missing or unexpected.

        >>> from tinygrad_scratch import nn
        >>> nn.Linear(3, 2).load_state_dict({"weight": np.ones((2, 3))}, strict=False)
        (['bias'], [])
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"load_state_dict takes a dict of name: array, not {type(state_dict).__name__}")
        own = dict(self._saved())
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        problems = []
        if strict and missing:
            problems.append(f"Missing key(s) in state_dict: {', '.join(map(repr, missing))}.")
        if strict and unexpected:
            problems.append(f"Unexpected key(s) in state_dict: {', '.join(map(repr, unexpected))}.")
        arrays: dict[str, Any] = {}
        for name, tensor in own.items():
            if name in state_dict:
                try:
                    arrays[name] = _fitted(name, state_dict[name], tensor)
                except ValueError as error:
                    problems.append(str(error))
        if problems:
            title = f"Error(s) in loading state_dict for {type(self).__name__}, nothing was loaded:"
            raise RuntimeError("\n    ".join([title, *problems]))
        for name, array in arrays.items():
            _load(own[name], array)
        return missing, unexpected

    def _saved(self) -> Iterator[tuple[str, Tensor]]:
        """(path, tensor) of all that is saved, under each of its names."""
        for path, module in self.named_modules(remove_duplicate=False):
            yield from module.named_parameters(path, recurse=False, remove_duplicate=False)
            for name, tensor in module.named_buffers(path, recurse=False, remove_duplicate=False):
                if module._persistent[name.rpartition(".")[2]]:
                    yield name, tensor

    # -- changing all of it ----------------------------------------------------------------------------------------

    def apply(self, fn: Callable[["Module"], Any]) -> Self:
        """Call `fn` on every part, then on itself; returns itself."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def train(self, mode: bool = True) -> Self:
        """Set ``training`` in itself and all its parts; returns itself."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """``train(False)``."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters: each ``grad`` is None again."""
        for parameter in self.parameters():
            parameter.grad = None

    # -- showing it ------------------------------------------------------------------------------------------------

    def summary(self, input_shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        """The table of its layers, their output shapes, parameters and multiply-adds: see ``nn.summary.summary``."""
        from tinygrad_scratch.nn.summary import summary

        return summary(self, input_shape, dtype)

    def extra_repr(self) -> str:
        """What its repr shows of its settings."""
        return ""

    def __repr__(self) -> str:
        parts = [(name, value) for name, value in self.__dict__.items() if isinstance(value, Module)]
        if not parts:
            return f"{type(self).__name__}({self.extra_repr()})"
        lines = [self.extra_repr(), *(f"({name}): {part!r}".replace("\n", "\n  ") for name, part in parts)]
        return f"{type(self).__name__}(" + "".join(f"\n  {line}" for line in lines if line) + "\n)"


def _walk(module: Module, path: str, seen: set[int] | None) -> Iterator[tuple[str, Module]]:
    if seen is not None:
        if id(module) in seen:
            return
        seen.add(id(module))
    tell("looked_through", module)
    yield path, module
    for name, value in module.__dict__.items():
        if isinstance(value, Module):
            yield from _walk(value, path + "." * bool(path) + name, seen)


def _members(
    root: Module, prefix: str, recurse: bool, once: bool, wanted: Callable[[Module, str, Any], bool]
) -> Iterator[tuple[str, Any]]:
    """(path, attribute) of all Tensors that are attributes and `wanted`."""
    seen: set[int] = set()
    for path, module in root.named_modules(prefix, once) if recurse else [(prefix, root)]:
        for name, value in module.__dict__.items():
            if isinstance(value, Tensor) and wanted(module, name, value) and not (once and id(value) in seen):
                seen.add(id(value))
                yield path + "." * bool(path) + name, value


def _check(name: Any, value: Any, kind: type) -> None:
    """ValueError or TypeError unless `value` can be registered as `name`."""
    if not isinstance(name, str) or not name or "." in name:
        raise ValueError(f"{name!r} cannot be the name of a part: it must be a string, not empty and without a dot")
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{name!r} must be a {kind.__name__} or None, not {describe(value)}")


def _check_replacement(module: Module, name: str, before: Any, value: Any) -> None:
    """TypeError if a parameter, part or buffer would give way to something that is none."""
    buffer = Tensor if name in module._persistent else object
    kind = next((kind for kind in (Parameter, Module) if isinstance(before, kind)), buffer)
    if value is not None and not isinstance(value, kind):
        raise TypeError(
            f"{type(module).__name__}.{name} is a {kind.__name__}, {describe(value)} is not and would be lost to "
            f"training and saving; assign a {kind.__name__}, or None to remove it, or change its values: "
            f"with no_grad(): module.{name}[...] = x"
        )


def _fitted(name: str, value: Any, target: Tensor) -> Any:
    """`value` as an array, or a Tensor, of the target's shape. ValueError that says why it does not fit."""
    try:
        array = value.detach() if isinstance(value, Tensor) else np.asarray(value)
        if not np.can_cast(array.dtype, target.dtype, "same_kind"):
            raise ValueError(f"{array.dtype} cannot be cast to {target.dtype}")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is no array that fits {describe(target)}: {error}.") from None
    if array.shape != target.shape:
        raise ValueError(f"size mismatch for {name}: {array.shape} in the state_dict, {target.shape} in the model.")
    return array


def _load(target: Tensor, values: Any) -> None:
    """Put values into a Tensor's own array, so that whatever holds it sees them; a read-only one is replaced."""
    if target._data.flags.writeable:
        overwrite(target, ..., values)
    else:
        target.data = np.array(values, target.dtype)


def _locate(error: Exception, module: Module) -> None:
    """Note in which layer the error arose; each module that it passes through puts its part in front.

    What the error keeps of this is text and numbers, so that it can still be pickled, without the model.
    """
    known = error.__dict__.get("_layer")
    if known is None:
        path, shown = "", _shown(module)
        error.add_note("")
        index = len(error.__notes__) - 1
    else:
        inner, name, path, shown, index = known
        step = next((step for step, part in module.named_modules() if id(part) == inner), name)
        path = ".".join(filter(None, (step, path)))
    error.__notes__[index] = f"in layer {path}: {shown}" if path else f"in layer {shown}"
    error.__dict__["_layer"] = (id(module), type(module).__name__, path, shown, index)


def _shown(module: Module) -> str:
    """The repr of a module without parts, the type of another, or of one too broken for its repr."""
    try:
        return type(module).__name__ if any(module.children()) else repr(module)
    except Exception:
        return type(module).__name__
