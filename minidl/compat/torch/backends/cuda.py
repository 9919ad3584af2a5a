"""``torch.backends.cuda``: float32 products are never computed in a lower precision."""

from types import SimpleNamespace

matmul = SimpleNamespace(allow_tf32=False)
