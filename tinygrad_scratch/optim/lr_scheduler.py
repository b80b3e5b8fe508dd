"""Schedules of the learning rate: torch's names, arguments, formulas and state.

A schedule counts its own steps, from 0 when it is made, and is a function of that count: no order of calls spoils it.
``step()`` writes the new rate into the optimizer's groups, which captured steps read before each of their calls. What
others have made of a rate meanwhile (a second schedule, the program) stays as a factor, as it does in torch.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from math import cos, inf, pi
from types import FunctionType
from typing import Any

from tinygrad_scratch.errors import describe
from tinygrad_scratch.optim.optimizer import Optimizer
from tinygrad_scratch.optim.scheduler import LRScheduler, Scheduler, at_least, one_each

__all__ = [
    "CosineAnnealingLR", "ExponentialLR", "LRScheduler", "LambdaLR", "LinearLR", "MultiStepLR", "OneCycleLR",
    "ReduceLROnPlateau", "SequentialLR", "StepLR",
]  # fmt: skip


class StepLR(LRScheduler):
    """base * gamma ** (epoch // step_size).

    >>> from tinygrad_scratch import nn, optim
    >>> schedule = StepLR(optim.SGD([nn.Parameter([1.0])], lr=1.0), step_size=2, gamma=0.5)
    >>> rates = []
    >>> for epoch in range(5):
    ...     rates += schedule.get_last_lr()
    ...     schedule.step()
    >>> rates
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1):
        self.step_size, self.gamma = at_least(1, "step_size", step_size), gamma
        super().__init__(optimizer, last_epoch)

    def rate(self, i: int, epoch: int) -> float:
        return self.base_lrs[i] * self.gamma ** (epoch // self.step_size)


class MultiStepLR(LRScheduler):
    """base * gamma ** (number of milestones up to epoch); a milestone that is given twice counts twice."""

    def __init__(self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1):
        self.milestones, self.gamma = Counter(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def rate(self, i: int, epoch: int) -> float:
        return self.base_lrs[i] * self.gamma ** sum(n for at, n in self.milestones.items() if at <= epoch)

    def _load(self, values: dict[str, Any]) -> None:
        milestones = Counter(
            {int(at): n for at, n in values["milestones"].items()}
        )  # strings, if it was JSON meanwhile
        super()._load({**values, "milestones": milestones})


class ExponentialLR(LRScheduler):
    """base * gamma ** epoch."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1):
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def rate(self, i: int, epoch: int) -> float:
        return self.base_lrs[i] * self.gamma**epoch


class LinearLR(LRScheduler):
    """base * a factor that goes in a line from start_factor to end_factor over total_iters steps, and stays there.

    ValueError unless 0 < start_factor <= 1 and 0 <= end_factor <= 1.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ):
        if not 0 < start_factor <= 1 or not 0 <= end_factor <= 1:
            raise ValueError(
                f"start_factor is {start_factor} and end_factor {end_factor}: they must be in (0, 1] and [0, 1]"
            )
        self.start_factor, self.end_factor = start_factor, end_factor
        self.total_iters = at_least(1, "total_iters", total_iters)
        super().__init__(optimizer, last_epoch)

    def rate(self, i: int, epoch: int) -> float:
        part = min(epoch, self.total_iters) / self.total_iters
        return self.base_lrs[i] * (self.start_factor + (self.end_factor - self.start_factor) * part)


class CosineAnnealingLR(LRScheduler):
    """eta_min + (base - eta_min) * (1 + cos(pi * epoch / T_max)) / 2 (Loshchilov and Hutter 2017, without restarts)."""

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1):  # noqa: N803
        self.T_max, self.eta_min = at_least(1, "T_max", T_max), eta_min
        super().__init__(optimizer, last_epoch)

    def rate(self, i: int, epoch: int) -> float:
        return self.eta_min + (self.base_lrs[i] - self.eta_min) * (1 + cos(pi * epoch / self.T_max)) / 2

    def changed(self, lr: float, before: float, after: float) -> float:
        low = self.eta_min
        return low + super().changed(lr - low, before - low, after - low)


class LambdaLR(LRScheduler):
    """base * lr_lambda(epoch); a function for all groups, or a list of one for each.

    State of functions that are objects with attributes is part of the state dict; functions and lambdas are not.

    >>> from tinygrad_scratch import nn, optim
    >>> schedule = LambdaLR(optim.SGD([nn.Parameter([1.0])], lr=1.0), lambda epoch: 1 / (epoch + 1) ** 0.5)
    >>> for _ in range(3):
    ...     schedule.step()
    >>> schedule.get_last_lr()
    [0.5]
    """

    def __init__(self, optimizer: Optimizer, lr_lambda: Any, last_epoch: int = -1):
        many = isinstance(lr_lambda, (list, tuple))
        self.lr_lambdas: list[Callable[[int], float]] = (
            list(lr_lambda) if many else [lr_lambda] * len(optimizer.param_groups)
        )
        if len(self.lr_lambdas) != len(optimizer.param_groups):
            raise ValueError(f"there are {len(self.lr_lambdas)} lr_lambdas for {len(optimizer.param_groups)} groups")
        super().__init__(optimizer, last_epoch)

    def rate(self, i: int, epoch: int) -> float:
        return self.base_lrs[i] * float(self.lr_lambdas[i](epoch))

    def changed(self, lr: float, before: float, after: float) -> float:
        return after

    def state_dict(self) -> dict[str, Any]:
        kept = [None if isinstance(f, FunctionType) else dict(f.__dict__) for f in self.lr_lambdas]
        return {**super().state_dict(), "lr_lambdas": kept}

    def _load(self, values: dict[str, Any]) -> None:
        for function, kept in zip(self.lr_lambdas, values["lr_lambdas"], strict=True):
            if kept is not None:
                function.__dict__.update(kept)
        super()._load({**values, "lr_lambdas": self.lr_lambdas})


