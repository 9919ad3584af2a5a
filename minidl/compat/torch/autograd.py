"""``torch.autograd``: minidl's, and Variable, which is a tensor."""

from typing import Any

from minidl import autograd
from minidl.autograd import backward
from minidl.compat._said import without_effect
from minidl.compat.torch._types import Variable
from minidl.grad_mode import enable_grad, no_grad, set_grad_enabled
from minidl.testing.gradcheck import gradcheck, gradgradcheck


def grad(*args: Any, only_inputs: bool = True, **kwargs: Any) -> Any:
    """minidl's; PyTorch has `only_inputs` without effect."""
    return autograd.grad(*args, **kwargs)


detect_anomaly = set_detect_anomaly = without_effect(
    "detect_anomaly has no effect: find the first NaN with x.isfinite().all()"
)
