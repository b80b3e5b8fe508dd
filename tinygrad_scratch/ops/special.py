"""Special functions that NumPy lacks."""

import math
from typing import Any

import numpy as np

from tinygrad_scratch.registry import elementwise


def _erf(x: Any) -> Any:
    """2 / sqrt(pi) times the integral of exp(-t**2) from 0 to x, within a few units in the last place: W. J. Cody's rational approximations
    (Mathematics of Computation 23, 1969), one of erf near 0 and two of 1 - erf farther out."""

    def ratio(t: Any, top: Any, bottom: Any) -> Any:
        values = []
        for first, second, *rest in (top, bottom):
            y = t * first
            y += second
            for coefficient in rest:
                y *= t
                y += coefficient
            values.append(y)
        return values[0] / values[1]

    def near(a: Any) -> Any:
        top = (
            1.85777706184603153e-1,
            3.16112374387056560,
            1.13864154151050156e2,
            3.77485237685302021e2,
            3.20937758913846947e3,
        )
        return a * ratio(
            a * a, top, (1, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3)
        )

    def middle(a: Any) -> Any:
        top = (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1, 2.98635138197400131e2,
               8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3)  # fmt: skip
        bottom = (1, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
                  3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3)  # fmt: skip
        return 1 - np.exp(-a * a) * ratio(a, top, bottom)

    def far(a: Any) -> Any:
        t = 1 / (a * a)
        top = (1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1,
               1.60837851487422766e-2, 6.58749161529837803e-4)  # fmt: skip
        bottom = (1, 2.56852019228982242, 1.87295284992346725, 5.27905102951428412e-1, 6.05183413124413191e-2,
                  2.33520497626869185e-3)  # fmt: skip
        return 1 - np.exp(-a * a) / a * (5.6418958354775628695e-1 - t * ratio(t, top, bottom))

    x = np.asarray(x)
    dtype = x.dtype if x.dtype.kind == "f" else np.dtype(np.float64)
    a = np.absolute(np.atleast_1d(x)).astype(np.float32 if dtype.itemsize < 4 else dtype)
    y = np.where(a <= 0.46875, near(np.minimum(a, 0.46875)), middle(np.clip(a, 0.46875, 4)))
    if (a > 4).any():
        y = np.where(a > 4, far(np.clip(a, 4, 1e4)), y)  # erf is 1 long before 1e4
    return np.copysign(y.reshape(x.shape), x).astype(dtype)[()]


_SLOPE = 2 / math.sqrt(math.pi)

# fmt: off
erf = elementwise(_erf, lambda g, y, x: g * (_SLOPE * np.exp(-x * x)))
# fmt: on
