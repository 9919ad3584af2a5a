"""``torch.autograd``: minidl's, and Variable, which is a tensor."""

from __future__ import annotations

import contextlib
from typing import Any

from minidl.autograd import backward, grad
from minidl.compat._said import said_once
from minidl.compat.torch._types import Variable
from minidl.grad_mode import enable_grad, no_grad, set_grad_enabled
from minidl.testing.gradcheck import gradcheck, gradgradcheck


class detect_anomaly(contextlib.nullcontext[None]):
    """A context that changes nothing."""

    def __init__(self, mode: bool = True, check_nan: bool = True) -> None:
        super().__init__()
        if mode:
            said_once("detect_anomaly has no effect: look for the first NaN with x.isfinite().all()")


set_detect_anomaly: Any = detect_anomaly
