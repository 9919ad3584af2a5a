"""``torch.random``: the state of the default generator."""

import secrets

from minidl.random import default_generator, manual_seed

get_rng_state, set_rng_state = default_generator.get_state, default_generator.set_state


def seed() -> int:
    """Seed the default generator from the operating system, and return the seed."""
    drawn = secrets.randbits(63)
    manual_seed(drawn)
    return drawn
