"""NumPy functions that are compositions of rows, by subject. Loaded when one of them is first called.

Each takes its NumPy function's arguments under their names; what it does not take is refused by name, never ignored.
"""

from tinygrad_scratch.ops.functions import (  # noqa: F401, I001  (imported for what they answer)
    ufuncs,
    folds,
    moving,
    joining,
    selecting,
    sorting,
    reducing,
    statistics,
    differences,
    polynomials,
    values,
)
