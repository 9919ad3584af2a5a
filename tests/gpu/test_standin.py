"""Everything through the "cuda" path, on a stand-in for CuPy that refuses what a GPU's arrays refuse.

What is tested is the boundary: code above the kernels must not know where an array lives. Results are compared with
those on the CPU, and must stay on the GPU.
"""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minidl
from minidl import nn
from minidl.data import DataLoader, Subset, TensorDataset
from minidl.ops import pointwise
from minidl.testing import broadcastable_shapes, check_operation, models, property_test, shapes, tensors
from tests.helpers import cupy_stand_in
from tests.ops import test_gather as moving
from tests.ops import test_gradients as ops
from tests.ops import test_pointwise as pointwise_ops
from tests.ops import test_reductions as reductions

F = nn.functional


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch):
    cupy_stand_in.install(monkeypatch)


def both(operation, inputs):
    """Run forward and backward on either device, and assert that nothing differs but the device."""
    results = []
    for device in ("cpu", "cuda"):
        x = [t.detach().to(device).requires_grad_() if t.requires_grad else t.to(device) for t in inputs]
        y = operation(*x)
        outputs = [v for v in ([y] if isinstance(y, minidl.Tensor) else list(y)) if isinstance(v, minidl.Tensor)]
        for v in outputs:
            if v.requires_grad:
                v.backward(minidl.ones_like(v), retain_graph=True)
        found = [*outputs, *[t.grad for t in x if t.grad is not None]]
        assert {v.device.type for v in found} <= {device}
        results.append([v.detach().cpu().numpy() for v in found])
    for a, b in zip(*results, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, 1e-9, 1e-9 * max(1, np.abs(a).max(initial=0)))


few = settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("name", ops.UNARY)
@few
@given(x=tensors(shapes(min_dims=1)))
def test_unary(name, x):
    both(ops.UNARY[name], [x])


@pytest.mark.parametrize("name", ops.POSITIVE)
@few
@given(x=tensors(shapes(), low=0.1))
def test_positive(name, x):
    both(ops.POSITIVE[name], [x])


@pytest.mark.parametrize("name", ops.BINARY)
@few
@given(inputs=ops.several(broadcastable_shapes()))
def test_binary(name, inputs):
    both(ops.BINARY[name], inputs)


@pytest.mark.parametrize("name", reductions.FUNCTIONS)
def test_reduction(name):
    both(reductions.FUNCTIONS[name], [reductions.numbers(2, 3)])


@pytest.mark.parametrize("name", pointwise_ops.UNARY)
@few
@given(data=st.data())
def test_pointwise(name, data):
    both(pointwise_ops.UNARY[name], [data.draw(pointwise_ops.on(pointwise.ROWS.get(name, {})))])


@pytest.mark.parametrize("name", pointwise_ops.BINARY)
@few
@given(inputs=ops.several(broadcastable_shapes()))
def test_pointwise_of_two(name, inputs):
    both(getattr(pointwise, name), inputs)


@pytest.mark.parametrize("name", pointwise_ops.SETTINGS)
@few
@given(x=pointwise_ops.on({}))
def test_pointwise_with_settings(name, x):
    both(pointwise_ops.SETTINGS[name], [x])


