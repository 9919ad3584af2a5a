"""For scripts written for PyTorch: ``import torch`` finds minidl. Nothing else in minidl imports this package.

``python -m minidl run script.py`` runs such a script as it is. In a notebook, before the imports of torch::

    import minidl.compat
    minidl.compat.install()

`torch/` and `torchvision/` hold the modules that scripts then import: minidl's names, and those that exist only for
scripts. There is no mathematics here.
"""

from minidl.compat._install import install

__all__ = ["install"]
