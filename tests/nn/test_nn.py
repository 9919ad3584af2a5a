"""Modules: registration, state, modes, printing, and what they refuse."""

import copy
from collections import OrderedDict

import numpy as np
import pytest

import minidl
from minidl import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Dropout(0.5))
        self.head = nn.Linear(8, 3, bias=False)
        self.scale = nn.Parameter(minidl.ones(1))

    def forward(self, x):
        return self.head(self.body(x)) * self.scale


def test_parameters_are_found_in_the_order_of_assignment_by_dotted_names():
    assert [name for name, _ in Net().named_parameters()] == [
        "scale",
        "body.0.weight",
        "body.0.bias",
        "head.weight",
    ]
    assert list(Net().state_dict()) == [name for name, _ in Net().named_parameters()]
    assert [name for name, _ in Net().named_children()] == ["body", "head"]
    assert sum(p.numel() for p in Net().parameters()) == 1 + 18 + 2 + 24


def test_a_shared_module_is_counted_once_and_saved_under_each_name():
    layer = nn.Linear(2, 2)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    assert len(list(model.parameters())) == 2
    assert list(model.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_printed_as_a_tree():
    assert repr(Net()) == (
        "Net(\n"
        "  (body): Sequential(\n"
        "    (0): Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1))\n"
        "    (1): ReLU(inplace=True)\n"
        "    (2): Flatten(start_dim=1, end_dim=-1)\n"
        "    (3): Dropout(p=0.5, inplace=False)\n"
        "  )\n"
        "  (head): Linear(in_features=8, out_features=3, bias=False)\n"
        ")"
    )


def test_state_travels_between_models():
    a, b = Net(), Net().double()
    assert repr(b.load_state_dict(a.state_dict())) == "<All keys matched successfully>"
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert np.array_equal(p.detach().numpy(), q.detach().numpy())
        assert q.dtype == np.float64
    b.load_state_dict({name: value.numpy() for name, value in a.state_dict().items()})


def test_state_is_refused_whole():
    model = Net()
    before = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    state = OrderedDict(Net().state_dict())
    state["head.weight"] = minidl.zeros(3, 9)
    state["extra"] = state.pop("scale")
    message = (
        "missing key 'scale'; unexpected key 'extra'; 'head.weight' has shape (3, 9) in the state, (3, 8) in the model"
    )
    with pytest.raises(RuntimeError) as error:
        model.load_state_dict(state)
    assert message in str(error.value)
    assert all(np.array_equal(before[name], value.numpy()) for name, value in model.state_dict().items())
    del state["head.weight"]
    keys = model.load_state_dict(state, strict=False)
    assert keys == (["scale", "head.weight"], ["extra"])


def test_loading_keeps_the_parameters_that_the_optimiser_holds():
    model = Net()
    parameters = list(model.parameters())
    model.load_state_dict(Net().state_dict())
    assert all(p is q for p, q in zip(parameters, model.parameters(), strict=True))


def test_modes():
    model = Net()
    x = minidl.randn(4, 1, 4, 4)
    assert not np.array_equal(model(x).detach().numpy(), model(x).detach().numpy())  # dropout
    assert model.eval() is model
    assert np.array_equal(model(x).detach().numpy(), model(x).detach().numpy())
    assert not any(module.training for module in model.modules())
    model.body.train()
    assert [module.training for module in model.children()] == [True, False]


def test_dropout_in_training_mode_stays_on_under_no_grad():
    layer = nn.Dropout(0.5)
    with minidl.no_grad():
        with pytest.warns(UserWarning, match=r"Dropout is on under no_grad.* call model.eval\(\)"):
            assert (layer(minidl.ones(100)) == 0).sum().item() > 0
        layer(minidl.ones(1))  # warns once
        layer.eval()(minidl.ones(1))


def test_conversion_keeps_the_parameters_and_converts_gradients():
    model = nn.Linear(2, 2)
    weight = model.weight
    model(minidl.ones(1, 2)).sum().backward()
    assert model.to(minidl.float64) is model
    assert model.weight is weight
    assert weight.dtype == weight.grad.dtype == np.float64
    assert weight.requires_grad
    with pytest.raises(TypeError, match="float dtypes, not int64"):
        model.to(minidl.int64)


def test_gradients_are_forgotten_or_zeroed():
    model = nn.Linear(2, 2)
    model(minidl.ones(1, 2)).sum().backward()
    model.zero_grad(set_to_none=False)
    assert model.weight.grad.tolist() == [[0, 0], [0, 0]]
    model.zero_grad()
    assert model.weight.grad is None


def test_apply_and_freezing():
    seen = []
    model = Net().apply(lambda module: seen.append(type(module).__name__))
    assert seen == ["Conv2d", "ReLU", "Flatten", "Dropout", "Sequential", "Linear", "Net"]
    assert not any(p.requires_grad for p in model.requires_grad_(False).parameters())


def test_a_copy_is_independent():
    model = Net()
    twin = copy.deepcopy(model)
    with minidl.no_grad():
        twin.scale += 1
    assert model.scale.item() == 1
    assert twin.scale.item() == 2
    assert isinstance(twin.scale, nn.Parameter)


def test_attributes_can_be_replaced_and_deleted():
    model = Net()
    model.head = None
    assert "head.weight" not in model.state_dict()
    model.head = nn.Linear(8, 1)
    assert model.head.out_features == 1
    del model.scale
    with pytest.raises(AttributeError, match="'Net' object has no attribute 'scale'"):
        model.scale  # noqa: B018
    with pytest.raises(TypeError, match="cannot assign float as 'head'"):
        model.head = 1.0

    class Forgetful(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(1, 1)

    with pytest.raises(AttributeError, match=r"call super\(\).__init__\(\) in Forgetful"):
        Forgetful()


def test_sequential_is_a_sequence():
    model = nn.Sequential(OrderedDict(a=nn.ReLU(), b=nn.Tanh(), c=nn.Sigmoid()))
    assert len(model) == 3
    assert isinstance(model[1], nn.Tanh)
    assert isinstance(model[-1], nn.Sigmoid)
    assert [name for name, _ in model[:2].named_children()] == ["a", "b"]
    assert len(model.append(nn.ReLU())) == 4


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [
        (lambda: nn.Linear(100, 200), 100),
        (lambda: nn.Conv2d(10, 200, 3), 90),
        (lambda: nn.ConvTranspose2d(10, 200, 3), 1800),  # out * KH * KW
    ],
)
def test_default_initialisation_is_uniform_in_one_over_the_root_of_the_fan_in(layer, fan_in):
    layer = layer()
    for parameter in layer.parameters():
        values, bound = parameter.detach().numpy(), 1 / np.sqrt(fan_in)
        assert np.abs(values).max() <= bound
        assert np.abs(values).max() > 0.97 * bound
        assert np.std(values) == pytest.approx(bound / np.sqrt(3), rel=0.15)


def test_a_seed_gives_the_same_model():
    states = []
    for _ in range(2):
        minidl.manual_seed(3)
        states.append(Net().state_dict())
    assert all(np.array_equal(states[0][k].numpy(), states[1][k].numpy()) for k in states[0])


def test_transposed_convolution_to_a_given_size():
    layer = nn.ConvTranspose2d(1, 1, 3, stride=2, padding=1)
    for size in (7, 8):
        assert layer(minidl.ones(1, 1, 4, 4), output_size=(size, size)).shape == (1, 1, size, size)
    with pytest.raises(
        ValueError, match="ConvTranspose2d: output_size has height 9, and for this input 7 to 8 would fit"
    ):
        layer(minidl.ones(1, 1, 4, 4), output_size=(9, 7))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.Conv2d(2, 3, 3, groups=2), ValueError, "Conv2d: groups=2 must be at least 1 and divide both"),
        (
            lambda: nn.Conv2d(2, 2, 3, padding_mode="odd"),
            ValueError,
            "padding_mode must be one of",
        ),
        (lambda: nn.ConvTranspose2d(3, 2, 3, groups=2), ValueError, "ConvTranspose2d: groups=2"),
        (lambda: nn.Dropout(1.5), ValueError, "probability, between 0 and 1, not 1.5"),
        (
            lambda: nn.Linear(3, 2)(minidl.ones(1, 4)),
            RuntimeError,
            r"linear: input of shape \(1, 4\) does not fit weight of shape \(2, 3\)",
        ),
        (
            lambda: nn.Conv2d(1, 2, 3)(minidl.ones(1, 1, 5, 5).double()),
            RuntimeError,
            "input float64, weight float32",
        ),
        (
            lambda: nn.MSELoss()(minidl.ones(3, 1), minidl.ones(3)),
            ValueError,
            r"mse_loss: shapes \(3, 1\) and \(3,\) differ",
        ),
        (
            lambda: nn.MSELoss(reduction="average")(minidl.ones(3), minidl.ones(3)),
            ValueError,
            "'mean', 'sum' or 'none'",
        ),
        (lambda: nn.Module()(1), NotImplementedError, "Module has no forward"),
        (
            lambda: nn.functional.conv2d(minidl.ones(1, 1, 3, 3), np.ones((1, 1, 3, 3))),
            TypeError,
            "weight must be a Tensor",
        ),
        (
            lambda: nn.functional.conv2d(minidl.ones(1, 1, 3, 3), minidl.ones(2, 1, 3, 3), minidl.ones(3)),
            RuntimeError,
            r"the bias must have one value for each output channel .* shape \(2,\), not \(3,\)",
        ),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_copied_model_has_no_gradients():
    layer = nn.Linear(2, 1)
    layer(minidl.ones(1, 2)).sum().backward()
    twin = copy.deepcopy(layer)
    assert [p.grad for p in twin.parameters()] == [None, None]
    assert isinstance(twin.weight, nn.Parameter)
    assert layer.weight.grad is not None