OTHERS = {
    **reductions.PRODUCTS,
    "matmul": (lambda a, b: a @ b, (2, 3), (3, 4)),
    "matmul of batches": (lambda a, b: a @ b, (2, 1, 2, 3), (4, 3, 1)),
    "linear": (F.linear, (2, 3), (4, 3), (4,)),
    "cat": (lambda *parts: minidl.cat(parts, 1), (2, 1), (2, 3)),
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, 2, 1), (2, 3, 5, 5), (4, 3, 3, 3), (4,)),
    "conv_transpose2d": (lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1, 1), (2, 3, 3, 3), (3, 4, 3, 3), (4,)),
    "conv2d in groups": (
        lambda x, w, b: F.conv2d(x, w, b, padding="same", groups=2),
        (2, 4, 5, 5),
        (6, 2, 2, 3),
        (6,),
    ),
    "depthwise": (lambda x, w: F.conv2d(x, w, None, 2, 1, groups=3), (2, 3, 5, 5), (3, 1, 3, 3)),
    "pad": (lambda x: F.pad(F.pad(x, (2, 1, 0, 2), "reflect"), (1, 1, 0, 0), "circular"), (3, 4, 5)),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, (2, 3)), (2, 3, 5, 4)),
    "adaptive_max_pool2d": (lambda x: F.adaptive_max_pool2d(x, (2, 3), return_indices=True), (2, 3, 5, 4)),
    "pixel_shuffle": (lambda x: F.channel_shuffle(F.pixel_shuffle(x, 2), 2), (2, 8, 3, 2)),
    "bicubic": (lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"), (1, 2, 3, 3)),
    "max_pool2d": (lambda x: F.max_pool2d(x, 2, return_indices=True), (2, 3, 5, 5)),
    "max_unpool2d": (lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2), (2, 3, 4, 4)),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 3, 2, 1), (2, 3, 5, 5)),
    "interpolate": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), (1, 2, 3, 3)),
    "mse_loss": (F.mse_loss, (3, 4), (3, 4)),
    "bce with logits": (lambda x, t: F.binary_cross_entropy_with_logits(x, t.sigmoid()), (3, 4), (3, 4)),
    "bce": (lambda x, t: F.binary_cross_entropy(x.sigmoid(), t.sigmoid()), (3, 4), (3, 4)),
    "gaussian_kl": (F.gaussian_kl, (3, 4), (3, 4)),
    "l1_loss": (F.l1_loss, (3, 4), (3, 4)),
    "nll_loss": (lambda x: F.nll_loss(x, x.argmin(1)), (3, 4, 2)),
    "batch_norm": (lambda x, w, b: F.batch_norm(x, None, None, w, b, True), (3, 2, 4, 4), (2,), (2,)),
    "batch_norm, evaluated": (
        lambda x, w: F.batch_norm(x, x.detach().mean((0, 2)), x.detach().var((0, 2)), w),
        (3, 2, 4),
        (2,),
    ),
    "instance_norm": (lambda x, w, b: F.instance_norm(x, None, None, w, b), (3, 2, 4, 4), (2,), (2,)),
    "group_norm": (lambda x, w, b: F.group_norm(x, 2, w, b), (3, 4, 5), (4,), (4,)),
    "layer_norm": (lambda x, w: F.layer_norm(x, (4, 5), w), (3, 4, 5), (4, 5)),
    "small": (
        lambda x: (F.one_hot(x.argmin(1)), x.isnan() | x.isinf(), x.isfinite(), x.clip(0, 1), x.square()),
        (3, 4),
    ),
    "mm": (lambda a, b: a.mm(b), (2, 3), (3, 4)),
    "min": (lambda x: (x.min(1).values, x.min()), (3, 4)),
    "std": (lambda x: x.std(0), (3, 4)),
    "comparison": (lambda x, y: ((x > y) & (x != 0) | ~(y <= 1), (x == y).any(), x.argmax(1)), (3, 4), (4,)),
    "integers": (
        lambda x: (x.long().sum(), x.int() * 2, x.bool().all(), x.bool().any(1), x.long().prod(), x.int().cumsum(0)),
        (3, 4),
    ),
    "index": (lambda x: (x[1], x[:, [0, 0, 2]], x[np.array([1, 2])], x[minidl.tensor([0, 0])], x[x > 0]), (3, 4)),
}


def test_what_changes_in_place():
    x = minidl.zeros(200, device="cuda")
    assert x.uniform_(1, 2).min().item() >= 1
    assert nn.init.normal_(x, 5, 0.1).is_cuda
    assert minidl.allclose(x, x)
    assert minidl.equal(x, x)
    assert x.clamp_(0, 1).max().item() == 1
    layer = nn.BatchNorm2d(3).to("cuda")
    layer(minidl.randn(2, 3, 4, 4, device="cuda")).sum().backward()
    assert all(b.is_cuda for b in layer.buffers())
    assert layer.num_batches_tracked.item() == 1
    assert nn.utils.clip_grad_norm_(layer.parameters(), 1.0).is_cuda
    nn.utils.clip_grad_value_(layer.parameters(), 0.1)
    assert nn.utils.parameters_to_vector(layer.parameters()).shape == (6,)


