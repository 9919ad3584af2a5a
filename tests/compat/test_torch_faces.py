"""Expressions of old and new scripts, evaluated with PyTorch and with minidl's torch: the same values and types."""

import re
import warnings

import numpy as np
import pytest

from minidl.compat._install import faces
from minidl.compat._old_methods import METHODS

pytestmark = pytest.mark.slow

EXPRESSIONS = """\
torch.Tensor()
torch.Tensor((2, 3))
torch.Tensor([[1, 2], [3, 4]])
torch.Tensor(range(3))
torch.Tensor([True])
torch.Tensor(np.array([250, 251], np.uint8))
torch.Tensor(l)
torch.Tensor(3.5)
torch.Tensor(True)
torch.Tensor(None)
torch.Tensor({})
torch.Tensor(-1)
torch.Tensor(3).size()
torch.Tensor(2, 3).shape
torch.Tensor(np.int64(3)).shape
torch.Tensor(torch.Size((2, 3))).shape
torch.Tensor(x.shape[1:]).shape
torch.LongTensor([1.7, 2.3])
torch.LongTensor(np.array([1.5]))
torch.LongTensor(x)
torch.FloatTensor(l)
torch.ByteTensor([300])
torch.FloatTensor([torch.tensor(1.0), torch.tensor(2)])
torch.cuda.FloatTensor(2)
x.type()
l.type()
x.double().type()
x.byte()
x.char()
x.short()
x.half()
(2 * x).dtype is torch.float32
x.data_ptr() == x.data_ptr()
y.numpy()
torch.Generator().manual_seed(7).initial_seed()
torch.Generator(device="cpu").device.type
torch.manual_seed(5).initial_seed() + torch.initial_seed()
torch.nn.init._calculate_fan_in_and_fan_out(torch.ones(2, 3, 5, 7))
torch.nn.modules.Module is torch.nn.Module
(x > 0).type()
l.type(torch.FloatTensor)
l.type("torch.DoubleTensor")
x.type(torch.Tensor)
x.new(2, 2).shape
x.new([1, 2])
l.new([1, 2])
l.new(x.size()).shape
x.new(l)
x.new()
x.new_tensor([1, 2])
x.new_zeros(2, 3)
x.new_full((2,), 3)
x.new_ones((2,), dtype=torch.int64)
type(x) == torch.Tensor
isinstance(x, torch.FloatTensor)
isinstance(x, torch.LongTensor)
isinstance(x, torch.cuda.FloatTensor)
isinstance(torch.nn.Parameter(x), torch.FloatTensor)
isinstance(torch.nn.Parameter(x), torch.Tensor)
issubclass(torch.nn.Parameter, torch.Tensor)
torch.FloatTensor
torch.cuda.LongTensor
x.size()
x.size()[1:]
x.size()[1:].numel()
x.shape + (1,)
x.size().numel()
x.dim() == x.ndimension()
x.nelement()
x.is_xpu
x.is_contiguous()
x.t().is_contiguous()
x.to("cpu", torch.float64, False)
x.to("cpu", non_blocking=True)
torch.is_floating_point(l)
torch.multiply(x, 2)
x.subtract(1)
torch.concat([x, x])
torch.autograd.Variable(x * 1)
torch.autograd.Variable(y).requires_grad
torch.autograd.Variable(x, requires_grad=True).requires_grad
torch.autograd.Variable([1.0])
torch.nn.MSELoss(False).reduction
torch.nn.MSELoss(reduce=False).reduction
torch.nn.CrossEntropyLoss(None, False).reduction
torch.nn.functional.mse_loss(x, x + 1, size_average=False)
torch.nn.functional.nll_loss(x.log(), l, size_average=False)
torch.nn.functional.binary_cross_entropy(x / 9, x / 9, None, False)
torch.nn.functional.softmax(x)
torch.nn.functional.softmax(x[0])
torch.nn.functional.log_softmax(x[None])
torch.nn.Softmax()(x)
torch.nn.LogSoftmax()(x[None])
torch.nn.functional.sigmoid(x)
torch.nn.functional.tanh(x)
torch.nn.init.constant(x, 2)
torch.nn.utils.clip_grad_norm([x], 1)
[*torch.nn.DataParallel(torch.nn.Linear(2, 2)).state_dict()]
torch.cuda.is_available()
torch.cuda.device_count()
torch.cuda.manual_seed_all(1)
torch.cuda.memory_allocated()
torch.cuda.max_memory_allocated()
torch.cuda.empty_cache()
issubclass(torch.cuda.OutOfMemoryError, RuntimeError)
torch.accelerator.is_available()
torch.accelerator.current_accelerator()
torch.backends.mps.is_available()
torch.backends.cudnn.benchmark
torch.backends.cudnn.enabled
torch.amp.GradScaler("cuda").get_scale()
torch.amp.GradScaler("cuda").state_dict()
torch.amp.GradScaler("cuda").scale(x)
torch.inference_mode()(lambda: (y * 2).requires_grad)()
torch.__version__ < "0.4.1"
torch.version.cuda
torch.pi
float(torch.finfo(torch.float32).eps)
torch.iinfo(torch.uint8).max
torch.testing.assert_close(x, x + 1e-7)
torch.testing.assert_close(x, x + 1e-3)
torch.testing.assert_close(x, x.double())
torch.optim.lr_scheduler._LRScheduler.__name__ in ("LRScheduler", "_LRScheduler")
""".splitlines()


@pytest.fixture
def both(monkeypatch):
    """PyTorch, and the face of torch with the methods that install() adds."""
    real = pytest.importorskip("torch")
    for owner, methods in METHODS.items():
        for name, method in methods.items():
            monkeypatch.setattr(owner, name, method, raising=False)
    return real, faces()["torch"]


def _evaluated(torch, expression):
    """A result, or the kind of the error, in a form in which those of both libraries are equal."""
    names = {"x": torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), "l": torch.tensor([1, 0]), "torch": torch}
    names |= {"y": torch.ones(2, requires_grad=True) * 2, "np": np}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            result = eval(expression, names)
        except Exception as error:
            return type(error).__name__
    # Old arguments of losses and old names of functions work here without a warning.
    unsaid = re.compile("CUDA|size_average|is now deprecated")
    kinds = {str(w.category.__name__) for w in said if not unsaid.search(str(w.message))}
    if isinstance(result, torch.Tensor):
        return str(result.dtype).removeprefix("torch."), result.tolist(), kinds
    return repr(result) if not callable(result) or isinstance(result, type) else "callable", kinds


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_the_same_as_in_pytorch(both, expression):
    wanted, found = (_evaluated(torch, expression) for torch in both)
    if isinstance(wanted, tuple) and isinstance(wanted[1], list):
        assert found[0::2] == wanted[0::2]
        np.testing.assert_allclose(found[1], wanted[1], rtol=1e-6)
    else:
        assert found == wanted
