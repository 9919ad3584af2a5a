"""``torch.amp``: automatic mixed precision, which minidl does not have. Everything stays in the tensors' precision."""

from __future__ import annotations

import contextlib
from typing import Any

from minidl.compat._said import said_once


class autocast(contextlib.ContextDecorator):
    """A context, or a decorator, that changes nothing."""

    def __init__(self, *args: Any, enabled: bool = True, **kwargs: Any) -> None:
        if enabled:
            said_once("autocast has no effect: minidl computes in the precision of the tensors")

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass


class GradScaler:
    """Scales losses by 1, as PyTorch's does without a GPU."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    scale = staticmethod(lambda outputs: outputs)
    step = staticmethod(lambda optimizer, *args, **kwargs: optimizer.step(*args, **kwargs))
    update = unscale_ = load_state_dict = staticmethod(lambda *args, **kwargs: None)
    get_scale, is_enabled = staticmethod(lambda: 1.0), staticmethod(lambda: False)
    state_dict: Any = staticmethod(dict)
