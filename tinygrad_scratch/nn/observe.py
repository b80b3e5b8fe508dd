"""A copy of a network that shows what each of its layers answers, while the network itself is left alone."""

import copy
from collections.abc import Callable
from typing import Any

from tinygrad_scratch.nn.module import Module

Seen = Callable[[str, Module, Any], None]
"""(path, layer, its output), called after each call of a layer."""


def layers(model: Module) -> dict[str, Module]:
    """{path: module} of what computes: the modules without parts, and those with parameters of their own.

    >>> from tinygrad_scratch import nn
    >>> list(layers(nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU()))))
    ['0', '1.0']
    """
    return {
        path: part
        for path, part in model.named_modules()
        if not any(part.children()) or any(part.parameters(recurse=False))
    }


def observed(model: Module, seen: Seen) -> Module:
    """A deep copy: parameters, buffers and generators of its own, so that it draws what the model is about to draw."""
    twin = copy.deepcopy(model)
    for path, layer in layers(twin).items():
        object.__setattr__(layer, "forward", _showing(layer.forward, path, layer, seen))
    return twin


def _showing(forward: Callable[..., Any], path: str, layer: Module, seen: Seen) -> Callable[..., Any]:
    def shown(*inputs: Any, **options: Any) -> Any:
        output = forward(*inputs, **options)
        seen(path, layer, output)
        return output

    return shown
