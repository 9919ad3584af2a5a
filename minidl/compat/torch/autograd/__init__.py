"""``torch.autograd``: minidl's, and Variable, which is a tensor."""

from minidl.autograd import backward, grad
from minidl.compat._said import without_effect
from minidl.compat.torch._types import Variable
from minidl.compat.torch.autograd import function
from minidl.function import Function
from minidl.grad_mode import enable_grad, no_grad, set_grad_enabled
from minidl.testing.gradcheck import gradcheck, gradgradcheck

REMARK = "detect_anomaly has no effect: find the first NaN with x.isfinite().all()"
detect_anomaly = set_detect_anomaly = without_effect(REMARK)
