"""What a module calls before or after its ``forward``, until it is taken away."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tinygrad_scratch.errors import describe

if TYPE_CHECKING:
    from tinygrad_scratch.nn.module import Module


class Hook:
    """A function that a module calls, until ``remove()`` or the end of a ``with`` block."""

    def __init__(self, module: "Module", function: Callable[..., Any], when: str):
        if not callable(function):
            raise TypeError(f"a hook is a function, not {describe(function)}")
        self.module, self.function = module, function
        module._hooks = {**module._hooks, self: when}

    def remove(self) -> None:
        """Take the hook away; a second time does nothing."""
        self.module._hooks = {hook: when for hook, when in self.module._hooks.items() if hook is not self}

    def __enter__(self) -> "Hook":
        return self

    def __exit__(self, *error: Any) -> None:
        self.remove()
