"""Transforms of PIL images, and Normalize. The random ones draw as torchvision's do."""

import torch
from PIL import Image, ImageOps

from torchvision.transforms import functional


class Compose:
    def __init__(self, transforms):
        self.transforms = transforms

    def __call__(self, image):
        for transform in self.transforms:
            image = transform(image)
        return image


class Lambda:
    def __init__(self, lambd):
        self.lambd = lambd

    def __call__(self, image):
        return self.lambd(image)


class ToTensor:
    def __call__(self, image):
        return functional.to_tensor(image)


class ToPILImage:
    def __call__(self, x):
        pixels = (x * 255).byte().numpy().transpose(1, 2, 0)
        return Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)


class Normalize:
    def __init__(self, mean, std, inplace=False):
        self.mean, self.std = (torch.tensor(v, dtype=torch.float32).view(-1, 1, 1) for v in (mean, std))

    def __call__(self, x):
        return (x - self.mean) / self.std


class Resize:
    def __init__(self, size):
        self.size = size

    def __call__(self, image):
        if isinstance(self.size, int):
            short = min(image.size)
            width, height = (int(self.size * side / short) for side in image.size)
        else:
            height, width = self.size
        return image.resize((width, height), Image.BILINEAR)


class Grayscale:
    def __init__(self, num_output_channels=1):
        pass

    def __call__(self, image):
        return image.convert("L")


class CenterCrop:
    def __init__(self, size):
        self.size = size

    def __call__(self, image):
        left, top = (round((side - self.size) / 2) for side in image.size)
        return image.crop((left, top, left + self.size, top + self.size))


class RandomCrop:
    def __init__(self, size, padding=0):
        self.size, self.padding = size, padding

    def __call__(self, image):
        image = ImageOps.expand(image, self.padding)
        top = torch.randint(0, image.height - self.size + 1, (1,)).item()
        left = torch.randint(0, image.width - self.size + 1, (1,)).item()
        return image.crop((left, top, left + self.size, top + self.size))


class RandomHorizontalFlip:
    def __init__(self, p=0.5):
        self.p = p

    def __call__(self, image):
        return image.transpose(Image.FLIP_LEFT_RIGHT) if torch.rand(1) < self.p else image
