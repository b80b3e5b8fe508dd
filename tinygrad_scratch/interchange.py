"""What makes a Tensor an array to other libraries: the array API's attributes, and DLPack. All of it is on the CPU."""

from typing import Any

from tinygrad_scratch.context import is_grad_enabled
from tinygrad_scratch.errors import describe
from tinygrad_scratch.tensor import Tensor, value_of

VERSIONS = ("2021.12", "2022.12", "2023.12", "2024.12")


def _array_namespace(self: Tensor, *, api_version: str | None = None) -> Any:
    """The module whose functions take and give Tensors by the array API standard: ``tinygrad_scratch.array_api``."""
    if api_version is not None and api_version not in VERSIONS:
        raise ValueError(f"the array API version {api_version!r} is not supported; these are: {', '.join(VERSIONS)}")
    from tinygrad_scratch import array_api

    return array_api


def _to_device(self: Tensor, device: Any, /, *, stream: Any = None) -> Tensor:
    """Itself. ValueError for any device but "cpu"."""
    from tinygrad_scratch.array_api import check_device

    check_device(device)
    return self


def _dlpack(self: Tensor, **options: Any) -> Any:
    """A DLPack capsule of the values, which shares their memory. TypeError where a graph would be lost."""
    if self.requires_grad and is_grad_enabled():
        raise TypeError(f"DLPack of {describe(self)}, which requires a gradient, would lose the graph; use t.detach()")
    return value_of(self, "DLPack").__dlpack__(**options)


def _dlpack_device(self: Tensor) -> tuple[int, int]:
    """(1, 0), the CPU."""
    return self._data.__dlpack_device__()


for _name, _function in {
    "__array_namespace__": _array_namespace,
    "to_device": _to_device,
    "device": property(lambda self: "cpu", doc='"cpu", always.'),
    "__dlpack__": _dlpack,
    "__dlpack_device__": _dlpack_device,
}.items():
    setattr(Tensor, _name, _function)
