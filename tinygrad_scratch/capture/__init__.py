"""Capture: trace -> rewrite -> plan (memory) -> emit (NumPy source; compiled). See ``capture``.

``tg.capture`` is this module and the function in one: the module loads when it is first used, and can be called.
"""

import sys
from types import ModuleType
from typing import Any

from tinygrad_scratch.capture.step import Captured, capture

__all__ = ["Captured", "capture"]


class _Callable(ModuleType):
    """A module that is called as its function of the same name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return capture(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
