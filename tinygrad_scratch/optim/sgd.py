"""Stochastic gradient descent."""

from collections.abc import Iterable
from typing import Any

from tinygrad_scratch.optim.optimizer import Group, Numbers, Optimizer, flags, followed, number


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, exactly as torch computes it.

    With gradient g, parameter p and velocity v, which after the first step is g itself::

        g = g + weight_decay * p
        v = momentum * v + (1 - dampening) * g
        p = p - lr * v                          (nesterov: p - lr * (g + momentum * v))

    lr, dampening and weight_decay are finite and not negative; momentum is in [0, 1); nesterov (Sutskever et al. 2013)
    needs a momentum and no dampening. ValueError for anything else.
    With maximize, g is -g. A parameter without a gradient is left alone.

    >>> import numpy as np, tinygrad_scratch as tg
    >>> p = tg.Tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = SGD([p], lr=0.1)
    >>> np.sum(p * p).backward()
    >>> optimizer.step()
    >>> p.tolist()
    [0.8, 1.6]
    """

    whole = 1 << 62  # always: with one answer an update, parts gain nothing (measured up to 600,000 elements)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ):
        options = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        super().__init__(params, {**options, "nesterov": nesterov, "maximize": maximize})

    def check(self, group: Group) -> None:
        for name in ("lr", "momentum", "dampening", "weight_decay"):
            group[name] = number(group, name)
        if group["momentum"] >= 1:
            raise ValueError(f"momentum is {group['momentum']}: it must be in [0, 1), else the velocity never decays")
        if group["nesterov"] and (not group["momentum"] or group["dampening"]):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        flags(group, "nesterov", "maximize")

    def buffers(self, group: Group) -> tuple[str, ...]:
        return ("momentum_buffer",) if group["momentum"] else ()

    def numbers(self, group: Group) -> Numbers:
        return {
            "lr": float(group["lr"]),
            "momentum": float(group["momentum"]),
            "gain": 1 - float(group["dampening"]),
            "weight_decay": float(group["weight_decay"]),
            "decays": bool(group["weight_decay"]),
            "moves": bool(group["momentum"]),
            "dampens": bool(group["dampening"]),
            "nesterov": group["nesterov"],
            "maximize": group["maximize"],
        }

    def update(self, p: Any, g: Any, kept: dict[str, Any], fresh: bool, value: Numbers, do: Any) -> None:
        g = followed(p, g, value, do)
        if value["moves"]:
            buffer = kept["momentum_buffer"]
            buffer *= value["momentum"]
            buffer += do.multiply(value["gain"], g) if value["dampens"] and not fresh else g
            g = do.add(g, do.multiply(value["momentum"], buffer)) if value["nesterov"] else buffer
        p -= do.multiply(value["lr"], g)
