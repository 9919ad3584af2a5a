"""Random numbers: every draw in minidl comes from a `Generator`, by default from the one that `manual_seed` seeds."""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np


class Generator:
    """A random number generator with a seed and a state; wraps a `numpy.random.Generator`.

    The bit generator is Philox, which is counter-based: each number is a function of the seed and a counter (J. Salmon
    et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011), so that other devices could draw the same.

    Attributes
    ----------
    rng : numpy.random.Generator
        NumPy's generator, which draws the numbers.

    Examples
    --------
    >>> first, second = Generator().manual_seed(0), Generator().manual_seed(0)
    >>> first.rng.random() == second.rng.random()
    True
    """

    def __init__(self) -> None:
        self.manual_seed(secrets.randbits(63))

    def manual_seed(self, seed: int) -> Generator:
        """Seed with an int of up to 64 bits, and return this generator."""
        if isinstance(seed, str):
            raise ValueError(f"manual_seed: expected an int, not {seed!r}")
        value = int(seed)
        if not -(2**63) <= value < 2**64:
            raise ValueError(f"manual_seed: seed {seed} is outside of -2**63 to 2**64 - 1")
        self._seed = value % 2**64
        self.rng = np.random.Generator(np.random.Philox(self._seed))
        return self

    def initial_seed(self) -> int:
        """The seed last set, or the one drawn from the operating system when the generator was made."""
        return self._seed

    def get_state(self) -> dict[str, Any]:
        """The generator's state as dicts, ints and arrays, which `minidl.save` can store."""
        return dict(self.rng.bit_generator.state)

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore a state that `get_state` returned."""
        self.rng.bit_generator.state = state


default_generator = Generator()


def rng_of(generator: Generator | None) -> np.random.Generator:
    """NumPy's generator behind a `Generator`, or, for None, behind the default one."""
    if generator is not None and not isinstance(generator, Generator):
        raise TypeError(f"generator must be a minidl.Generator, not {generator!r}")
    return (generator or default_generator).rng


def manual_seed(seed: int) -> Generator:
    """Seed minidl's default generator, and return it."""
    return default_generator.manual_seed(seed)
