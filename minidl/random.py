"""Random numbers: every draw in minidl comes from a `Generator`, by default from one that `manual_seed` seeds."""

from __future__ import annotations

from typing import Any

import numpy as np


class Generator:
    """A source of random numbers with a seed and a state, around `numpy.random.Generator`.

    The numbers are Philox's: each is a function of the seed and a counter, so that other devices can draw the same.

    Attributes
    ----------
    rng : numpy.random.Generator
        What draws the numbers.

    Examples
    --------
    >>> first, second = Generator().manual_seed(0), Generator().manual_seed(0)
    >>> first.rng.random() == second.rng.random()
    True
    """

    def __init__(self) -> None:
        self.rng = np.random.Generator(np.random.Philox())

    def manual_seed(self, seed: int) -> Generator:
        """Start the sequence that belongs to `seed`, an int of up to 64 bits, and return this generator."""
        if isinstance(seed, str):
            raise ValueError(f"manual_seed: expected an int, not {seed!r}")
        value = int(seed)
        if not -(2**63) <= value < 2**64:
            raise ValueError(f"manual_seed: seed {seed} is outside of -2**63 to 2**64 - 1")
        self.rng = np.random.Generator(np.random.Philox(value % 2**64))
        return self

    def get_state(self) -> dict[str, Any]:
        """The generator's position in dicts, ints and arrays, which `minidl.save` can store."""
        return dict(self.rng.bit_generator.state)

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a position that `get_state` returned."""
        self.rng.bit_generator.state = state


default_generator = Generator()


def rng_of(generator: Generator | None) -> np.random.Generator:
    """What draws the numbers of a generator, or, with None, of the default one; other generators are refused."""
    if generator is not None and not isinstance(generator, Generator):
        raise TypeError(f"generator must be a minidl.Generator, not {generator!r}")
    return (generator or default_generator).rng


def manual_seed(seed: int) -> Generator:
    """Seed the generator that minidl draws from unless it is given another, and return it."""
    return default_generator.manual_seed(seed)
