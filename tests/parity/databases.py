"""PyTorch's own databases: the sample inputs of its operators, modules and optimisers, run in both libraries.

    python tests/parity/databases.py clamp BatchNorm2d SGD    # what is not equal, of these names
    python tests/parity/databases.py --all                    # a line for each name

Entries are `op_db`, `module_db` and `optim_db` of ``torch.testing._internal``, as far as minidl has their names. An
operator runs as function, method and in-place method; a module forward and backward; an optimiser for some steps.
A sample is *equal* (also where both raise), *refused* (minidl raises where PyTorch answers, and the message names the
operation), *different*, or an *internal error*: an exception that minidl did not raise on purpose, or that does not say
of which operation it speaks.

This file imports nothing but the libraries, so that as a script it measures whatever minidl PYTHONPATH names.
"""

from __future__ import annotations

import argparse
import dis
import functools
import random
import re
import sys
import time
import types
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import ModuleErrorEnum, module_db
from torch.testing._internal.common_optimizers import OptimizerErrorEnum, optim_db

import minidl

# Importing PyTorch's test code freezes torch.backends' switches for the whole process, other tests' too.
torch.backends.disable_global_flags.__globals__["__allow_nonbracketed_mutation_flag"] = True

EQUAL, REFUSED, DIFFERENT, INTERNAL = "equal", "refused", "different", "internal error"
MEANT, LACKING = "different on purpose", "of a name that minidl lacks"
DTYPES = {torch.float32: "float32", torch.float64: "float64", torch.int64: "int64", torch.bool: "bool"}
# Relative and absolute tolerance. Sums in another order, and exp and tanh of another library, differ in the last bits.
TOLERANCES = {"float16": (2e-3, 2e-3), "float32": (3e-5, 3e-5), "float64": (1e-9, 1e-9)}

# Drawn or uninitialised values: only their shape and dtype are compared.
RANDOM = set(
    "alpha_dropout bernoulli cauchy dropout dropout2d dropout3d empty empty_like exponential feature_alpha_dropout "
    "fractional_max_pool2d geometric log_normal multinomial new_empty normal rand_like randint randint_like randn "
    "randn_like randperm rrelu uniform "
    "Dropout Dropout1d Dropout2d Dropout3d AlphaDropout FeatureAlphaDropout RReLU".split()
)


def _indices_twice(input: torch.Tensor, indices: torch.Tensor, *args: Any, **kwargs: Any) -> bool:
    planes = indices.reshape(-1, indices.shape[-2] * indices.shape[-1])
    return any(len(plane.unique()) < len(plane) for plane in planes)


def _ties(input: torch.Tensor, *args: Any, stable: bool = False, **kwargs: Any) -> bool:
    return not stable and len(input.unique()) < input.numel()


# Differences that are meant: the entry's name, a part of the message, for which arguments (None: all), and the reason.
Case = Callable[..., bool] | None
ON_PURPOSE: list[tuple[str, str, Case, str]] = [
    ("nn_functional_max_unpool2d", "", _indices_twice, "values of overlapping windows add up; in PyTorch one remains"),
    *(
        (name, "values", _ties, "of equal elements the first comes first; PyTorch leaves it open")
        for name in "argsort kthvalue sort topk".split()
    ),
    *(
        (name, "PyTorch's result requires grad", None, "numbers drawn have no gradient; PyTorch's is 0")
        for name in "normal normal_number_mean".split()
    ),
    *(
        (name, "number of dimensions must be within", None, "NumPy raises for more than 64 dimensions")
        for name in "amax amin".split()
    ),
    *(
        (f"nn_functional_{name}", "minidl returns a view", None, "a factor of 1 changes nothing, and copies nothing")
        for name in "pixel_shuffle pixel_unshuffle".split()
    ),
    *(
        (name, "lr as a Tensor is not supported for capturable=False", None, "foreach and capturable change nothing")
        for name in "Adam AdamW".split()
    ),
    ("HuberLoss", "delta must be a float or int", None, "a number of another type is refused where it is used"),
    ("NLLLoss", "expected scalar type Float but found Half", None, "weights of another dtype are converted"),
]

# What messages call a module whose function has another name.
ALSO_CALLED = {
    "BCELoss": "binary_cross_entropy",
    "BCEWithLogitsLoss": "binary_cross_entropy_with_logits",
    "Upsample": "interpolate",
    "UpsamplingBilinear2d": "interpolate",
    "UpsamplingNearest2d": "interpolate",
    "Softmax2d": "softmax",
    "CircularPad2d": "pad",
    "ConstantPad2d": "pad",
    "ReflectionPad2d": "pad",
    "ReplicationPad2d": "pad",
    "ZeroPad2d": "pad",
}


