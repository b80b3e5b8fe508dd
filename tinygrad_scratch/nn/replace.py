"""A module as a function of its parameters: what transforms and ``tg.trees`` do with one."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinygrad_scratch.nn.module import Module, Parameter
from tinygrad_scratch.tensor import Tensor, as_tensor
from tinygrad_scratch.trees import register_node


def with_parameters(module: Module, parameters: Mapping[str, Any]) -> Module:
    """A module like `module` that computes with other parameters, {path: array or Tensor}; buffers are shared.

    A parameter that is not named stays. What is given is used as it is, so a Tensor's graph goes on through it.
    KeyError for a path that is not there, ValueError for another shape.

    >>> from tinygrad_scratch import nn
    >>> layer = nn.Linear(2, 1, rng=0)
    >>> with_parameters(layer, {"weight": np.ones((1, 2)), "bias": np.zeros(1)})(np.array([2.0, 3.0])).tolist()
    [5.0]
    """
    own = dict(module.named_parameters())
    new: dict[int, Any] = {}
    for path, value in parameters.items():
        if path not in own:
            raise KeyError(f"the module has no parameter {path!r}; it has {', '.join(own)}")
        if np.shape(value) != own[path].shape:
            raise ValueError(f"{path} has shape {own[path].shape}, what is given for it {np.shape(value)}")
        new[id(own[path])] = _as_parameter(as_tensor(value))
    return _copied(module, new)


def _as_parameter(tensor: Tensor) -> Parameter:
    """The same values and graph, as what a module lists among its parameters."""
    if isinstance(tensor, Parameter):
        return tensor
    parameter = np.copy(tensor) if tensor.requires_grad else tensor.detach()
    parameter.__class__ = Parameter  # an object of our own, whose slots are those of a Parameter
    return parameter  # type: ignore[return-value]


def _copied(module: Module, new: dict[int, Any]) -> Module:
    """`module` and its parts anew, each once, with what stands in `new` by id in place of the old."""
    if id(module) not in new:
        copy = new[id(module)] = object.__new__(type(module))
        for name, value in module.__dict__.items():
            copy.__dict__[name] = _copied(value, new) if isinstance(value, Module) else new.get(id(value), value)
    return new[id(module)]  # type: ignore[no-any-return]


register_node(Module, lambda module: dict(module.named_parameters()), with_parameters)
