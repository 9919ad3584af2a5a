"""What the scripts under test use of torchvision, on PyTorch, NumPy and Pillow: found only where torchvision is missing.

It owes nothing to minidl, which it helps to check.
"""

from torchvision import datasets, transforms, utils
