"""`python -m minidl run --check` and the descriptions of missing names: found in the text, without running it."""

import json
import re

import pytest

from minidl.__main__ import main
from minidl.compat import names
from minidl.compat._install import faces
from minidl.compat.check import check

RECURRENT = """\
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils.rnn import (
    pack_padded_sequence,
    pad_packed_sequence as unpack,
)
import nobodys_text


class Classifier(nn.Module):
    def __init__(self, words):
        super().__init__()
        self.lstm = nn.LSTM(100, 64, batch_first=True)
        self.norm = nn.BatchNorm1d(64)
        self.out = nn.Linear(64, 2)

    def forward(self, text, lengths):
        packed = pack_padded_sequence(text, lengths, batch_first=True)
        _, (h, _) = self.lstm(packed)
        return self.out(self.norm(h[-1]))


if __name__ == "__main__":
    model = Classifier(10)
    onehot = torch.zeros(4, 2).cauchy_(1, labels, 1)
    loss = F.binary_cross_entropy_with_logits(model(x, n), onehot, size_average=False)
"""

TRANSFORMER = """\
import torch
from torch import nn, optim
from torch.nn import Transformer as T, Linear
from torch.optim import *

d = torch.distributions.Normal(0, 1)
layer = torch.nn.TransformerEncoderLayer(8, 2)
optimizer = LBFGS(T(8).parameters(), lr=1) or optim.SGD
"""

AUTOENCODER = """\
import os, sys
import numpy as np
import torch, torchvision
import torch.nn as nn
import torch.optim as optim
from torch.autograd import Variable
from torch.utils.data import DataLoader
from torchvision import datasets, transforms
from torchvision.utils import save_image

Tensor = torch.cuda.FloatTensor if torch.cuda.is_available() else torch.FloatTensor
data = datasets.MNIST("data", train=True, download=True, transform=transforms.ToTensor())
loader = DataLoader(data, batch_size=100, shuffle=True, num_workers=2, pin_memory=True)
model = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1, groups=1), nn.ReLU(True), nn.ConvTranspose2d(8, 1, 2, 2))
optimizer = optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-5)
loss = nn.MSELoss(size_average=False)
torch.backends.cudnn.benchmark = True
for images, _ in loader:
    images = Variable(images.type(Tensor)).cuda()
    y = loss(model(images), images).sum(axis=0)
    y.backward(retain_graph=True)
    optimizer.step()
    np.random.shuffle(np.roll(images.numpy(), 1))
    print("torch.nn.LSTM", images.size(), y.item(), sorted([3, 1]))
save_image(images, "x.png", nrow=4, normalize=True)
torch.save(model.state_dict(), "m.pth")
"""


@pytest.fixture
def listed(tmp_path, monkeypatch, capsys):
    """What --check prints for a script's text, as (status, lines, summary)."""
    monkeypatch.chdir(tmp_path)

    def run(text, name="script.py"):
        (tmp_path / name).write_text(text)
        status = check(name)
        *lines, summary = capsys.readouterr().out.splitlines()
        return status, lines, summary

    return run


def _short(lines):
    """Places and names, without the explanations: "12: torch.nn.LSTM"."""
    return [re.sub(r"^script\.py:|: (?!torch|possibly|nobodys|not ).*", "", line) for line in lines]


def test_a_recurrent_model_lists_layers_functions_imports_and_possible_methods(listed):
    status, lines, summary = listed(RECURRENT)
    assert _short(lines) == [
        "5, 19: torch.nn.utils.rnn.pack_padded_sequence",
        "6: torch.nn.utils.rnn.pad_packed_sequence",
        "8: nobodys_text: not installed",
        "14: torch.nn.LSTM",
        "26: possibly torch.Tensor.cauchy_",
    ]
    assert (status, summary) == (1, "script.py: 4 missing, 1 possibly")
    assert lines[3].startswith(
        "script.py:14: torch.nn.LSTM: a recurrent layer of PyTorch; minidl does not have it: write its steps with "
    )


