"""``torch.amp``: automatic mixed precision, which minidl does not have. Everything stays in the tensors' precision."""

from minidl.compat._said import without_effect

autocast = without_effect("autocast has no effect: minidl computes in the precision of the tensors")


class GradScaler:
    """Scales losses by 1, as PyTorch's does without a GPU."""

    def __init__(self, *args, **kwargs):
        pass

    scale = staticmethod(lambda outputs: outputs)
    step = staticmethod(lambda optimizer, *args, **kwargs: optimizer.step(*args, **kwargs))
    update = unscale_ = load_state_dict = staticmethod(lambda *args, **kwargs: None)
    get_scale, is_enabled = staticmethod(lambda: 1.0), staticmethod(lambda: False)

    def state_dict(self):
        """Nothing."""
        return {}