OTHERS |= {
    f"further: {name}": (lambda x, t, f=loss: f(x, t, t.square() + 1), (2, 3), (2, 3))
    for name, loss in ops.FURTHER_LOSSES.items()
}


@pytest.mark.parametrize("name", OTHERS)
def test_others(name):
    operation, *sizes = OTHERS[name]
    both(operation, [minidl.randn(*size, dtype=minidl.float64, requires_grad=True) for size in sizes])


@pytest.mark.parametrize("name", moving.READ | moving.WRITE)
def test_what_reads_and_writes(name):
    inputs = [moving.values(1)] if name in moving.READ else [moving.values(1), moving.values(2)]
    both((moving.READ | moving.WRITE)[name], inputs)


def test_order_counts_and_draws():
    floats, ints = minidl.tensor([[3.0, 1.0], [2.0, 3.0]]), minidl.tensor([1, 0, 1])
    for function, x in [
        (lambda x: (*x.sort(), *x.topk(1, 0), x.argsort(descending=True)), floats),
        (lambda x: minidl.unique(x, return_inverse=True, return_counts=True), floats),
        (lambda x: (x.nonzero(), *minidl.where(x > 1), x.long()), floats),
        (lambda i: (i.new_zeros(2), i.new_tensor([1.5, 2])), ints),
    ]:
        both(function, [x])
    drawn = []
    for device in ("cpu", "cuda"):
        minidl.manual_seed(0)
        p = minidl.full((50,), 0.5, device=device)
        found = [
            p.bernoulli(),
            p.multinomial(5),
            p.multinomial(5, True),
            minidl.normal(p, 1.0),
            p.clone().bernoulli_(p),
        ]
        assert {y.device.type for y in found} == {device}
        drawn.append([y.cpu().numpy() for y in found])
    for a, b in zip(*drawn, strict=True):
        np.testing.assert_allclose(a, b, 1e-6)


def test_cross_entropy_and_second_gradients():
    t = minidl.tensor([0, 2, 1])
    both(lambda x: F.cross_entropy(x, t.to(x.device)), [minidl.randn(3, 4, requires_grad=True).double()])
    both(lambda x: minidl.grad((x.exp() * x).sum(), x, create_graph=True)[0], [minidl.randn(3, requires_grad=True)])


def test_assignment():
    def assign(x, v):
        y = x * 2
        y[:, 1] = v
        y[0] += 3 * v[0]
        y[y < 0] = 0.5
        y[[0, 1], [0, 2]] = v
        return y

    both(assign, [minidl.randn(2, 3, requires_grad=True), minidl.randn(2, requires_grad=True)])


@few
@given(case=models(max_layers=8), rule=st.sampled_from(["SGD", "Adam", "AdamW", "RMSprop", "Adadelta"]))
def test_models_train_as_on_the_cpu(case, rule):
    model, x = case
    state = {name: value.clone() for name, value in model.state_dict().items()}
    losses = []
    for device in ("cpu", "cuda"):
        model.to(device).load_state_dict(state)
        optimizer = getattr(minidl.optim, rule)(model.parameters(), lr=1e-3)
        losses.append([])
        for _ in range(3):
            optimizer.zero_grad()
            y = model(x.to(device))
            loss = F.mse_loss(y, minidl.zeros_like(y))
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
        assert all(p.is_cuda == (device == "cuda") for p in model.parameters())
        saved = optimizer.state_dict()
        optimizer.load_state_dict(saved)
        model.cpu()
    np.testing.assert_allclose(*losses, 1e-4, 1e-6)


def test_a_seed_gives_the_same_numbers():
    drawn = []
    for device in ("cpu", "cuda"):
        minidl.manual_seed(3)
        x = minidl.randn(100, device=device)
        drawn.append(F.dropout(x, 0.5).cpu().numpy())
        layer = nn.Linear(3, 2, device=device)
        drawn[-1] = np.concatenate([drawn[-1], layer.weight.detach().cpu().numpy().ravel()])
        assert layer.weight.is_cuda == (device == "cuda")
    np.testing.assert_array_equal(*drawn)


