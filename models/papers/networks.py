"""The networks that tasks name, each built from a task and the generator of its weights."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import tinygrad_scratch.nn as nn
from models import rules
from models.convnet import VGG, LeNet5
from models.data import Array
from models.mlp import MLP
from models.papers.tasks import Task


class Data(NamedTuple):
    """Images of bytes (N, ...) and labels (N,), to train on and to test on."""

    x: Array
    labels: Array
    x_test: Array
    labels_test: Array


def mlp(task: Task, rng: np.random.Generator) -> nn.Sequential:
    """A multilayer perceptron; with `dropout`, after each hidden layer's activation."""
    model = MLP(task.sizes, task.activation, init=task.init, std=task.std, rng=rng)
    if task.init == "glorot" and task.std != 1:
        for layer in rules.layers(model):
            nn.init.xavier_uniform_(layer.weight, gain=task.std, rng=rng)
    if task.biases == "normal":
        for layer in rules.layers(model):
            if layer.bias is not None:
                nn.init.normal_(layer.bias, std=task.std, rng=rng)
    if not task.dropout:
        return model
    parts: list[nn.Module] = []
    for part in model:
        parts.append(part)
        if not isinstance(part, nn.Linear):
            parts.append(nn.Dropout(task.dropout, rng=rng))
    return nn.Sequential(*parts)


class Standardised(nn.Module):
    """A network whose inputs (N, C, H, W) are first brought to mean 0 and deviation 1 of each channel."""

    def __init__(self, network: nn.Module, mean: list[float], deviation: list[float]):
        self.network = network
        self.mean, self.deviation = (np.array(v, np.float32).reshape(-1, 1, 1) for v in (mean, deviation))

    def forward(self, x: Any) -> Any:
        return self.network((x - self.mean) / self.deviation)


def lenet5(task: Task, rng: np.random.Generator) -> nn.Module:
    """LeNet-5, for MNIST."""
    return Standardised(LeNet5(rng=rng), [0.1307], [0.3081])


def vgg(task: Task, rng: np.random.Generator) -> nn.Module:
    """A small VGG, for CIFAR-10."""
    return Standardised(VGG(rng=rng), [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616])


NETWORKS: dict[str, tuple[Callable[[Task, np.random.Generator], nn.Module], tuple[int, ...]]] = {
    "mlp": (mlp, (-1,)),
    "lenet5": (lenet5, (1, 28, 28)),
    "vgg": (vgg, (3, 32, 32)),
}
"""How each is built, and the shape in which it takes an image."""
