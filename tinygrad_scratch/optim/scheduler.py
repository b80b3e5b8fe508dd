"""What schedules share: a count of steps, the rates that follow from it, and state."""

from collections.abc import Iterable, Mapping
from typing import Any

from tinygrad_scratch.context import is_lifted
from tinygrad_scratch.errors import CaptureError, describe
from tinygrad_scratch.optim.optimizer import Optimizer


class Scheduler:
    """What all schedules share: the optimizer, a count of steps, the last rates, and state."""

    _last_lr: list[float]

    def __init__(self, optimizer: Optimizer, last_epoch: int):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"a schedule takes an Optimizer, not {describe(optimizer)}")
        self.optimizer = optimizer
        self.last_epoch = last_epoch

    def get_last_lr(self) -> list[float]:
        """The rate of each group, as the last step set it (or the schedule's start)."""
        return list(self._last_lr)

    def state_dict(self) -> dict[str, Any]:
        """All that it knows but the optimizer, in torch's layout."""
        return {name: value for name, value in self.__dict__.items() if name != "optimizer"}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a ``state_dict()`` of the same kind of schedule; load the optimizer's too, which holds the rates.

        ValueError if something is missing; then nothing is changed.
        """
        own = self.state_dict()
        if missing := [name for name in own if name not in state_dict]:
            raise ValueError(f"the state_dict lacks {type(self).__name__}'s {', '.join(missing)}")
        self._load({name: state_dict[name] for name in own})

    def _load(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)

    def _write(self, rates: Iterable[float]) -> None:
        """Set the groups' rates."""
        self._last_lr = list(rates)
        for group, lr in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = lr

    @staticmethod
    def check_outside() -> None:
        """CaptureError within a captured step, which would take it for part of the program and never run it again."""
        if is_lifted():
            raise CaptureError(
                "a schedule's step() within a captured step would run only while that is recorded; call it outside, after the "
                "captured step: the new rate is noticed"
            )


class LRScheduler(Scheduler):
    """A schedule whose rates are a function of its count of steps. A subclass defines ``rate``.

    optimizer: its groups' rates at this moment are the base of the schedule, or their "initial_lr", if an earlier
        schedule left that. last_epoch: -1, or the count to resume at, for groups that have an "initial_lr".
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1):
        super().__init__(optimizer, last_epoch)
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise KeyError(
                    f"param_groups[{i}] has no 'initial_lr': load the optimizer's state_dict before resuming at {last_epoch}"
                )
        self.base_lrs = [float(group["initial_lr"]) for group in optimizer.param_groups]
        self._step_count = 0
        self.step()

    def rate(self, i: int, epoch: int) -> float:
        """The rate of group i after `epoch` steps."""
        raise NotImplementedError

    def changed(self, lr: float, before: float, after: float) -> float:
        """The rate to go on with where others changed it to `lr` since this schedule set it to `before`."""
        return lr * (after / before) if before else after

    def step(self) -> None:
        """Count one more step, and set the rates of the optimizer's groups."""
        self.check_outside()
        epoch, rates = self.last_epoch + 1, []
        for i, group in enumerate(self.optimizer.param_groups):
            before = self.rate(i, epoch - 1) if epoch else self.base_lrs[i]
            after = self.rate(i, epoch)
            rates.append(after if group["lr"] == before else self.changed(float(group["lr"]), before, after))
        self.last_epoch = epoch
        self._step_count += 1
        self._write(rates)

    def restart(self) -> None:
        """Go to the schedule's start, whatever the rates are now."""
        self.last_epoch = 0
        self._write([self.rate(i, 0) for i in range(len(self.base_lrs))])


def at_least(low: int, name: str, value: int) -> int:
    if value < low:
        raise ValueError(f"{name} is {value}: it must be {low} or larger")
    return value


def one_each(name: str, value: Any, optimizer: Optimizer) -> list[float]:
    """`value` for each group, or one value for each from a list of them."""
    count = len(optimizer.param_groups)
    values = list(value) if isinstance(value, (list, tuple)) else [value] * count
    if len(values) != count:
        raise ValueError(f"{name} has {len(values)} values for {count} groups")
    return values
