"""Modules against PyTorch's: printed form, state, initial values; and the type of every error."""

import copy
import re
from collections import OrderedDict

import numpy as np
import pytest

import minidl
from tests.helpers.with_torch import BOTH, GRAD, array, attempt, same, torch

# -- printed form, keys, shapes -------------------------------------------------------------------------------------


def custom(nn):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3)
            self.act = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Tanh(), nn.Sequential()))
            self.scale = nn.Parameter(self.conv.weight.detach()[0, 0])
            self.nothing = None

        def extra_repr(self):
            return "two, settings=1"

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.late = None
            self.blocks = nn.Sequential(Block(), Block())
            self.head = nn.Linear(2, 1, bias=False)
            self.shared = self.head
            self.late = nn.Linear(1, 1)
            self.register_parameter("free", None)
            self.own = nn.Parameter(self.late.weight.detach())

    return Net()


MODULES = (
    """
Linear(3, 4); Linear(3, 4, False); Linear(in_features=2, out_features=1, bias=True); ReLU(); ReLU(True)
ReLU(inplace=False); Sigmoid(); Tanh(); Dropout(); Dropout(0.25); Dropout(p=0.1, inplace=True); MSELoss()
MSELoss(reduction="sum"); LeakyReLU(); LeakyReLU(0.2, True); Softmax(1); LogSoftmax(dim=-1); Softmax(); L1Loss()
Flatten(); Flatten(2); Flatten(start_dim=0, end_dim=1); Unflatten(1, (2, 3))
Unflatten(dim=1, unflattened_size=(2, -1)); Unflatten(1, [2, 3])
Conv2d(1, 2, 3); Conv2d(1, 2, (3, 5), 2, 1); Conv2d(1, 2, 3, stride=(2, 1), padding=(0, 1), dilation=2, bias=False)
Conv2d(1, 2, 1, 1, 0, 1, 1, True); Conv2d(in_channels=1, out_channels=2, kernel_size=3, dilation=(1, 2))
Conv2d(1, 2, [3, 3], padding=[1, 2])
ConvTranspose2d(1, 2, 3); ConvTranspose2d(3, 2, (2, 4), 2, 1, 1); ConvTranspose2d(1, 2, 3, 2, 1, 1, 1, False, 2)
ConvTranspose2d(1, 2, 3, stride=(2, 3), output_padding=(1, 0), dilation=(1, 2))
ConvTranspose2d(1, 2, 3, bias=False)
Sequential(); Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Sequential(nn.Flatten(), nn.Dropout()))
Sequential(OrderedDict([("first", nn.Linear(1, 2)), ("act", nn.Tanh())]))
Sequential(nn.Conv2d(1, 2, 3), nn.ConvTranspose2d(2, 1, 3))[1:]; Sequential(nn.ReLU()).append(nn.Linear(1, 1))
Sequential(nn.ReLU())[0]; Sequential(nn.ReLU(), nn.Linear(1, 1))[-1]
InstanceNorm1d(3); InstanceNorm2d(3, 0.1, 0.2, True, True, bias=False); GroupNorm(2, 4); LayerNorm(3, bias=False)
GroupNorm(1, 3, 1e-3, affine=False); LayerNorm((3, 2), eps=0.1, elementwise_affine=False); LayerNorm([4, 1]).double()
BatchNorm1d(3, momentum=None); BatchNorm2d(3, track_running_stats=False); BatchNorm2d(3, bias=False).eval()
BatchNorm2d(3); BatchNorm1d(2, 1e-3, momentum=0.2, affine=False); BatchNorm2d(num_features=3, eps=0.1).double()
Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), nn.ReLU(True)); BatchNorm2d(2).eval()
ModuleList(); ModuleList([nn.Linear(1, 2), nn.Linear(1, 2), nn.ReLU()])
ModuleList(nn.Sequential(nn.ReLU()) for i in "ab")
ModuleList([nn.Tanh()] * 3)[1:].append(nn.Linear(1, 1)); ModuleList([nn.Linear(1, 1)]).extend([nn.Linear(2, 1)])[-1]
Sequential(nn.ModuleList([nn.Linear(1, 1)] * 2)); Identity(); Identity(54, a=1)
Sequential(nn.ReLU()).extend([nn.Tanh()])
Linear(2, 2).double(); Linear(2, 2).eval(); Conv2d(1, 1, 1, dtype=m.float64)
""".strip()
    .replace("\n", "; ")
    .split("; ")
)