@dataclass
class Outcome:
    """What became of one sample: the entry's name, the form it was called in, the arguments, the message."""

    kind: str
    name: str
    form: str
    case: str
    message: str = ""

    args: Sequence[Any] = ()
    kwargs: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """A difference that is meant becomes one on purpose, and its message the reason."""
        for name, part, case, reason in ON_PURPOSE:
            if (
                self.kind in (DIFFERENT, INTERNAL)
                and name == self.name
                and part in self.message
                and (case is None or case(*self.args, **(self.kwargs or {})))
            ):
                self.kind, self.message = MEANT, reason
        self.args, self.kwargs = (), None  # samples are large


# --- From PyTorch to minidl ---------------------------------------------------------------------------------


class Unrepresentable(Exception):
    """An argument that minidl has no counterpart of, such as a complex tensor."""


class Converter:
    """Arguments of PyTorch as arguments of minidl, which share their memory; a tensor given twice stays one tensor."""

    def __init__(self) -> None:
        self.tensors: dict[int, tuple[torch.Tensor, minidl.Tensor]] = {}

    def __call__(self, x: Any) -> Any:
        if isinstance(x, torch.Tensor):
            if id(x) not in self.tensors:
                self.tensors[id(x)] = (x, self._tensor(x))
            return self.tensors[id(x)][1]
        if isinstance(x, torch.Size):
            return tuple(x)
        if isinstance(x, tuple) and hasattr(x, "_fields"):
            return type(x)(*map(self, x))
        if isinstance(x, tuple | list):
            return type(x)(map(self, x))
        if isinstance(x, dict):
            return {key: self(value) for key, value in x.items()}
        if isinstance(x, slice):
            return slice(self(x.start), self(x.stop), self(x.step))
        if isinstance(x, torch.dtype):
            return getattr(minidl, str(x).removeprefix("torch."), x)
        if isinstance(x, torch.device):
            return str(x)
        if isinstance(x, torch.memory_format | torch.layout):
            return str(x).removeprefix("torch.")
        if isinstance(x, torch.Generator):
            return minidl.Generator()
        if isinstance(x, torch.nn.Module) or (callable(x) and not isinstance(x, type)):
            return counterpart(x)
        return x

    @staticmethod
    def _tensor(x: torch.Tensor) -> minidl.Tensor:
        try:
            array = x.detach().numpy()
            mine = minidl.Tensor(array)
        except (TypeError, RuntimeError, NotImplementedError):
            raise Unrepresentable(f"minidl has no tensor of {x.dtype}, {x.layout}, {x.device}") from None
        if x.requires_grad:
            mine.requires_grad_()
        return minidl.nn.Parameter(mine.detach()) if isinstance(x, torch.nn.Parameter) else mine

    def values(self) -> list[np.ndarray[Any, Any]]:
        """Copies of all arrays, by which changes are noticed."""
        return [x.array.copy() for _, x in self.tensors.values()]

    def leaves(self) -> list[tuple[torch.Tensor, minidl.Tensor]]:
        """The tensors whose gradients are compared."""
        return [pair for pair in self.tensors.values() if pair[0].requires_grad]


def resolved(name: str) -> Any:
    """minidl's object of a dotted name, or None."""
    return functools.reduce(lambda found, part: getattr(found, part, None), name.split("."), minidl)


def counterpart(function: Any, name: str = "") -> Any:
    """minidl's function for one of PyTorch's, or None. The databases' own functions run with torch as minidl.

    Parameters
    ----------
    function : callable
    name : str
        The function's public name after ``torch.``, where the function does not know it.
    """
    if isinstance(function, functools.partial):
        inner = counterpart(function.func)
        return inner and functools.partial(inner, *function.args, **function.keywords)
    if isinstance(function, torch.nn.Module):
        return resolved(f"nn.{type(function).__name__}") and Converter()(type(function)())
    module, own = getattr(function, "__module__", None) or "", getattr(function, "__name__", name)
    if isinstance(function, types.FunctionType) and module.startswith("torch.testing"):
        return rebound(function)
    if own.startswith("__") or isinstance(function, types.MethodDescriptorType | types.WrapperDescriptorType):
        return getattr(minidl.Tensor, own, None)
    if module == "torch._tensor":
        return getattr(minidl.Tensor, own, None)
    if not name:
        name = f"nn.functional.{own}" if module in ("torch.nn.functional", "torch._C._nn") else own
    return resolved(name)


