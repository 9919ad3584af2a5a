"""``torch.nn.parallel``: minidl's DistributedDataParallel, and DataParallel on one device."""

from minidl.nn import Module
from minidl.nn.parallel import DistributedDataParallel


class DataParallel(Module):
    """The module, called on one device. As in PyTorch it is the submodule "module", also in the state_dict."""

    def __init__(self, module, device_ids=None, output_device=None, dim=0):
        super().__init__()
        self.module = module

    def forward(self, *inputs, **kwargs):
        """The module's output."""
        return self.module(*inputs, **kwargs)


def data_parallel(module, inputs, device_ids=None, output_device=None, dim=0, module_kwargs=None):
    """The module's output for `inputs`, a tensor or a tuple."""
    return module(*(inputs if isinstance(inputs, tuple) else (inputs,)), **(module_kwargs or {}))
