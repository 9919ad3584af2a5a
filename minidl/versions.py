"""Version counters: whether the values that a gradient function reads are still those that its operation read.

The gradient of a * b in a needs the b of the forward pass, and an in-place operation may have overwritten it since.
So each piece of memory counts its changes, as in PyTorch:

    noted(edges)                at the forward pass: what the edges' gradient functions read, and its versions
    refuse_changed(name, ...)   before they run: raises if one of these versions is no longer current
    refuse_stale(name, x)       raises if a recorded in-place operation overwrote x's memory through another tensor
    written(x, ...)             after a change in place: counts it
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from operator import attrgetter
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, ref

from minidl.kernels import devices

if TYPE_CHECKING:
    from minidl.tensor import Tensor

DETACHED = -1  # Tensor._known of a detached tensor: the graph does not vouch for its values


class Storage:
    """What all tensors that share one piece of memory have in common.

    Attributes
    ----------
    version : int
        How often the memory was written to.
    recorded : int
        How often a *recorded* operation wrote to it. Only the tensor it wrote through (`writer`) gets that
        operation's node in the graph; views of the same memory now hold values that their own nodes did not compute.
    writer : weakref to Tensor, or None
        The tensor through which the last recorded write went.
    exclusive : bool
        Whether the memory is a result's alone: no view, detached tensor or NumPy array shares it. Only then may
        `reshape` rearrange it.
    """

    version = 0  # defaults of the class, since each operation makes a Storage and few ever change
    recorded = 0
    exclusive = False
    writer: ReferenceType[Tensor] | None = None


Saved = tuple[Any, Storage, int]  # a tensor or an array, its memory, and the version that was read
UNCOUNTED = Storage()  # of plain arrays, whose changes nobody counts
_contents = attrgetter("cell_contents")


def noted(edges: Iterable[tuple[Any, Callable[..., Any]]]) -> list[Saved]:
    """What the gradient functions of these edges hold, with its current versions."""
    saved: list[Saved] = []
    for _, gradient in edges:
        for value in _held_by(gradient):
            for x in value if isinstance(value, list | tuple) else (value,):
                storage = getattr(x, "_storage", None)
                if isinstance(storage, Storage):
                    saved.append((x, storage, storage.version))
                elif devices.is_array(x):
                    saved.append((x, UNCOUNTED, 0))
    return saved


def _held_by(gradient: Any) -> list[Any]:
    """What a function holds: its closure's variables, its defaults, a partial's arguments, an object's attributes.

    For ``lambda gy: gy * b`` this is b, in ``__closure__``: so an operation need not list what its gradients read.
    Tensors nested deeper, such as in a dict or in the slots of an object, are not found.
    """
    if isinstance(gradient, MethodType):
        return [gradient.__self__, *_held_by(gradient.__self__)]
    gradient = inspect.unwrap(gradient)  # of decorators
    if isinstance(gradient, FunctionType):
        return [*map(_contents, gradient.__closure__ or ()), *(gradient.__defaults__ or ())]
    if isinstance(gradient, functools.partial):
        return [*gradient.args, *gradient.keywords.values(), *_held_by(gradient.func)]
    return list(getattr(gradient, "__dict__", {}).values())


def refuse_changed(name: str, saved: Iterable[Saved]) -> None:
    """Raise if a saved value was overwritten after the operation of this name read it."""
    for x, storage, version in saved:
        if storage.version != version:
            raise RuntimeError(
                f"backward of {name}: a tensor of shape {x.shape} that it needs was changed in place "
                f"after {name} used it; change a clone() of it, or use an operation that is not in place"
            )


def refuse_stale(name: str, x: Tensor) -> None:
    """Raise if a recorded operation changed x's memory through another tensor."""
    if x._known not in (x._storage.recorded, DETACHED):
        raise RuntimeError(
            f"{name}: the memory of this tensor of shape {x.shape} was changed in place through another tensor "
            "(a view of it, or one that it is a view of), which its own graph does not know; "
            "take the view after the change, change a clone(), or write x[index] = value, x[index] += value"
        )


def written(*changed: Tensor, recorded: bool = False) -> None:
    """Count a change of each tensor's memory. If it was recorded, these tensors know; others that share it do not."""
    for x in changed:
        x._storage.version += 1
        if recorded:
            x._storage.recorded += 1
            x._storage.writer = ref(x)
            x._known = x._storage.recorded


def learn_of_own_view(x: Tensor, view: Any) -> None:
    """Let ``x[i] += 1`` pass: Python changes the view x[i] first, then assigns it to where it already is."""
    storage = x._storage
    if storage.writer is not None and storage.writer() is view and storage.recorded == x._known + 1:
        x._known = storage.recorded