class SequentialLR(Scheduler):
    """Schedules one after the other: schedulers[i + 1] starts when the count of steps reaches milestones[i].

    >>> from tinygrad_scratch import nn, optim
    >>> optimizer = optim.SGD([nn.Parameter([1.0])], lr=1.0)
    >>> warm, slow = LinearLR(optimizer, 0.5, total_iters=2), ExponentialLR(optimizer, 0.9)
    >>> schedule, rates = SequentialLR(optimizer, [warm, slow], [2]), []
    >>> for epoch in range(4):
    ...     rates += schedule.get_last_lr()
    ...     schedule.step()
    >>> rates
    [0.5, 0.75, 1.0, 0.9]
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[Any], milestones: Sequence[int], last_epoch: int = -1
    ):
        super().__init__(optimizer, last_epoch + 1)
        if len(schedulers) != len(milestones) + 1:
            raise ValueError(
                f"{len(schedulers)} schedulers need {len(schedulers) - 1} milestones, not {len(milestones)}"
            )
        for i, scheduler in enumerate(schedulers):
            if not isinstance(scheduler, (LRScheduler, SequentialLR)):
                raise TypeError(f"schedulers[{i}] is {describe(scheduler)}: one that counts steps alone is needed")
            if scheduler.optimizer is not optimizer:
                raise ValueError(f"schedulers[{i}] belongs to another optimizer: make it with this one")
        self._schedulers, self._milestones = list(schedulers), list(milestones)
        self._begin()

    def _begin(self) -> None:
        """All to where they were before they were made; then the first of them starts."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        for scheduler in self._schedulers:
            scheduler.last_epoch = -1 if isinstance(scheduler, LRScheduler) else 0
        self._schedulers[0].restart()
        self._last_lr = self._schedulers[0].get_last_lr()

    def restart(self) -> None:
        """Go to the schedule's start, whatever the rates are now."""
        self.last_epoch = 0
        self._begin()

    def step(self) -> None:
        """Count one more step, and step the schedule whose turn it is."""
        self.check_outside()
        epoch = self.last_epoch + 1
        i = bisect_right(self._milestones, epoch)
        scheduler = self._schedulers[i]
        if i and self._milestones[i - 1] == epoch:
            scheduler.restart()
        else:
            scheduler.step()
        self.last_epoch, self._last_lr = epoch, scheduler.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "_schedulers": [s.state_dict() for s in self._schedulers]}

    def _load(self, values: dict[str, Any]) -> None:
        for scheduler, kept in zip(self._schedulers, values["_schedulers"], strict=True):
            scheduler.load_state_dict(kept)
        super()._load({**values, "_schedulers": self._schedulers})


