"""Functions of torch itself that only scripts need: settings that minidl has not, and switches without effect."""

import contextlib

import minidl
from minidl.compat._said import said_once, without_effect

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


def initial_seed():
    """The default generator's seed; in a loader's worker that worker's, from which scripts seed NumPy's."""
    worker = minidl.data.get_worker_info()
    return worker.seed if worker else minidl.random.default_generator.initial_seed()


set_printoptions = without_effect("torch.set_printoptions has no effect: tensors are printed with 4 digits")
# What these ask for is given (the same results in each run), or allowed and not used (less precise products).
use_deterministic_algorithms = set_float32_matmul_precision = without_effect()
