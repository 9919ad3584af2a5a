"""One stream of random numbers for both libraries: what a script draws does not depend on whose torch it imports.

`install(library)` runs in the script's process, before the script. Every draw of the library then takes the next
numbers of the stream: initial weights, noise, dropout's masks, shuffles, random transforms. Seeds change nothing. The
kinds and numbers of the draws are recorded, so that a test can compare them too.
"""

from contextlib import suppress

import numpy as np


class _Bits:
    """In the place of a NumPy bit generator."""

    def __init__(self, stream):
        self.stream = stream

    @property
    def state(self):
        return {"stream": 0}

    @state.setter
    def state(self, state):
        pass

    def random_raw(self, n=1):
        return self.stream.draw("bits", n, self.stream.rng.bit_generator.random_raw(n))

    def jumped(self):  # for the seeds of a loader's workers
        return np.random.Philox(1)


class Stream:
    """In the place of a NumPy generator, with those of its methods that minidl calls."""

    def __init__(self):
        self.rng = np.random.Generator(np.random.Philox(17))
        self.bit_generator = _Bits(self)
        self.draws = []

    def draw(self, kind, count, values):
        self.draws.append(f"{kind} {count}")
        return values

    def random(self, size=None, dtype=np.float64):
        count = int(np.prod(() if size is None else size))
        values = self.draw("uniform", count, self.rng.random(count, np.float32)).astype(dtype)
        return values.item() if size is None else values.reshape(size)

    def standard_normal(self, size, dtype=np.float64):
        count = int(np.prod(size))
        return self.draw("normal", count, self.rng.standard_normal(count, np.float32)).astype(dtype).reshape(size)

    def uniform(self, low, high):
        return low + (high - low) * self.random()

    def integers(self, low, high=None, size=()):
        low, high = (0, low) if high is None else (low, high)
        return self.draw("integers", int(np.prod(size)), self.rng.integers(low, high, size))

    def permutation(self, n):
        return self.draw("permutation", n, self.rng.permutation(n))

    def choice(self, n, size, replace, weights):
        return self.draw("choice", size, self.rng.choice(n, size, replace, weights))


def install(library):
    """Let this process's `library`, "torch" or "minidl", draw from a new stream, and return that."""
    stream = Stream()
    {"torch": _torch, "minidl": _minidl}[library](stream)
    return stream


def _minidl(stream):
    from minidl.random import Generator

    Generator.rng = property(lambda self: stream, lambda self, value: None)


def _torch(stream):
    import torch
    from torch.utils.data import dataloader, dataset, sampler

    def tensor(values):
        return torch.from_numpy(np.array(values))

    def filled(draw):
        def function(*size, generator=None, **options):
            x = torch.empty(*size, **options)
            x.data.copy_(tensor(draw(tuple(x.shape))))
            return x

        return function

    def like(draw):
        def function(input, **options):
            x = torch.empty_like(input, **options)
            x.data.copy_(tensor(draw(tuple(x.shape))))
            return x

        return function

    def randint(low=0, high=None, size=None, *, generator=None, dtype=torch.int64, **options):
        if size is None or high is None:
            low, high, size = 0, low, high if size is None else size
        return tensor(stream.integers(low, high, tuple(size))).to(dtype)

    def randperm(n, *, generator=None, **options):
        return tensor(stream.permutation(n))

    def shuffled(self):  # RandomSampler, which in PyTorch draws one permutation more than it uses
        n, count = len(self.data_source), self.num_samples
        if self.replacement:
            return iter(stream.integers(0, n, count).tolist())
        return iter(np.concatenate([stream.permutation(n) for _ in range(-(-count // n))])[:count].tolist())

    def multinomial(input, num_samples, replacement=False, *, generator=None):
        weights = input.double().numpy()
        return tensor(stream.choice(len(weights), num_samples, replacement, weights / weights.sum()))

    def uniform_(self, from_=0.0, to=1.0, *, generator=None, **named):
        from_ = named.get("from", from_)
        return self.copy_(tensor(stream.random(tuple(self.shape))).to(self.dtype) * (to - from_) + from_)

    def normal_(self, mean=0.0, std=1.0, *, generator=None):
        return self.copy_(tensor(stream.standard_normal(tuple(self.shape))).to(self.dtype) * std + mean)

    def normal(mean=0.0, std=1.0, size=None, *, generator=None, requires_grad=False):
        shape = size if size is not None else torch.broadcast_shapes(*(np.shape(x) for x in (mean, std)))
        return (torch.randn(shape) * std + mean).requires_grad_(requires_grad)

    def bernoulli(input, *, generator=None):
        return (tensor(stream.random(tuple(input.shape))).to(input.dtype) < input).to(input.dtype)

    def dropout(input, p=0.5, training=True, inplace=False, shape=None):
        if not training or p == 0:
            return input
        shape = input.shape if shape is None else shape
        n = shape.numel()
        bits = stream.bit_generator.random_raw((n + 1) // 2).view(np.uint32)[:n]
        factor = tensor((bits >= p * 2**32) / (1 - p)).to(input.dtype).view(shape)
        return input.mul_(factor) if inplace else input * factor

    def dropout2d(input, p=0.5, training=True, inplace=False):
        return dropout(input, p, training, inplace, torch.Size((*input.shape[:2], 1, 1)))

    torch.rand, torch.randn = filled(stream.random), filled(stream.standard_normal)
    torch.rand_like, torch.randn_like = like(stream.random), like(stream.standard_normal)
    torch.randint, torch.randperm, torch.multinomial = randint, randperm, multinomial
    torch.normal, torch.bernoulli = normal, bernoulli
    torch.Tensor.uniform_, torch.Tensor.normal_ = uniform_, normal_
    torch.nn.functional.dropout = torch.dropout = dropout
    torch.nn.functional.dropout2d = dropout2d
    sampler.RandomSampler.__iter__ = shuffled
    dataset.randperm = randperm  # for random_split
    dataloader._BaseDataLoaderIter.next = dataloader._BaseDataLoaderIter.__next__  # as until PyTorch 1.12
    torch.set_num_threads(1)
    with suppress(ImportError):  # torchvision's own, which wants the official files
        from torchvision.datasets import cifar

        cifar.check_integrity = lambda *path_and_checksum: True