def test_property_tests_use_a_gpu_that_is_there(monkeypatch):
    monkeypatch.setattr(property_test, "_devices", property_test._devices.__wrapped__)
    x = minidl.randn(3, 4, dtype=minidl.float64, requires_grad=True)
    check_operation(lambda x: (x.exp() * x).softmax(1), {"x": x})
    with pytest.raises(AssertionError, match="output 0 differs"):
        check_operation(lambda x: x * (2.001 if x.is_cuda else 2), {"x": x})


def test_names_and_moves(tmp_path):
    x = minidl.ones(2, 3, device="cuda")
    assert (str(x.device), x.is_cuda, x.cpu().is_cuda) == ("cuda:0", True, False)
    assert x.to("cuda:0") is x
    assert x.cuda() is x
    assert x.device == minidl.device("cuda", 0) != minidl.device("cuda")
    assert "device='cuda:0'" in repr(x)
    assert minidl.tensor(x).is_cuda
    assert minidl.zeros_like(x).is_cuda
    assert minidl.cuda.is_available()
    assert minidl.cuda.device_count() == 1
    minidl.cuda.set_device(0)
    minidl.cuda.synchronize()
    minidl.save({"x": x}, tmp_path / "x")
    assert not minidl.load(tmp_path / "x")["x"].is_cuda
    assert minidl.load(tmp_path / "x", map_location="cuda")["x"].is_cuda
    assert (x * minidl.tensor(2.0)).is_cuda  # as in PyTorch, a 0-d tensor goes where the other is


REFUSED = {
    "add": lambda x, y: x + y,
    "linear": lambda x, y: F.linear(x, y),
    "matmul": lambda x, y: x @ y.T,
    "cat": lambda x, y: minidl.cat([x, y]),
    "mse_loss": lambda x, y: F.mse_loss(x, y),
    "where": lambda x, y: minidl.where(x > 0, x, y),
    "conv2d": lambda x, y: F.conv2d(x.reshape(1, 1, 2, 3), y.reshape(1, 1, 2, 3)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_mixed_devices_are_refused(name):
    x, y = minidl.ones(2, 3, device="cuda"), minidl.ones(2, 3)
    with pytest.raises(RuntimeError, match=rf"^{name}: expected all tensors .* same device, and found cpu and cuda:0"):
        REFUSED[name](x, y)


def test_transfers_are_never_silent():
    x = minidl.ones(2, device="cuda")
    with pytest.raises(TypeError, match=r"x\.cpu\(\)\.numpy\(\)"):
        x.numpy()
    with pytest.raises(TypeError, match=r"x\.cpu\(\)\.numpy\(\)"):
        np.asarray(x)
    with pytest.raises(RuntimeError, match="grad on cpu given to a tensor on cuda:0"):
        x.grad = minidl.ones(2)
    with pytest.raises(RuntimeError, match="device 'cuda:3': there is no such GPU, only cuda:0"):
        x.to("cuda:3")


def test_the_stand_in_is_strict():
    x = cupy_stand_in.ndarray(np.ones(3))
    for wrong in (lambda: np.asarray(x), lambda: x + np.ones(3), lambda: x[np.array([0])], lambda: np.linalg.norm(x)):
        with pytest.raises(TypeError):
            wrong()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_hands_out_batches_on_the_gpu(workers):
    images, labels = np.random.default_rng(0).random((11, 1, 3, 5), np.float32), np.arange(11, dtype=np.uint8)
    pairs = TensorDataset(minidl.tensor(images), minidl.tensor(labels))
    here = [[x.numpy() for x in batch] for batch in DataLoader(pairs, 4, num_workers=workers)]
    there = list(DataLoader(pairs, 4, num_workers=workers, device="cuda"))
    assert [len(batch[0]) for batch in there] == [4, 4, 3]
    for a, b in zip(here, there, strict=True):
        assert all(x.is_cuda for x in b)
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y.cpu().numpy())
            assert x.dtype == y.dtype
    (single,) = DataLoader([np.ones(2), np.zeros(2)], 2, device="cuda")
    assert single.tolist() == [[1, 1], [0, 0]]
    assert list(DataLoader([], 2, device="cuda")) == []


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("device", "expected"), [(None, "cuda:0"), ("cuda", "cuda:0"), ("cpu", "cpu")])
def test_a_loader_of_tensors_that_lie_on_the_gpu(device, expected, workers):
    images, labels = np.random.default_rng(0).random((11, 3, 5), np.float32), np.arange(11)
    pairs = TensorDataset(minidl.tensor(images, device="cuda"), minidl.tensor(labels, device="cuda"))
    order = minidl.Generator().manual_seed(1).rng.permutation(11)
    for data in (pairs, [pairs[i] for i in range(11)], Subset(pairs, range(11))):
        shuffled = minidl.Generator().manual_seed(1)
        batches = list(DataLoader(data, 4, True, num_workers=workers, generator=shuffled, device=device))
        assert {str(x.device) for batch in batches for x in batch} == {expected}
        assert [len(batch[0]) for batch in batches] == [4, 4, 3]
        for i, values in enumerate((images, labels)):
            np.testing.assert_array_equal(np.concatenate([batch[i].cpu().numpy() for batch in batches]), values[order])


