"""Tensor: an array, its gradient and its node in the computational graph.

This file knows no operation: `minidl.autograd` and `minidl.ops` import it and bind their functions to Tensor as methods
and operators (`ops/_methods.py` lists them). So imports run in one direction only.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from minidl.device import device
from minidl.kernels import devices
from minidl.versions import DETACHED, Storage

if TYPE_CHECKING:
    from minidl.autograd import Node
    from minidl.ops._methods import Methods
else:
    Methods = object  # minidl.ops binds them

Array = npt.NDArray[Any]
DTYPE_CHARS = "?Bbhilqefd"  # bool, uint8, int8 to int64 ("l" and "q"), float16 to float64


class Tensor(Methods):
    """A multi-dimensional array that records how it was computed.

    ``minidl.tensor(data)`` makes one from numbers; ``Tensor(array)`` wraps an array without a copy.

    Parameters
    ----------
    array : numpy.ndarray
        The values. Memory and dtype stay: uint8 wraps around at 256, where PyTorch's ``Tensor()`` makes a float32 copy.
    requires_grad : bool
        Whether operations on this tensor are recorded, so that ``backward()`` fills its `grad`.

    Attributes
    ----------
    array : numpy.ndarray
        The values themselves, in whatever memory order the last operation left them.
    grad_fn : Node or None
        The operation that made this tensor; None for a leaf.

    Examples
    --------
    >>> import minidl
    >>> x = minidl.tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    tensor([2., 4., 6.], shape=(3,), dtype=float32)
    """

    __slots__ = ("__weakref__", "_grad", "_known", "_leaf", "_requires_grad", "_storage", "array", "grad_fn")
    __array_priority__ = 1000  # so that `ndarray * tensor` asks this class, and keeps the graph

    def __init__(self, array: Array, requires_grad: bool = False, *, storage: Storage | None = None) -> None:
        if type(array) is not np.ndarray:
            array = _plain(array)
        if array.dtype.char not in DTYPE_CHARS or not array.dtype.isnative:
            raise _not_numbers(array)
        self.array = array
        self.grad_fn: Node | None = None
        self._grad: Tensor | None = None
        self._leaf: Tensor | None = None  # the leaf that this is a recorded view of
        self._requires_grad = False
        if storage is None:
            storage = Storage()
        else:
            storage.exclusive = False
        self._storage = storage
        self._known = storage.recorded  # how many recorded writes to the memory grad_fn reflects
        if requires_grad:
            self.requires_grad = True

    # -- what it is ---------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of all dimensions."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements, a NumPy dtype such as ``minidl.float32``."""
        return self.array.dtype

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return self.array.ndim

    @property
    def device(self) -> device:
        """The device whose memory holds the array."""
        return device(*devices.device_of(self.array))

    @property
    def is_cuda(self) -> bool:
        """Whether the array is in a GPU's memory."""
        return devices.on_gpu(self.array)

    @property
    def T(self) -> Tensor:
        """All dimensions in reverse order."""
        return self.permute(*reversed(range(self.ndim)))

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the size of dimension `dim`."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """Number of dimensions."""
        return self.ndim

    def numel(self) -> int:
        """Number of elements."""
        return self.array.size

    def is_floating_point(self) -> bool:
        """Whether the elements are floats; only these can have gradients."""
        return self.dtype.kind == "f"

    # -- its node in the graph ----------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        """Whether operations on this tensor are recorded. It can be set on leaves of floating dtype."""
        return self._requires_grad or self.grad_fn is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if not isinstance(value, bool):
            raise RuntimeError(f"requires_grad must be a bool, not {type(value).__name__}")
        if self.grad_fn is not None:
            raise RuntimeError(
                f"requires_grad can only be set on leaf tensors, and {self.grad_fn!r} computed this one; "
                "use x.detach() for a tensor outside the graph"
            )
        if value and not self.is_floating_point():
            raise RuntimeError(f"only float tensors can require gradients, not {self.dtype}; convert it with .float()")
        self._requires_grad = value

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set `requires_grad` in place and return this tensor."""
        if not isinstance(requires_grad, bool):
            raise TypeError(f"requires_grad_: expected a bool, not {type(requires_grad).__name__}")
        if not (requires_grad and self.requires_grad):
            self.requires_grad = requires_grad
        return self

    @property
    def is_leaf(self) -> bool:
        """Whether this tensor was not computed from others that require gradients."""
        return self.grad_fn is None

    @property
    def retains_grad(self) -> bool:
        """Whether ``retain_grad()`` makes ``backward()`` fill the `grad` of this result."""
        return self.grad_fn is not None and "retain_grad" in (self.grad_fn.hooks or ())

    @property
    def grad(self) -> Tensor | None:
        """The gradient that ``backward()`` accumulated for this leaf, of the same shape and dtype, or None."""
        if self._grad is None and self.grad_fn is not None and not self.retains_grad:
            warnings.warn(
                f"this tensor is not a leaf ({self.grad_fn!r} made it), so backward() fills no .grad here, unless "
                "retain_grad() was called before; minidl.grad(output, tensor) returns its gradient",
                UserWarning,
                stacklevel=2,
            )
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None and not isinstance(value, Tensor):
            raise TypeError(f"grad must be a Tensor or None, not {type(value).__name__}")
        if value is not None and (value.shape, value.dtype) != (self.shape, self.dtype):
            raise misfit("grad", value, "given to a tensor", self)
        if value is not None and value.device != self.device:
            raise RuntimeError(f"grad on {value.device} given to a tensor on {self.device}: both must be the same")
        self._grad = value

    def detach(self) -> Tensor:
        """A tensor outside the graph that shares this one's memory."""
        outside = Tensor(self.array, storage=self._storage)
        outside._known = DETACHED
        return outside

    @property
    def data(self) -> Tensor:
        """The same as ``detach()``; assigning a tensor replaces the values without recording it."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"data must be a Tensor, not {type(value).__name__}")
        if self.requires_grad and not value.is_floating_point():
            raise RuntimeError(f"data of {value.dtype} for a tensor that requires grad: convert it with .float()")
        self.array, self._storage, self._known = value.array, value._storage, DETACHED
        self._storage.exclusive = False

    # -- its values ---------------------------------------------------------------------------------------

    def numpy(self) -> Array:
        """The values as a NumPy array that shares this tensor's memory.

        minidl does not see writes through that array: they count no version, so a backward pass that needs the old
        values will use the new ones.
        """
        if self.requires_grad:
            raise RuntimeError("numpy() would lose the graph of a tensor that requires grad: use x.detach().numpy()")
        self._storage.exclusive = False
        if self.is_cuda:
            raise TypeError(f"numpy() of a tensor on {self.device}: copy it to the CPU's memory first, x.cpu().numpy()")
        return self.array

    def item(self) -> Any:
        """The value of a tensor with one element, as a Python number."""
        return self._one("item", RuntimeError)

    def tolist(self) -> Any:
        """The values as nested lists of Python numbers."""
        return self.array.tolist()

    def __float__(self) -> float:
        return float(self._one("float", ValueError))

    def __int__(self) -> int:
        return int(self._one("int", ValueError))

    def _one(self, name: str, error: type[Exception]) -> Any:
        if self.numel() != 1:
            raise error(f"{name}() needs one element, and a tensor of shape {self.shape} has {self.numel()}")
        return self.array.item()

    def __index__(self) -> int:
        if self.dtype.kind not in "iub":
            raise TypeError(f"only integer tensors of one element can be an index, not {self.dtype}")
        return int(self.item())

    def __bool__(self) -> bool:
        if self.numel() != 1:
            raise RuntimeError(
                f"the truth of a tensor of shape {self.shape} with {self.numel()} elements is ambiguous; "
                "compare one element, or reduce it first"
            )
        return bool(self.array.item())

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len() of a 0-d tensor, which is one number: x.item()")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d tensor, which is one number: x.item()")
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Tensor:
        return Tensor(array)  # of NumPy's functions: np.exp(x)

    def __dlpack__(self, **options: Any) -> Any:
        if self.requires_grad:
            raise RuntimeError("__dlpack__: a tensor that requires grad would lose its graph: use x.detach()")
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()

    __hash__ = object.__hash__  # by identity; without it, __eq__ would make tensors unhashable

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if not self.is_leaf:
            raise RuntimeError(
                f"only leaf tensors can be deep-copied, and {self.grad_fn!r} computed this one: detach() it"
            )
        copy = type(self)(self.array.copy(order="K"), self.requires_grad)
        memo[id(self)] = copy
        copy._grad = None if self._grad is None else Tensor(self._grad.array.copy())
        return copy

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.ndim == 0 else super().__format__(spec)

    def __repr__(self) -> str:
        array = devices.moved(self.array, devices.CPU)
        values = np.array2string(array, separator=", ", prefix="tensor(", precision=4, threshold=1000)
        facts = [f"shape={self.array.shape}", f"dtype={self.dtype}"]
        if self.is_cuda:
            facts.append(f"device='{self.device}'")
        if self.grad_fn is not None:
            facts.append(f"grad_fn={self.grad_fn!r}")
        elif self.requires_grad:
            facts.append("requires_grad=True")
        return f"tensor({values}, {', '.join(facts)})"


def _plain(array: Any) -> Array:
    """An array of a plain type: NumPy returns a scalar for a 0-d result, and np.matrix has another product."""
    if isinstance(array, np.ma.MaskedArray) or not (isinstance(array, np.generic) or devices.is_array(array)):
        raise _not_numbers(array)  # a mask would be lost
    return np.asarray(array) if isinstance(array, np.ndarray | np.generic) else array


def _not_numbers(value: Any) -> TypeError:
    kind = value.dtype if type(value).__name__ == "ndarray" else type(value).__name__
    known = "bool, uint8, int8 to int64 or float16 to float64"
    return TypeError(f"Tensor wraps an array of {known}, and got {kind}: use minidl.tensor(data) for other data")


def misfit(what: str, g: Tensor, whose: str, x: Any) -> RuntimeError:
    """The error for a gradient whose shape or dtype is not that of the tensor it belongs to."""
    found, wanted = (f"of shape {each.shape} and dtype {each.dtype}" for each in (g, x))
    return RuntimeError(f"{what} {found} {whose} {wanted}: both must be the same")


def zero_grads(tensors: Iterable[Tensor], set_to_none: bool) -> None:
    """Drop the gradients of these tensors, or set them to zero."""
    for x in tensors:
        if set_to_none:
            x.grad = None
        elif x.grad is not None:
            x.grad = x.grad.detach()
            x.grad.zero_()


def is_tensor(obj: Any) -> bool:
    """Whether `obj` is a Tensor."""
    return isinstance(obj, Tensor)


def numel(input: Tensor) -> int:
    """Number of elements."""
    if not isinstance(input, Tensor):
        raise TypeError(f"numel: expected a tensor, not {type(input).__name__}")
    return input.numel()
