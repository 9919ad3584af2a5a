"""e^-a and ln(1 + z) by their series: what sigmoid, cross-entropy and the logistic loss are made of.

Why they are fast: without branches, tables and calls they compile to vector instructions, unlike Numba's own exp and
log1p.
"""

import functools
import math
import operator

import numba
import numpy as np
from numba import types
from numba.extending import overload

from minidl.kernels.cpu._compiling import compiled

LOG_2 = 0.693145751953125, 1.4286068203094172e-06  # ln 2 in two parts: an integer times the first is exact
SERIES = tuple(1 / math.factorial(k) for k in range(13, -1, -1))


@compiled(fastmath={"contract"})
def exp_minus(a):
    """e^-a for a >= 0: 2^-n e^r with a whole n and |r| <= ln(2) / 2, where the Taylor series needs 13 powers.

    Beyond `most`, the type's largest exponent, e^-a is 0 to all its digits.
    """
    kind = type(a)
    most = kind(-np.finfo(kind).minexp)
    a = most if a > most else a
    n = np.floor(a * kind(1 / math.log(2)) + kind(0.5))
    r = (n * kind(LOG_2[0]) - a) + n * kind(LOG_2[1])
    power = kind(0)
    for k in range(14):
        power = power * r + kind(SERIES[k])
    half = np.floor(n * kind(0.5))  # in two steps: 2^-n itself may be too small a number
    return power * _power_of_two(-half) * _power_of_two(half - n)


def _power_of_two(n):
    """2^n for a whole n. Compiled, it is put together from its bits: the exponent's are n plus a bias."""
    return 2**n


if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
    _power_of_two = functools.partial(operator.pow, 2)  # the same, without a Python call for each element


@overload(_power_of_two)
def _power_of_two_in_bits(n):
    if n == types.float32:
        return lambda n: np.int32(np.int32(n + np.float32(127)) << np.int32(23)).view(np.float32)
    return lambda n: np.int64(np.int64(n + 1023.0) << np.int64(52)).view(np.float64)


ODD = tuple(2 / k for k in range(29, 0, -2))


@compiled(fastmath={"contract"})
def log_1_plus(z):
    """ln(1 + z) for 0 <= z <= 1: 2 (s + s^3 / 3 + s^5 / 5 + ...) with s = z / (2 + z), at most a third.

    15 terms leave an error of 3e-16; a loop over 16 would be compiled without vector instructions.
    """
    kind = type(z)
    s = z / (kind(2) + z)
    power = kind(0)
    for k in range(15):
        power = power * (s * s) + kind(ODD[k])
    return power * s
