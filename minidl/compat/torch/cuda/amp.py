"""``torch.cuda.amp``: the old path of ``torch.amp``."""

from minidl.compat.torch.amp import GradScaler, autocast
