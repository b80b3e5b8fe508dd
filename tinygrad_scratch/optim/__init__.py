"""Optimizers: how parameters follow their gradients, and schedules of their rates. Names, arguments, formulas: torch's."""

from tinygrad_scratch.optim import lr_scheduler
from tinygrad_scratch.optim.adaptive import Adagrad, Adam, AdamW, RMSprop
from tinygrad_scratch.optim.optimizer import Optimizer
from tinygrad_scratch.optim.sgd import SGD

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop", "lr_scheduler"]