def test_a_module_list_is_found_and_its_places_can_be_exchanged():
    class Stack(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return x

    model = Stack()
    assert list(model.state_dict())[-2:] == ["layers.2.weight", "layers.2.bias"]
    model.layers[0] = model.layers[2] = nn.Identity()
    assert len(list(model.parameters())) == 2
    x = minidl.randn(1, 2)
    assert model(x).tolist() == model.layers[1](x).tolist()


def test_clipped_gradients_by_hand():
    p, q = minidl.zeros(2, requires_grad=True), minidl.zeros(1, requires_grad=True)
    p.grad, q.grad = minidl.tensor([3.0, 0.0]), minidl.tensor([-4.0])
    assert nn.utils.clip_grad_norm_([p, q], 2.5).item() == 5
    assert (p.grad.tolist(), q.grad.tolist()) == (pytest.approx([1.5, 0]), pytest.approx([-2]))
    nn.utils.clip_grad_value_([p, q], 1.75)
    assert q.grad.tolist() == [-1.75]
    assert nn.utils.clip_grad_norm_(q, 2.5).item() == 1.75
    assert q.grad.tolist() == [-1.75]


def test_batch_norm_by_hand():
    layer = nn.BatchNorm1d(1, eps=1e-20, momentum=0.25)
    assert layer(minidl.tensor([[1.0], [3.0]])).tolist() == [[-1], [1]]
    assert (layer.running_mean.item(), layer.running_var.item(), layer.num_batches_tracked.item()) == (0.5, 1.25, 1)
    layer.eval()
    layer.weight.data.fill_(2.0)
    layer.bias.data.fill_(3.0)
    assert layer(minidl.tensor([[0.5], [2.0]])).detach().numpy().ravel() == pytest.approx([3, 3 + 3 / 1.25**0.5])
    assert layer.num_batches_tracked.item() == 1


def test_batch_norm_normalises_each_channel():
    y = nn.BatchNorm2d(3)(5 + 2 * minidl.randn(8, 3, 6, 5)).detach()
    np.testing.assert_allclose(y.mean((0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var((0, 2, 3), unbiased=False), 1, atol=1e-4)


def test_batch_norm_refuses_eps_0_in_training_as_pytorch():
    layer = nn.BatchNorm1d(3, eps=0.0)
    with pytest.raises(ValueError, match="eps must be positive in training"):
        layer(minidl.ones(4, 3))
    assert layer.eval()(minidl.ones(4, 3)).tolist() == [[1.0] * 3] * 4


def test_batch_norm_without_momentum_averages_all_batches():
    layer = nn.BatchNorm1d(1, momentum=None)
    for batch in ([1.0, 3.0], [5.0, 5.0], [0.0, 6.0]):
        layer(minidl.tensor(batch).reshape(2, 1))
    assert layer.running_mean.item() == pytest.approx((2 + 5 + 3) / 3)
    assert layer.running_var.item() == pytest.approx((2 + 0 + 18) / 3)


def test_batch_norm_without_running_statistics():
    layer, x = nn.BatchNorm1d(2, track_running_stats=False), minidl.randn(5, 2)
    assert list(layer.state_dict()) == ["weight", "bias"]
    assert layer.eval()(x).tolist() == layer.train()(x).tolist()
    layer = nn.BatchNorm1d(2)
    layer.track_running_stats = False  # from now on they stay, and are used in evaluation
    layer(5 + x)
    assert layer.running_mean.tolist() == [0, 0]
    np.testing.assert_allclose(layer.eval()(x).detach(), x.numpy(), 1e-4)


def test_norms_differ_in_what_they_take_a_mean_over():
    x = 5 + 2 * minidl.randn(4, 6, 3, 5)
    for layer, shape, dims in (
        (nn.InstanceNorm2d(6), x.shape, (2, 3)),
        (nn.GroupNorm(2, 6), (4, 2, 3, 3, 5), (2, 3, 4)),
        (nn.LayerNorm((3, 5)), x.shape, (2, 3)),
        (nn.LayerNorm([6, 3, 5]), x.shape, (1, 2, 3)),
    ):
        y = layer(x).detach().reshape(shape)
        np.testing.assert_allclose(y.mean(dims), 0, atol=1e-5)
        np.testing.assert_allclose(y.var(dims, unbiased=False), 1, atol=1e-3)
        assert (layer(x) - layer.eval()(x)).abs().max().item() == 0


def test_norms_scale_and_shift_each_channel_by_its_own_weight_and_bias():
    x, w, b = minidl.randn(3, 4, 2, 5), minidl.randn(4), minidl.randn(4)
    for norm in (nn.functional.instance_norm, lambda x, **given: nn.functional.group_norm(x, 2, **given)):
        expected = norm(x).numpy() * w.numpy().reshape(4, 1, 1) + b.numpy().reshape(4, 1, 1)
        np.testing.assert_allclose(norm(x, weight=w, bias=b), expected, rtol=1e-5, atol=1e-5)


def test_instance_norm_tracks_the_samples_mean():
    layer = nn.InstanceNorm1d(1, momentum=0.5, track_running_stats=True)
    layer(minidl.tensor([[[1.0, 3.0]], [[6.0, 6.0]]]))  # means 2 and 6, variances 2 and 0
    assert (layer.running_mean.item(), layer.running_var.item(), layer.num_batches_tracked.item()) == (2, 1, 0)
    x = minidl.tensor([[4.0, 0.0]])  # one sample, without the batch
    np.testing.assert_allclose(layer.eval()(x), [[2, -2]], 1e-4)
    assert nn.InstanceNorm1d(3)(minidl.ones(1, 1, 2)).tolist() == [[[0, 0]]]
    with pytest.raises(ValueError, match="num_features is 3, not 1"):
        nn.InstanceNorm1d(3, affine=True)(minidl.ones(1, 1, 2))


def test_a_state_without_the_count_of_batches_is_loaded_as_in_pytorch():
    """Files from before PyTorch 0.4.1 are such; PyTorch itself loads them strictly."""
    model = nn.Sequential(nn.BatchNorm1d(2))
    model(minidl.randn(5, 2))
    old = {name: minidl.full_like(x, 3) for name, x in model.state_dict().items() if "num" not in name}
    assert model.load_state_dict(old, strict=False).missing_keys == []
    model.load_state_dict(old)
    assert [b.tolist() for b in model.buffers()] == [[3, 3], [3, 3], 1]
    del old["0.running_var"]
    with pytest.raises(RuntimeError, match=r"missing key '0\.running_var'$"):
        model.load_state_dict(old)


def test_buffers_are_state_but_no_parameters(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    names = ["1.running_mean", "1.running_var", "1.num_batches_tracked"]
    assert [name for name, _ in model.named_buffers()] == names
    assert len(list(model.parameters())) == 4
    model(minidl.randn(5, 2))
    minidl.save(model.state_dict(), tmp_path / "model.npz")
    other = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).double()
    other.load_state_dict(minidl.load(tmp_path / "model.npz"))
    assert [b.dtype for b in other.buffers()] == ["float64", "float64", "int64"]
    assert [b.tolist() for b in other.buffers()] == [b.tolist() for b in model.buffers()]
    other.load_state_dict({k: np.ascontiguousarray(v.numpy()) for k, v in model.state_dict().items()})
    assert copy.deepcopy(model).state_dict()["1.num_batches_tracked"].item() == 1
    model[1].running_mean = minidl.ones(2)
    assert model.state_dict()["1.running_mean"].tolist() == [1, 1]
    del model[1].running_mean
    assert "1.running_mean" not in model.state_dict()


def test_a_sequence_of_ones_own_is_edited_whatever_its_arguments():
    class Activations(nn.Sequential):
        def __init__(self, n):
            super().__init__(*[nn.ReLU() for _ in range(n)])

    layers = Activations(3)
    assert isinstance(layers.pop(0), nn.ReLU)
    layers.insert(0, nn.Tanh())
    before = repr(layers)
    with pytest.raises(TypeError, match="must be a Module"):
        layers.insert(0, 3)
    assert repr(layers) == before


def test_losses_take_their_tensors_by_name():
    assert nn.MSELoss()(input=minidl.ones(2), target=minidl.zeros(2)).item() == 1


def test_numbers_of_numpy_do_not_change_the_dtype():
    assert nn.ELU(np.float64(2))(minidl.ones(2)).dtype == minidl.float32


def test_parameters_take_attributes():
    p = nn.Parameter(minidl.ones(2))
    p.no_decay = True
    assert copy.deepcopy(p).no_decay
