"""Every operation's first and second gradient against differences, and all else that an operation owes its users.

`property_test_gradient` says what that is. Values keep away from kinks (0, ties, bounds), where a difference quotient
is no gradient.
"""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st

import minidl
from minidl import check_adjoint, gradcheck, nn
from minidl.testing import (
    broadcastable_shapes,
    conv_geometries,
    models,
    pool_geometries,
    property_test_gradient,
    shapes,
    tensors,
)
from tests.helpers.grouped import grouped

F = nn.functional
REDUCTIONS = st.sampled_from(["mean", "sum", "none"])
UNARY = {
    "neg": lambda x: -x,
    "exp": minidl.exp,
    "abs": abs,
    "tanh": minidl.tanh,
    "relu": F.relu,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.3),
    "leaky_relu in place": lambda x: F.leaky_relu(x * 2, 0.3, inplace=True),
    "sigmoid": F.sigmoid,
    "clamp": lambda x: x.clamp(-0.34, 0.44),
    "clamp below": lambda x: x.clamp(min=0.23),
    "square": lambda x: x**2,
    "cube": lambda x: x**3,
    "power 0": lambda x: x**0,
    "reciprocal": lambda x: 1 / x,
    "base 2": lambda x: 2**x,
    "own product": lambda x: x * x,
    "own quotient": lambda x: x / x,
    "mean": lambda x: x.mean(),
    "sum 0": lambda x: x.sum(0),
    "sum -1 keepdim": lambda x: x.sum(-1, keepdim=True),
    "mean all dims": lambda x: x.mean(tuple(range(x.ndim))),
    "var": lambda x: x.var(unbiased=False),
    "var 0": lambda x: x.var(0, unbiased=False),
    "max": lambda x: x.max(),
    "max -1": lambda x: x.max(-1).values,
    "max 0 keepdim": lambda x: x.max(0, keepdim=True)[0],
    "softmax": lambda x: x.softmax(-1),
    "log_softmax": lambda x: F.log_softmax(x, 0),
    "reshape": lambda x: x.reshape(-1),
    "flatten": lambda x: x.flatten(),
    "transpose": lambda x: x.transpose(0, -1),
    "permute": lambda x: x.permute(*reversed(range(x.ndim))),
    "squeeze": lambda x: x.squeeze(),
    "unsqueeze": lambda x: x.unsqueeze(1),
    "expand": lambda x: x.expand(2, *x.shape),
    "first": lambda x: x[0],
    "slices": lambda x: x[..., ::2],
    "new axis": lambda x: x[None, ..., None],
    "repeated rows": lambda x: x[[0, 0, -1]],
    "mask": lambda x: x[x > 0],
    "split": lambda x: [part * i for i, part in enumerate(x.split(2), 1)][-1],
    "chunk": lambda x: minidl.cat([part * i for i, part in enumerate(x.chunk(2, -1), 1)], -1),
    "unbind": lambda x: x.unbind(-1)[-1] ** 2,
    "repeat": lambda x: x.repeat(2, *[1] * (x.ndim - 1), 3) ** 2,
    "expand_as": lambda x: x.expand_as(minidl.zeros(2, *x.shape)),
    "sign": lambda x: x.sign() * x,
    "square function": lambda x: minidl.square(x),
    "clamp in place": lambda x: (x * 2).clamp_(-0.68, 0.88),
    "pad": lambda x: F.pad(x, (1, 2), value=3.0),
    "crop": lambda x: F.pad(x, (-1, 1)),
    "clone": lambda x: x.clone(),
    "contiguous": lambda x: x.transpose(0, -1).contiguous(),
    "stack": lambda x: minidl.stack([x, x * 2], 1),
    "where": lambda x: minidl.where(x > 0, x * x, -x),
    "copy in place": lambda x: (x * 2).copy_(x**2),
    "add in place": lambda x: (x * 2).add_(x, alpha=3),
    "zeroed in place": lambda x: (x * 2).zero_() + x**2,
}
POSITIVE = {"log": minidl.log, "sqrt": minidl.sqrt, "power 1.5": lambda x: x**1.5, "x to x": lambda x: x**x}
BINARY = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "maximum": minidl.maximum,
    "max of two": lambda a, b: minidl.max(a, b),
    "where": lambda a, b: minidl.where(minidl.tensor(True), a, b) * b,
    "alpha": lambda a, b: minidl.add(a, b, alpha=-2),
}


