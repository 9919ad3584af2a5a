"""Tensor: an array, its gradient and its place in the graph.

This file knows no operation: `minidl.autograd` and `minidl.ops` import it, and bind their functions
here as methods and operators (the list is in ops/__init__.py). So imports run in one direction only.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import ReferenceType

import numpy as np
import numpy.typing as npt

from minidl.device import device
from minidl.kernels import devices

if TYPE_CHECKING:
    from minidl.autograd import Node

Array = npt.NDArray[Any]
OUTSIDE = -1  # Tensor._known of a detached tensor: the graph does not vouch for its values


class Storage:
    """What all tensors that share one piece of memory know in common.

    Attributes
    ----------
    version : int
        How often the memory was written to. A gradient that needs the values of version 3 refuses
        to work with those of version 4.
    recorded : int
        How often a *recorded* operation wrote to it. The views of the memory that did not take part in
        that write now hold values which their own place in the graph does not explain.
    writer : weakref to Tensor, or None
        The tensor through which the last recorded write went.
    sole : bool
        Whether an operation made the memory and its result is the only one that knows it.
    """

    __slots__ = ("recorded", "sole", "version", "writer")

    def __init__(self) -> None:
        self.version = 0
        self.recorded = 0
        self.sole = False
        self.writer: ReferenceType[Tensor] | None = None


class _Bound:
    """The methods and operators that minidl.ops and minidl.autograd bind, for type checkers and readers.

    Each is the function of its name there, with the tensor as first argument.
    """

    __slots__ = ()

    __add__: ClassVar[Callable[..., Tensor]]
    __radd__: ClassVar[Callable[..., Tensor]]
    __sub__: ClassVar[Callable[..., Tensor]]
    __rsub__: ClassVar[Callable[..., Tensor]]
    __mul__: ClassVar[Callable[..., Tensor]]
    __rmul__: ClassVar[Callable[..., Tensor]]
    __truediv__: ClassVar[Callable[..., Tensor]]
    __rtruediv__: ClassVar[Callable[..., Tensor]]
    __pow__: ClassVar[Callable[..., Tensor]]
    __rpow__: ClassVar[Callable[..., Tensor]]
    __matmul__: ClassVar[Callable[..., Tensor]]
    __rmatmul__: ClassVar[Callable[..., Tensor]]
    __neg__: ClassVar[Callable[..., Tensor]]
    __abs__: ClassVar[Callable[..., Tensor]]
    __rand__: ClassVar[Callable[..., Tensor]]
    __ror__: ClassVar[Callable[..., Tensor]]
    __and__: ClassVar[Callable[..., Tensor]]
    __or__: ClassVar[Callable[..., Tensor]]
    __invert__: ClassVar[Callable[..., Tensor]]
    __eq__: ClassVar[Callable[..., Tensor]]  # type: ignore[assignment]
    __ne__: ClassVar[Callable[..., Tensor]]  # type: ignore[assignment]
    __lt__: ClassVar[Callable[..., Tensor]]
    __le__: ClassVar[Callable[..., Tensor]]
    __gt__: ClassVar[Callable[..., Tensor]]
    __ge__: ClassVar[Callable[..., Tensor]]
    __getitem__: ClassVar[Callable[..., Tensor]]
    __setitem__: ClassVar[Callable[..., None]]
    __iadd__: ClassVar[Callable[..., Tensor]]
    __isub__: ClassVar[Callable[..., Tensor]]
    __imul__: ClassVar[Callable[..., Tensor]]
    __itruediv__: ClassVar[Callable[..., Tensor]]
    abs: ClassVar[Callable[..., Tensor]]
    add: ClassVar[Callable[..., Tensor]]
    add_: ClassVar[Callable[..., Tensor]]
    argmax: ClassVar[Callable[..., Tensor]]
    backward: ClassVar[Callable[..., None]]
    bool: ClassVar[Callable[..., Tensor]]
    clamp: ClassVar[Callable[..., Tensor]]
    clone: ClassVar[Callable[..., Tensor]]
    contiguous: ClassVar[Callable[..., Tensor]]
    copy_: ClassVar[Callable[..., Tensor]]
    cpu: ClassVar[Callable[..., Tensor]]
    cuda: ClassVar[Callable[..., Tensor]]
    div: ClassVar[Callable[..., Tensor]]
    div_: ClassVar[Callable[..., Tensor]]
    double: ClassVar[Callable[..., Tensor]]
    eq: ClassVar[Callable[..., Tensor]]
    exp: ClassVar[Callable[..., Tensor]]
    expand: ClassVar[Callable[..., Tensor]]
    fill_: ClassVar[Callable[..., Tensor]]
    flatten: ClassVar[Callable[..., Tensor]]
    float: ClassVar[Callable[..., Tensor]]
    ge: ClassVar[Callable[..., Tensor]]
    gt: ClassVar[Callable[..., Tensor]]
    int: ClassVar[Callable[..., Tensor]]
    le: ClassVar[Callable[..., Tensor]]
    log: ClassVar[Callable[..., Tensor]]
    log_softmax: ClassVar[Callable[..., Tensor]]
    long: ClassVar[Callable[..., Tensor]]
    lt: ClassVar[Callable[..., Tensor]]
    matmul: ClassVar[Callable[..., Tensor]]
    max: ClassVar[Callable[..., Any]]
    maximum: ClassVar[Callable[..., Tensor]]
    mean: ClassVar[Callable[..., Tensor]]
    mul: ClassVar[Callable[..., Tensor]]
    mul_: ClassVar[Callable[..., Tensor]]
    ne: ClassVar[Callable[..., Tensor]]
    neg: ClassVar[Callable[..., Tensor]]
    normal_: ClassVar[Callable[..., Tensor]]
    permute: ClassVar[Callable[..., Tensor]]
    pow: ClassVar[Callable[..., Tensor]]
    relu: ClassVar[Callable[..., Tensor]]
    reshape: ClassVar[Callable[..., Tensor]]
    sigmoid: ClassVar[Callable[..., Tensor]]
    softmax: ClassVar[Callable[..., Tensor]]
    sqrt: ClassVar[Callable[..., Tensor]]
    squeeze: ClassVar[Callable[..., Tensor]]
    sub: ClassVar[Callable[..., Tensor]]
    sub_: ClassVar[Callable[..., Tensor]]
    sum: ClassVar[Callable[..., Tensor]]
    t: ClassVar[Callable[..., Tensor]]
    tanh: ClassVar[Callable[..., Tensor]]
    to: ClassVar[Callable[..., Tensor]]
    transpose: ClassVar[Callable[..., Tensor]]
    unflatten: ClassVar[Callable[..., Tensor]]
    uniform_: ClassVar[Callable[..., Tensor]]
    unsqueeze: ClassVar[Callable[..., Tensor]]
    var: ClassVar[Callable[..., Tensor]]
    view: ClassVar[Callable[..., Tensor]]
    allclose: ClassVar[Callable[..., Any]]
    argmin: ClassVar[Callable[..., Tensor]]
    chunk: ClassVar[Callable[..., Any]]
    clamp_: ClassVar[Callable[..., Tensor]]
    clip: ClassVar[Callable[..., Tensor]]
    equal: ClassVar[Callable[..., Any]]
    expand_as: ClassVar[Callable[..., Tensor]]
    isfinite: ClassVar[Callable[..., Tensor]]
    isinf: ClassVar[Callable[..., Tensor]]
    isnan: ClassVar[Callable[..., Tensor]]
    mm: ClassVar[Callable[..., Tensor]]
    repeat: ClassVar[Callable[..., Tensor]]
    sign: ClassVar[Callable[..., Tensor]]
    split: ClassVar[Callable[..., Any]]
    square: ClassVar[Callable[..., Tensor]]
    unbind: ClassVar[Callable[..., Any]]
    all: ClassVar[Callable[..., Tensor]]
    any: ClassVar[Callable[..., Tensor]]
    min: ClassVar[Callable[..., Any]]
    std: ClassVar[Callable[..., Tensor]]
    type: ClassVar[Callable[..., Tensor]]
    view_as: ClassVar[Callable[..., Tensor]]
    zero_: ClassVar[Callable[..., Tensor]]


class Tensor(_Bound):
    """A multi-dimensional array that remembers how it was computed.

    ``minidl.tensor(data)`` makes one from numbers; ``Tensor(array)`` wraps an array without a copy.

    Parameters
    ----------
    array : numpy.ndarray
        The values; the memory is shared.
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
    __array_ufunc__ = None  # so that `ndarray * tensor` asks this class, and keeps the graph

    def __init__(self, array: Array, requires_grad: bool = False, *, storage: Storage | None = None) -> None:
        if type(array) is not np.ndarray and isinstance(array, np.ndarray | np.generic):
            array = np.asarray(array)  # scalars, which NumPy returns for 0-d results; np.matrix, whose * is another
        if not devices.is_array(array) or array.dtype.kind not in "biuf" or not array.dtype.isnative:
            raise TypeError(
                f"Tensor wraps an array of numbers, and got {getattr(array, 'dtype', type(array).__name__)}: use "
                "minidl.tensor(data) for other data"
            )
        self.array = array
        self.grad_fn: Node | None = None
        self._grad: Tensor | None = None
        self._leaf: Tensor | None = None  # the leaf of which this is a recorded view
        self._requires_grad = False
        self._storage = storage or Storage()
        self._storage.sole = False
        self._known = self._storage.recorded
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
        """Where the array lies."""
        return device(*devices.place_of(self.array))

    @property
    def is_cuda(self) -> bool:
        """Whether the array lies in a GPU's memory."""
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
        """Whether the elements are real numbers, which alone can have gradients."""
        return self.dtype.kind == "f"

    # -- its place in the graph ---------------------------------------------------------------------------

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
                "use x.detach() for a copy outside the graph"
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
        """Whether this tensor was given, not computed from others that require gradients."""
        return self.grad_fn is None

    @property
    def grad(self) -> Tensor | None:
        """The gradient that ``backward()`` summed up for this leaf, of the same shape and dtype, or None."""
        if self._grad is None and self.grad_fn is not None:
            warnings.warn(
                f"this tensor is not a leaf ({self.grad_fn!r} made it), so backward() fills no .grad here; "
                "minidl.grad(output, tensor) returns its gradient",
                UserWarning,
                stacklevel=2,
            )
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None and not isinstance(value, Tensor):
            raise TypeError(f"grad must be a Tensor or None, not {type(value).__name__}")
        if value is not None and (value.shape, value.dtype) != (self.shape, self.dtype):
            raise RuntimeError(
                f"grad of shape {value.shape} and dtype {value.dtype} given to a tensor of shape {self.shape} "
                f"and dtype {self.dtype}: both must be the same"
            )
        if value is not None and value.device != self.device:
            raise RuntimeError(f"grad on {value.device} given to a tensor on {self.device}: both must be the same")
        self._grad = value

    def detach(self) -> Tensor:
        """A tensor outside the graph that shares this one's memory."""
        outside = Tensor(self.array, storage=self._storage)
        outside._known = OUTSIDE
        return outside

    @property
    def data(self) -> Tensor:
        """The same as ``detach()``; assigning a tensor to it replaces the values, whatever the graph."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"data must be a Tensor, not {type(value).__name__}")
        if self.requires_grad and not value.is_floating_point():
            raise RuntimeError(f"data of {value.dtype} for a tensor that requires grad: convert it with .float()")
        self.array, self._storage, self._known = value.array, value._storage, OUTSIDE
        self._storage.sole = False

    # -- its values ---------------------------------------------------------------------------------------

    def numpy(self) -> Array:
        """The values as a NumPy array that shares this tensor's memory.

        What is written through that array minidl cannot see: no version is counted, and a backward pass
        that needs the old values will not refuse the new ones.
        """
        if self.requires_grad:
            raise RuntimeError("numpy() would lose the graph of a tensor that requires grad: use x.detach().numpy()")
        self._storage.sole = False
        if self.is_cuda:
            raise TypeError(f"numpy() of a tensor on {self.device}: copy it to the CPU's memory first, x.cpu().numpy()")
        return self.array

    def item(self) -> Any:
        """The value of a tensor with one element, as a Python number."""
        if self.numel() != 1:
            raise RuntimeError(f"item() needs one element, and a tensor of shape {self.shape} has {self.numel()}")
        return self.array.item()

    def tolist(self) -> Any:
        """The values as nested lists of Python numbers."""
        return self.array.tolist()

    def __float__(self) -> float:
        return float(self._one("float"))

    def __int__(self) -> int:
        return int(self._one("int"))

    def _one(self, kind: str) -> Any:
        if self.numel() != 1:
            raise ValueError(f"{kind}() needs one element, and a tensor of shape {self.shape} has {self.numel()}")
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

    def __dlpack__(self, **options: Any) -> Any:
        if self.requires_grad:
            raise RuntimeError("__dlpack__: a tensor that requires grad would lose its graph: use x.detach()")
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()

    def __hash__(self) -> int:
        return id(self)

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
        facts = [f"shape={self.shape}", f"dtype={self.dtype}"]
        if self.is_cuda:
            facts.append(f"device='{self.device}'")
        if self.grad_fn is not None:
            facts.append(f"grad_fn={self.grad_fn!r}")
        elif self.requires_grad:
            facts.append("requires_grad=True")
        return f"tensor({values}, {', '.join(facts)})"


def is_tensor(obj: Any) -> bool:
    """Whether `obj` is a Tensor."""
    return isinstance(obj, Tensor)


def numel(input: Tensor) -> int:
    """Number of elements."""
    if not isinstance(input, Tensor):
        raise TypeError(f"numel: expected a tensor, not {type(input).__name__}")
    return input.numel()