def built(m, text):
    """The module a text describes; `custom` is the one above."""
    space = {"nn": m.nn, "m": m, "OrderedDict": OrderedDict}
    return custom(m.nn) if text == "custom" else eval("nn." + text, space)


@pytest.mark.parametrize("text", [*MODULES, "custom"])
def test_printed_form_keys_shapes_and_order(text):
    ours, theirs = (built(m, text) for m in BOTH)
    assert repr(ours) == repr(theirs)
    shapes = [[(k, tuple(v.shape)) for k, v in x.state_dict().items()] for x in (ours, theirs)]
    assert shapes[0] == shapes[1]
    for names in ("named_parameters", "named_buffers", "named_modules", "named_children"):
        assert [k for k, _ in getattr(ours, names)()] == [k for k, _ in getattr(theirs, names)()]
    assert ours.training == theirs.training
    assert len(list(ours.modules())) == len(list(theirs.modules()))
    assert [p.requires_grad for p in ours.parameters()] == [p.requires_grad for p in theirs.parameters()]


def test_batch_normalisation_in_a_model_that_trains_and_travels():
    def trained(m, state=None, steps=3):
        nn, rng = m.nn, np.random.default_rng(0)
        layers = nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU(True), nn.Flatten(), nn.Linear(27, 2)
        net = nn.Sequential(*layers, nn.BatchNorm1d(2, affine=False))
        state = state or {k: 0.3 * rng.standard_normal(tuple(v.shape)) ** 2 for k, v in net.state_dict().items()}
        net.load_state_dict({k: m.tensor(array(v)) for k, v in state.items()})
        optimizer = m.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        for _ in range(steps):
            optimizer.zero_grad()
            (net(m.tensor(rng.standard_normal((5, 1, 5, 5)).astype("float32"))) ** 3).mean().backward()
            optimizer.step()
        net.eval()
        return net.state_dict(), net(m.tensor(rng.standard_normal((1, 1, 5, 5)).astype("float32"))).detach()

    (ours, y), (theirs, z) = (trained(m) for m in BOTH)
    assert list(ours) == list(theirs)
    same([*ours.values(), y], [*theirs.values(), z], rtol=1e-4, atol=1e-5, zeros=False)
    same(trained(minidl, theirs, 0)[1], trained(torch, ours, 0)[1], rtol=1e-4, atol=1e-5)


NORMS = {
    "batch": "batch_norm(x, *running, w, b, True, eps=0.1)",
    "batch, evaluated": "batch_norm(x, *running, w, b, False, eps=0.1)",
    "batch, without a bias": "batch_norm(x, *running, w, None, True, eps=0.1) + b[0]",
    "instance": "instance_norm(x, *running, w, b, eps=0.1)",
    "group": "group_norm(x, 3, w, b, 0.1)",
    "layer": "layer_norm(x.transpose(1, 2), (3,), w, b, 0.1).transpose(1, 2)",
}


@pytest.mark.parametrize("name", NORMS)
def test_two_gradients_of_norms(name):
    def gradients(m):
        rng = np.random.default_rng(1)
        x, w, b, g = (m.tensor(rng.standard_normal(s), requires_grad=True) for s in ((4, 3, 2), (3,), (3,), (4, 3, 2)))
        running = m.zeros(3, dtype=m.float64), m.ones(3, dtype=m.float64) * 2
        y = eval("F." + NORMS[name], {"F": m.nn.functional, "x": x, "w": w, "b": b, "running": running})
        first = GRAD[m]((y * y * g).sum(), [x, w, b], create_graph=True)
        return [y.detach(), *first, *GRAD[m](sum((f**3).sum() for f in first), [x, w, b, g]), *running]

    ours, theirs = (gradients(m) for m in BOTH)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(array(a), array(b), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["Sequential", "ModuleList"])