def several(shapes, **options):
    """A tensor of each of the drawn shapes; of all their values no two are equal."""

    def split(x, sizes):
        ends = np.cumsum([int(np.prod(size)) for size in sizes])[:-1]
        parts = zip(np.split(x.array, ends), sizes, strict=True)
        return [minidl.tensor(part.reshape(size), requires_grad=True) for part, size in parts]

    def drawn(sizes):
        return tensors((sum(int(np.prod(size)) for size in sizes),), **options).map(lambda x: split(x, sizes))

    return shapes.flatmap(drawn)


# Five examples of each operation in the normal run, which are several hundred of them all; elsewhere the profile's.
of_many = settings(max_examples=5 if settings().max_examples == 10 else settings().max_examples)


@pytest.mark.parametrize("name", UNARY)
@of_many
@property_test_gradient(tensors(shapes(min_dims=1, max_side=3), kinks=(0, -0.34, 0.44, 0.23)))
def test_unary(name, x):
    return UNARY[name](x)


@pytest.mark.parametrize("name", POSITIVE)
@property_test_gradient(tensors(shapes(), low=0.1))
def test_positive(name, x):
    return POSITIVE[name](x)


@pytest.mark.parametrize("name", BINARY)
@property_test_gradient(several(broadcastable_shapes()))
def test_binary(name, inputs):
    return BINARY[name](*inputs)


@property_test_gradient(
    several(
        st.sampled_from(
            [
                ((3,), (3,)),
                ((2, 3), (3,)),
                ((3,), (3, 2)),
                ((2, 3), (3, 4)),
                ((5, 2, 3), (3, 4)),
                ((2, 1, 2, 3), (4, 3, 1)),
            ]
        )
    )
)
def test_matmul(inputs):
    return minidl.matmul(*inputs)


@property_test_gradient(several(st.sampled_from([((3,), (4, 3), (4,)), ((2, 3), (4, 3)), ((2, 2, 3), (4, 3), (4,))])))
def test_linear(inputs):
    return F.linear(*inputs)


@property_test_gradient(several(st.integers(1, 3).map(lambda n: [(2, m, 2) for m in (1, n, 2)])))
def test_cat(parts):
    return minidl.cat(parts, 1)


@property_test_gradient(tensors((2, 3)), tensors((2,)))
def test_assignment_to_an_index(x, v):
    y = x * 2
    y[:, 1] = v
    y[0] += 3 * v[0]
    y[1] *= 2
    return y


def test_conversion_of_dtypes():
    x = minidl.tensor([0.5, -2.0], dtype=minidl.float64, requires_grad=True)
    assert gradcheck(lambda x: x.to(minidl.float64) * 2, x)
    y = x.float()
    y.backward(minidl.tensor([1.0, 3.0]))
    assert x.grad.dtype == minidl.float64
    assert x.grad.tolist() == [1, 3]


# -- convolution, pooling, upsampling -----------------------------------------------------------------------------

SMALL = grouped(conv_geometries(max_batch=2, max_channels=2, max_kernel=2, max_extra=2), 2)


def trilinear(part):
    """Geometries with tensors of an image or a map, a weight, and a bias."""

    def drawn(g):
        channels = g.map_channels if part == "image_shape" else g.image_channels
        return st.tuples(st.just(g), tensors(getattr(g, part)), tensors(g.weight_shape), tensors((channels,)))

    return SMALL.flatmap(drawn)


@property_test_gradient(trilinear("image_shape"))
def test_conv2d(case):
    g, x, w, b = case
    return F.conv2d(x, w, b, g.stride, g.padding, g.dilation, g.groups)


@property_test_gradient(trilinear("map_shape"))
def test_conv_transpose2d(case):
    g, y, w, b = case
    return F.conv_transpose2d(y, w, b, g.stride, g.padding, g.output_padding, g.groups, g.dilation)


def test_transposed_convolution_is_the_adjoint_of_convolution():
    w = minidl.randn(4, 3, 3, 3)
    assert check_adjoint(
        lambda x: F.conv2d(x, w, stride=2, padding=1),
        lambda y: F.conv_transpose2d(y, w, stride=2, padding=1, output_padding=(0, 1)),
        (2, 3, 7, 8),
        (2, 4, 4, 4),
    )


