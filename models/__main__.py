"""`python -m models`: see `models.cli`.

Before NumPy is loaded, its matrix products are told to use one thread, unless the environment says otherwise: for the
small products of these networks a second thread gains little, and costs a multiple of the time, waiting for the other,
when the machine has something else to do. OPENBLAS_NUM_THREADS=2 gives two, which suits layers of a thousand neurons.
"""

import os
import sys

THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "OMP_NUM_THREADS")

if not any(variable in os.environ for variable in THREADS):
    os.environ.update(dict.fromkeys(THREADS, "1"))

from models.cli import main  # noqa: E402 (after the variables, which NumPy reads when it is loaded)

if __name__ == "__main__":  # and not where a process of a pool imports it
    sys.exit(main())
