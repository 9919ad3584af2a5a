"""Weights travel both ways through safetensors: for each layer, and for the models of the examples.

What a user writes is `save_file({name: np.ascontiguousarray(value.numpy()) for name, value in state.items()}, path)`:
safetensors.numpy writes the memory of an array, whatever its order.
"""

import numpy as np
import pytest

import minidl
from minidl import nn
from tests.helpers.with_torch import array, same, torch

to_file = pytest.importorskip("safetensors.numpy", reason="pip install 'minidl[io]'")
in_torch = pytest.importorskip("safetensors.torch", reason="pip install 'minidl[io]'")

LAYERS = {  # with the shape of an input
    "Linear(5, 3)": (2, 5),
    "Linear(5, 3, bias=False)": (2, 5),
    "Conv2d(3, 4, (3, 2), stride=2, padding=1)": (2, 3, 6, 7),
    "Conv2d(3, 4, 2, dilation=2, bias=False)": (2, 3, 6, 7),
    "ConvTranspose2d(3, 4, 3, stride=2, output_padding=1)": (2, 3, 4, 5),
    "Sequential(Conv2d(3, 2, 3), ReLU(), Flatten(), Linear(40, 3), Sigmoid(), Dropout(0.5), Tanh())": (2, 3, 6, 7),
    "Sequential(MaxPool2d(2), Upsample(scale_factor=2), AvgPool2d(2), Unflatten(1, (3, 1)))": (2, 3, 6, 6),
}
MODELS = {  # of the examples: how to make one, the shape of an image, further arguments
    "mnist_autoencoder": ("Autoencoder()", (1, 28, 28)),
    "mnist_upsample_autoencoder": ("Autoencoder()", (1, 28, 28)),
    "mnist_vae": ("VAE(2)", (1, 28, 28)),
    "cifar_autoencoder": ("Autoencoder(32)", (3, 32, 32)),
    "cifar_classifier": ("cnn(0.25)", (3, 32, 32)),
    "cifar_classifier mlp": ("mlp(0.25)", (3, 32, 32)),
    "linear_autoencoder_pca": ("LinearAutoencoder(8)", (784,)),
    "pixelwise_prediction": ("PixelClassifier()", (3, 32, 32)),
    "autoencoder_losses": ("autoencoder()", (1, 28, 28)),
    "feature_visualisation": ("cnn(3, 32)", (3, 32, 32)),
}


def twin(module):
    """The same module in PyTorch: layers by their printed form, which is PyTorch's, and the tree they stand in."""
    children = list(module.named_children())
    if not children:
        return eval(repr(module), dict(vars(torch.nn)))
    made = torch.nn.Sequential() if isinstance(module, nn.Sequential) else torch.nn.Module()
    for name, child in children:
        made.add_module(name, twin(child))
    return made


def called(monkeypatch, module, *inputs):
    """What the layers inside a module, Sequentials among them, were given and returned in a forward pass, by name."""
    names, calls = {id(part): name for name, part in module.named_modules()}, []
    call = nn.Module.__call__

    def recorded(self, *args, **kwargs):
        given = [x.detach().clone() for x in args]  # a layer may work in place
        y = call(self, *args, **kwargs)
        if type(self).__module__.startswith("minidl"):
            calls.append((names[id(self)], given, y.detach().clone()))
        return y

    with monkeypatch.context() as patch:
        patch.setattr(nn.Module, "__call__", recorded)
        module(*inputs)
    assert calls
    return calls


def saved(module, path):
    """The module's weights in a file, written as a user of minidl would."""
    state = module.state_dict()
    to_file.save_file({name: np.ascontiguousarray(value.numpy()) for name, value in state.items()}, path)
    return path


def check_both_ways(monkeypatch, module, x, folder):
    """To PyTorch and from it, under the same names and shapes, with the same outputs of every part."""
    module.eval()
    theirs = twin(module).eval()
    loaded = in_torch.load_file(saved(module, folder / "ours.safetensors"))
    assert [(k, tuple(v.shape)) for k, v in theirs.state_dict().items()] == [
        (k, v.shape) for k, v in module.state_dict().items()
    ]
    theirs.load_state_dict(loaded, strict=True)

    with torch.no_grad():
        for p in theirs.parameters():
            p.mul_(-0.5)
    in_torch.save_file(theirs.state_dict(), folder / "theirs.safetensors")
    before = {name: value.numpy().copy() for name, value in module.state_dict().items()}
    module.load_state_dict(to_file.load_file(folder / "theirs.safetensors"))
    for name, value in module.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name] * np.float32(-0.5))

    parts = dict(theirs.named_modules())
    with torch.no_grad():
        for name, given, y in called(monkeypatch, module, x):
            same(y, parts[name](*[torch.tensor(array(g)) for g in given]), rtol=1e-4, atol=1e-5, zeros=False)


@pytest.mark.parametrize("text", LAYERS)
def test_layer(text, monkeypatch, tmp_path):
    module = eval(text, dict(vars(nn)))
    assert str(twin(module)) == str(module)
    check_both_ways(monkeypatch, module, minidl.randn(*LAYERS[text]), tmp_path)


@pytest.mark.parametrize("name", MODELS)
def test_model_of_an_example(name, example, monkeypatch, tmp_path):
    constructor, image = MODELS[name]
    module = eval(constructor, vars(example(name.split()[0])))
    check_both_ways(monkeypatch, module, minidl.rand(3, *image), tmp_path)


ORDERS = {
    "Fortran": np.asfortranarray,
    "channels last": lambda a: np.moveaxis(np.moveaxis(a, 1, -1).copy(), -1, 1),
    "backwards": lambda a: np.flip(np.flip(a).copy()),
    "every second": lambda a: np.repeat(a, 2, -1)[..., ::2],
}


@pytest.mark.parametrize("order", ORDERS)
def test_weights_in_another_memory_order(order, monkeypatch, tmp_path):
    module = nn.Conv2d(3, 4, (3, 2))
    weight = module.weight.detach().numpy().copy()
    module.weight = nn.Parameter(ORDERS[order](weight))
    loaded = in_torch.load_file(saved(module, tmp_path / "w.safetensors"))
    np.testing.assert_array_equal(loaded["weight"].numpy(), weight)
    check_both_ways(monkeypatch, module, minidl.randn(2, 3, 5, 5), tmp_path)


def test_parameters_are_in_c_order_unless_given_otherwise():
    """So that a state can be written without np.ascontiguousarray too; after training, conversion and loading."""
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.ConvTranspose2d(3, 2, 3), nn.Flatten(), nn.Linear(50, 2))
    optimizer = minidl.optim.Adam(module.parameters())
    for _ in range(2):
        module(minidl.rand(3, 2, 5, 5)).sum().backward()
        optimizer.step()
    module.load_state_dict({k: v.numpy().copy(order="F") for k, v in module.state_dict().items()})
    for part in (module, module.double(), module.float()):
        assert all(value.numpy().flags.c_contiguous for value in part.state_dict().values())
    assert all(buffer.numpy().flags.c_contiguous for state in optimizer.state.values() for buffer in buffers(state))


def buffers(state):
    return [value for value in state.values() if isinstance(value, minidl.Tensor)]