def test_modules_by_index(kind):
    def used(m):
        layers = [m.nn.Linear(1, 2), m.nn.ReLU(), m.nn.Linear(2, 1)]
        listed = m.nn.Sequential(*layers) if kind == "Sequential" else m.nn.ModuleList(layers)
        listed[1], listed[-1] = m.nn.Tanh(), m.nn.Linear(2, 3, bias=False)
        assert listed[0] is layers[0]
        assert list(listed)[2] is listed[-1]
        failed = [
            type(attempt(change, listed, *args))
            for change, args in [(type(listed).__setitem__, (0, 3)), (type(listed).__setitem__, (3, m.nn.ReLU())),
                                 (type(listed).__getitem__, (-4,)), (type(listed).append, (3,)),
                                 (type(listed).extend, (3,))]
        ]  # fmt: skip
        return repr(listed), len(listed), list(listed.state_dict()), failed

    assert used(minidl) == used(torch)


# -- nn.utils -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("most", [0.1, 3, 1e9, float("inf")])
def test_clipped_gradients(most, dtype):
    def clipped(m):
        rng = np.random.default_rng(0)
        p, q, r = (m.zeros(shape, dtype=getattr(m, dtype), requires_grad=True) for shape in ((2, 3), (4,), (5,)))
        found = [m.nn.utils.clip_grad_norm_([r], most)]
        for way in (m.nn.utils.clip_grad_norm_, m.nn.utils.clip_grad_value_):
            for x in (p, q):
                x.grad = m.tensor(rng.standard_normal(tuple(x.shape)).astype(dtype))
            returned = way(iter([p, q, r]), most)
            found += [x for x in (returned, p.grad, q.grad) if x is not None]
        return [*found, m.nn.utils.clip_grad_norm_(p, max_norm=0.5), p.grad]

    same(*(clipped(m) for m in BOTH))


def test_parameters_to_vector():
    def vector(m):
        p = m.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
        y = m.nn.utils.parameters_to_vector(iter([p, p * p]))
        (y * m.arange(8)).sum().backward()
        return y.detach(), p.grad

    same(*(vector(m) for m in BOTH))


# -- state that travels ---------------------------------------------------------------------------------------------


def autoencoder(m):
    nn = m.nn
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.Flatten()),
        nn.Linear(32, 8),
        nn.Unflatten(1, (8, 1, 1)),
        nn.ConvTranspose2d(8, 2, 4, stride=2, output_padding=1),
        nn.Sigmoid(),
    )


def by_numpy(state, m, folder):
    return {k: m.tensor(array(v)) for k, v in state.items()}


def by_safetensors(state, m, folder):
    numpy = pytest.importorskip("safetensors.numpy")
    numpy.save_file({k: np.ascontiguousarray(array(v)) for k, v in state.items()}, folder / "w.safetensors")
    if m is torch:
        return pytest.importorskip("safetensors.torch").load_file(folder / "w.safetensors")
    return numpy.load_file(folder / "w.safetensors")  # arrays, which minidl's load_state_dict takes


def by_minidl(state, m, folder):
    minidl.save({k: minidl.tensor(array(v)) for k, v in state.items()}, folder / "w.npz")
    return {k: m.tensor(array(v)) for k, v in minidl.load(folder / "w.npz").items()}