@pytest.mark.parametrize(("device", "expected"), [(None, "cuda:0 cpu"), ("cuda", "cuda:0 cuda:0"), ("cpu", "cpu cpu")])
def test_a_loader_of_images_on_the_gpu_and_labels_that_are_not(device, expected):
    images = minidl.randn(3, 2, device="cuda")
    ((x, y),) = DataLoader([(images[i], i) for i in range(3)], 3, device=device)
    assert f"{x.device} {y.device}" == expected
    np.testing.assert_array_equal(x.cpu().numpy(), images.cpu().numpy())
    assert y.tolist() == [0, 1, 2]


def test_a_loader_of_dicts():
    items = [{"x": np.full(2, i, np.float32), "name": str(i), "more": (i, [i])} for i in range(3)]
    for device, expected in (("cuda", "cuda:0"), ("cpu", "cpu")):
        first, last = DataLoader(items, 2, device=device)
        one, (two,) = first["more"]
        assert {str(x.device) for x in (first["x"], one, two, last["x"])} == {expected}
        assert (first["x"].tolist(), two.tolist(), last["x"].tolist()) == ([[0, 0], [1, 1]], [0, 1], [[2, 2]])
        assert (first["name"], last["name"]) == (["0", "1"], ["2"])
    assert list(DataLoader(["a", "b"], 2, device="cuda")) == [["a", "b"]]


# -- recorded steps -----------------------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.out, self.drop = nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.Linear(16, 3), nn.Dropout(0.3)

    def forward(self, x):
        noisy = x + 0.1 * minidl.randn_like(x)
        return self.out(self.drop(F.max_pool2d(F.relu(self.conv(noisy)), 2).flatten(1)))


def training(optimiser, recorded, steps=6):
    """The losses of some steps, with other images and another learning rate in each."""
    minidl.manual_seed(1)
    model = Net().to("cuda")
    name, *amsgrad = optimiser.split()
    optimizer = getattr(minidl.optim, name)(model.parameters(), lr=0.01, **dict.fromkeys(amsgrad, True))

    def step(images, labels):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    step = minidl.cuda.capture(step) if recorded else step
    losses = []
    for number in range(steps):
        rng = np.random.default_rng(number)
        images = minidl.tensor(rng.standard_normal((5, 1, 8, 8)).astype("float32")).to("cuda")
        losses.append(step(images, minidl.tensor(rng.integers(3, size=5)).to("cuda")).item())
        optimizer.param_groups[0]["lr"] *= 0.9
    state = {name: value.cpu().numpy() for name, value in model.state_dict().items()}
    counted = [entry.get("step") for entry in optimizer.state_dict()["state"].values()]
    return losses, state, counted, minidl.rand(1).item()


