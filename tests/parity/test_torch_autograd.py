"""Functions of one's own, hooks and containers, in both libraries by the same code."""

import pytest

import minidl
from tests.helpers.with_torch import BOTH, torch

pytestmark = pytest.mark.slow
FUNCTION = {minidl: minidl.function, torch: torch.autograd.function}


def plain(value):
    """Tensors as lists, errors as the names of their types."""
    if isinstance(value, minidl.Tensor | torch.Tensor):
        return [round(float(x), 5) for x in value.detach().reshape(-1)]
    if isinstance(value, tuple | list):
        return [plain(x) for x in value]
    return type(value).__name__ if isinstance(value, Exception) else value


def attempt(function, *args):
    try:
        return function(*args)
    except Exception as error:
        return error


def powers(m):
    class Cube(m.autograd.Function):
        @staticmethod
        def forward(ctx, x, k):
            y = x**3 * k
            ctx.save_for_backward(x, y)
            return y

        @staticmethod
        def backward(ctx, gy):
            x, y = ctx.saved_tensors
            return gy * 3 * y / x, None

    x = m.tensor([1.0, 2.0, -1.5], requires_grad=True)
    (g,) = m.autograd.grad(Cube.apply(x, 2).sum(), x, create_graph=True)
    return g, m.autograd.grad(g.sum(), x), attempt(Cube.apply, x)


def several_results(m):
    class Mix(m.autograd.Function):
        @staticmethod
        def forward(a, b):
            return a * b, a + b, a > b, 7

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)
            ctx.mark_non_differentiable(output[1])

        @staticmethod
        def backward(ctx, g_product, g_sum, g_mask, g_number):
            a, b = ctx.saved_tensors
            seen.append(g_sum)
            return g_product * b, (g_product * a if ctx.needs_input_grad[1] else None)

    seen, found = [], []
    for need in (True, False):
        a, b = m.tensor([1.0, 2.0], requires_grad=True), m.tensor([3.0, 4.0], requires_grad=need)
        product, total, mask, number = Mix.apply(a, b)
        product.sum().backward()
        found += [a.grad, b.grad, total.requires_grad, mask.requires_grad, number]
    return found, seen


