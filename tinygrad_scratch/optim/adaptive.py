"""Optimizers with a rate for each element, from the squares of its gradients: Adam, AdamW, RMSprop, Adagrad."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from tinygrad_scratch.optim.optimizer import Group, Numbers, Optimizer, flags, followed, fraction, number


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015), exactly as torch computes it.

    With gradient g, parameter p, and averages m and v of g and of its square, at step t::

        g = g + weight_decay * p
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        p = p - lr / (1 - beta1**t) * m / (sqrt(v / (1 - beta2**t)) + eps)

    betas: (beta1, beta2), each in [0, 1). amsgrad: divide by the largest v so far (Reddi et al. 2018). maximize: g is -g.
    lr, eps and weight_decay are finite and not negative. ValueError for anything else.

    State of each parameter: step (a number), exp_avg m, exp_avg_sq v, and max_exp_avg_sq with amsgrad.

    >>> import numpy as np, tinygrad_scratch as tg
    >>> p = tg.Tensor([1.0, -2.0], requires_grad=True)
    >>> optimizer = Adam([p], lr=0.1)
    >>> np.sum(p * p).backward()
    >>> optimizer.step()
    >>> p.numpy().round(6).tolist()
    [0.9, -1.9]
    """

    decoupled = False

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ):
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**options, "amsgrad": amsgrad, "maximize": maximize})

    def check(self, group: Group) -> None:
        for name in ("lr", "eps", "weight_decay"):
            group[name] = number(group, name)
        try:
            first, second = group["betas"]
        except (TypeError, ValueError):
            raise TypeError(f"betas is {group['betas']!r}: it must be two numbers, such as (0.9, 0.999)") from None
        group["betas"] = fraction("betas[0]", first), fraction("betas[1]", second)
        flags(group, "amsgrad", "maximize")

    def buffers(self, group: Group) -> tuple[str, ...]:
        return ("step", "exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if group["amsgrad"] else ()))

    def numbers(self, group: Group) -> Numbers:
        lr, decay, (beta1, beta2) = float(group["lr"]), float(group["weight_decay"]), group["betas"]
        return {
            "lr": lr, "beta1": beta1, "beta2": beta2, "eps": group["eps"], "weight_decay": decay,
            "gain1": 1 - beta1, "gain2": 1 - beta2, "keep": 1 - lr * decay,
            "decays": bool(decay) and not self.decoupled, "apart": bool(decay) and self.decoupled,
            "amsgrad": group["amsgrad"], "maximize": group["maximize"],
        }  # fmt: skip

    def rates(self, value: Numbers, t: Any) -> Numbers:
        root = np.sqrt(1 - value["beta2"] ** t)  # both sides of the fraction times it: one operation less an element
        return {"lr": value["lr"] * root / (1 - value["beta1"] ** t), "eps": value["eps"] * root}

    def update(self, p: Any, g: Any, kept: dict[str, Any], fresh: bool, value: Numbers, do: Any) -> None:
        g = followed(p, g, value, do)
        if value["apart"]:
            p *= value["keep"]
        mean, square = kept["exp_avg"], kept["exp_avg_sq"]
        square *= value["beta2"]
        square += do.multiply(do.multiply(g, g), value["gain2"])
        mean *= value["beta1"]
        mean += do.multiply(g, value["gain1"])
        if value["amsgrad"]:
            largest = kept["max_exp_avg_sq"]
            largest += np.where(square > largest, square - largest, 0)
            square = largest
        p -= do.divide(do.multiply(value["lr"], mean), do.add(do.sqrt(square), value["eps"]))


class AdamW(Adam):
    """Adam whose weight decay is decoupled from the gradient (Loshchilov and Hutter 2019), exactly as torch computes it.

    Before each update, p = p * (1 - lr * weight_decay), and g is left alone. See Adam for all else.

    >>> import tinygrad_scratch as tg
    >>> AdamW([tg.Tensor([1.0], requires_grad=True)])
    AdamW(lr=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.01, amsgrad=False, maximize=False)
    """

    decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ):
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)