class ReduceLROnPlateau(Scheduler):
    """The rate * factor, once a measure has not improved for more than `patience` steps; then none for `cooldown` steps.

    mode: "min" or "max", what is better; better by `threshold`, relative ("rel") or absolute ("abs"), counts.
    min_lr: how low the rate may get, a number or one for each group; a change below `eps` is left out.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: Any = 0,
        eps: float = 1e-8,
    ):
        super().__init__(optimizer, 0)
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise ValueError(
                f"mode is {mode!r}, threshold_mode {threshold_mode!r}: they must be 'min' or 'max', 'rel' or 'abs'"
            )
        if not factor < 1:
            raise ValueError(f"factor is {factor}: it must be less than 1")
        self.mode, self.threshold, self.threshold_mode = mode, threshold, threshold_mode
        self.factor, self.patience, self.cooldown, self.eps = factor, patience, cooldown, eps
        self.min_lrs = one_each("min_lr", min_lr, optimizer)
        self.best = self.mode_worse = inf if mode == "min" else -inf
        self.cooldown_counter = self.num_bad_epochs = 0
        self._last_lr = [group["lr"] for group in optimizer.param_groups]

    def step(self, metrics: Any) -> None:
        """Note the measure, a number or a Tensor of one, and reduce the rates if it is time."""
        self.check_outside()
        current = float(metrics)
        self.last_epoch += 1
        better = self._is_better(current)
        if better:
            self.best = current
        self.num_bad_epochs = 0 if better or self.cooldown_counter else self.num_bad_epochs + 1
        self.cooldown_counter -= self.cooldown_counter > 0
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        if self.num_bad_epochs > self.patience:
            lower = [max(lr * self.factor, low) for lr, low in zip(rates, self.min_lrs, strict=True)]
            rates = [new if lr - new > self.eps else lr for lr, new in zip(rates, lower, strict=True)]
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        self._write(rates)

    def _is_better(self, current: float) -> bool:
        sign = -1 if self.mode == "min" else 1
        margin = (
            self.best * (1 + sign * self.threshold)
            if self.threshold_mode == "rel"
            else self.best + sign * self.threshold
        )
        return current < margin if self.mode == "min" else current > margin


class OneCycleLR(LRScheduler):
    """One cycle (Smith and Topin 2018): from max_lr / div_factor up to max_lr, and down to a final_div_factor-th of the start.

    total_steps: of the cycle, one for each batch; or epochs and steps_per_epoch. max_lr, base_momentum and max_momentum:
        a number, or one for each group. pct_start: which part of the steps goes up. anneal_strategy: "cos" or "linear".
    cycle_momentum: the momentum (SGD, RMSprop) or beta1 (Adam) goes the other way, between max_momentum and base_momentum.
    three_phase: down to the start in as many steps as up, then to the end.

    ValueError for a step after the last, options out of range, or an optimizer without momentum.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: Any,
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: Any = 0.85,
        max_momentum: Any = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ):
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("OneCycleLR needs total_steps, or epochs and steps_per_epoch")
            total_steps = epochs * steps_per_epoch
        self.total_steps = at_least(1, "total_steps", total_steps)
        if not 0 <= pct_start <= 1 or anneal_strategy not in ("cos", "linear"):
            raise ValueError(
                f"pct_start is {pct_start}, anneal_strategy {anneal_strategy!r}: they must be in [0, 1], and 'cos' or 'linear'"
            )
        self._anneal_func_type = anneal_strategy
        self._schedule_phases = _phases(float(pct_start * total_steps) - 1, total_steps, three_phase)
        self.cycle_momentum = cycle_momentum
        self.use_beta1 = "betas" in optimizer.defaults
        if cycle_momentum and not self.use_beta1 and "momentum" not in optimizer.defaults:
            raise ValueError(f"{type(optimizer).__name__} has no momentum: pass cycle_momentum=False")
        if last_epoch == -1:
            tops = one_each("max_lr", max_lr, optimizer)
            ranges = (
                one_each("base_momentum", base_momentum, optimizer),
                one_each("max_momentum", max_momentum, optimizer),
            )
            for group, top, low, high in zip(optimizer.param_groups, tops, *ranges, strict=True):
                start = top / div_factor
                group.update(initial_lr=start, max_lr=top, min_lr=start / final_div_factor)
                if cycle_momentum:
                    group.update(base_momentum=low, max_momentum=high)
        super().__init__(optimizer, last_epoch)

    def step(self) -> None:
        """Count one more step; set rates, and momenta if those are cycled."""
        super().step()
        self._cycle_momentum()

    def restart(self) -> None:
        super().restart()
        self._cycle_momentum()

    def rate(self, i: int, epoch: int) -> float:
        return self._at(i, epoch, "lr")

    def changed(self, lr: float, before: float, after: float) -> float:
        return after

    def _cycle_momentum(self) -> None:
        for i, group in enumerate(self.optimizer.param_groups if self.cycle_momentum else ()):
            momentum = self._at(i, self.last_epoch, "momentum")
            group.update({"betas": (momentum, group["betas"][1])} if self.use_beta1 else {"momentum": momentum})

    def _at(self, i: int, epoch: int, what: str) -> float:
        """The rate or the momentum of group i at that step."""
        if epoch > self.total_steps:
            raise ValueError(
                f"step {epoch} of OneCycleLR, whose total_steps is {self.total_steps}: give it as many as you train"
            )
        group, begin = self.optimizer.param_groups[i], 0.0
        phase = self._schedule_phases[-1]
        for earlier in self._schedule_phases[:-1]:
            if epoch <= earlier["end_step"]:
                phase = earlier
                break
            begin = earlier["end_step"]
        length = phase["end_step"] - begin
        part = (epoch - begin) / length if length else 1.0
        start, end = group[phase[f"start_{what}"]], group[phase[f"end_{what}"]]
        if self._anneal_func_type == "linear":
            return float((end - start) * part + start)
        return float(end + (start - end) / 2 * (cos(pi * part) + 1))


def _phases(top: float, steps: int, three: bool) -> list[dict[str, Any]]:
    """Where each phase ends, and between which of a group's options it goes."""

    def phase(end: float, *names: str) -> dict[str, Any]:
        return dict(
            zip(("end_step", "start_lr", "end_lr", "start_momentum", "end_momentum"), (end, *names), strict=True)
        )

    up = phase(top, "initial_lr", "max_lr", "max_momentum", "base_momentum")
    if not three:
        return [up, phase(steps - 1, "max_lr", "min_lr", "base_momentum", "max_momentum")]
    down = phase(2 * top, "max_lr", "initial_lr", "base_momentum", "max_momentum")
    return [up, down, phase(steps - 1, "initial_lr", "min_lr", "max_momentum", "max_momentum")]
