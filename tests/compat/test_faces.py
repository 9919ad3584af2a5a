"""The modules that scripts import as torch: old classes, methods and arguments, switches without effect, missing names.

They are tested here under minidl's own names, with the old methods added for the time of a test: after install(),
``import torch`` would find minidl in the tests that compare with PyTorch, too. Those of test_torch_faces.py do.
"""

import copy
import pickle

import numpy as np
import pytest

import minidl
from minidl.compat import _said
from minidl.compat._install import faces
from minidl.compat._old_methods import METHODS

FACES = faces()
nn, F = FACES["torch.nn"], FACES["torch.nn.functional"]


@pytest.fixture
def torch(monkeypatch):
    """The face of torch, with the methods that install() adds."""
    for owner, methods in METHODS.items():
        for name, method in methods.items():
            monkeypatch.setattr(owner, name, method, raising=False)
    return FACES["torch"]


@pytest.fixture
def said(capsys):
    """What has been said, once, since the test began."""
    _said.said_once.cache_clear()
    return lambda: capsys.readouterr().err.splitlines()


def test_tensors_are_converted_by_the_names_of_dtypes(torch):
    x, names = torch.FloatTensor([1.5, 2]), ("byte", "char", "short", "half")
    assert [getattr(x, name)().dtype for name in names] == ["uint8", "int8", "int16", "float16"]


def test_a_dtype_is_pytorchs_and_not_only_equal_to_it(torch):
    x = torch.ones(2)
    found = x.dtype, (x > 0).dtype, (2 * x).dtype, x.argmax().dtype, x.double().dtype
    wanted = torch.float32, torch.bool, torch.float32, torch.int64, torch.float64
    assert [*map(id, found)] == [*map(id, wanted)]