@pytest.mark.parametrize("way", [by_numpy, by_safetensors, by_minidl])
@pytest.mark.parametrize(("first", "second"), [BOTH, BOTH[::-1]], ids=["to torch", "to minidl"])
def test_state_dict_travels(way, first, second, tmp_path):
    source, target = autoencoder(first), autoencoder(second)
    result = target.load_state_dict(way(source.state_dict(), second, tmp_path))
    assert (list(result.missing_keys), list(result.unexpected_keys)) == ([], [])
    assert repr(result) == "<All keys matched successfully>"
    x = np.random.default_rng(0).standard_normal((3, 1, 7, 7)).astype("float32")
    y, z = (net(m.tensor(x)) for net, m in ((source, first), (target, second)))
    np.testing.assert_allclose(array(y), array(z), rtol=1e-5, atol=1e-6)


def test_torch_state_dict_loads_as_it_is():
    ours, theirs = autoencoder(minidl), autoencoder(torch)
    ours.load_state_dict(theirs.state_dict())
    same(list(ours.parameters()), list(theirs.parameters()))
    minidl.nn.Linear(2, 2).load_state_dict(dict(torch.nn.Linear(2, 2).double().named_parameters()))


@pytest.mark.parametrize(
    "change",
    [
        lambda s, m: s.pop("1.bias"),
        lambda s, m: s.update(extra=m.zeros(1)),
        lambda s, m: s.update({"1.bias": m.zeros(9)}),
        lambda s, m: s.update({"0.0.weight": m.zeros(4, 1, 3)}),
        lambda s, m: (s.pop("0.0.weight"), s.update(extra=m.zeros(1))),
    ],
)
def test_load_state_dict_refuses_and_names_keys(change):
    messages, keys = [], []
    for m in BOTH:
        net = autoencoder(m)
        state = net.state_dict()
        change(state, m)
        with pytest.raises(RuntimeError) as caught:
            net.load_state_dict(state)
        messages.append(set(re.findall(r"\d[\d.]*\.(?:weight|bias)|extra", str(caught.value))))
        found = attempt(lambda net=net, state=state: net.load_state_dict(state, strict=False))
        keys.append(type(found) if isinstance(found, Exception) else tuple(map(list, found)))
    assert messages[0] == messages[1]
    assert keys[0] == keys[1]


# -- initial values -------------------------------------------------------------------------------------------------


LAYERS = ["Linear(20, 30)", "Linear(1, 400)", "Conv2d(3, 8, (3, 5))", "ConvTranspose2d(8, 3, (3, 5))"]


@pytest.mark.parametrize("text", LAYERS)
def test_initial_values_have_the_same_distribution(text):
    torch.manual_seed(0)
    for name in ("weight", "bias"):
        a, b = (np.concatenate([array(getattr(built(m, text), name)).ravel() for _ in range(150)]) for m in BOTH)
        bound = max(-b.min(), b.max())
        for f in (np.min, np.max, np.mean, np.std):
            assert abs(f(a) - f(b)) < 0.06 * bound, (name, f.__name__, f(a), f(b))
        np.testing.assert_allclose(*[np.quantile(x, np.linspace(0, 1, 9)) for x in (a, b)], atol=0.12 * bound)


# -- errors: x (2, 3), v (3,), i integers, t True and False, p a leaf that requires grad, e (0, 3), r (1, 2, 5, 5) --

