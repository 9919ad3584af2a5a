"""Losses against their formulas, finite differences and extreme values; ReLU's rules; the Meter."""

import math

import numpy as np
import pytest
from hypothesis import strategies as st

import minidl
from minidl import nn

F = nn.functional
REDUCTIONS = st.sampled_from(["mean", "sum", "none"])


def leaf(array):
    return minidl.tensor(array, dtype=minidl.float64, requires_grad=True)


def test_nll_loss_is_the_other_half_of_cross_entropy():
    x, classes = minidl.randn(5, 3, 2), minidl.randint(3, (5, 2))
    for reduction in ("mean", "sum", "none"):
        halves = F.nll_loss(F.log_softmax(x, 1), classes, reduction=reduction)
        np.testing.assert_allclose(halves, F.cross_entropy(x, classes, reduction=reduction), rtol=1e-5)
    assert nn.NLLLoss()(minidl.tensor([-3.0, -1.0]), minidl.tensor(0)).item() == 3


def test_l1_loss_by_hand():
    assert nn.L1Loss()(minidl.tensor([1.0, -3.0]), minidl.tensor([2.0, 1.0])).item() == 2.5


def test_cross_entropy_by_hand():
    x = minidl.tensor([[0.0, math.log(3)], [math.log(7), 0.0]])
    t = minidl.tensor([1, 1])
    assert F.cross_entropy(x, t, reduction="none").tolist() == pytest.approx([math.log(4 / 3), math.log(8)])
    assert F.cross_entropy(x, t).item() == pytest.approx((math.log(4 / 3) + math.log(8)) / 2)
    assert F.cross_entropy(x[0], t[0]).item() == pytest.approx(math.log(4 / 3))
    assert F.cross_entropy(x.T.reshape(1, 2, 2, 1), minidl.tensor([[[1], [1]]])).item() == pytest.approx(
        F.cross_entropy(x, t).item()
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_exact_at_extreme_logits(dtype):
    x = minidl.tensor([[1e4, -1e4], [-1e4, 1e4], [1e4, 1e4]], dtype=dtype, requires_grad=True)
    losses = F.cross_entropy(x, minidl.tensor([0, 0, 0]), reduction="none")
    assert losses.tolist() == [0.0, 2e4, np.asarray(math.log(2), dtype).item()]
    losses.sum().backward()
    assert x.grad.tolist() == [[0, 0], [-1, 1], [-0.5, 0.5]]
    x = minidl.tensor([1e4, -1e4, 1e4, -1e4, 0.0], dtype=dtype, requires_grad=True)
    t = minidl.tensor([1.0, 0.0, 0.0, 1.0, 0.25], dtype=dtype)
    losses = F.binary_cross_entropy_with_logits(x, t, reduction="none")
    assert losses.tolist() == [0, 0, 1e4, 1e4, np.asarray(math.log(2), dtype).item()]
    losses.sum().backward()
    assert x.grad.tolist() == [0, 0, 1, -1, 0.25]


def test_binary_cross_entropy_at_certain_predictions():
    x = minidl.tensor([0.0, 1.0, 0.0, 1.0], requires_grad=True)
    losses = F.binary_cross_entropy(x, minidl.tensor([0.0, 1.0, 1.0, 0.0]), reduction="none")
    assert losses.tolist() == [0, 0, 100, 100]
    losses.sum().backward()
    assert x.grad.tolist() == pytest.approx([0, 0, -1e12, 1e12])


def test_the_kl_of_gaussians_against_the_integral():
    mean, log_var = 0.7, -0.9
    z = np.linspace(-12, 12, 200_001)
    log_q = -0.5 * (np.log(2 * np.pi) + log_var + (z - mean) ** 2 / np.exp(log_var))
    log_p = -0.5 * (np.log(2 * np.pi) + z**2)
    integral = np.sum(np.exp(log_q) * (log_q - log_p)) * (z[1] - z[0])
    kl = F.gaussian_kl(minidl.tensor([mean], dtype="float64"), minidl.tensor([log_var], dtype="float64"))
    assert kl.item() == pytest.approx(integral, rel=1e-6)
    both = F.gaussian_kl(minidl.randn(5, 3), minidl.randn(5, 3), reduction="none")
    assert both.shape == (5, 3)
    assert (both >= 0).numpy().all()


def test_a_regularised_loss_shows_both_terms():
    criterion = nn.RegularisedLoss(nn.MSELoss(), F.gaussian_kl, weight=3.0)
    x = minidl.tensor([1.0, 3.0], requires_grad=True)
    mean = minidl.tensor([2.0], requires_grad=True)
    total = criterion((x, minidl.zeros(2)), (mean, minidl.zeros(1)))
    assert (total.item(), criterion.loss_term, criterion.regulariser_term) == (11.0, 5.0, 2.0)
    total.backward()
    assert (x.grad.tolist(), mean.grad.tolist()) == ([1, 3], [6])
    criterion.weight = 0.0
    assert criterion((x, x), (mean, minidl.zeros(1))).item() == 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda x, p: F.cross_entropy(x, minidl.tensor([0, 3])),
            IndexError,
            r"target 3 at index \(1,\) is out of bounds: logits of shape \(2, 3\)",
        ),
        (lambda x, p: F.cross_entropy(x, minidl.tensor([0, -1])), IndexError, "have classes 0 to 2;"),
        (
            lambda x, p: F.cross_entropy(x, minidl.tensor([0.0, 1.0])),
            RuntimeError,
            r"int64, not float32; convert it with .long\(\)",
        ),
        (lambda x, p: F.cross_entropy(x, minidl.tensor([0])), ValueError, r"need a target of shape \(2,\), not \(1,\)"),
        (lambda x, p: F.cross_entropy(x, minidl.tensor([[0], [1]])), RuntimeError, r"of shape \(2,\), not \(2, 1\)"),
        (lambda x, p: F.cross_entropy(x, [0, 1]), TypeError, "target must be a Tensor, not list"),
        (lambda x, p: nn.CrossEntropyLoss(reduction="max")(x, minidl.tensor([0, 1])), ValueError, "not 'max'"),
        (lambda x, p: F.binary_cross_entropy(p, p[0]), ValueError, r"shapes \(2, 3\) and \(3,\) differ"),
        (lambda x, p: F.binary_cross_entropy(p * 2, p), RuntimeError, "of input must lie between 0 and 1.* to 2;"),
        (lambda x, p: F.binary_cross_entropy(p, p - 2), RuntimeError, "of target must lie between 0 and 1"),
        (lambda x, p: F.binary_cross_entropy(p * float("nan"), p), RuntimeError, "from nan to nan"),
        (lambda x, p: F.binary_cross_entropy(p, p.long()), RuntimeError, "both float64, not float32 and int64"),
        (lambda x, p: F.binary_cross_entropy_with_logits(x, p.long()), RuntimeError, "must be float tensors, not"),
        (lambda x, p: F.binary_cross_entropy_with_logits(x, p[:1]), ValueError, "differ"),
        (lambda x, p: F.gaussian_kl(x, p[0]), ValueError, "gaussian_kl: shapes"),
        (lambda x, p: minidl.Meter("per epoch"), ValueError, "unit must be 'per pixel'"),
        (lambda x, p: minidl.Meter("per image").update(1.0, 0), ValueError, "samples, must be at least 1, not 0"),
        (lambda x, p: minidl.relu_rule("deconvnet").__enter__(), ValueError, "not 'deconvnet'"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call(minidl.zeros(2, 3), minidl.ones(2, 3))


def test_a_meter_weighs_batches_by_their_samples():
    per_image, per_batch = minidl.Meter("per image"), minidl.Meter("per batch")
    for value, n in ((1.0, 30), (5.0, 10)):
        per_image.update(value, n)
        per_batch.update(value, n)
    assert (str(per_image), str(per_batch)) == ("2.00000 per image", "3.00000 per batch")
    per_image.reset()
    assert math.isnan(per_image.average)


@pytest.mark.parametrize(
    ("rule", "expected"), [("gradient", [0, 0, -3, 4]), ("deconv", [0, 2, 0, 4]), ("guided", [0, 0, 0, 4])]
)
def test_what_relu_does_with_a_gradient(rule, expected):
    x = minidl.tensor([-1.0, -1.0, 1.0, 1.0], requires_grad=True)
    gy = minidl.tensor([-1.0, 2.0, -3.0, 4.0], requires_grad=True)
    y = F.relu(x)
    with minidl.relu_rule(rule):
        (gx,) = minidl.grad(y, x, gy, create_graph=True)
    assert gx.tolist() == expected
    passed = minidl.grad(gx.sum(), gy)[0]
    assert passed.tolist() == [float(g != 0) for g in expected]
    assert minidl.grad(F.relu(x), x, gy)[0].tolist() == [0, 0, -3, 4]  # the rule ends with the context


def test_the_kl_keeps_its_digits_near_the_prior():
    log_var = minidl.tensor([1e-4, -1e-4, 3e-5], requires_grad=True)
    kl = F.gaussian_kl(minidl.zeros(3), log_var, reduction="none")
    assert kl.tolist() == pytest.approx([v * v / 4 for v in (1e-4, 1e-4, 3e-5)], rel=1e-2)
    kl.sum().backward()
    assert log_var.grad.tolist() == pytest.approx([0.5e-4, -0.5e-4, 1.5e-5], rel=1e-3)


@pytest.mark.parametrize("rule", ["deconv", "guided"])
def test_second_gradients_inside_a_rule(rule):
    x, gy = minidl.ones(2), minidl.tensor([1.0, -1.0], requires_grad=True)
    with minidl.relu_rule(rule):
        (gx,) = minidl.grad(F.relu(x.requires_grad_()), x, gy, create_graph=True)
        assert minidl.grad(gx.sum(), gy)[0].tolist() == [1, 0]


def test_variants_of_losses_are_refused_by_name():
    with pytest.raises(
        TypeError, match=r"CrossEntropyLoss\(weight=None, .*: got an unexpected keyword argument 'weights'"
    ):
        nn.CrossEntropyLoss(weights=minidl.ones(3))
    with pytest.raises(TypeError, match="arguments as tuples"):
        nn.RegularisedLoss(nn.MSELoss(), F.gaussian_kl)(minidl.ones(2, 4), minidl.ones(2, 4))
    with pytest.raises(RuntimeError, match=r"must be floats of shape \(N, classes, ...\), not float32 of shape \(\)"):
        F.cross_entropy(minidl.tensor(1.0), minidl.tensor([0]))


def test_mixed_second_gradient_of_binary_cross_entropy_at_certain_predictions():
    x = minidl.tensor([0.0, 1.0, 0.5], requires_grad=True)
    t = minidl.tensor([0.0, 1.0, 1.0], requires_grad=True)
    (gt,) = minidl.grad(F.binary_cross_entropy(x, t, reduction="sum"), t, create_graph=True)
    assert gt.tolist() == pytest.approx([100, -100, 0])
    assert minidl.grad(gt.sum(), x)[0].tolist() == pytest.approx([-1e12, -1e12, -4])


def test_half_precision_is_summed_in_single():
    x = minidl.full((100_000,), 2.0).to(minidl.float16).requires_grad_()
    loss = F.mse_loss(x, minidl.zeros(100_000, dtype=minidl.float16))
    assert (loss.item(), loss.dtype) == (4, minidl.float16)
    loss.backward()
    assert x.grad.dtype == minidl.float16
    assert minidl.ones(3000, 2, dtype=minidl.float16).sum(0).tolist() == [3000, 3000]


def test_a_meter_is_formatted_like_its_average():
    meter = minidl.Meter("per image")
    meter.update(1.25, 2)
    assert (f"{meter:.1f}", float(meter), repr(meter)) == ("1.2", 1.25, "1.25000 per image")


@pytest.mark.parametrize(
    ("options", "losses", "mean"),
    [
        ({}, [3, 2, 5], 10 / 3),
        ({"ignore_index": 2}, [3, 2, 0], 5 / 2),
        ({"weight": [1.0, 2.0, 3.0]}, [3, 4, 15], 22 / 6),
        ({"weight": [1.0, 2.0, 3.0], "ignore_index": 0}, [0, 4, 15], 19 / 5),
        ({"ignore_index": -1, "target": [-1, 1, -1]}, [0, 2, 0], 2),
    ],
)
def test_weights_and_ignored_classes_by_hand(options, losses, mean):
    log_p = minidl.tensor([[-3.0, -1.0, -1.0], [-1.0, -2.0, -1.0], [-1.0, -1.0, -5.0]], requires_grad=True)
    target = minidl.tensor(options.pop("target", [0, 1, 2]))
    if "weight" in options:
        options["weight"] = minidl.tensor(options["weight"])
    assert nn.NLLLoss(reduction="none", **options)(log_p, target).tolist() == losses
    total = nn.NLLLoss(**options)(log_p, target)
    assert total.item() == pytest.approx(mean)
    total.backward()
    weights = [w * (loss > 0) for w, loss in zip(options.get("weight", minidl.ones(3)).tolist(), losses, strict=True)]
    np.testing.assert_allclose(np.diag(log_p.grad.numpy()), [-w / sum(weights) for w in weights])


def test_smoothing_is_a_target_of_probabilities():
    x, target = minidl.randn(4, 3, 2), minidl.randint(3, (4, 2))
    smooth = 0.9 * F.one_hot(target, 3).permute(0, 2, 1).float() + 0.1 / 3
    for weight in (None, minidl.tensor([0.2, 1.0, 0.5])):
        losses = F.cross_entropy(x, target, weight, label_smoothing=0.1, reduction="none")
        np.testing.assert_allclose(losses, F.cross_entropy(x, smooth, weight, reduction="none"), rtol=1e-5)
    assert F.cross_entropy(x[0, :, 0], smooth[0, :, 0]).item() == pytest.approx(
        F.cross_entropy(x[0, :, 0], target[0, 0], label_smoothing=0.1).item()
    )


def test_further_losses_by_hand():
    x, t = minidl.tensor([0.0, 0.5, 3.0]), minidl.tensor([0.0, 1.0, 1.0])
    assert F.huber_loss(x, t, "none", 1.5).tolist() == [0, 0.125, 1.875]
    assert F.smooth_l1_loss(x, t, beta=1.5, reduction="none").tolist() == pytest.approx([0, 0.125 / 1.5, 1.25])
    assert F.smooth_l1_loss(x, t, beta=0.0, reduction="sum").item() == 2.5
    two = minidl.tensor([[0.0, 1.0], [1.0, 2.0]])
    assert F.kl_div(minidl.zeros(2, 2), two, reduction="batchmean").item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("other", ["float16", "float32", "float64", "int64"])
def test_losses_of_half_precision_are_summed_in_float32(other):
    x, t = minidl.full((300, 300), 2.0, dtype=minidl.float16), minidl.ones(300, 300, dtype=other)
    for input, target in ((x, t), (t, x)):
        loss = F.mse_loss(input, target)  # the sum of squares is 90,000, and float16 ends at 65,504
        assert loss.dtype == ("float16" if other == "int64" else other)
        assert loss.item() == 1


def test_one_image_may_be_given_by_name():
    image, filters = minidl.ones(3, 8, 8), minidl.ones(2, 3, 3, 3)
    assert F.conv2d(weight=filters, input=image).shape == (2, 6, 6)
    y, places = F.max_pool2d(kernel_size=2, input=image, return_indices=True)
    assert F.max_unpool2d(y, indices=places, kernel_size=2).shape == image.shape
