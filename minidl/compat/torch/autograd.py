"""``torch.autograd``: minidl's, and Variable, which is a tensor."""

from minidl.autograd import backward, grad
from minidl.compat.torch._types import Variable
from minidl.grad_mode import enable_grad, no_grad, set_grad_enabled
from minidl.testing.gradcheck import gradcheck, gradgradcheck