ERRORS = (
    """
x + m.ones(2, 2); x * m.ones(4); x @ x; x @ v[:2]; m.tensor(1.) @ x; x @ m.ones(3, 2, dtype=m.float64); x @ 2
m.maximum(x, m.ones(2, 2)); m.where(t, x, m.ones(5)); m.where(x, x, x); x + "a"; x + None; x + [1, 2]; t - t; -t
i ** -1; x.add_(m.ones(2, 2, 3)); x.mul_(m.ones(4, 3)); i.add_(0.5); i.__itruediv__(2); x.copy_(m.ones(2, 2))
x.copy_(m.ones(1, 2, 3)); x.copy_("a"); x.fill_(v)
x.sum(2); x.sum(-3); x.mean((0, 5)); x.sum((0, 0)); x.sum((0, -2)); x.sum("a"); x.sum(1.5); i.mean(); t.mean()
i.var(); x.max(2); e.max(); e.max(0); e.argmax(); e.argmax(0); x.argmax(3); x.softmax(2); m.softmax(x, -3)
m.log_softmax(x, 5); x.clamp(); m.clamp(x, "a"); m.sum(3); m.exp(2.); m.exp("a"); m.relu(2.)
x.reshape(4, 2); x.reshape(-1, -1); x.reshape(-1, 4); x.reshape(2.5); x.reshape(-2, 3); x.view(5); x.flatten(3)
x.flatten(1, 0); x.unflatten(1, (2, 2)); x.unflatten(2, (1, 1)); x.transpose(0, 2); x.permute(0); x.permute(0, 0)
x.permute(0, 2); x.squeeze(2); x.unsqueeze(3); x.unsqueeze(-4); x.expand(2); x.expand(3, 3); x.expand(2, -1, 3, 3)
x.expand(-1, 2, 3); m.stack([]); m.cat([]); m.stack([x, v]); m.cat([x, v]); m.cat([x, x], 2); m.cat([x, 1])
m.cat(x); m.cat([m.tensor(1.), m.tensor(2.)]); m.stack([x, 2]); F.pad(x, (1,)); F.pad(x, (1, 1, 1, 1, 1, 1))
F.pad(x, (-2, -2)); F.pad(x, (1.5, 1))
x.sum(dim=1, axis=1); x.sum(1, axis=1); x.sum(axis=2); x.sum(axis="a"); m.cat([x, x], axis=2); m.cat([x, v[:0], v])
x.chunk(0); x.chunk(-1); x.chunk(2.5); x.chunk(2, 3); x[0, 0].chunk(1); m.chunk(3, 2); x[0, 0].split(1); v.split([2, 2])
v.split([4, -1]); v.split(0); v.split(-1); v.split(2.5); v.split("a"); x.split(1, 2); x[0, 0].unbind()
x.unbind(2); m.unbind(3); x.repeat(2); x.repeat(-1, 1); x.repeat(2.5, 1); x.repeat("a"); x.expand_as(v)
x.expand_as(3); F.one_hot(i, 1); F.one_hot(i - 1, 2); F.one_hot(i.int()); F.one_hot(x); F.one_hot(i[:0]); F.one_hot(3)
F.one_hot(i[:0], 0); F.one_hot(i, -2); F.one_hot(i, "a"); x.clip(); x.clip("a"); x.clamp_(); x.clamp_("a"); p.clamp_(0)
i.clamp_(0.5, 1); e.argmin(); x.argmin(3); m.sign(3); m.square("a"); m.isnan(3); m.isfinite(3); m.allclose(x, 3)
m.allclose(x, x.double()); m.allclose(x, x[:, :2]); m.allclose(x, x, -1); m.allclose(x, x, "a"); m.equal(x, 3)
m.numel(3); m.empty(-1); m.empty("a"); m.mm(x, v); m.mm(x, x); m.mm(x, 3); m.mm(x, x.T.double()); m.mm(3, x)
x[2]; x[-3]; x[0, 3]; x[0, 0, 0]; x[0.5]; x["a"]; x[[5]]; x[m.tensor([0, 2])]; x[m.tensor([0.5])]
x[m.tensor([True])]; x[m.ones(3, 2) > 0]; x[::-1]; x[::0]; x[i, i, i]; x[[0, 1], [0, 1, 2]]; x[0] = v[:2]; x[5] = 1
x[0] = "a"; x[x > 0] = v[:2]; m.tensor(1.)[0]; x[{}]; x[0, "a"]; x[m.tensor([0, 1], dtype=m.float64)]
p.backward(); x.backward(); x.sum().backward(); p.sum().backward(v); p.sum().backward(1.0); p.exp().backward(v)
(q := (p * p).sum(), q.backward(), q.backward()); m.tensor(1, requires_grad=True)
m.tensor([True], requires_grad=True); i.requires_grad_(); p.exp().requires_grad_(False); setattr(p, "grad", v)
setattr(p, "grad", 1); setattr(p, "grad", m.zeros(2, 3, dtype=m.float64)); p.numpy(); p.exp().numpy(); np.asarray(p)
p.add_(1); p.zero_(); p.mul_(2); p.fill_(1); p.copy_(x); p.__setitem__(0, 1); p.__iadd__(1); p.T.add_(1)
p[0].zero_(); p.view(-1).__setitem__(0, 1); F.relu(p, inplace=True); grad(p.sum(), x); grad(x.sum(), p)
grad((p * 1), p); grad(p.sum(), m.zeros(1, requires_grad=True)); grad(p.sum(), [p], [v])
(w := x.clone(), y := p * w, w.add_(1), y.sum().backward()); (y := p.exp(), y.add_(1), y.sum().backward())
(y := m.sigmoid(p), y.__setitem__(0, 0.), y.sum().backward()); copy.deepcopy(p * 1); x.expand(2, 2, 3).add_(1)
x.item(); e.item(); float(x); int(x); bool(x); bool(e); bool(p > 0); len(m.tensor(1.)); list(m.tensor(1.))
range(x[0, 0]); [1, 2][x[0, 0]]; x.size(2); x.to("nowhere"); m.device("nowhere"); m.from_numpy([1])
m.from_numpy(np.array(["a"])); m.tensor("abc"); m.tensor([[1], [1, 2]]); m.tensor(None); m.zeros(-1); m.zeros(2.5)
m.zeros("a"); m.ones(2, -3); m.full(2, 3); m.arange(0, 5, 0); m.arange(5, 0); m.linspace(0, 1, -1); m.eye(-1)
m.rand(-1); m.randint(5); m.randint(5, 5, (2,)); m.randint(3, 1, (2,)); m.randperm(-1); m.zeros(2, dtype="float99")
m.zeros(2, dtype=3); m.eye(2.5); m.tensor(float("nan"), dtype=m.int64); m.tensor([1.5, 300.], dtype=m.uint8)
m.tensor(2**63); m.tensor([-(2**70)]); m.full((2,), 300, dtype=m.uint8); m.full_like(i, float("nan"))
m.full_like(x.to(m.uint8), 300); m.where(t, 300, x.to(m.uint8)); m.arange(float("nan")); m.arange(0, float("inf"))
m.linspace(0, 300, 3, dtype=m.uint8); m.randperm(300, dtype=m.uint8); m.randint(300, (2,), dtype=m.uint8)
m.randint(2.5, (2,)); m.rand(2, generator=3); m.rand(2, dtype=m.int64); m.randn_like(i); F.relu(t); x & x; x | t; ~x
F.mse_loss(i, i); F.mse_loss(t, t); F.linear(x, x, i[0]); F.linear(x, m.ones(2, 3), i[0])
F.cross_entropy(i, i[0]); F.binary_cross_entropy(i, i)
F.binary_cross_entropy_with_logits(i, i)
F.conv2d(r, m.ones(1, 3, 3, 3)); F.conv2d(r, m.ones(1, 2, 7, 7)); F.conv2d(r, m.ones(1, 2, 3))
F.conv2d(x, m.ones(1, 2, 3, 3)); F.conv2d(r, w4, m.ones(2)); F.conv2d(r, w4, None, 0); F.conv2d(r, w4, padding=-1)
F.conv2d(r, w4, dilation=0); F.conv2d(r, w4, None, (1, 1, 1)); F.conv2d(r, w4, None, 1.5)
F.conv2d(r, w4, None, "a"); F.conv2d(r.double(), w4); F.conv2d(r, w4, m.ones(1, dtype=m.float64))
F.conv2d(r, w4.long()); F.conv2d(r, 3); F.conv2d(3, w4); F.conv2d(r, w4, 3); F.conv2d(r[:, :, :0], w4)
F.conv2d(r, w4[:, :, :0]); F.conv_transpose2d(r, w4); F.conv_transpose2d(r, m.ones(2, 1, 3, 3), output_padding=1)
F.conv_transpose2d(r, m.ones(2, 1, 3, 3), stride=2, output_padding=(1, 2))
F.conv_transpose2d(r, m.ones(2, 1, 3, 3), padding=9); F.conv_transpose2d(r, m.ones(2, 1, 3, 3), m.ones(2))
F.conv_transpose2d(r, m.ones(2, 1, 3, 3), output_padding=-1); F.conv_transpose2d(r, m.ones(2, 1, 3, 3), stride=0)
nn.Conv2d(2, 1, 3)(m.ones(1, 3, 5, 5)); nn.ConvTranspose2d(2, 1, 3, stride=2)(r, (20, 20))
nn.ConvTranspose2d(2, 1, 3, stride=2)(r, (11,)); nn.Conv2d(1, 1); nn.Conv2d(1, 1, 3, foo=1); nn.Conv2d(1, 1, "a")
nn.Linear(2); nn.Linear(2.5, 1); nn.Linear(-1, 2); nn.Linear(3, 2)(v[:2]); nn.Linear(3, 2)(x.double())
nn.Linear(3, 2)(i); F.linear(x, m.ones(2, 2)); F.linear(x, m.ones(2, 3), m.ones(3)); nn.Dropout(1.5)
nn.Dropout(-0.1); F.dropout(x, 2.0); F.mse_loss(x, x, reduction="none of these"); F.mse_loss(x)
nn.Flatten()(v); nn.Unflatten(1, (2, 2))(x); nn.Unflatten(1, 2.5); nn.Unflatten(1, "ab")
nn.Sequential(1); nn.Sequential(nn.ReLU)(x); nn.Sequential(nn.ReLU())[1]; nn.Module()(x); nn.Module().weight
nn.Linear(1, 1).nothing; setattr(nn.Linear(1, 1), "weight", x); setattr(nn.Sequential(nn.ReLU()), "0", 3)
nn.BatchNorm2d(3)(x); nn.BatchNorm2d(3)(r); nn.BatchNorm2d(2)(r[:, :, :1, :1]); nn.BatchNorm2d(2)(r.double())
nn.BatchNorm2d(2)(r.long()); nn.BatchNorm1d(2)(r); nn.BatchNorm1d(3)(x[:1]); nn.BatchNorm1d(2)(x); nn.BatchNorm2d("a")
nn.BatchNorm2d(-1); nn.BatchNorm2d(2.5); nn.Module().register_buffer("a", 3); nn.Module().register_buffer("a.b", None)
nn.Module().register_buffer("", None); nn.Module().register_buffer(3, None)
nn.Linear(1, 1).register_buffer("weight", x); setattr(nn.BatchNorm2d(3), "running_mean", 3)
nn.BatchNorm2d(3).load_state_dict({}); F.batch_norm(r, None, None); F.batch_norm(r, v[:2], None, training=True)
F.batch_norm(r, v[:2], v[:2], training=True, eps=0.0); F.batch_norm(r, v[:2], v[:2], eps=-1.0)
F.batch_norm(r, v[:2], v[:2], v[:1])
F.instance_norm(r, use_input_stats=False); F.instance_norm(r[:, :, :1, :1]); F.instance_norm(r.long())
F.instance_norm(x); nn.InstanceNorm2d(2)(x); nn.InstanceNorm2d(3, affine=True)(r); F.group_norm(r, 3)
F.group_norm(r[:, :, :1, :1], 2); F.group_norm(v, 1); F.group_norm(r.long(), 1); F.group_norm(r, 1, v[:1])
nn.GroupNorm(2, 3); F.layer_norm(x, (2,)); F.layer_norm(x, 3); F.layer_norm(x, ()); F.layer_norm(x, (3,), v[:2])
F.layer_norm(x.long(), (3,)); F.layer_norm(x, (3,), m.ones(3, dtype=m.float64)); nn.LayerNorm(3)(r)
nn.ModuleList([1]); nn.ModuleList(3); nn.ModuleList([nn.ReLU()])(x); nn.ModuleList()[0]; nn.Identity()()
nn.utils.clip_grad_value_([p], "a")
nn.Linear(1, 1).train("yes"); nn.Linear(1, 1).to(m.int64); nn.Linear(1, 1).to("nowhere")
nn.Module().register_parameter("a", x); nn.Module().register_parameter("a.b", None)
nn.Module().register_parameter("", None); nn.Linear(1, 1).add_module("weight", nn.ReLU())
nn.Module().add_module("a", 3); nn.Module().add_module("a.b", nn.ReLU()); nn.Module().add_module(3, nn.ReLU())
nn.Parameter(i); nn.Linear(1, 1).load_state_dict([1]); delattr(nn.Linear(1, 1), "nothing"); nn.ReLU()()
nn.ReLU()(x, x, x); nn.Linear(1, 1).load_state_dict({"weight": 3, "bias": 4})
optim.SGD([]); optim.SGD(p); optim.SGD([3]); optim.SGD([p * 1]); optim.SGD([{"params": [p]}, {"params": [p]}])
optim.SGD([p], lr=-1); optim.SGD([p], momentum=-1); optim.SGD([p], weight_decay=-1); optim.SGD([p], nesterov=True)
optim.SGD([p], momentum=0.9, dampening=0.1, nesterov=True); optim.SGD([{"lr": 1}]); optim.SGD(3); optim.SGD()
optim.Adam([p], lr=-1); optim.Adam([p], betas=(1.0, 0.9)); optim.Adam([p], betas=(0.9, -0.1))
optim.Adam([p], eps=-1); optim.Adam([p], weight_decay=-1); optim.Adam([p], foo=1); optim.Adam([])
optim.Adam(iter([])); optim.SGD([p]).load_state_dict(optim.SGD([p, m.zeros(1, requires_grad=True)]).state_dict())
optim.SGD([p]).load_state_dict({}); optim.SGD([p]).add_param_group(3)
optim.SGD([p]).add_param_group({"params": [p]}); optim.SGD([{"params": [p]}, [p]]); optim.SGD([p], lr="a")
optim.Adam([p], betas=0.9)
""".strip()
    .replace("\n", "; ")
    .split("; ")
)
STRICTER = {  # what minidl refuses on purpose, and PyTorch does not
    "F.mse_loss(x, x[:, :1])": ValueError,  # PyTorch warns
    "F.mse_loss(x[:, 0], x[:, :1])": ValueError,
    "F.interpolate(r, 3, mode='bilinear', antialias=True)": NotImplementedError,
    "(w := x.clone(), y := p * w, w.data.zero_(), y.sum().backward())": RuntimeError,  # one counter with x.data
}


