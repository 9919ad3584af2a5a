"""Functions of torch itself that only scripts need: settings that minidl has not, and switches without effect."""

import contextlib

import minidl
from minidl.compat._said import said_once, without_effect
from minidl.compat.torch._types import TENSOR_TYPES, Tensor

SECOND_NAMES = {
    "absolute": "abs", "arccos": "acos", "arcsin": "asin", "arctan": "atan", "concat": "cat", "concatenate": "cat",
    "divide": "div", "fix": "trunc", "greater": "gt", "greater_equal": "ge", "less": "lt", "less_equal": "le",
    "multiply": "mul", "negative": "neg", "not_equal": "ne", "subtract": "sub", "swapaxes": "transpose",
    "swapdims": "transpose", "true_divide": "div", "half": "float16", "short": "int16",
}  # fmt: skip

is_floating_point = minidl.Tensor.is_floating_point


class Generator(minidl.Generator):
    """minidl's generator, which draws for all devices: PyTorch makes one for a `device`."""

    def __init__(self, device="cpu"):
        super().__init__()
        self.device = minidl.device(device)


def compile(model=None, **options):
    """The model or function itself."""
    said_once("torch.compile returns the model as it is: minidl's kernels are compiled already")
    return (lambda function: function) if model is None else model


def inference_mode(mode=True):
    """``no_grad``, as a context or a decorator."""
    if callable(mode):
        return minidl.no_grad(mode)
    return minidl.no_grad() if mode else contextlib.nullcontext()


def get_default_dtype():
    """float32."""
    return minidl.float32


def set_default_dtype(d):
    """Accept float32, which is the default, and refuse all else."""
    if d != minidl.float32:
        raise NotImplementedError(f"set_default_dtype: the default stays float32, not {d}; use dtype= or .to({d})")


def set_default_tensor_type(t):
    """Accept ``FloatTensor``, which is the default, and refuse all else."""
    if t not in (Tensor, TENSOR_TYPES["torch.FloatTensor"], "torch.FloatTensor"):
        raise NotImplementedError(f"set_default_tensor_type: the default stays torch.FloatTensor, not {t}")


def set_default_device(device):
    """Accept the CPU, which is the default, and refuse all else."""
    if device is not None and minidl.device(device).type != "cpu":
        raise NotImplementedError(f"set_default_device: the default stays 'cpu'; use device={str(device)!r} or .to()")


set_printoptions = without_effect("torch.set_printoptions has no effect: tensors are printed with 4 digits")
# What these ask for is given (the same results in each run), or allowed and not used (less precise products).
use_deterministic_algorithms = set_deterministic_debug_mode = without_effect()
set_float32_matmul_precision = set_num_interop_threads = without_effect()
