"""Optimizers: how parameters follow their gradients. Names, arguments and formulas are torch's.

An update is one function of arrays, written with in-place operators (``buffer *= mu; buffer += g; p -= lr * buffer``).
An eager step feeds it ndarrays. While a step is captured (a listener that lifts), it is fed Tensors around the same
arrays, and numbers that the listener made inputs of the step.
"""

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any

import numpy as np

from tinygrad_scratch._memory import beside
from tinygrad_scratch._typing import Array
from tinygrad_scratch.context import no_grad, settings, state
from tinygrad_scratch.errors import describe
from tinygrad_scratch.tensor import Tensor, next_rank, wrap

Group = dict[str, Any]
"""``{"params": [Tensor, ...], "lr": 0.1, ...}``: parameters, and the options they are updated with."""


class Optimizer:
    """What all optimizers share: groups of parameters with options, and what is kept for each parameter.

    params: an iterable of Tensors, of (name, Tensor) pairs as ``named_parameters()`` gives them, or of groups: dicts
        ``{"params": [...], "lr": ...}`` whose options override the defaults. Leaves that require gradients, each once.
    defaults: the options of groups that do not say otherwise.

    Attributes: ``param_groups``, a list of dicts whose options may be changed between steps; ``state``, a dict from
    each parameter that has been updated to its {name: ndarray}.

    A subclass defines ``check``, ``buffers``, ``numbers`` and ``update``.
    """

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]):
        if isinstance(params, (Tensor, np.ndarray, Mapping)):
            raise TypeError(f"params must be a list of Tensors or of groups, not {describe(params)}; write [params]")
        self.defaults = defaults
        self.param_groups: list[Group] = []
        self.state: dict[Tensor, dict[str, Array]] = {}
        given = list(params)
        if not given:
            raise ValueError(
                "optimizer got an empty parameter list: the model has no parameters, or this generator of them was "
                "used up before; pass model.parameters()"
            )
        for group in given if isinstance(given[0], Mapping) else [{"params": given}]:
            self.add_param_group(group)

    # -- what an optimizer defines ---------------------------------------------------------------------------------

    def check(self, group: Group) -> None:
        """Raise ValueError or TypeError for options that make no sense; make numbers of them."""
        raise NotImplementedError

    def buffers(self, group: Group) -> tuple[str, ...]:
        """The names of the arrays, of zeros at first, that are kept for each parameter."""
        raise NotImplementedError

    def numbers(self, group: Group) -> dict[str, float]:
        """What the update multiplies by, from the options as they are now."""
        raise NotImplementedError

    def update(self, p: Any, g: Any, kept: dict[str, Any], fresh: bool, group: Group, value: dict[str, Any]) -> None:
        """Change `p` and what is `kept` for it in place, given its gradient `g`; `fresh` if this is its first update.

        The options in `group` decide what is computed; it is computed with `value`, the numbers.
        """
        raise NotImplementedError

    # -- what users call -------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        mode = state.mode
        lifted = mode is not True and mode is not False and mode.lift
        for group in self.param_groups:
            names = self.buffers(group)
            value = self._inputs(group) if lifted else self.numbers(group)
            for p in group["params"]:
                gradient = p.grad
                if gradient is None:
                    continue
                kept = self.state.get(p) if names else {}
                fresh = kept is None
                if kept is None:
                    kept = self._start(p, names)
                if lifted:
                    self._update_recorded(p, kept, fresh, group, value)
                else:
                    self.update(p._data, gradient._data, kept, fresh, group, value)
                    p._rank = next_rank()

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters: each ``grad`` is None again."""
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add parameters with options of their own: ``{"params": [...], "lr": 0.01}``."""
        if not isinstance(group, Mapping) or "params" not in group:
            raise TypeError(f'a group is a dict with "params", not {describe(group)}; do not mix groups and Tensors')
        if unknown := [key for key in group if key not in self.defaults and key != "params"]:
            has = ", ".join(self.defaults)
            raise ValueError(f"{type(self).__name__} has no option {', '.join(map(repr, unknown))}; it has {has}")
        params = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
        if not params:
            raise ValueError("optimizer got an empty parameter list in a group")
        pairs = [p if isinstance(p, tuple) else (i, p) for i, p in enumerate(params)]
        known = {id(p) for other in self.param_groups for p in other["params"]}
        for name, p in pairs:
            _check_parameter(p, f"parameter {name!r}", known)
            known.add(id(p))
        complete = {**self.defaults, **group, "params": [p for _, p in pairs]}
        if isinstance(params[0], tuple):
            complete["param_names"] = [name for name, _ in pairs]
        self.check(complete)
        self.param_groups.append(complete)

    def state_dict(self) -> dict[str, Any]:
        """``{"state": {0: {"momentum_buffer": ndarray}}, "param_groups": [{"lr": 0.1, ..., "params": [0, 1]}]}``.

        Parameters are numbered through all groups; arrays are copies; everything else can be written as JSON.
        """
        number = {id(p): i for i, p in enumerate(self._parameters())}
        kept = {number[id(p)]: {name: array.copy() for name, array in kept.items()} for p, kept in self.state.items()}
        groups = [{**group, "params": [number[id(p)] for p in group["params"]]} for group in self.param_groups]
        return {"state": dict(sorted(kept.items())), "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a ``state_dict()`` of an optimizer with the same groups: its options and arrays replace these.

        ValueError or TypeError if it does not fit; then nothing is changed.

        >>> p = Tensor([1.0], requires_grad=True)
        >>> SGD([p], lr=0.1).load_state_dict(SGD([p], lr=0.2, momentum=0.9).state_dict())
        """
        groups, arrays = _parts(state_dict)
        sizes, given = [len(g["params"]) for g in self.param_groups], [len(g["params"]) for g in groups]
        if sizes != given:
            raise ValueError(f"the state_dict has groups of {given} parameters, the optimizer has groups of {sizes}")
        for group, saved in zip(self.param_groups, groups, strict=True):
            if missing := [name for name in self.defaults if name not in saved]:
                raise ValueError(f"the state_dict lacks {type(self).__name__}'s option {', '.join(missing)}")
            self.check(saved)
            saved["params"], saved["number"] = group["params"], saved["params"]
        parameter = {i: p for saved in groups for i, p in zip(saved.pop("number"), saved["params"], strict=True)}
        if strangers := [i for i in arrays if i not in parameter]:
            raise ValueError(f"the state_dict has state of parameter {strangers[0]!r}, but its groups do not have it")
        fitted = {parameter[i]: _fitted(i, kept, parameter[i]) for i, kept in arrays.items()}
        for group, saved in zip(self.param_groups, groups, strict=True):
            group.update(saved)
        self.state = {p: _over(self.state.get(p, {}), kept) for p, kept in fitted.items()}
        settings.part_replaced()  # a captured step may hold arrays that are gone now

    def __repr__(self) -> str:
        groups = (", ".join(f"{name}={group[name]}" for name in self.defaults) for group in self.param_groups)
        return f"{type(self).__name__}({'; '.join(groups)})"

    # -- how a step is made ----------------------------------------------------------------------------------------

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def _start(self, p: Tensor, names: tuple[str, ...]) -> dict[str, Array]:
        """What is kept for a parameter before its first update."""
        kept = self.state[p] = {name: beside(p._data) for name in names}
        for array in kept.values():
            array[...] = 0
        return kept

    def _inputs(self, group: Group) -> dict[str, Any]:
        """The numbers as 0-d inputs of the step that is being captured, so that they may change between its calls."""
        hyper = getattr(state.mode, "hyper", None)
        return dict(self.numbers(group)) if hyper is None else hyper(lambda: self.numbers(group))

    def _update_recorded(
        self, p: Tensor, kept: dict[str, Array], fresh: bool, group: Group, value: dict[str, Any]
    ) -> None:
        """The same update on Tensors around the same arrays, so that the listener sees every operation of it."""
        with no_grad():
            value = {name: v.astype(p.dtype) if isinstance(v, Tensor) else v for name, v in value.items()}
            self.update(p, p.grad, {name: wrap(array) for name, array in kept.items()}, fresh, group, value)


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, exactly as torch computes it.

    With gradient g, parameter p and velocity v, which after the first step is g itself::

        g = g + weight_decay * p
        v = momentum * v + (1 - dampening) * g
        p = p - lr * v                          (nesterov: p - lr * (g + momentum * v))

    lr, dampening and weight_decay are finite and not negative; momentum is in [0, 1); nesterov (Sutskever et al. 2013)
    needs a momentum and no dampening. ValueError for anything else. A parameter without a gradient is left alone.

    >>> p = Tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = SGD([p], lr=0.1)
    >>> np.sum(p * p).backward()
    >>> optimizer.step()
    >>> p.tolist()
    [0.8, 1.6]
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ):
        options = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        super().__init__(params, {**options, "nesterov": nesterov})

    def check(self, group: Group) -> None:
        for name in ("lr", "momentum", "dampening", "weight_decay"):
            group[name] = _number(group, name)
        if group["momentum"] >= 1:
            raise ValueError(f"momentum is {group['momentum']}: it must be in [0, 1), else the velocity never decays")
        if group["nesterov"] and (not group["momentum"] or group["dampening"]):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        group["nesterov"] = bool(group["nesterov"])

    def buffers(self, group: Group) -> tuple[str, ...]:
        return ("momentum_buffer",) if group["momentum"] else ()

    def numbers(self, group: Group) -> dict[str, float]:
        return {
            "lr": float(group["lr"]),
            "momentum": float(group["momentum"]),
            "gain": 1 - float(group["dampening"]),
            "weight_decay": float(group["weight_decay"]),
        }

    def update(self, p: Any, g: Any, kept: dict[str, Any], fresh: bool, group: Group, value: dict[str, Any]) -> None:
        if group["weight_decay"]:
            g = g + value["weight_decay"] * p
        if group["momentum"]:
            buffer = kept["momentum_buffer"]
            buffer *= value["momentum"]
            buffer += value["gain"] * g if group["dampening"] and not fresh else g
            g = g + value["momentum"] * buffer if group["nesterov"] else buffer
        p -= value["lr"] * g


def _number(group: Group, name: str) -> float:
    """The option as a finite float that is not negative."""
    try:
        value = float(group[name])
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {group[name]!r}: it must be a number") from None
    if not (isfinite(value) and value >= 0):
        raise ValueError(f"{name} is {value}: it must be finite and 0 or larger")
    return value


def _check_parameter(p: Any, what: str, known: set[int]) -> None:
    """TypeError or ValueError unless `p` can be optimized and is not among the `known`."""
    if not isinstance(p, Tensor):
        raise TypeError(f"an optimizer changes Tensors, but {what} is {describe(p)}; use nn.Parameter(x)")
    what = f"{what}, {describe(p)},"
    if not p.is_leaf:
        raise ValueError(f"{what} is not a leaf: it was computed, so no change of it lasts; pass what it was made from")
    if not p.requires_grad:
        raise ValueError(f"{what} does not require a gradient, so it would never change; pass only those that do")
    if id(p) in known:
        raise ValueError(f"{what} is given twice, so a step would update it twice; give each once, to one group")


def _parts(state_dict: Mapping[str, Any]) -> tuple[list[Group], dict[Any, dict[str, Any]]]:
    """Copies of the groups and of the state in a state dict; ValueError for anything of another form."""
    try:
        groups = [{**group, "params": list(group["params"])} for group in state_dict["param_groups"]]
        return groups, {index: dict(kept) for index, kept in state_dict["state"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"no state_dict of an optimizer, which has 'state' and 'param_groups': {error!r}") from None


def _fitted(index: Any, kept: dict[str, Any], p: Tensor) -> dict[str, Array]:
    """Copies of saved arrays in the parameter's dtype. ValueError for another shape, or no numbers."""
    arrays = {name: np.asarray(value) for name, value in kept.items()}
    for name, array in arrays.items():
        if array.shape != p.shape or array.dtype.kind not in "fiu":
            raise ValueError(f"{name} of parameter {index} is {describe(array)}, but the parameter is {describe(p)}")
    made = {name: beside(p._data) for name in arrays}
    for name, array in arrays.items():
        made[name][...] = array
    return made


def _over(old: dict[str, Array], new: dict[str, Array]) -> dict[str, Array]:
    """The new arrays, in the memory of the old ones where there are any: a captured step holds on to those."""
    for name in old.keys() & new.keys():
        old[name][...] = new[name]
        new[name] = old[name]
    return new
