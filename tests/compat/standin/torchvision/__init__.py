"""What the scripts under test use of torchvision, with PyTorch, NumPy and Pillow; found only where that is missing.

It owes nothing to minidl, which it helps to check.
"""

from torchvision import datasets as datasets
from torchvision import transforms as transforms
from torchvision import utils as utils
