"""``torch.utils.tensorboard``: a writer that writes nothing, so that scripts which log to it run."""

import contextlib

from minidl.compat._said import said_once


class SummaryWriter(contextlib.nullcontext):
    """Takes everything and writes nothing."""

    def __init__(self, *args, **kwargs):
        super().__init__(self)
        said_once("SummaryWriter writes nothing: minidl does not log to TensorBoard; print or save what you need")

    def __getattr__(self, name):
        if not name.startswith("add_") and name not in ("flush", "close"):
            raise AttributeError(f"SummaryWriter has no attribute {name!r}")
        return lambda *args, **kwargs: None
