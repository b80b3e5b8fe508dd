"""A loss over a tree of parameters as functions of one vector: what scipy.optimize and its like ask for."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_scratch._typing import Array
from tinygrad_scratch.errors import describe
from tinygrad_scratch.tensor import Tensor
from tinygrad_scratch.transforms import grad, gradients, jacobian, jvp, linearize, vjp
from tinygrad_scratch.transforms.common import tensors_of
from tinygrad_scratch.trees import leaves, ravel, rebuild


class Flat:
    """What flat() returns. A vector is float64, as optimizers want it; the loss gets each leaf in its own dtype.

    x0: the parameters as a vector.
    fun(x): the loss, a float; or residuals, a vector. jac(x): its gradient; of residuals the Jacobian.
    hessp(x, v): the Hessian times v. unravel(x): the parameters at x, in the form that was given.
    """

    def __init__(self, loss: Callable[..., Any], params: Any, args: tuple[Any, ...]):
        self._loss = loss
        self._args = args
        self._at: Array | None = None
        self._known: tuple[Any, Any] | None = None
        self._product: Callable[[Any], Any] | None = None
        found = [x.detach() if isinstance(x, Tensor) else x for x in leaves(params)]
        vector, self._back = ravel(rebuild(params, found))
        self.x0: Array = np.array(getattr(vector, "_data", vector), np.float64)

    def unravel(self, x: Any) -> Any:
        """The parameters at `x`, a vector of x0's length, in the form of those that were given."""
        return self._back(np.asarray(x, np.float64))

    def _of(self, x: Any) -> Any:
        return self._loss(self._back(x), *self._args)

    def _look(self, x: Any) -> tuple[Any, Any]:
        """(value, derivative) at `x`: an optimizer asks for one after the other at the same place."""
        x = np.array(x, np.float64)
        if self._known is None or self._at is None or not np.array_equal(self._at, x):
            self._known, self._product = self._derive(x), None
            self._at = x
        return self._known

    def _derive(self, x: Array) -> tuple[Any, Any]:
        variable = Tensor(x, requires_grad=True)
        output = self._of(variable)
        (value,) = tensors_of([output])
        if value.size == 1 and value.ndim == 0:
            (slope,) = gradients(value, [variable])
            return float(value._data), slope._data
        if value.ndim != 1:
            raise ValueError(f"the loss must return one number, or a vector of residuals, not {describe(value)}")
        return value._data, None

    def fun(self, x: Any) -> Any:
        """The loss at `x`: a float, or the vector of residuals."""
        return self._look(x)[0]

    def jac(self, x: Any) -> Array:
        """Its gradient at `x`, of x's shape; of residuals the Jacobian, one row a residual."""
        slope = self._look(x)[1]
        return np.array(jacobian(self._of)(np.array(x, np.float64)) if slope is None else slope)

    def hessp(self, x: Any, v: Any) -> Array:
        """The Hessian at `x` times `v`; of residuals, J' J v, which is Gauss and Newton's."""
        if self._look(x)[1] is None:
            x, v = np.array(x, np.float64), np.array(v, np.float64)
            return np.asarray(vjp(self._of, x)[1](jvp(self._of, (x,), (v,))[1])[0])
        if self._product is None:  # many directions at one place: the gradient is recorded once
            self._product = linearize(grad(self._of), self._at)[1]
        return np.asarray(self._product(np.array(v, np.float64)))


def flat(loss: Callable[..., Any], params: Any, *args: Any) -> Flat:
    """x0, fun, jac and hessp for an optimizer of vectors, of a loss over arrays, lists, tuples, dicts or a module.

    loss: (params, *args) -> one number, or a vector of residuals (for scipy.optimize.least_squares).
    params: where to begin; of floating point. args: handed on to the loss, data say.

    TypeError for parameters that are not of floating point. ValueError for a loss of several axes.

    >>> x = np.linspace(0, 1, 5)
    >>> problem = flat(lambda p, x: np.sum((p["a"] * x + p["b"] - (2 * x + 1)) ** 2), {"a": 0.0, "b": 0.0}, x)
    >>> problem.fun([2.0, 1.0]), problem.jac([2.0, 1.0])
    (0.0, array([0., 0.]))
    >>> newton = np.linalg.solve(np.array([problem.hessp(problem.x0, v) for v in np.eye(2)]), -problem.jac(problem.x0))
    >>> problem.unravel(newton.round(6))
    {'a': array(2.), 'b': array(1.)}
    """
    return Flat(loss, params, args)
