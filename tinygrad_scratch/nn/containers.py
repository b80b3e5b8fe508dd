"""Modules that are made of modules: one after the other, in a list, by name."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

from tinygrad_scratch.context import changes, tell
from tinygrad_scratch.nn.module import Module


class _Ordered(Module):
    """Modules in the order of their assignment; one that is there twice counts twice."""

    def __iter__(self) -> Iterator[Module]:
        tell("looked_through", self)
        return iter([value for value in self.__dict__.values() if isinstance(value, Module)])

    def __len__(self) -> int:
        return len([*iter(self)])


class Sequential(_Ordered):
    """Modules, each fed what the one before it answers. Their names are "0", "1", ..., or the keys of a dict of them.

    >>> import numpy as np
    >>> from tinygrad_scratch import nn
    >>> model = nn.Sequential(nn.Linear(4, 3, rng=0), nn.ReLU(), nn.Linear(3, 2, rng=1))
    >>> model
    Sequential(
      (0): Linear(in_features=4, out_features=3, bias=True)
      (1): ReLU()
      (2): Linear(in_features=3, out_features=2, bias=True)
    )
    >>> len(model), model[-1].weight.shape, model[:2](np.zeros((5, 4))).shape
    (3, (2, 3), (5, 3))
    """

    def __init__(self, *modules: Any):
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            named = dict(modules[0])
        else:
            named = {str(i): module for i, module in enumerate(modules)}
        for name, module in named.items():
            self.add_module(name, module)

    def forward(self, x: Any) -> Any:
        for module in self:
            x = module(x)
        return x

    def __getitem__(self, index: int | slice) -> Any:
        modules = [*iter(self)][index]
        return Sequential(*modules) if isinstance(modules, list) else modules


class ModuleList(_Ordered):
    """Modules in a list, whose names are "0", "1", ...: to be called by the module that has it.

    >>> from tinygrad_scratch import nn
    >>> layers = nn.ModuleList([nn.Linear(2, 3, rng=0)])
    >>> layers.append(nn.Tanh()).extend([nn.Linear(3, 1, rng=1)])
    ModuleList(
      (0): Linear(in_features=2, out_features=3, bias=True)
      (1): Tanh()
      (2): Linear(in_features=3, out_features=1, bias=True)
    )
    """

    def __init__(self, modules: Iterable[Module] = ()):
        self.extend(modules)

    def append(self, module: Module) -> Self:
        """Add a module at the end; returns itself."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Add modules at the end; returns itself."""
        for module in modules:
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> None:
        """Put a module before that index."""
        parts = [*self]
        parts.insert(index, module)
        self._replace(parts)

    def pop(self, index: int = -1) -> Module:
        """Take a module out, and return it."""
        module = self[index]
        del self[index]
        return module  # type: ignore[no-any-return]

    def _replace(self, modules: list[Module]) -> None:
        for i in range(len(self)):
            del self.__dict__[str(i)]
        changes.note()
        self.extend(modules)

    def __getitem__(self, index: int | slice) -> Any:
        modules = [*iter(self)][index]
        return ModuleList(modules) if isinstance(modules, list) else modules

    def __setitem__(self, index: int, module: Module) -> None:
        self.add_module(str(range(len(self))[index]), module)

    def __delitem__(self, index: int | slice) -> None:
        parts = [*self]
        del parts[index]
        self._replace(parts)


class ModuleDict(Module):
    """Modules by name: to be called by the module that has it.

    >>> from tinygrad_scratch import nn
    >>> heads = nn.ModuleDict({"mean": nn.Linear(2, 1, rng=0), "spread": nn.Softplus()})
    >>> [name for name, _ in heads.named_parameters()], "mean" in heads, len(heads)
    (['mean.weight', 'mean.bias'], True, 2)
    """

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] = ()):
        self.update(modules)

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Add modules, or put them in the place of those of the same names."""
        for name, module in dict(modules).items():
            self[name] = module

    def keys(self) -> list[str]:
        """The names."""
        tell("looked_through", self)
        return [name for name, value in self.__dict__.items() if isinstance(value, Module)]

    def values(self) -> list[Module]:
        """The modules."""
        return [self.__dict__[name] for name in self.keys()]

    def items(self) -> list[tuple[str, Module]]:
        """(name, module) of each."""
        return list(zip(self.keys(), self.values(), strict=True))

    def pop(self, name: str) -> Module:
        """Take a module out, and return it."""
        module = self[name]
        del self[name]
        return module

    def __getitem__(self, name: str) -> Module:
        if name not in self:
            raise KeyError(f"no module {name!r}; there are {', '.join(self.keys()) or 'none'}")
        return self.__dict__[name]  # type: ignore[no-any-return]

    def __setitem__(self, name: str, module: Module) -> None:
        if isinstance(name, str) and name not in self and hasattr(self, name):
            raise KeyError(f"{name!r} is an attribute that every ModuleDict has; take another name")
        self.add_module(name, module)

    def __delitem__(self, name: str) -> None:
        self[name]
        delattr(self, name)

    def __contains__(self, name: object) -> bool:
        tell("looked_through", self)
        return isinstance(self.__dict__.get(str(name)), Module)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())
