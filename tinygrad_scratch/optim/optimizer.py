"""What optimizers share: groups of parameters, what is kept for each, and how an update becomes a step.

An update is one function of arrays, element by element, written with in-place operators (``buffer *= mu; buffer += g;
p -= lr * buffer``). An eager step feeds it ndarrays, large ones in parts that stay in the processor's cache from one
operation to the next. While a step is captured (a listener that lifts), it is fed Tensors around the same arrays, and
numbers that the listener made inputs of the step.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import isfinite
from typing import Any

import numpy as np

from tinygrad_scratch._memory import beside
from tinygrad_scratch._typing import Array
from tinygrad_scratch.context import changes, is_lifted, no_grad, state, tell
from tinygrad_scratch.errors import describe
from tinygrad_scratch.optim.scratch import Scratch
from tinygrad_scratch.optim.watched import Groups, State, WatchedDict, group_of
from tinygrad_scratch.tensor import Tensor, next_rank, wrap

_WATCHED: dict[str, Any] = {"param_groups": Groups, "state": State}

Group = dict[str, Any]
"""``{"params": [Tensor, ...], "lr": 0.1, ...}``: parameters, and the options they are updated with."""

Numbers = dict[str, Any]
"""What an update computes with (floats), and what decides which operations it consists of (bools)."""

_PART = 262144  # elements that an update of a large array takes at a time: what they need stays in the cache


class Optimizer:
    """What all optimizers share: groups of parameters with options, and what is kept for each parameter.

    params: an iterable of Tensors, of (name, Tensor) pairs as ``named_parameters()`` gives them, or of groups: dicts
        ``{"params": [...], "lr": ...}`` whose options override the defaults. Leaves that require gradients, each once.
    defaults: the options of groups that do not say otherwise.

    Attributes: ``param_groups``, a list of dicts whose options may be changed between steps; ``state``, a dict from
    each parameter that has been updated to its {name: ndarray}.

    A subclass defines ``check``, ``buffers``, ``numbers`` and ``update``; and ``rates`` if it counts its steps, which it
    does if one of its buffers is "step".
    """

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]):
        if isinstance(params, (Tensor, np.ndarray, Mapping)):
            raise TypeError(f"params must be a list of Tensors or of groups, not {describe(params)}; write [params]")
        self.defaults = defaults
        self.param_groups: list[Group] = Groups()
        self.state: dict[Tensor, dict[str, Array]] = State()
        self._known: dict[int, tuple[list[Any], Numbers, dict[Any, Numbers]]] = {}
        given = list(params)
        if not given:
            raise ValueError(
                "optimizer got an empty parameter list: the model has no parameters, or this generator of them was "
                "used up before; pass model.parameters()"
            )
        for group in given if isinstance(given[0], Mapping) else [{"params": given}]:
            self.add_param_group(group)

    def __setattr__(self, name: str, value: Any) -> None:
        """Groups and state that take the place of others go on telling when they are changed."""
        if name in _WATCHED and not isinstance(value, _WATCHED[name]):
            value, given = _WATCHED[name](), value
            (value.extend if isinstance(value, list) else value.update)(given)
        super().__setattr__(name, value)
        changes.note()

    whole = 32768
    """Elements up to which a parameter is updated in one go: the memory for the answers of larger ones comes from the system
    each time, so that those are updated in parts, whose answers stay in the cache."""

    # -- what an optimizer defines ---------------------------------------------------------------------------------

    def check(self, group: Group) -> None:
        """Raise ValueError or TypeError for options that make no sense; make numbers of them."""
        raise NotImplementedError

    def buffers(self, group: Group) -> tuple[str, ...]:
        """The names of the arrays that are kept for each parameter; "step", a number of float64, is the first if there."""
        raise NotImplementedError

    def numbers(self, group: Group) -> Numbers:
        """What the update computes with, from the options as they are now."""
        raise NotImplementedError

    def rates(self, value: Numbers, t: Any) -> Numbers:
        """What the number of the step, `t` from 1 on, makes of the numbers: they replace those of the same name."""
        return {}

    def update(self, p: Any, g: Any, kept: dict[str, Any], fresh: bool, value: Numbers, do: Any) -> None:
        """Change `p` and what is `kept` for it in place, given its gradient `g`; `fresh` if this is its first update.

        do: NumPy, or its functions with memory that is used again in the next update.
        """
        raise NotImplementedError

    def first(self, name: str, group: Group) -> float:
        """What a buffer is filled with at first."""
        return 0.0

    # -- what users call -------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        lifted = is_lifted()
        tell("used", self)
        with np.errstate(all="ignore"):
            for group in self.param_groups:
                (self._step_recorded if lifted else self._step_arrays)(group, self.buffers(group))

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters: each ``grad`` is None again."""
        tell("used", self)
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add parameters with options of their own: ``{"params": [...], "lr": 0.01}``."""
        if not isinstance(group, Mapping) or "params" not in group:
            raise TypeError(f'a group is a dict with "params", not {describe(group)}; do not mix groups and Tensors')
        if unknown := [key for key in group if key not in self.defaults and key not in ("params", "initial_lr")]:
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
        self.param_groups.append(group_of(complete))

    def state_dict(self) -> dict[str, Any]:
        """``{"state": {0: {"momentum_buffer": ndarray}}, "param_groups": [{"lr": 0.1, ..., "params": [0, 1]}]}``.

        Parameters are numbered through all groups; arrays are copies; everything else can be written as JSON.
        """
        number = {id(p): i for i, p in enumerate(self._parameters())}
        known = [(p, kept) for p, kept in self.state.items() if id(p) in number]  # the others have left their group
        kept = {number[id(p)]: {name: array.copy() for name, array in kept.items()} for p, kept in known}
        groups = [{**group, "params": [number[id(p)] for p in group["params"]]} for group in self.param_groups]
        return {"state": dict(sorted(kept.items())), "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a ``state_dict()`` of an optimizer with the same groups: its options and arrays replace these.

        ValueError or TypeError if it does not fit; then nothing is changed.

        >>> p = Tensor([1.0], requires_grad=True)
        >>> from tinygrad_scratch.optim import SGD
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
        for i, kept in arrays.items():
            group = next(saved for saved in groups if any(p is parameter[i] for p in saved["params"]))
            if kept and (missing := [name for name in self.buffers(group) if name not in kept]):
                raise ValueError(
                    f"the state_dict lacks {type(self).__name__}'s {', '.join(missing)} of parameter {i!r}"
                )
        fitted = {parameter[i]: _fitted(i, kept, parameter[i]) for i, kept in arrays.items() if kept}
        for group, saved in zip(self.param_groups, groups, strict=True):
            group.update(saved)
        self.state = {p: _over(self.state.get(p, {}), kept) for p, kept in fitted.items()}

    def __repr__(self) -> str:
        groups = (", ".join(f"{name}={group[name]}" for name in self.defaults) for group in self.param_groups)
        return f"{type(self).__name__}({'; '.join(groups)})"

    # -- how a step is made ----------------------------------------------------------------------------------------

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def _kept(self, p: Tensor, names: tuple[str, ...], group: Group) -> tuple[dict[str, Array], bool]:
        """What is kept for a parameter, and whether that is new."""
        kept = self.state.get(p) if names else {}
        fresh = kept is None
        if kept is None or len(kept) < len(names):
            kept = self.state.setdefault(p, WatchedDict())
            for name in names:
                if name not in kept:
                    kept[name] = np.empty(()) if name == "step" else beside(p._data)
                    kept[name][...] = self.first(name, group)
        return kept, fresh

    def _step_arrays(self, group: Group, names: tuple[str, ...]) -> None:
        """Update the parameters of a group eagerly."""
        value, by_dtype = self._prepared(group)
        last, now, kind = -1.0, value, None
        for p in group["params"]:
            gradient = p.grad
            if gradient is None:
                continue
            data, t = p._data, 0.0
            kept, fresh = self._kept(p, names, group)
            if "step" in kept:
                kept = kept.copy()
                count = kept.pop("step")
                count += 1
                t = count.item()
            if t != last or data.dtype is not kind:
                last, kind = t, data.dtype
                if kind not in by_dtype:
                    by_dtype[kind] = _in_dtype(value, kind)
                now = {**by_dtype[kind], **_in_dtype(self.rates(value, count), kind)} if t else by_dtype[kind]
            if data.size <= self.whole:
                self.update(data, gradient._data, kept, fresh, now, np)
            else:
                scratch = Scratch.of(kind)
                for part, g, some in _parts_of(data, gradient._data, kept):
                    self.update(part, g, some, fresh, now, scratch.begin(part.size))
            p._rank = next_rank()

    def _prepared(self, group: Group) -> tuple[Numbers, dict[Any, Numbers]]:
        """The numbers of a group, and what was made of them by dtype; made anew when an option has changed."""
        options = [group[name] for name in self.defaults]
        known = self._known.get(id(group))
        if known is None or known[0] != options:
            snapshot = [float(v) if isinstance(v, np.ndarray) else v for v in options]  # which may be changed in place
            known = self._known[id(group)] = (snapshot, self.numbers(group), {})
        return known[1], known[2]

    def _step_recorded(self, group: Group, names: tuple[str, ...]) -> None:
        """The same updates on Tensors around the same arrays, so that the listener sees every operation of them."""
        hyper = getattr(state.mode, "hyper", None)
        # numbers as 0-d inputs of the step that is being captured, so that they may change between its calls
        value = self.numbers(group) if hyper is None else hyper(lambda: self.numbers(group), group)
        for p in group["params"]:
            if p.grad is None:
                continue
            arrays, fresh = self._kept(p, names, group)
            with no_grad(), _through_views():
                kept, now = {name: wrap(array) for name, array in arrays.items()}, value
                if "step" in kept:
                    t = kept.pop("step")
                    t += 1
                    now = {**value, **self.rates(value, t)}
                now = {name: v.astype(p.dtype) if isinstance(v, Tensor) else v for name, v in now.items()}
                self.update(p, p.grad, kept, fresh, now, np)


@contextmanager
def _through_views() -> Iterator[None]:
    """A parameter may show memory of another array, a slice of one for all say: it is changed there, as eagerly."""
    before, state.through_views = state.through_views, True
    try:
        yield
    finally:
        state.through_views = before


def followed(p: Any, g: Any, value: Numbers, do: Any) -> Any:
    """The gradient that an update goes by: turned around to maximize, and with the decay of weights in it."""
    if value["maximize"]:
        g = do.negative(g)
    if value["decays"]:
        g = do.add(g, do.multiply(value["weight_decay"], p))
    return g if do is np else do.keep(g)


def _in_dtype(value: Numbers, dtype: Any) -> Numbers:
    """The numbers as arrays of the parameter's dtype: with Python's, an operation on a small array takes thrice as long."""
    return {name: v if isinstance(v, bool) else np.array(v, dtype) for name, v in value.items()}


def _parts_of(p: Array, g: Array, kept: dict[str, Array]) -> Iterator[tuple[Array, Array, dict[str, Array]]]:
    """The arrays a part at a time, the same elements of each. What is kept lies as the parameter does; see `beside`."""
    arrays = [p, g, *kept.values()]
    if not p.flags.c_contiguous:
        arrays = [a.T for a in arrays]
    arrays[1] = np.ascontiguousarray(arrays[1])
    flat = [a.reshape(-1) for a in arrays]
    for start in range(0, p.size, _PART):
        part, gradient, *rest = [a[start : start + _PART] for a in flat]
        yield part, gradient, dict(zip(kept, rest, strict=True))


def number(group: Group, name: str) -> float:
    """The option as a finite float that is not negative."""
    try:
        value = float(group[name])
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {group[name]!r}: it must be a number") from None
    if not (isfinite(value) and value >= 0):
        raise ValueError(f"{name} is {value}: it must be finite and 0 or larger")
    return value


def fraction(name: str, value: Any) -> float:
    """`value` as a float in [0, 1)."""
    given = number({name: value}, name)
    if given >= 1:
        raise ValueError(f"{name} is {given}: it must be in [0, 1)")
    return given


def flags(group: Group, *names: str) -> None:
    """Make bools of these options."""
    group.update({name: bool(group[name]) for name in names})


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
    arrays = {name: np.asarray(value) for name, value in kept.items() if value is not None}
    for name, array in arrays.items():
        shape = () if name == "step" else p.shape
        if array.shape != shape or array.dtype.kind not in "fiu":
            raise ValueError(f"{name} of parameter {index} is {describe(array)}, but the parameter is {describe(p)}")
    made = {name: np.empty(()) if name == "step" else beside(p._data) for name in arrays}
    for name, array in arrays.items():
        made[name][...] = array
    return made


def _over(old: dict[str, Array], new: dict[str, Array]) -> dict[str, Array]:
    """The new arrays, in the memory of the old ones where there are any: a captured step holds on to those."""
    for name in old.keys() & new.keys():
        old[name][...] = new[name]
        new[name] = old[name]
    return new