def pooled(dilated):
    """Geometries with a tensor of an image without ties."""
    geometries = pool_geometries(max_batch=2, max_channels=2, max_kernel=2, dilated=dilated)
    return geometries.flatmap(lambda g: st.tuples(st.just(g), tensors(g.image_shape)))


@property_test_gradient(pooled(dilated=True))
def test_max_pool2d(case):
    g, x = case
    return F.max_pool2d(x, g.kernel, g.stride, g.padding, g.dilation, g.ceil_mode) ** 2


@property_test_gradient(st.booleans(), pooled(dilated=False))
def test_avg_pool2d(count_include_pad, case):
    g, x = case
    return F.avg_pool2d(x, g.kernel, g.stride, g.padding, g.ceil_mode, count_include_pad) ** 2


@property_test_gradient(st.booleans(), tensors((2, 1, 2, 3), np.int64, low=0, high=4 * 7 - 1), tensors((2, 1, 2, 3)))
def test_max_unpool2d(overlap, indices, y):
    """Also where an index comes twice: then its values add up."""
    return (
        F.max_unpool2d(y, indices, (3, 3), (1, 2) if overlap else (2, 2), output_size=None if overlap else (5, 7)) ** 2
    )


@property_test_gradient(
    st.fixed_dictionaries({"size": st.none(), "scale_factor": st.sampled_from([1, 1.5, 2, (2, 3)])})
    | st.fixed_dictionaries({"size": st.tuples(st.integers(1, 6), st.integers(1, 6))}),
    st.sampled_from([("nearest", None), ("bilinear", None), ("bilinear", True), ("bilinear", False)]),
    tensors(shapes(min_dims=4, max_dims=4, max_side=3)),
)
def test_interpolate(size, mode, x):
    return F.interpolate(x, **size, mode=mode[0], align_corners=mode[1]) ** 2


# -- losses, models -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss", ["mse_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "gaussian_kl"]
)
@property_test_gradient(
    REDUCTIONS, shapes(max_side=3).flatmap(lambda s: st.tuples(*[tensors(s, low=0.1, high=0.9)] * 2))
)
def test_elementwise_losses(loss, reduction, inputs):
    return getattr(F, loss)(*inputs, reduction=reduction)


@property_test_gradient(REDUCTIONS, several(shapes().map(lambda s: (s, s))))
def test_l1_loss(reduction, inputs):
    return F.l1_loss(*inputs, reduction=reduction)


@pytest.mark.parametrize("loss", ["cross_entropy", "nll_loss"])
@property_test_gradient(
    REDUCTIONS,
    shapes(min_dims=2, max_side=3).flatmap(
        lambda s: st.tuples(tensors(s), tensors((s[0], *s[2:]), np.int64, low=0, high=s[1] - 1))
    ),
)
def test_losses_of_classes(loss, reduction, case):
    return getattr(F, loss)(*case, reduction=reduction)


def target(x, values=(1, -1)):
    return minidl.tensor(values, device=x.device)


FURTHER_LOSSES = {
    "huber_loss": lambda x, t, v, **r: F.huber_loss(x, t, delta=0.7, **r),
    "smooth_l1_loss": lambda x, t, v, **r: F.smooth_l1_loss(x, t, beta=0.4, **r),
    "kl_div": lambda x, t, v, **r: F.kl_div(x, v, **r),
    "kl_div of logarithms": lambda x, t, v, **r: F.kl_div(x, t, log_target=True, **r),
    "bce with weights": lambda x, t, v, **r: F.binary_cross_entropy(x.sigmoid(), t.sigmoid(), v, **r),
    "bce with pos_weight": lambda x, t, v, **r: F.binary_cross_entropy_with_logits(x, t, v, pos_weight=v[0], **r),
    "nll_loss": lambda x, t, v, **r: F.nll_loss(x, target(x), v[0], ignore_index=-1, **r),
    "cross_entropy": lambda x, t, v, **r: F.cross_entropy(
        x, target(x), v[0], ignore_index=-1, label_smoothing=0.2, **r
    ),
    "cross_entropy of probabilities": lambda x, t, v, **r: F.cross_entropy(x, t, v[0], label_smoothing=0.2, **r),
}