def test_the_command_checks_a_script_and_leaves_its_arguments(tmp_path, capsys):
    (tmp_path / "script.py").write_text("import torch\nraise SystemExit(torch.nn.LSTM)")
    assert main(["run", "--check", f"{tmp_path}/script.py", "--epochs", "3"]) == 1
    assert capsys.readouterr().out.endswith("script.py: 1 missing\n")
    assert main(["run", "--check"]) == 2
    assert "run --check (script.py | notebook.ipynb)" in capsys.readouterr().err


def test_a_transformer_lists_names_behind_aliases_stars_and_missing_modules(listed):
    assert _short(listed(TRANSFORMER)[1]) == [
        "3, 8: torch.nn.Transformer",
        "6: torch.distributions.Normal",
        "7: torch.nn.TransformerEncoderLayer",
        "8: torch.optim.LBFGS",
    ]


def test_an_autoencoder_lacks_nothing(listed):
    assert listed(AUTOENCODER) == (0, [], "script.py: nothing missing")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import torch.nn\ntorch.nn.GRU", ["2: torch.nn.GRU"]),
        ("import torch.fx as fx\nfx.Graph()", ["1, 2: torch.fx"]),
        ("from torch import nn\ndef f(nn):\n    nn.GRU", []),
        ("from torch import nn\nnn = 3\nnn.GRU", []),
        ("def f():\n    nn.GRU\nfrom torch import nn", ["2: torch.nn.GRU"]),
        ("from torch import optim\noptim = optim.LBFGS([])\noptim.Rprop", ["2: torch.optim.LBFGS"]),
        ("from torch import nn\nclass A:\n    nn = 0\n    def f(self):\n        nn.GRU", ["5: torch.nn.GRU"]),
        ("def f():\n    import torch.nn as nn\n    return lambda x: nn.GRU(x)\nnn.LSTM", ["3: torch.nn.GRU"]),
        ("import torch\nLayers = torch.nn\nLayers.GRU", ["3: torch.nn.GRU"]),
        ("import torch\ntorch.nn.Linaer", ["2: torch.nn.Linaer"]),
        ("import torch\ntorch._C.x", ["2: torch._C"]),
        ("import torch\ntorch.backends.mkl.flag = 1\ntorch.backends.cudnn.flag = 1", ["2: torch.backends.mkl"]),
        ("import torch\ntorch.Tensor.cauchy_(x)", ["2: torch.Tensor.cauchy_"]),
        ("from __future__ import annotations\nfrom .beside import nn\nnn.GRU", []),
        ("class A:\n    def geometric_(self): pass\n    def f(self): self.geometric_()", []),
        ("class A:\n    def f(self):\n        self.geometric_ = print\n        self.geometric_(3)", []),
        ("x.values(), x.index(3)", []),  # of dictionaries and strings
        ("x.requires_grad_().geometric_()", ["1: possibly torch.Tensor.geometric_"]),
        ("model.register_state_dict_pre_hook(f)", ["1: possibly torch.nn.Module.register_state_dict_pre_hook"]),
        ("optimizer.register_step_post_hook(f)", ["1: possibly torch.optim.Optimizer.register_step_post_hook"]),
        ("x.new_zeros(3).ndimension()", []),  # which install() adds
        ("try:\n    import nobodys\nexcept ImportError:\n    a = None", ["2: possibly nobodys: not installed"]),
        ("try:\n    import torch.jit as j\nexcept:\n    j = 0\nj.fork", ["2: possibly torch.jit", "5: torch.jit.fork"]),
        ("import torch\ntry:\n    torch.fx\nexcept OSError:\n    pass", ["3: torch.fx"]),
    ],
)  # fmt: skip
def test_names_are_followed_as_python_does(listed, text, found):
    status, lines, _ = listed(text)
    assert _short(lines) == found
    assert status == any("possibly" not in line for line in found)


def test_the_scripts_own_modules_are_read_too(listed, tmp_path):
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "__init__.py").write_text("from .vae import VAE")
    (tmp_path / "helpers.py").write_text("import torch\n\ntorch.fft.fft2")
    status, lines, summary = listed("import helpers\nfrom nets import *\nimport helpers")
    assert [line.split(": ")[:2] for line in lines] == [["helpers.py:3", "torch.fft.fft2"]]
    assert (status, summary) == (1, "script.py: 1 missing")


