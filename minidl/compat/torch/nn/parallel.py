"""``torch.nn.parallel``: DataParallel on one device."""

from typing import Any

from minidl.nn import Module


class DataParallel(Module):
    """The module, called on one device. As in PyTorch it is the submodule "module", also in the state_dict."""

    def __init__(self, module: Module, device_ids: Any = None, output_device: Any = None, dim: int = 0) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """The module's output."""
        return self.module(*inputs, **kwargs)