@pytest.mark.parametrize("loss", FURTHER_LOSSES)
@settings(max_examples=max(2, settings().max_examples // 5), deadline=None)
@property_test_gradient(REDUCTIONS, st.tuples(tensors((2, 3)), tensors((2, 3)), tensors((2, 3), low=1.0, high=2.0)))
def test_further_losses(loss, reduction, inputs):
    return FURTHER_LOSSES[loss](*inputs, reduction=reduction)


@property_test_gradient(models(max_layers=5, dtype=np.float64).filter(lambda case: case[1].numel() < 100))
def test_models(case):
    """In the values of all parameters and, where it requires grad, of the input."""
    model, x = case
    return model(x)


@property_test_gradient(
    st.booleans(),
    several(st.sampled_from([((3, 2), (2,), (2,)), ((2, 2, 3), (2,), (2,)), ((2, 1, 2, 2), (1,), (1,))])),
)
def test_batch_norm(training, inputs):
    x, w, b = inputs
    mean, var = (minidl.full(w.shape, value, dtype=x.dtype) for value in (0.25, 2.0))
    y = F.batch_norm(x, mean, var, w, b, training, eps=0.1)
    return y + F.batch_norm(x, mean, var, training=True, eps=0.1) if training else y


PARAMETERS = st.sampled_from([(True, True), (True, False), (False, True)])


@property_test_gradient(
    PARAMETERS, several(st.sampled_from([((2, 2, 3), (2,), (2,)), ((1, 3, 2, 2), (3,), (3,))])), st.booleans()
)
def test_instance_norm(given, inputs, use_input_stats):
    x, *parameters = inputs
    mean, var = (minidl.full((x.shape[1],), value, dtype=x.dtype) for value in (0.25, 2.0))
    w, b = (p if wanted else None for p, wanted in zip(parameters, given, strict=True))
    return F.instance_norm(x, mean, var, w, b, use_input_stats, eps=0.1)


@property_test_gradient(
    PARAMETERS, several(st.sampled_from([((2, 4, 2), (4,), (4,)), ((1, 2, 2, 2), (2,), (2,))])), st.sampled_from([1, 2])
)
def test_group_norm(given, inputs, groups):
    x, *parameters = inputs
    return F.group_norm(x, groups, *(p if wanted else None for p, wanted in zip(parameters, given, strict=True)), 0.1)


@property_test_gradient(
    PARAMETERS, several(st.sampled_from([((2, 4), (4,), (4,)), ((2, 3, 2), (3, 2), (3, 2)), ((3,), (3,), (3,))]))
)
def test_layer_norm(given, inputs):
    x, *parameters = inputs
    w, b = (p if wanted else None for p, wanted in zip(parameters, given, strict=True))
    return F.layer_norm(x, inputs[1].shape, w, b, 0.1)


@property_test_gradient(PARAMETERS, several(st.just(((2, 2, 3, 2), (2,), (2,)))))
def test_batch_norm_of_channels_last(given, inputs):
    x, w, b = inputs
    last = F.conv2d(x, minidl.eye(2, dtype=x.dtype).reshape(2, 2, 1, 1))
    return F.batch_norm(last, None, None, w if given[0] else None, b if given[1] else None, True, eps=0.1)


def test_the_sums_of_a_gradient_changed_in_place_are_not_reused():
    x, w = minidl.randn(4, 3, requires_grad=True), minidl.ones(3, requires_grad=True)
    y, gy = F.batch_norm(x, None, None, w, training=True), minidl.randn(4, 3)
    y.backward(gy, retain_graph=True)
    first, w.grad = w.grad, None
    gy.mul_(2)
    y.backward(gy)
    np.testing.assert_allclose(w.grad, 2 * first.numpy(), 1e-6)


def test_dropout_scales_what_it_keeps():
    x = minidl.ones(1000, requires_grad=True)
    y = F.dropout(x, 0.25)
    y.sum().backward()
    assert set(np.unique(y.detach().numpy())) == {0, np.float32(1 / 0.75)}
    assert 200 < (y == 0).sum().item() < 300
    assert (x.grad == y).numpy().all()
    assert F.dropout(x, 0.25, training=False) is x
