"""Networks: modules with parameters, layers, losses and initialisers, under torch's names; all compositions of rows."""

from tinygrad_scratch.nn import functional, init, utils
from tinygrad_scratch.nn.containers import ModuleDict, ModuleList, Sequential
from tinygrad_scratch.nn.convolution import AvgPool2d, Conv2d, MaxPool2d
from tinygrad_scratch.nn.layers import (
    ELU,
    GELU,
    Dropout,
    Embedding,
    Flatten,
    Identity,
    LeakyReLU,
    Linear,
    LogSoftmax,
    PReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from tinygrad_scratch.nn.losses import BCEWithLogitsLoss, CrossEntropyLoss, MSELoss
from tinygrad_scratch.nn.module import Module, Parameter
from tinygrad_scratch.nn.normalisation import BatchNorm1d, BatchNorm2d, LayerNorm
from tinygrad_scratch.nn.replace import with_parameters

__all__ = [
    "ELU",
    "GELU",
    "AvgPool2d",
    "BCEWithLogitsLoss",
    "BatchNorm1d",
    "BatchNorm2d",
    "Conv2d",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "Flatten",
    "Identity",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "MSELoss",
    "MaxPool2d",
    "Module",
    "ModuleDict",
    "ModuleList",
    "PReLU",
    "Parameter",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
    "functional",
    "init",
    "utils",
    "with_parameters",
]