def _notebook(*cells):
    markdown = {"cell_type": "markdown", "source": ["nn.LSTM"]}
    code = [{"cell_type": "code", "source": cell.splitlines(keepends=True)} for cell in cells]
    return json.dumps({"cells": [markdown, *code], "nbformat": 4})


def test_a_notebook_is_read_by_cells_without_its_magics(listed):
    text = _notebook(
        "%matplotlib inline\nimport torch.nn as nn\n!pip install torch\nfiles = !ls",
        "%%bash\nls nn.LSTM",
        "%%time\nif True:\n    %timeit 3\n    nn.LSTM(3, 4)\nnn?",
        "print('%d'\n      % 3)\nnn.LSTM",
    )
    status, lines, summary = listed(text, "course.ipynb")
    assert [line.split(":")[:3] for line in lines] == [
        ["course.ipynb", "cell 3 line 4, cell 4 line 3", " torch.nn.LSTM"]
    ]
    assert (status, summary) == (1, "course.ipynb: 1 missing")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("old.py", "x = 1\nprint 'hello'", "old.py: Missing parentheses in call to 'print'.*line 2"),
        ("bad.ipynb", _notebook("x = 1", "\nx = ="), r"bad.ipynb: invalid syntax \(cell 2, line 2\)"),
        ("no.ipynb", "{}", "no.ipynb: 'cells'"),
        ("absent.py", None, "absent.py: .*No such file"),
    ],
)
def test_what_cannot_be_read_has_status_2(tmp_path, monkeypatch, capsys, name, text, said):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / name).write_text(text)
    assert check(name) == 2
    assert re.match(said, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "torch.nn.Conv1d",
            "a layer of PyTorch for sequences; minidl does not have it: use the 2d one on x.unsqueeze(2)",
        ),
        ("torch.optim.LBFGS", "an optimiser of PyTorch; minidl does not have it"),
        ("torch.Tensor.cauchy_", "a method of PyTorch; minidl does not have it"),
        ("torch.fx", "a module of PyTorch for compiling and exporting models; minidl does not have it: use the model"),
        (
            "torch.distributed.scatter",
            "a function of PyTorch for training in several processes; minidl does not have it: ",
        ),
        ("torch.complex64", "a dtype of PyTorch for complex numbers; minidl does not have it: keep the real"),
        ("torchvision.models.resnet18", "a model of torchvision for ready-made models; minidl does not have it: write"),
        ("torch.rfft", "an old name, which PyTorch itself has dropped; minidl does not have it: use numpy.fft"),
        ("torch._C", "a private name of PyTorch; minidl does not have it"),
        (
            "torch.nn.modules.conv.x",
            "part of torch.nn.modules.conv, part of torch.nn.modules, a module of PyTorch; minidl",
        ),
        ("torch.nn.Relu", "neither in minidl nor in PyTorch 2.13"),
        ("torchvision.utils.xyzzy", "neither in minidl nor in torchvision 0.28"),
    ],
)
def test_a_missing_name_is_described(name, said):
    assert names.describe(name).startswith(f"{name} is {said}")


def test_each_line_of_advice_is_needed_and_fits_a_name_of_pytorch():
    public = [f"{module}.{name}" for module, own in names.NAMES.items() for name in own if " " not in module]
    public += [*names.NAMES["modules"], "torch._C", "torchvision.transforms.Scale"]
    fitting = [{name for name in public if re.search(pattern, name)} for pattern, *_ in names.ADVICE]
    assert not [row for row, found in zip(names.ADVICE, fitting, strict=True) if not found]


def test_what_the_advice_recommends_exists():
    roots = {"nn": "torch.nn", "F": "torch.nn.functional", "torch": "torch", "torchvision": "torchvision"}
    text = "\n".join(" ".join(row[2:]) for row in names.ADVICE)
    recommended = set(re.findall(r"\b(nn|F|torch|torchvision)\.([A-Za-z_]\w*)", text))
    assert len(recommended) > 8
    assert not {(root, name) for root, name in recommended if not hasattr(faces()[roots[root]], name)}
    assert hasattr(faces()["torchvision.datasets"], "ImageFolder")
    assert hasattr(faces()["torchvision.transforms"], "Resize")