def test_the_initial_seed_is_a_workers_own(torch):
    class Seeds(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return torch.initial_seed()

    torch.manual_seed(5)
    assert [seed.item() for seed in torch.utils.data.DataLoader(Seeds())] == [5] * 4
    seeds = {seed.item() for seed in torch.utils.data.DataLoader(Seeds(), num_workers=2)}
    assert seeds == {min(seeds), min(seeds) + 1}
    assert torch.Generator().initial_seed() != torch.Generator().initial_seed()


def test_old_constructors_take_sizes_lists_and_arrays(torch):
    assert torch.FloatTensor(2, 3).shape == (2, 3)
    assert torch.Tensor(torch.ones(2, 3).size()).shape == (2, 3)
    assert torch.Tensor((2, 3)).tolist() == [2.0, 3.0]
    assert torch.Tensor().shape == (0,)
    pixels = np.array([250, 251], np.uint8)
    made = torch.Tensor(pixels) + 10
    assert (made.tolist(), made.dtype) == ([260.0, 261.0], "float32")
    singles = np.zeros(2, np.float32)
    torch.FloatTensor(singles).fill_(1)
    assert singles.tolist() == [0, 0]
    assert torch.LongTensor([[1, 2]]).dtype == "int64"
    with pytest.raises(TypeError, match=r"torch\.LongTensor: expected a tensor of int64, not float32"):
        torch.LongTensor(torch.ones(2))
    with pytest.raises(TypeError, match=r"torch\.FloatTensor: expected sizes, a list, an array or a tensor, not float"):
        torch.FloatTensor(3.5)


@pytest.mark.parametrize("kind", ["Float", "Double", "Half", "Byte", "Char", "Short", "Int", "Long", "Bool"])
def test_each_class_makes_recognises_and_names_its_tensors(torch, kind):
    own = getattr(torch, f"{kind}Tensor")
    x = own(2)
    assert isinstance(x, own)
    assert isinstance(x, torch.Tensor)
    assert type(x) == torch.Tensor  # noqa: E721
    assert x.type() == f"torch.{kind}Tensor" == f"{own.__module__}.{own.__name__}"
    assert not isinstance(x, getattr(torch.cuda, f"{kind}Tensor"))
    other = torch.LongTensor if kind != "Long" else torch.FloatTensor
    assert not isinstance(x, other)
    assert x.type(other).type() == x.type(f"torch.{other.__name__}").type() == f"torch.{other.__name__}"
    assert x.type(other).type(own).dtype == x.dtype


def test_types_of_a_gpu_are_refused_by_name_where_there_is_none(torch):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(TypeError, match=r"torch\.cuda\.FloatTensor makes tensors on a GPU.*use torch\.FloatTensor"):
        torch.cuda.FloatTensor(2)


def test_a_variable_is_a_tensor_outside_of_the_graph(torch, said):
    Variable = FACES["torch.autograd"].Variable
    x = torch.ones(2, requires_grad=True)
    y = Variable(x * 2, requires_grad=True)
    assert y.is_leaf
    assert y.requires_grad
    assert isinstance(x, Variable)
    Variable(x, volatile=True)
    Variable(x, volatile=True)
    assert said() == ["minidl: Variable: volatile does nothing any more; write `with torch.no_grad():` instead"]
    with pytest.raises(TypeError, match="Variable: expected a tensor, not list"):
        Variable([1.0])


def test_shapes_count_their_elements(torch):
    x = torch.ones(2, 3, 4)
    assert (x.shape.numel(), x.size().numel(), x.size()[1:].numel(), x.size(-1)) == (24, 24, 12, 4)
    assert repr(x.shape + (1,)) == "torch.Size([2, 3, 4, 1])"
    assert isinstance(x.shape, torch.Size)
    assert x.shape == (2, 3, 4)
    assert pickle.loads(pickle.dumps(x.shape)) == copy.copy(x.shape) == x.shape
    n, c, _ = x.shape
    assert (n, c) == (2, 3)


def test_new_keeps_dtype_and_device(torch):
    x = torch.zeros(2, 3, dtype=torch.float64)
    assert [x.new(2, 2).dtype, x.new([1, 2]).dtype, x.new(x.size()).dtype] == ["float64"] * 3
    assert x.new(x.size()).shape == (2, 3)
    made = x.new_zeros(2), x.new_ones((2,)), x.new_empty(2), x.new_full((2,), 3), x.new_tensor([1, 2])
    assert {(y.dtype.name, y.shape) for y in made} == {("float64", (2,))}
    assert x.new_zeros(2, dtype=torch.int64).dtype == "int64"


def test_hints_that_change_no_value_are_taken(torch):
    x = torch.ones(1, 2, 3, 4)
    assert x.to("cpu", torch.float64, False).dtype == "float64"
    assert x.to("cpu", non_blocking=True, memory_format=torch.preserve_format) is x
    assert nn.Conv2d(1, 1, 3).to(memory_format=torch.channels_last).weight.shape == (1, 1, 3, 3)
    assert x.contiguous(memory_format=torch.contiguous_format).shape == x.shape
    assert (x.pin_memory() is x, x.ndimension(), x.nelement(), x.is_xpu) == (True, 4, 24, False)
    assert nn.Linear(2, 2).type(torch.DoubleTensor).weight.dtype == "float64"


def test_second_names(torch):
    x, y = torch.Tensor([1, 2]), torch.Tensor([3, 5])
    assert torch.multiply(x, y).tolist() == x.multiply(y).tolist() == [3, 10]
    assert torch.concat([x, y]).shape == (4,)
    assert torch.is_floating_point(x)
    assert (torch.half, torch.short, torch.dtype) == ("float16", "int16", np.dtype)


LOSSES = [
    "mse_loss",
    "l1_loss",
    "nll_loss",
    "cross_entropy",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
]
LAYERS = ["MSELoss", "L1Loss", "NLLLoss", "CrossEntropyLoss", "BCELoss", "BCEWithLogitsLoss"]


@pytest.mark.parametrize(("name", "layer"), [*zip(LOSSES, LAYERS, strict=True)])
def test_old_arguments_of_losses(name, layer):
    x = minidl.rand(4, 3)
    t = minidl.tensor([0, 2, 1, 1]) if layer in ("NLLLoss", "CrossEntropyLoss") else minidl.rand(4, 3)
    own = getattr(minidl.nn.functional, name)
    cases = {"sum": {"size_average": False}, "none": {"reduce": False, "size_average": False}, "mean": {"reduce": True}}
    for reduction, old in cases.items():
        wanted = own(x, t, reduction=reduction).tolist()
        results = getattr(F, name)(x, t, **old), getattr(nn, layer)(**old)(x, t)
        assert [y.tolist() for y in results] == [wanted, wanted]
        assert getattr(nn, layer)(reduction=reduction)(x, t).tolist() == wanted
    assert getattr(F, name)(x, t).item() == getattr(nn, layer)()(x, t).item() == own(x, t).item()
    assert isinstance(getattr(nn, layer)(), getattr(minidl.nn, layer))
    assert repr(getattr(nn, layer)()) == f"{layer}()"


def test_old_arguments_stand_where_pytorch_has_them():
    assert nn.MSELoss(False).reduction == nn.CrossEntropyLoss(None, False).reduction == "sum"
    assert nn.CrossEntropyLoss(minidl.ones(3)).weight.tolist() == [1, 1, 1]
    assert nn.HuberLoss("sum", 2.0).delta == 2


def test_old_names_of_init_and_utils():
    weight = minidl.zeros(3, 4)
    nn.init.constant(weight, 3)
    assert weight.sum().item() == 36
    nn.init.xavier_uniform(weight)
    assert weight.abs().max().item() < 1
    nn.utils.clip_grad_norm([weight], 1.0)


def test_iterators_of_a_loader_have_next(torch):
    loader = torch.utils.data.DataLoader([1, 2, 3, 4], batch_size=2)
    batches = iter(loader)
    assert [batches.next().tolist(), next(batches).tolist()] == [[1, 2], [3, 4]]
    assert [batch.tolist() for batch in loader] == [[1, 2], [3, 4]]
    with pytest.raises(StopIteration):
        batches.next()


def test_data_parallel_calls_its_module():
    inner = nn.Linear(2, 3)
    model = nn.DataParallel(inner, device_ids=[0])
    x = minidl.rand(4, 2)
    assert model(x).tolist() == inner(x).tolist()
    assert model.module is inner
    assert list(model.state_dict()) == ["module.weight", "module.bias"]


def test_what_has_no_effect_says_so_once(torch, said):
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cuda")
    before = layer.weight.tolist()
    for _ in range(2):
        with torch.autocast("cuda", dtype=torch.float16), torch.cuda.amp.autocast(), torch.autograd.detect_anomaly():
            loss = torch.compile(layer)(torch.ones(1, 2)).sum()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
    assert layer.weight.tolist() != before
    assert torch.compile(mode="default")(layer) is layer
    first = [line.split()[1] for line in said()]
    assert first == ["autocast", "detect_anomaly", "torch.compile"]
    with torch.autocast("cpu", enabled=False):
        torch.use_deterministic_algorithms(True)
        torch.set_float32_matmul_precision("high")
    assert not said()


def test_grad_takes_only_inputs(torch):
    x = torch.tensor([3.0], requires_grad=True)
    (gx,) = torch.autograd.grad(outputs=x * x, inputs=x, create_graph=True, only_inputs=True)
    assert (gx.tolist(), gx.requires_grad) == ([6.0], True)


def test_inference_mode_records_nothing(torch):
    x = torch.ones(2, requires_grad=True)
    with torch.inference_mode():
        assert not (x * 2).requires_grad
    with torch.inference_mode(False):
        assert (x * 2).requires_grad
    assert not torch.inference_mode()(lambda: x * 2)().requires_grad
    assert not torch.inference_mode(lambda: x * 2)().requires_grad


def test_a_state_dict_goes_through_a_file(torch, tmp_path):
    layer, other = nn.Linear(2, 3), nn.Linear(2, 3)
    torch.save(layer.state_dict(), tmp_path / "layer.pth")
    other.load_state_dict(torch.load(tmp_path / "layer.pth", map_location="cpu", weights_only=True))
    assert other.weight.tolist() == layer.weight.tolist()


def test_without_a_gpu(torch):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    torch.cuda.manual_seed(3)
    torch.cuda.manual_seed_all(3)
    torch.cuda.empty_cache()
    counts = torch.cuda.device_count, torch.cuda.memory_allocated, torch.cuda.max_memory_allocated
    assert [count() for count in counts] == [0, 0, 0]
    assert issubclass(torch.cuda.OutOfMemoryError, RuntimeError)
    assert torch.accelerator.current_accelerator() is None
    others = torch.accelerator, torch.backends.mps, torch.backends.cudnn
    assert not any(module.is_available() for module in others)
    assert torch.backends.cuda.matmul.allow_tf32 is False


def test_assert_close(torch):
    close = FACES["torch.testing"].assert_close
    x = torch.ones(2, 3)
    with pytest.raises(AssertionError, match="Max absolute difference"):
        close(100 * x, 100 * x + 5e-4)
    close(0 * x, 0 * x + 8e-6)
    for wrong in (x + 1e-3, torch.ones(3), x.double(), x * float("nan")):
        with pytest.raises(AssertionError):
            close(x, wrong)
    close(x, x + 1e-3, rtol=0, atol=1e-2)
    close(x * float("nan"), x * float("nan"), equal_nan=True)
    with pytest.raises(AssertionError, match=r"float32 \(2, 3\), and float64 \(2, 3\) expected"):
        close(x, x.double())


def test_missing_names_are_described(torch):
    import minidl.compat.torch.nn as found

    with pytest.raises(AttributeError, match=r"torch\.Tensor\.cholesky"):
        torch.ones(2).cholesky()
    assert not hasattr(torch.ones(2), "cholesky")
    assert not hasattr(found, "LSTM")
    with pytest.raises(AttributeError, match=r"torch\.nn\.LSTM"):
        found.LSTM  # noqa: B018
    with pytest.raises(ImportError, match=r"torch\.nn\.LSTM") as error:
        from minidl.compat.torch.nn import LSTM  # noqa: F401
    assert not isinstance(error.value, ModuleNotFoundError)
    with pytest.raises(ImportError, match=r"torch\.optim\.LBFGS"):
        from minidl.compat.torch.optim import LBFGS  # noqa: F401
    with pytest.raises(AttributeError, match="__wrapped__"):
        found.__wrapped__  # noqa: B018


def test_missing_modules_are_described():
    from minidl.compat._missing import MissingModules

    for name in ("torch.fx", "torch.distributed.fsdp", "torchvision.models"):
        with pytest.raises(ModuleNotFoundError, match=name) as error:
            MissingModules.find_spec(name)
        assert error.value.name == name
    assert MissingModules.find_spec("torches") is None


def test_missing_submodules_are_looked_up_and_so_described():
    assert all(hasattr(module, "__path__") for module in FACES.values())