class RMSprop(Optimizer):
    """RMSprop (Hinton 2012), exactly as torch computes it.

    With gradient g, parameter p, and an average v of g**2::

        g = g + weight_decay * p
        v = alpha * v + (1 - alpha) * g**2
        d = sqrt(v) + eps                       (centered: sqrt(v - m**2) + eps, m an average of g as v is of g**2)
        b = momentum * b + g / d
        p = p - lr * b

    alpha is in [0, 1); lr, eps, weight_decay and momentum are finite and not negative. ValueError for anything else.

    State of each parameter: step (a number), square_avg v, momentum_buffer b with momentum, grad_avg m if centered.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ):
        options = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(params, {**options, "centered": centered, "maximize": maximize})

    def check(self, group: Group) -> None:
        for name in ("lr", "eps", "weight_decay", "momentum"):
            group[name] = number(group, name)
        group["alpha"] = fraction("alpha", group["alpha"])
        flags(group, "centered", "maximize")

    def buffers(self, group: Group) -> tuple[str, ...]:
        momentum, centered = group["momentum"], group["centered"]
        return ("step", "square_avg", *(("momentum_buffer",) if momentum else ()), *(("grad_avg",) if centered else ()))

    def numbers(self, group: Group) -> Numbers:
        names = ("lr", "alpha", "eps", "weight_decay", "momentum")
        return {
            **{name: float(group[name]) for name in names},
            "gain": 1 - float(group["alpha"]),
            "decays": bool(group["weight_decay"]),
            "moves": bool(group["momentum"]),
            "centered": group["centered"],
            "maximize": group["maximize"],
        }

    def update(self, p: Any, g: Any, kept: dict[str, Any], fresh: bool, value: Numbers, do: Any) -> None:
        g = followed(p, g, value, do)
        square = kept["square_avg"]
        square *= value["alpha"]
        square += do.multiply(do.multiply(g, g), value["gain"])
        if value["centered"]:
            mean = kept["grad_avg"]
            mean *= value["alpha"]
            mean += do.multiply(g, value["gain"])
            square = do.subtract(square, do.multiply(mean, mean))
        change = do.divide(g, do.add(do.sqrt(square), value["eps"]))
        if value["moves"]:
            buffer = kept["momentum_buffer"]
            buffer *= value["momentum"]
            buffer += change
            change = buffer
        p -= do.multiply(value["lr"], change)


class Adagrad(Optimizer):
    """Adagrad (Duchi et al. 2011), exactly as torch computes it.

    With gradient g, parameter p, and the sum s of g**2, at step t::

        g = g + weight_decay * p
        s = s + g**2
        p = p - lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps)

    All options are finite and not negative; s starts at initial_accumulator_value. ValueError for anything else.

    State of each parameter: step (a number) and sum s.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ):
        options = {"lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay}
        start = {"initial_accumulator_value": initial_accumulator_value}
        super().__init__(params, {**options, **start, "maximize": maximize})

    def check(self, group: Group) -> None:
        for name in ("lr", "lr_decay", "eps", "weight_decay", "initial_accumulator_value"):
            group[name] = number(group, name)
        flags(group, "maximize")

    def buffers(self, group: Group) -> tuple[str, ...]:
        return ("step", "sum")

    def first(self, name: str, group: Group) -> float:
        return float(group["initial_accumulator_value"]) if name == "sum" else 0.0

    def numbers(self, group: Group) -> Numbers:
        names = ("lr", "lr_decay", "eps", "weight_decay")
        values = {name: float(group[name]) for name in names}
        return {**values, "decays": bool(group["weight_decay"]), "maximize": group["maximize"]}

    def rates(self, value: Numbers, t: Any) -> Numbers:
        return {"lr": value["lr"] / ((t - 1) * value["lr_decay"] + 1)}

    def update(self, p: Any, g: Any, kept: dict[str, Any], fresh: bool, value: Numbers, do: Any) -> None:
        g = followed(p, g, value, do)
        total = kept["sum"]
        total += do.multiply(g, g)
        p -= do.divide(do.multiply(value["lr"], g), do.add(do.sqrt(total), value["eps"]))
