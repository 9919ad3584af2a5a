"""The operations, a family in each file: forward pass, gradient, formula and shapes of an operation on one screen."""

from minidl.ops import _methods as _methods  # makes them methods of Tensor