def tried(m, text):
    """The exception that a statement ends in, or its result."""
    x = m.tensor([[1.0, 2, 3], [4, 5, 6]])
    space = {"m": m, "nn": m.nn, "F": m.nn.functional, "optim": m.optim, "np": np, "copy": copy}
    space |= {"x": x, "v": x[0].clone(), "i": m.tensor([[0, 1], [1, 0]]), "t": x > 2, "e": m.zeros(0, 3)}
    space |= {"r": m.ones(1, 2, 5, 5), "w4": m.ones(1, 2, 3, 3)}
    space |= {"p": x.clone().requires_grad_(), "grad": m.grad if m is minidl else m.autograd.grad}
    return attempt(exec, text, space)


@pytest.mark.parametrize("text", ERRORS)
def test_the_same_type_of_error(text):
    ours, theirs = (tried(m, text) for m in BOTH)
    assert isinstance(theirs, Exception), "PyTorch accepts this"
    assert isinstance(ours, Exception), f"minidl accepts this; PyTorch: {theirs!r}"
    assert isinstance(ours, type(theirs)), f"{ours!r}; PyTorch: {theirs!r}"


@pytest.mark.parametrize("text", STRICTER)
def test_refused_on_purpose(text):
    assert not isinstance(tried(torch, text), Exception)
    assert type(tried(minidl, text)) is STRICTER[text]
