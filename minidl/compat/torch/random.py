"""``torch.random``: the state of the default generator."""

import json
import secrets

import numpy as np

from minidl.data import get_worker_info
from minidl.random import default_generator, manual_seed
from minidl.tensor import Tensor


def get_rng_state():
    """The default generator's state, as bytes in a tensor."""
    return Tensor(np.array(bytearray(json.dumps(default_generator.get_state(), default=np.ndarray.tolist).encode())))


def set_rng_state(new_state):
    """Restore a state that `get_rng_state` returned."""
    default_generator.set_state(json.loads(new_state.cpu().numpy().tobytes()))


def initial_seed():
    """The default generator's seed; in a loader's worker that worker's, from which scripts seed NumPy's."""
    worker = get_worker_info()
    return worker.seed if worker else default_generator.initial_seed()


def seed():
    """Seed the default generator from the operating system, and return the seed."""
    return manual_seed(secrets.randbits(63)).initial_seed()