def rebound(function: types.FunctionType) -> Any:
    """A function of the databases whose `torch` is minidl."""
    if function.__name__ == "wrapper_set_seed":
        return function  # it calls what it is given
    seen = {
        key: minidl if value is torch else minidl.nn.functional if value is torch.nn.functional else value
        for key, value in function.__globals__.items()
    }
    copy = types.FunctionType(function.__code__, seen, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


# --- What it means to be equal ------------------------------------------------------------------------------


def difference(ours: Any, theirs: Any, values: bool = True) -> str:
    """The first thing in which two results differ, or an empty text."""
    if isinstance(theirs, torch.Tensor):
        return tensor_difference(ours, theirs, values)
    if isinstance(theirs, tuple | list):
        if not isinstance(ours, tuple | list) or len(ours) != len(theirs):
            return f"minidl returns {shown(ours)}, PyTorch {shown(theirs)}"
        return next(filter(None, (difference(a, b, values) for a, b in zip(ours, theirs, strict=True))), "")
    if isinstance(theirs, torch.dtype):
        same = str(ours) == str(theirs).removeprefix("torch.")
    elif isinstance(theirs, bool | int | float) and type(ours) is type(theirs):
        same = not values or bool(np.isclose(ours, theirs, 1e-6, 1e-6, equal_nan=True))
    else:
        same = ours is theirs is None
    return "" if same else f"minidl returns {shown(ours)}, PyTorch {shown(theirs)}"


def tensor_difference(ours: Any, theirs: torch.Tensor, values: bool) -> str:
    if not isinstance(ours, minidl.Tensor):
        return f"minidl returns {shown(ours)}, PyTorch {shown(theirs)}"
    dtype = str(theirs.dtype).removeprefix("torch.")
    if str(ours.dtype) != dtype or tuple(ours.shape) != tuple(theirs.shape):
        return f"minidl returns {shown(ours)}, PyTorch {shown(theirs)}"
    a, b = np.asarray(ours.detach().array), theirs.detach().resolve_neg().numpy()
    if not values or a.size == 0 or np.array_equal(a, b):
        return ""
    if a.dtype.kind != "f":
        wrong = a != b
    else:
        rtol, atol = TOLERANCES[dtype]
        wrong = ~np.isclose(a, b, rtol, atol, equal_nan=True)
    if not wrong.any():
        return ""
    at = tuple(map(int, np.argwhere(wrong)[0]))
    return f"values: {wrong.sum()} of {a.size}, at {list(at)} minidl has {a[at]!r}, PyTorch {b[at]!r}"


def order_difference(ours: minidl.Tensor, theirs: torch.Tensor) -> str:
    """Whether the elements lie in another order in memory, or an empty text."""
    a = [step // ours.array.itemsize for step, n in zip(ours.array.strides, ours.shape, strict=True) if n > 1]
    b = [step for step, n in zip(theirs.stride(), theirs.shape, strict=True) if n > 1]
    return "" if a == b or ours.numel() == 0 else f"minidl's strides are {a}, PyTorch's {b}"


def memory_difference(ours: Any, theirs: Any, convert: Converter) -> str:
    """Whether one result is a view of an argument and the other is not, or an empty text."""
    given = list(convert.tensors.values())
    for a, b in zip(tensors(ours), tensors(theirs), strict=True):
        views = (
            any(np.may_share_memory(a.array, x.array) for _, x in given),
            any(b.untyped_storage().data_ptr() == x.untyped_storage().data_ptr() for x, _ in given),
        )
        if views[0] != views[1] and b.numel():
            return f"minidl returns a {('copy', 'view')[views[0]]}, PyTorch a {('copy', 'view')[views[1]]}"
    return ""


def shown(x: Any) -> str:
    """An argument or a result in short."""
    if isinstance(x, torch.Tensor | minidl.Tensor):
        dtype = str(x.dtype).removeprefix("torch.").replace("float", "f").replace("int", "i")
        strides = "" if not isinstance(x, torch.Tensor) or x.is_contiguous() else " strided"
        value = f"={x.item()}" if x.ndim == 0 and x.numel() and not strides else ""
        return f"{dtype}{list(x.shape)}{value}{strides}"
    if isinstance(x, tuple | list):
        return f"({', '.join(map(shown, x))}{',' if len(x) == 1 else ''})"
    if isinstance(x, dict):
        return f"{{{', '.join(f'{key}: {shown(value)}' for key, value in x.items())}}}"
    return " ".join(repr(x).removeprefix("torch.").split())[:60]


def call_shown(args: Sequence[Any], kwargs: dict[str, Any]) -> str:
    return f"({', '.join([*map(shown, args), *(f'{key}={shown(value)}' for key, value in kwargs.items())])})"


# --- What an exception says ---------------------------------------------------------------------------------


def refusal(error: BaseException, names: Sequence[str], option: bool = True) -> tuple[str, str]:
    """REFUSED or INTERNAL, and the message: for exceptions that minidl raised where PyTorch answers.

    Parameters
    ----------
    error : Exception
    names : sequence of str
        What the message may call the operation.
    option : bool
        Whether the message has to name the operation.
    """
    message = " ".join(str(error).split()) or repr(error)
    text = f"{type(error).__name__}: {message}"
    if isinstance(error, Unrepresentable):
        return REFUSED, text
    plain = {re.sub("[^a-z0-9]", "", name.lower()) for name in names}
    said = re.sub("[^a-z0-9]", "", message.lower())
    if not (raised_on_purpose(error) or unknown_option(error, plain)):
        return INTERNAL, f"{text} [not raised by minidl]"
    if option and not any(name in said for name in plain):
        return INTERNAL, f"{text} [does not name the operation]"
    return REFUSED, text


def raised_on_purpose(error: BaseException) -> bool:
    """Whether a ``raise`` of minidl's source raised it, and not NumPy, Numba or the interpreter."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or Path(minidl.__file__).parent not in Path(trace.tb_frame.f_code.co_filename).parents:
        return False
    return dis.opname[trace.tb_frame.f_code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"


def unknown_option(error: BaseException, plain: set[str]) -> bool:
    """Whether it is Python's own exception for a keyword argument that the operation itself has not."""
    found = re.match(r"(?:\w+\.)*(\w+)\(\) got an unexpected keyword argument|(\w+)\(\) missing", str(error))
    called = re.sub("[^a-z0-9]", "", ((found[1] or found[2]) if found else "").lower())
    return bool(found) and (called in plain or called == "init")


def attempt(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The result, or the exception."""
    try:
        return function(*args, **kwargs)
    except Exception as error:
        return error


# --- Operators ----------------------------------------------------------------------------------------------


@dataclass
class Form:
    """One way of calling an operator: its name, PyTorch's function and minidl's."""

    name: str
    theirs: Any
    ours: Any

    def library(self, tensor: type) -> Callable[..., Any]:
        """The function in the library of this tensor; in place it changes a copy, and no leaf or sample."""
        function = self.theirs if tensor is torch.Tensor else self.ours

        def change(x: Any, *args: Any, **kwargs: Any) -> Any:
            changed = x.clone()
            result = function(changed, *args, **kwargs)
            return changed if result is changed else ("not the tensor to change", result)

        return change if self.name == "in place" else function

    def takes(self, input: Any) -> bool:
        """Whether the first argument can be one of this form: methods are those of tensors."""
        return isinstance(input, torch.Tensor) or not (
            self.name in ("method", "in place") or getattr(self.theirs, "__name__", "").startswith("__")
        )


def forms(entry: Any) -> list[Form]:
    """The ways in which both libraries can call an operator: function, method, in-place method, other names."""
    name, method, in_place = entry.name, entry.method_variant, entry.inplace_variant
    own = hasattr(minidl.Tensor, name)
    changing = hasattr(minidl.Tensor, name.rstrip("_") + "_") or (name.startswith("nn.") and resolved(name))
    found = [
        Form("function", entry.op, (resolved(name) or own) and counterpart(entry.op, name)),
        Form("method", method, own and counterpart(method)),
        Form("in place", in_place, changing and counterpart(in_place)),
        *(Form(f"as {alias.name}", alias.op, counterpart(alias.op, alias.name)) for alias in entry.aliases),
    ]
    return [form for form in found if form.theirs and callable(form.ours)]


def lacking(entry: Any) -> list[str]:
    """The forms that PyTorch has of an operator and minidl has not, if it has any."""
    both = [form.name for form in forms(entry)]
    theirs = [("method", entry.method_variant), ("in place", entry.inplace_variant)]
    return [
        f"{entry.formatted_name}: minidl has no {name}" for name, form in theirs if both and form and name not in both
    ]


def run_operator(entry: Any) -> Iterator[Outcome]:
    """Run every sample of an operator, in every form; then what PyTorch says must raise."""
    ways = forms(entry)
    if not ways:
        return
    for dtype, text in DTYPES.items():
        if dtype in entry.dtypes:
            seed()
            differentiable = dtype == torch.float64 and entry.supports_autograd
            samples = list(entry.sample_inputs("cpu", dtype, requires_grad=differentiable))
            for sample in samples:
                for form in ways:
                    if form.takes(sample.input):
                        yield run_sample(entry, form, text, sample)
    if entry.error_inputs_func is not None:
        seed()
        for wrong in attempt(lambda: list(entry.error_inputs("cpu"))) or ():
            for form in ways:
                if form.takes(wrong.sample_input.input):
                    yield run_sample(entry, form, "error", wrong.sample_input)


def seed() -> None:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    minidl.manual_seed(0)


def run_sample(entry: Any, form: Form, dtype: str, sample: Any) -> Outcome:
    """Call both libraries with the same arguments; an in-place form changes a copy."""
    args, kwargs, convert = (sample.input, *sample.args), sample.kwargs, Converter()

    def outcome(kind: str, message: str = "") -> Outcome:
        case = call_shown(args, kwargs)
        return Outcome(kind, entry.formatted_name, f"{form.name}, {dtype}", case, message, args, kwargs)

    names = operation_names(entry)
    mine = attempt(lambda: (convert(args), convert(kwargs)))
    before = convert.values()
    theirs = attempt(form.library(torch.Tensor), *args, **kwargs)
    changed = convert.values()
    for (_, x), old, new in zip(convert.tensors.values(), before, changed, strict=True):
        if not np.array_equal(old, new, equal_nan=True):  # running statistics
            x.array[...] = old
    ours = mine if isinstance(mine, Exception) else attempt(form.library(minidl.Tensor), *mine[0], **mine[1])
    if isinstance(ours, AttributeError) and lacks_name(ours):
        return outcome(LACKING, str(ours))
    if isinstance(theirs, Exception) or isinstance(ours, Exception):
        return outcome(*compare_exceptions(ours, theirs, names))
    if dtype == "error":
        return outcome(EQUAL)  # another build of PyTorch refuses this
    values = entry.name.rpartition(".")[2] not in RANDOM
    same = (np.allclose(a, b, equal_nan=True) for a, b in zip(convert.values(), changed, strict=True))
    if values and not all(same):
        return outcome(DIFFERENT, "minidl changes other arguments, or in another way")
    message = (
        difference(ours, theirs, values)
        or ("memory_format" in kwargs and order_difference(ours, theirs))
        or memory_difference(ours, theirs, convert)
    )
    if message:
        return outcome(DIFFERENT, message)
    return outcome(*compare_gradients(ours, theirs, convert.leaves(), names, values))


def compare_exceptions(ours: Any, theirs: Any, names: Sequence[str]) -> tuple[str, str]:
    """The kind and message of results of which one is an exception at least."""
    if not isinstance(ours, Exception):
        return DIFFERENT, f"minidl answers {shown(ours)}, PyTorch raises {described(theirs)}"
    kind, message = refusal(ours, names, option=not isinstance(theirs, Exception))
    return (EQUAL, "") if isinstance(theirs, Exception) and kind == REFUSED else (kind, message)


def lacks_name(error: AttributeError) -> bool:
    """Whether a function of the databases asked minidl for a name that it has not."""
    return error.obj in (minidl, minidl.nn, minidl.nn.functional) or (
        isinstance(error.obj, minidl.Tensor) and not raised_within(error, minidl)
    )


def raised_within(error: BaseException, package: Any) -> bool:
    trace, home = error.__traceback__, Path(package.__file__).parent
    while trace is not None:
        if home in Path(trace.tb_frame.f_code.co_filename).parents:
            return True
        trace = trace.tb_next
    return False


def described(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"


def operation_names(entry: Any) -> list[str]:
    """What a message may call an operator."""
    own = entry.name.rpartition(".")[2]
    plain = own.strip("_")
    reflected = [plain.removeprefix("r")] if own.startswith("__r") else []
    return [plain, *reflected, *(alias.name for alias in entry.aliases)]


def compare_gradients(
    ours: Any,
    theirs: Any,
    leaves: Sequence[tuple[torch.Tensor, minidl.Tensor]],
    names: Sequence[str],
    values: bool = True,
) -> tuple[str, str]:
    """EQUAL, or what differs in the gradients with respect to the leaves, for the same gradients in the results."""
    pairs = [(a, b) for a, b in zip(tensors(ours), tensors(theirs), strict=True) if b.requires_grad]
    if not pairs or not leaves:
        return EQUAL, ""
    if not all(a.requires_grad for a, _ in pairs):
        return DIFFERENT, "PyTorch's result requires grad, minidl's does not"
    seeds = [cotangent(tuple(b.shape), str(b.dtype).removeprefix("torch.")) for _, b in pairs]
    expected = attempt(
        torch.autograd.grad,
        [b for _, b in pairs],
        [x for x, _ in leaves],
        [torch.from_numpy(gy) for gy in seeds],
        allow_unused=True,
    )
    if isinstance(expected, Exception):
        return EQUAL, ""
    found = attempt(
        minidl.grad, [a for a, _ in pairs], [x for _, x in leaves], [*map(minidl.Tensor, seeds)], allow_unused=True
    )
    if isinstance(found, Exception):
        kind, message = refusal(found, names)
        return kind, f"gradient: {message}"
    for i, (a, b, (x, _)) in enumerate(zip(found, expected, leaves, strict=True)):
        zeros = np.zeros(tuple(x.shape), str(x.dtype).removeprefix("torch."))
        message = difference(
            minidl.Tensor(zeros) if a is None else a, torch.from_numpy(zeros) if b is None else b, values
        )
        if message:
            return DIFFERENT, f"gradient of leaf {i}: {message}"
    return EQUAL, ""


def tensors(result: Any) -> list[Any]:
    """All tensors in a result."""
    if isinstance(result, tuple | list):
        return [x for part in result for x in tensors(part)]
    return [result] if isinstance(result, torch.Tensor | minidl.Tensor) else []


@functools.lru_cache(maxsize=4096)
def cotangent(shape: tuple[int, ...], dtype: str) -> np.ndarray[Any, Any]:
    return np.asarray(np.random.default_rng(0).standard_normal(shape)).astype(dtype)


# --- Modules ------------------------------------------------------------------------------------------------


def run_module(entry: Any) -> Iterator[Outcome]:
    """Run every sample of a module, in training and in evaluation; then what PyTorch says must raise."""
    name = entry.module_cls.__name__
    if resolved(f"nn.{name}") is None:
        return
    for dtype in (torch.float32, torch.float64):
        for training in (True, False) if dtype in entry.dtypes else ():
            seed()
            samples = entry.module_inputs_func(entry, "cpu", dtype, requires_grad=True, training=training)
            for sample in samples:
                yield run_module_sample(entry, dtype, training, sample)
    if entry.module_error_inputs_func is not None:
        for training in (True, False):
            seed()
            for wrong in entry.module_error_inputs_func(entry, "cpu", torch.float32, False, training):
                in_forward = wrong.error_on == ModuleErrorEnum.FORWARD_ERROR
                yield run_wrong_module(entry, training, wrong.module_error_input, in_forward)


def run_module_sample(entry: Any, dtype: torch.dtype, training: bool, sample: Any) -> Outcome:
    made, given = sample.constructor_input, sample.forward_input
    case = f"{call_shown(made.args, made.kwargs)}{call_shown(given.args, given.kwargs)}"
    form = f"module, {DTYPES[dtype]}, {'training' if training else 'evaluation'}"
    kind, message = compare_modules(entry, dtype, training, made, given)
    return Outcome(kind, entry.module_cls.__name__, form, case, message)


def compare_modules(entry: Any, dtype: torch.dtype, training: bool, made: Any, given: Any) -> tuple[str, str]:
    """Forward and backward of a module with the same parameters, and its buffers afterwards."""
    name = entry.module_cls.__name__
    convert, names = Converter(), module_names(name)
    module = entry.module_cls(*made.args, **made.kwargs).to(dtype).train(training)
    own = attempt(make_alike, module, made, convert, training)
    mine = attempt(lambda: (convert(given.args), convert(given.kwargs)))
    for error in (own, mine):
        if isinstance(error, Exception):
            return refusal(error, names)
    theirs, ours = attempt(module, *given.args, **given.kwargs), attempt(own, *mine[0], **mine[1])
    if isinstance(theirs, Exception) or isinstance(ours, Exception):
        return compare_exceptions(ours, theirs, names)
    values = not (training and name in RANDOM)
    message = difference(ours, theirs, values)
    for (key, b), a in zip(module.state_dict().items(), own.state_dict().values(), strict=True):
        found = difference(a, b)  # running statistics
        message = message or (found and f"{key}: {found}")
    if message:
        return DIFFERENT, message
    parameters = list(zip(module.parameters(), own.parameters(), strict=True))
    return compare_gradients(ours, theirs, [*convert.leaves(), *parameters], names, values)


def make_alike(theirs: torch.nn.Module, made: Any, convert: Converter, training: bool) -> Any:
    """minidl's module of the same arguments, parameters and buffers."""
    cls = getattr(minidl.nn, type(theirs).__name__)
    ours = cls(*convert(made.args), **convert(made.kwargs)).train(training)
    state = theirs.state_dict()
    floats = [x.dtype for x in state.values() if x.is_floating_point()]
    if floats:
        ours = ours.to(Converter()(floats[0]))
    ours.load_state_dict({key: minidl.tensor(value.numpy()) for key, value in state.items()})
    return ours


def run_wrong_module(entry: Any, training: bool, sample: Any, in_forward: bool) -> Outcome:
    made, given, name = sample.constructor_input, sample.forward_input, entry.module_cls.__name__
    case = call_shown(made.args, made.kwargs) + (call_shown(given.args, given.kwargs) if given else "")

    def run(cls: Any, convert: Any) -> Any:
        module = cls(*convert(made.args), **convert(made.kwargs)).train(training)
        return module(*convert(given.args), **convert(given.kwargs)) if in_forward else module

    theirs, ours = attempt(run, entry.module_cls, lambda x: x), attempt(run, getattr(minidl.nn, name), Converter())
    kind, message = EQUAL, ""
    if isinstance(theirs, Exception):
        kind, message = compare_exceptions(ours, theirs, module_names(name))
    return Outcome(kind, name, "module, error", case, message)


def module_names(name: str) -> list[str]:
    """What a message may call a module."""
    base = re.sub(r"[123]d$", "", name)
    return [base, base.removesuffix("Loss"), *([ALSO_CALLED[name]] if name in ALSO_CALLED else [])]


# --- Optimisers ---------------------------------------------------------------------------------------------

STEPS = 6


def run_optimizer(entry: Any) -> Iterator[Outcome]:
    """Run every sample of an optimiser for some steps; then what PyTorch says must raise."""
    name = entry.optim_cls.__name__
    if resolved(f"optim.{name}") is None:
        return
    for dtype in (torch.float32, torch.float64):
        seed()
        for sample in entry.optim_inputs_func(device="cpu", dtype=dtype):
            form, case = f"optimiser, {DTYPES[dtype]}", call_shown((), sample.kwargs)
            kind, message = compare_steps(entry, dtype, sample.kwargs)
            yield Outcome(kind, name, form, case, message)
    seed()
    for wrong in entry.optim_error_inputs_func("cpu", torch.float32):
        if wrong.error_on == OptimizerErrorEnum.CONSTRUCTION_ERROR:
            yield run_wrong_optimizer(entry, wrong.optimizer_error_input)


def compare_steps(entry: Any, dtype: torch.dtype, kwargs: dict[str, Any]) -> tuple[str, str]:
    """Six steps on two parameters, of a loss with a minimum at 0; a third parameter never gets a gradient."""
    starts = [cotangent(shape, DTYPES[dtype]) for shape in ((4, 3), (3,), (2,))]
    theirs = [torch.nn.Parameter(torch.from_numpy(start.copy())) for start in starts]
    ours = [minidl.nn.Parameter(minidl.tensor(start)) for start in starts]
    optimizer = entry.optim_cls(theirs, **kwargs)
    mine = attempt(lambda: getattr(minidl.optim, entry.optim_cls.__name__)(ours, **Converter()(kwargs)))
    names = [entry.optim_cls.__name__]
    if isinstance(mine, Exception):
        return refusal(mine, names)

    def closure(parameters: Any, opt: Any) -> Any:
        opt.zero_grad()
        a, b, _ = parameters
        loss = (a**2).sum() * 0.7 + (a @ b).tanh().sum() + (b**4).mean()
        loss.backward()
        return loss

    for step in range(STEPS):
        optimizer.step(lambda: closure(theirs, optimizer))
        error = attempt(mine.step, lambda: closure(ours, mine))
        if isinstance(error, Exception):
            return refusal(error, names)
        message = difference(ours, theirs) or state_difference(mine.state_dict(), optimizer.state_dict())
        if message:
            return DIFFERENT, f"step {step + 1}: {message}"
    return EQUAL, ""


def state_difference(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """What differs in the state of the parameters; numbers of steps may be numbers or tensors."""
    mine, its = entries(ours), entries(theirs)
    if set(mine) != set(its):
        return f"state {sorted(mine)}, PyTorch's {sorted(its)}"
    for key, value in its.items():
        if not np.allclose(mine[key], value, 1e-4, 1e-6, equal_nan=True):
            return f"state {key} is {mine[key]!r}, PyTorch's {value!r}"
    return ""


def entries(state_dict: dict[str, Any]) -> dict[str, Any]:
    """The numbers in an optimiser's state, by the parameter's position and the entry's name."""
    return {
        f"{i} {key}": value.detach().numpy() if isinstance(value, torch.Tensor | minidl.Tensor) else value
        for i, state in state_dict["state"].items()
        for key, value in state.items()
        if value is not None
    }


def run_wrong_optimizer(entry: Any, sample: Any) -> Outcome:
    name, convert = entry.optim_cls.__name__, Converter()
    params = [torch.nn.Parameter(torch.ones(2, 2))] if sample.params is None else sample.params
    mine = convert(params), convert(sample.kwargs)  # before PyTorch fills the groups with its defaults
    theirs = attempt(lambda: entry.optim_cls(params, **sample.kwargs))
    ours = attempt(lambda: getattr(minidl.optim, name)(mine[0], **mine[1]))
    kind, message = EQUAL, ""
    if isinstance(theirs, Exception):
        kind, message = compare_exceptions(ours, theirs, [name])
    return Outcome(kind, name, "optimiser, error", call_shown((sample.params,), sample.kwargs), message)


# --- All of it ----------------------------------------------------------------------------------------------

DATABASES: dict[str, tuple[Sequence[Any], Callable[[Any], str], Callable[[Any], Iterator[Outcome]]]] = {
    "operators": (op_db, lambda entry: entry.name, run_operator),
    "modules": (module_db, lambda entry: entry.module_cls.__name__, run_module),
    "optimisers": (optim_db, lambda entry: entry.optim_cls.__name__, run_optimizer),
}


def outcomes(database: str, wanted: Callable[[str], bool] = lambda name: True) -> Iterator[Outcome]:
    """Every sample of the entries of a database whose names are wanted, in the database's order."""
    entries, name_of, run = DATABASES[database]
    for entry in entries:
        if wanted(name_of(entry)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield from run(entry)


def grouped(found: Sequence[Outcome], examples: int = 2) -> list[str]:
    """Lines of what is not equal: messages that differ only in numbers together, with some of their cases."""
    groups: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for outcome in found:
        if outcome.kind in (REFUSED, DIFFERENT, INTERNAL):
            groups[outcome.kind, re.sub(r"-?[\d.]+(e[-+]\d+)?|nan|inf", "#", outcome.message)].append(outcome)
    lines = []
    for (kind, _), members in sorted(groups.items(), key=lambda group: (group[0][0], -len(group[1]))):
        ways = sorted({f"{member.name} {member.form}" for member in members})
        lines.append(f"  {len(members)} {kind}: {members[0].message}")
        lines.append(f"      {'; '.join(ways[:4])}{' ...' if len(ways) > 4 else ''}")
        lines += [f"      {member.case}" for member in members[:examples]]
    return lines


def summary(found: Sequence[Outcome]) -> list[str]:
    """A line for each name: how many samples are equal, refused, different and internal errors."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in found:
        counts[outcome.name][outcome.kind] += 1
        counts["total"][outcome.kind] += 1
    order = (EQUAL, MEANT, LACKING, REFUSED, DIFFERENT, INTERNAL)
    return [f"{name}: " + ", ".join(f"{c[kind]} {kind}" for kind in order if c[kind]) for name, c in counts.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="operators (clamp, nn.functional.pad, pad), modules, optimisers")
    parser.add_argument("--all", action="store_true", help="every entry, a line for each")
    parser.add_argument("--examples", type=int, default=2, help="how many cases to print of each message")
    options = parser.parse_args()
    torch.set_num_threads(1)
    minidl.set_num_threads(1)
    print(f"minidl of {Path(minidl.__file__).parent}")
    start = time.perf_counter()
    if options.all:
        found = [outcome for database in DATABASES for outcome in outcomes(database)]
        print(*summary(found), f"{time.perf_counter() - start:.0f} s", sep="\n")
        return
    for name in options.names:
        asked = re.compile(rf"(.*\.)?{re.escape(name.removeprefix('nn.').removeprefix('torch.'))}")
        found = [outcome for database in DATABASES for outcome in outcomes(database, lambda n: asked.fullmatch(n))]  # noqa: B023
        print(*(summary(found)[:-1] or [f"{name}: not in the databases, or not in minidl"]), sep="\n")
        lacks = [line for entry in op_db if asked.fullmatch(entry.name) for line in lacking(entry)]
        print(*grouped(found, options.examples), *lacks, sep="\n")


if __name__ == "__main__":
    sys.exit(main())
