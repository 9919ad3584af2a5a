"""Wrong arguments, by the thousand: every call of a list with every value that does not belong there."""

import re

import pytest

from tests.helpers.with_torch import BOTH
from tests.parity.test_torch_nn import tried

VALUES = ["3", "'a'", "None", "[1.0]", "m.tensor", "-1", "2.5", "float('nan')", "(1, 2, 3)", "()", "{}"]
TENSORS_TOO = [*VALUES, "x.double()", "i", "t"]
TENSORS = """
m.exp(_); m.log(_); m.sqrt(_); m.abs(_); m.neg(_); m.tanh(_); m.sigmoid(_); m.relu(_); m.sum(_); m.mean(_); m.var(_)
m.std(_); m.max(_); m.min(_); m.argmax(_); m.all(_); m.any(_); m.flatten(_); m.squeeze(_); m.clone(_); F.relu(_)
F.sigmoid(_); F.tanh(_); m.zeros_like(_); m.ones_like(_); m.rand_like(_); m.randn_like(_); m.full_like(_, 1)
m.softmax(_, 0); m.log_softmax(_, 0); m.reshape(_, (1,)); m.transpose(_, 0, 1); m.permute(_, (0,)); m.unsqueeze(_, 0)
m.clamp(_, 0, 1); m.stack(_); m.cat(_); m.where(_, x, x); m.where(t, _, x); m.matmul(x, _); m.matmul(_, x)
m.add(x, _); m.add(_, x); m.mul(x, _); m.sub(_, x); m.div(x, _); m.pow(x, _); m.lt(x, _); x & _; t | _
F.pad(_, (1, 1)); F.dropout(_); F.linear(_, x); F.linear(x, _); F.linear(x, x, _); F.conv2d(_, w4); F.conv2d(r, _)
F.conv2d(r, w4, _); F.conv_transpose2d(_, w4); F.conv_transpose2d(r, w4.transpose(0, 1), _); F.max_pool2d(_, 2)
F.avg_pool2d(_, 2); F.max_unpool2d(_, i, 2); F.interpolate(_, 2); F.mse_loss(_, x); F.mse_loss(x, _)
F.cross_entropy(_, i[0]); F.cross_entropy(x, _); F.binary_cross_entropy(_, x); F.binary_cross_entropy(x * 0, _)
F.binary_cross_entropy_with_logits(_, x); F.binary_cross_entropy_with_logits(x, _); nn.Sequential(_); nn.ReLU()(_)
nn.Sigmoid()(_); nn.Tanh()(_); nn.Parameter(_); nn.Linear(3, 1)(_); nn.Conv2d(2, 1, 3)(_); nn.Flatten()(_)
x.view_as(_); x.add_(_); x.sub_(_); x.mul_(_); x.div_(_); x.copy_(_); x.fill_(_); setattr(x, 'grad', _)
setattr(x, 'data', _); m.from_numpy(_); m.min(x, other=_); m.max(x, other=_)
""".strip().replace("\n", "; ").split("; ")  # fmt: skip
ARGUMENTS = """
F.pad(x, _); F.dropout(x, _); F.conv2d(r, w4, None, _); F.conv2d(r, w4, None, 1, _); F.max_pool2d(r, _)
F.max_pool2d(r, 2, 2, _); F.avg_pool2d(r, _); F.avg_pool2d(r, 2, 2, _); F.interpolate(r, _); F.interpolate(r, None, _)
F.interpolate(r, 2, mode=_); F.mse_loss(x, x, reduction=_); F.cross_entropy(x, i[0], reduction=_); x.reshape(_)
x.view(_); x.permute(_); x.transpose(_, 0); x.unsqueeze(_); x.expand(_); x.flatten(_); x.unflatten(0, _); x.sum(_)
x.mean(_); x.var(_); x.std(_); x.argmax(_); x.softmax(_); x.clamp(_); x[_]; x.to(_); x.type(_); p.sum().backward(_)
x.requires_grad_(_); setattr(x, 'requires_grad', _); m.zeros(_); m.ones(2, dtype=_); m.full(_, 1); m.full((2,), _)
m.arange(_); m.linspace(_, 1, 3); m.linspace(0, 1, _); m.eye(_); m.rand(_); m.randn(_); m.randint(_, (2,))
m.randint(3, _); m.randperm(_); m.full_like(x, _); nn.Linear(_, 2); nn.Linear(2, _); nn.Conv2d(_, 1, 3)
nn.Conv2d(1, _, 3); nn.Conv2d(1, 1, _); nn.Conv2d(1, 1, 3, _)(r[:, :1]); nn.ConvTranspose2d(_, 1, 3)
nn.ConvTranspose2d(1, 1, _); nn.Dropout(_); nn.Flatten(_)(r); nn.Unflatten(1, _); nn.Unflatten(_, (1, 2))(r)
nn.MaxPool2d(_)(r); nn.AvgPool2d(_)(r); nn.Upsample(_)(r); nn.Upsample(2, mode=_)(r); nn.UpsamplingNearest2d(_)(r)
nn.MSELoss(reduction=_)(x, x); nn.CrossEntropyLoss(reduction=_)(x, i[0]); nn.BCELoss(reduction=_)(x * 0, x * 0)
nn.Linear(3, 1).load_state_dict(_); nn.Linear(3, 1).load_state_dict({'weight': _, 'bias': m.zeros(1)})
nn.Linear(3, 1).to(_); nn.Linear(3, 1).train(_); nn.Linear(3, 1).register_parameter('a', _)
nn.Linear(3, 1).add_module('a', _); setattr(nn.Linear(3, 1), 'weight', _); nn.Linear(3, 1).requires_grad_(_)
nn.Linear(3, 1).apply(_); optim.SGD(_); optim.SGD([_]); optim.SGD([p], lr=_); optim.SGD([p], momentum=_)
optim.SGD([p], weight_decay=_); optim.Adam([p], lr=_); optim.Adam([p], betas=_); optim.Adam([p], betas=(_, 0.9))
optim.Adam([p], eps=_); optim.Adam([p], weight_decay=_); optim.SGD([p]).step(_); optim.SGD([p]).add_param_group(_)
optim.SGD([p]).add_param_group({'params': _}); optim.SGD([p]).load_state_dict(_)
optim.SGD([p]).load_state_dict({'state': {}, 'param_groups': _}); optim.SGD([p]).load_state_dict({'param_groups': _})
""".strip().replace("\n", "; ").split("; ")  # fmt: skip
PLAIN = (TypeError, RuntimeError, ValueError, IndexError, NotImplementedError, KeyError)
INSIDE = (AttributeError, AssertionError, OverflowError)  # what shows of PyTorch's inside where it checks nothing
COMPUTED = "minidl computes it"
NAMED = "PyTorch notices later, and by another name; minidl names the argument"
DEVICE = "PyTorch takes an int for the number of a GPU"
KEPT = {  # why the type of minidl's error is another, or why there is none
    **dict.fromkeys(["m.abs(t)", "m.argmax(t)"], COMPUTED),
    **dict.fromkeys([f"m.{log}softmax({v}, 0)" for log in ("", "log_") for v in "it"], COMPUTED),
    **dict.fromkeys(["m.min(x, other=None)", "m.max(x, other=None)"], COMPUTED),
    "x.softmax(None)": "minidl chooses and warns, as in F.softmax",
    **dict.fromkeys([f"F.avg_pool2d({v}, 2)" for v in ("x.double()", "i", "t")], NAMED),
    **dict.fromkeys(["F.mse_loss(i, x)", "F.mse_loss(x, i)"], "README: shapes that differ are refused"),
    "F.dropout(x, float('nan'))": "a ValueError, as for the layer",
    "x.unflatten(0, None)": NAMED,
    "x.unflatten(0, {})": NAMED,
    "x.type('a')": "a TypeError, as x.to has it",
    **dict.fromkeys([f"{x}.to({v})" for x in ("x", "nn.Linear(3, 1)") for v in ("3", "-1")], DEVICE),
    "p.sum().backward({})": NAMED,
    **dict.fromkeys(["m.ones(2, dtype=())", "m.ones(2, dtype={})"], "nothing is the default"),
    **dict.fromkeys(
        [f"nn.{call}, 3)" for n in ("2.5", "float('nan')")
         for call in (f"Conv2d({n}, 1", f"Conv2d(1, {n}", f"ConvTranspose2d({n}, 1")], NAMED,
    ),
    **dict.fromkeys([f"nn.Conv2d(1, 1, 3, {v})(r[:, :1])" for v in ("(1, 2, 3)", "()", "{}")], NAMED),
    "optim.SGD([()])": NAMED,
    "optim.SGD([p]).load_state_dict({'state': {}, 'param_groups': {}})": NAMED,
    "optim.SGD([p]).load_state_dict({'param_groups': {}})": NAMED,
    **dict.fromkeys([f"optim.Adam([p], betas={v})" for v in ("'a'", "()", "{}")], NAMED),
}  # fmt: skip


def judged(call):
    """What is wrong with minidl's answer, or None."""
    ours, theirs = (tried(m, call) for m in BOTH)
    if isinstance(ours, Exception) and type(ours) not in PLAIN:
        return f"{call}: {ours!r} is no refusal"
    if isinstance(theirs, Exception) and not isinstance(ours, Exception):
        return f"{call}: accepted; PyTorch: {theirs!r}"
    if isinstance(theirs, Exception) and not isinstance(theirs, INSIDE) and not isinstance(ours, type(theirs)):
        return f"{call}: {ours!r}; PyTorch: {theirs!r}"
    return None


def calls(form):
    values = TENSORS_TOO if form in TENSORS else VALUES
    return [re.sub(r"(?<![\w.])_(?!\w)", lambda _, v=value: v, form) for value in values]


@pytest.mark.parametrize("form", TENSORS + ARGUMENTS)
def test_wrong_values(form):
    wrong = {call: judged(call) for call in calls(form)}
    assert {call: why for call, why in wrong.items() if why and call not in KEPT} == {}


def test_what_is_kept_is_still_so():
    known = {call for form in TENSORS + ARGUMENTS for call in calls(form)}
    assert [call for call in KEPT if call not in known or not judged(call)] == []