@pytest.mark.parametrize("optimiser", ["SGD", "Adam", "AdamW", "AdamW amsgrad", "RMSprop", "Adadelta"])
def test_a_recorded_step_is_the_step(optimiser):
    ours, wanted = (training(optimiser, recorded) for recorded in (True, False))
    assert ours[0] == wanted[0]
    assert len(set(ours[0])) == 6
    for name in wanted[1]:
        np.testing.assert_array_equal(ours[1][name], wanted[1][name])
    assert ours[2:] == wanted[2:]


def test_what_cannot_be_recorded():
    x = minidl.ones(2, device="cuda")
    calls = []

    def reads(x):
        calls.append(x)
        return x * (x * (10.5 + len(calls))).sum().item()  # another number at each call

    step = minidl.cuda.capture(reads)
    step(x)
    with pytest.raises(RuntimeError, match=r"capture: the step cannot be recorded. It may read a value back .*item"):
        step(x)
    assert (x + 1).tolist() == [2, 2]  # nothing is recorded any more
    assert (x * 12.5).tolist() == [12.5, 12.5]  # nor is a number of that graph used elsewhere
    step = minidl.cuda.capture(lambda x: x * 2)
    step(x), step(x)
    with pytest.raises(RuntimeError, match=r"recorded for inputs of \[\(\(2,\).*, not \[\(\(3,\)"):
        step(minidl.ones(3, device="cuda"))


def test_what_is_sent_before_a_replay_is_not_overwritten_by_it():
    """Though memory of the graph is used again: a number that is sent must not lie where an earlier result lay."""

    def step(x):
        y = (x * x).sum()  # leaves memory of the size of a number
        del y
        return x.mean(0) + minidl.arange(2.0, device="cuda") + minidl.rand(2).to("cuda") * 0

    x = minidl.tensor([[1.0, 3.0], [2.0, 5.0]], device="cuda")
    recorded = minidl.cuda.capture(step)
    for _ in range(3):
        assert recorded(x).tolist() == [1.5, 5.0]


def test_a_step_that_cannot_be_recorded_has_drawn_and_counted_nothing():
    minidl.manual_seed(0)
    layer = nn.Linear(2, 1).to("cuda")
    optimizer = minidl.optim.Adam(layer.parameters())

    def step(x):
        optimizer.zero_grad()
        loss = F.dropout(layer(x)).sum()
        loss.backward()
        optimizer.step()
        return loss.item()

    recorded = minidl.cuda.capture(step)
    x = minidl.ones(3, 2, device="cuda")
    recorded(x)
    state = minidl.random.default_generator.get_state()
    with pytest.raises(RuntimeError, match="the step cannot be recorded"):
        recorded(x)
    assert [s["step"] for s in optimizer.state.values()] == [1, 1]
    assert repr(minidl.random.default_generator.get_state()) == repr(state)


@pytest.mark.parametrize("step", [lambda x: x[x > 0], lambda x: minidl.cat([x] * 9)])
def test_what_a_graph_cannot_hold(step):
    recorded, x = minidl.cuda.capture(step), minidl.ones(2, device="cuda")
    recorded(x)
    with pytest.raises(RuntimeError, match="the step cannot be recorded"):
        recorded(x)


def test_places_that_are_not_there_are_refused_on_a_gpu_too():
    x = minidl.arange(6.0, device="cuda").reshape(2, 3)
    for index in ([0, 2], (slice(None), [0, 3]), (1, [-4]), minidl.tensor([5], device="cuda")):
        with pytest.raises(IndexError, match="is out of bounds for dimension"):
            x[index]
    assert x[1, [-3, 2]].tolist() == [3.0, 5.0]


def test_a_number_keeps_the_sign_of_its_zero():
    x = minidl.ones(1, device="cuda")
    assert [(1 / (x * zero)).item() for zero in (0.0, -0.0)] == [float("inf"), float("-inf")]


def test_indices_of_unpooling_are_checked_on_a_gpu_too():
    x, indices = minidl.ones(1, 1, 2, 2, device="cuda"), minidl.tensor([[[[0, 5], [2, 16]]]], device="cuda")
    with pytest.raises(RuntimeError, match=r"max_unpool2d: index 16 at \(0, 0, 1, 1\) of the indices"):
        F.max_unpool2d(x, indices, 2)
