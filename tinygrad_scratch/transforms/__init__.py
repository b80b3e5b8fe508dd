"""Functions of functions, over arrays, lists, tuples, dicts and modules. Nest them for higher orders.

Reverse mode (``reverse``): grad, value_and_grad, vjp. Forward mode (``tangents``): jvp, linearize, hvp. Both
(``matrices``): jacobian, hessian. ``rules``: checkpoint, stop_gradient and derivatives of one's own.
"""

from tinygrad_scratch.transforms.matrices import hessian, jacobian
from tinygrad_scratch.transforms.reverse import grad, gradients, value_and_grad, vjp
from tinygrad_scratch.transforms.rules import checkpoint, custom_vjp, stop_gradient
from tinygrad_scratch.transforms.tangents import hvp, jvp, linearize

__all__ = [
    "checkpoint",
    "custom_vjp",
    "grad",
    "gradients",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "linearize",
    "stop_gradient",
    "value_and_grad",
    "vjp",
]
