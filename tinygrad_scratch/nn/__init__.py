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
from tinygrad_scratch.nn.losses import (
    BCELoss,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    HuberLoss,
    KLDivLoss,
    L1Loss,
    MSELoss,
    NLLLoss,
    SmoothL1Loss,
)
from tinygrad_scratch.nn.module import Module, Parameter
from tinygrad_scratch.nn.normalisation import BatchNorm1d, BatchNorm2d, LayerNorm
from tinygrad_scratch.nn.replace import with_parameters
from tinygrad_scratch.nn.watch import Watch

__all__ = [
    "ELU",
    "GELU",
    "AvgPool2d",
    "BCELoss",
    "BCEWithLogitsLoss",
    "BatchNorm1d",
    "BatchNorm2d",
    "Conv2d",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "Flatten",
    "HuberLoss",
    "Identity",
    "KLDivLoss",
    "L1Loss",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "MSELoss",
    "MaxPool2d",
    "Module",
    "ModuleDict",
    "ModuleList",
    "NLLLoss",
    "PReLU",
    "Parameter",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SmoothL1Loss",
    "Softmax",
    "Softplus",
    "Tanh",
    "Watch",
    "functional",
    "init",
    "utils",
    "with_parameters",
]
