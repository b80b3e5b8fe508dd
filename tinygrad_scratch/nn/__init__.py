"""Networks: modules with parameters, layers, losses and initialisers, under torch's names; all compositions of rows."""

from tinygrad_scratch.nn import functional, init, utils
from tinygrad_scratch.nn.convolution import AvgPool2d, Conv2d, MaxPool2d
from tinygrad_scratch.nn.layers import (
    Dropout,
    Flatten,
    Identity,
    LeakyReLU,
    Linear,
    LogSoftmax,
    PReLU,
    ReLU,
    Sigmoid,
    Softmax,
    Softplus,
    Tanh,
)
from tinygrad_scratch.nn.losses import BCEWithLogitsLoss, CrossEntropyLoss, MSELoss
from tinygrad_scratch.nn.module import Module, Parameter, Sequential
from tinygrad_scratch.nn.replace import with_parameters

__all__ = [
    "AvgPool2d",
    "BCEWithLogitsLoss",
    "Conv2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "Identity",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "MSELoss",
    "MaxPool2d",
    "Module",
    "PReLU",
    "Parameter",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
    "functional",
    "init",
    "utils",
    "with_parameters",
]
