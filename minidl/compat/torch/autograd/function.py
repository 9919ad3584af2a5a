"""``torch.autograd.function``."""

from minidl.function import Function, FunctionCtx, once_differentiable