def in_place(m):
    class Increment(m.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.mark_dirty(x)
            return x.add_(1)

        @staticmethod
        def backward(ctx, gy):
            return gy * 7

    x = m.tensor([1.0], requires_grad=True)
    y = x * 2
    z = Increment.apply(y)
    y.sum().backward()
    return z is y, x.grad, y, attempt(Increment.apply, x)


def returned_as_it_is(m):
    class Same(m.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x

        @staticmethod
        def backward(ctx, gy):
            return None

    x = m.tensor([1.0], requires_grad=True)
    y = Same.apply(x)
    y.sum().backward()
    return y is x, y.requires_grad, x.grad


def miscounted(m):
    def returning(*gradients):
        class Bad(m.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x * 2

            @staticmethod
            def backward(ctx, gy):
                return gradients

        x = m.tensor([1.0], requires_grad=True)
        return attempt(Bad.apply(x).backward) or x.grad

    one = m.ones(1)
    return returning(one), returning(one, None), returning(one, one), returning(None)


def once(m):
    class Once(m.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @FUNCTION[m].once_differentiable
        def backward(ctx, gy):
            return gy * 2 * ctx.saved_tensors[0]

    x = m.tensor([3.0], requires_grad=True)
    (g,) = m.autograd.grad(Once.apply(x), x, create_graph=True)
    return g, attempt(m.autograd.grad, g.sum(), x)


def tensor_hooks(m):
    log = []
    x = m.tensor([1.0, 2.0], requires_grad=True)
    y = x * 2
    y.retain_grad()
    y.register_hook(lambda g: log.append("y") or g * 5)
    x.register_hook(lambda g: log.append("x") or g + 1)
    x.register_post_accumulate_grad_hook(lambda p: log.append(plain(p.grad)))
    z = (y * x).sum()
    found = [*m.autograd.grad(z, x, retain_graph=True), *m.autograd.grad(z, y, retain_graph=True)]
    z.backward(retain_graph=True)
    found += [x.grad, y.grad, y.retains_grad, x.retains_grad]
    z.backward(inputs=[y])
    return log, found, x.grad, y.grad


def hooks_while_the_pass_goes_on(m):
    log = []
    a, b = m.tensor([1.0], requires_grad=True), m.tensor([2.0], requires_grad=True)
    u = a * 3
    u.register_hook(lambda g: log.append("u"))
    v = u * b
    b.register_post_accumulate_grad_hook(lambda p: log.append("b"))
    a.register_post_accumulate_grad_hook(lambda p: log.append("a"))
    v.backward()
    return log


def gradients_of_several(m):
    t, unused = m.tensor([1.0, 1.0], requires_grad=True), m.tensor([1.0], requires_grad=True)
    m.autograd.backward([(t * 2).sum(), (t * 3).sum()], [m.tensor(1.0), m.tensor(2.0)])
    found = m.autograd.grad((t * 2).sum(), [t, unused], materialize_grads=True)
    wrong = attempt(lambda: m.autograd.grad(t.sum(), t, allow_unused=False, materialize_grads=True))
    return t.grad, found, wrong, attempt(lambda: m.autograd.backward([t.sum()], [m.ones(1), m.ones(1)]))


def module_hooks(m):
    model = m.nn.Sequential(m.nn.Linear(2, 3), m.nn.ReLU(), m.nn.Linear(3, 1))
    for i, p in enumerate(model.parameters()):
        p.data = m.arange(p.numel()).reshape(p.shape).float() * 0.1 + 0.1 * i
    log = []
    for layer in model:
        layer.register_full_backward_hook(lambda module, gx, gy: log.append(plain((gx, gy))))
    model[0].register_full_backward_pre_hook(lambda module, gy: (gy[0] * 2,))
    model[2].register_full_backward_hook(lambda module, gx, gy: (gx[0] * 10,))
    model[2].register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    handle = model[2].register_forward_hook(lambda module, args, y: y * 3)
    model[1].register_forward_hook(lambda module, args, y: log.append(1))
    model[1].register_forward_hook(lambda module, args, y: log.append(2), prepend=True)
    x = m.tensor([[1.0, 2.0], [3.0, 4.0]])
    model(x).sum().backward()
    handle.remove()
    return log, [p.grad for p in model.parameters()], model(x)


def containers(m):
    nn, log = m.nn, []
    d = nn.ModuleDict({"a": nn.ReLU()})
    d.update([("b", nn.Linear(1, 2))])
    log += [repr(d), list(d), list(d.keys()), "a" in d, len(d), repr(d["a"]), repr(d.pop("a")), repr(d)]
    log += [attempt(lambda: d["zz"]), attempt(lambda: nn.ModuleDict({"a": 3}))]
    log += [attempt(lambda name=name: nn.ModuleDict({name: nn.ReLU()})) for name in ("a.b", "keys", "")]
    s = nn.Sequential(nn.ReLU(), nn.Tanh()).insert(1, nn.Sigmoid())
    log += [repr(s), repr(s.pop(0)), repr(s), repr(s + nn.Sequential(nn.ReLU())), repr(s[1:])]
    del s[0]
    s += nn.Sequential(nn.ReLU())
    log += [repr(s)]
    modules = nn.ModuleList([nn.ReLU()])
    modules.insert(0, nn.Tanh())
    modules += [nn.Sigmoid()]
    log += [repr(modules), repr(modules.pop(-1)), len(modules), repr(modules + [nn.Tanh()])]
    p = nn.ParameterList([m.zeros(2, 3), nn.Parameter(m.ones(1))]).append(m.ones(2))
    p[0] = nn.Parameter(m.ones(2))
    p += [m.zeros(1)]
    log += [[n for n, _ in p.named_parameters()], len(p), p[-1], len(p[:2]), list(p)]
    q = nn.ParameterDict({"a": m.zeros(2)})
    q["b"] = nn.Parameter(m.zeros(1))
    log += [list(q.keys()), [n for n, _ in q.named_parameters()], q["a"].requires_grad, list(q.state_dict())]
    return log


def buffers(m):
    class Net(m.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("kept", m.zeros(2))
            self.register_buffer("passing", m.zeros(1), persistent=False)
            self.layer = m.nn.Linear(1, 1)
            self.again = self.layer

    net = Net()
    net.passing = m.ones(1)
    listed = [
        net.named_buffers(), net.named_parameters(remove_duplicate=False), net.named_parameters(recurse=False),
        net.named_buffers(prefix="p", recurse=False),
    ]  # fmt: skip
    states = [net.state_dict(), net.state_dict(prefix="x."), m.nn.Sequential(net).state_dict()]
    kept = [value.requires_grad for value in net.state_dict(keep_vars=True).values()]
    return [[name for name, _ in named] for named in listed], list(map(list, states)), kept


@pytest.mark.parametrize(
    "run",
    [
        powers, several_results, in_place, returned_as_it_is, miscounted, once, tensor_hooks,
        hooks_while_the_pass_goes_on, gradients_of_several, module_hooks, containers, buffers,
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Full backward hook", "ignore:.*should not be instantiated")
def test_both_libraries_agree(run):
    ours, theirs = map(run, BOTH)
    assert plain(ours) == plain(theirs)
