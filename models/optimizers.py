"""The optimizers that `--optimizer` chooses from, and the schedules of their rates that `--schedule` does: one row each."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from tinygrad_scratch.nn import Parameter
from tinygrad_scratch.optim import SGD, Adam, AdamW, Optimizer, RMSprop
from tinygrad_scratch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LambdaLR, LRScheduler, StepLR

if TYPE_CHECKING:
    from models.settings import Settings

RATES = ("momentum", "dampening", "nesterov")
"""The settings that only some optimizers heed."""


class Choice(NamedTuple):
    """One choice of `--optimizer`."""

    build: Callable[..., Optimizer]
    heeds: tuple[str, ...]
    """Which of the settings in RATES it has; `lr` and `weight_decay` all have."""
    defaults: Mapping[str, Any]


OPTIMIZERS: dict[str, Choice] = {
    "sgd": Choice(SGD, RATES, {"lr": 0.04, "momentum": 0.9, "weight_decay": 0.0}),
    "adam": Choice(Adam, (), {"lr": 0.001, "momentum": 0.0, "weight_decay": 0.0}),
    "adamw": Choice(AdamW, (), {"lr": 0.001, "momentum": 0.0, "weight_decay": 0.01}),
    "rmsprop": Choice(RMSprop, ("momentum",), {"lr": 0.001, "momentum": 0.0, "weight_decay": 0.0}),
}

SCHEDULES: dict[str, Callable[[Optimizer, "Settings"], LRScheduler]] = {
    "constant": lambda optimizer, settings: LambdaLR(optimizer, lambda epoch: 1.0),
    "step": lambda optimizer, settings: StepLR(optimizer, settings.step_size, settings.gamma),
    "exponential": lambda optimizer, settings: ExponentialLR(optimizer, settings.gamma),
    "cosine": lambda optimizer, settings: CosineAnnealingLR(optimizer, settings.epochs),
    "root": lambda optimizer, settings: LambdaLR(optimizer, lambda epoch: (epoch + 1) ** -0.5),
}


def build_optimizer(settings: "Settings", parameters: Iterable[Parameter]) -> Optimizer:
    """The optimizer that the settings describe."""
    choice = OPTIMIZERS[settings.optimizer]
    options = {name: getattr(settings, name) for name in ("lr", "weight_decay", *choice.heeds)}
    return choice.build(parameters, **options)
