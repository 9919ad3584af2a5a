"""`python -m minidl run` and install(): scripts run as Python runs them, and never with two torches at once."""

import json
import os
import subprocess
import sys

import pytest

from minidl.compat import run as command
from minidl.compat._install import faces

SCRIPT = """\
import sys
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.backends.cudnn as cudnn
from torch import optim
from torch.autograd import Variable
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.sampler import DataLoader as again

cudnn.benchmark = True
torch.backends.cudnn.deterministic = True


@dataclass
class Settings:  # dataclasses look into sys.modules["__main__"]
    epochs: "int" = 2


class Autoencoder(nn.Module):
    def __init__(self):
        super(Autoencoder, self).__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(True))
        self.decoder = nn.Sequential(nn.ConvTranspose2d(4, 1, 2, stride=2), nn.Sigmoid())

    def forward(self, x):
        return self.decoder(self.encoder(x))


if __name__ == "__main__":
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    images = torch.rand(32, 1, 8, 8)
    loader = DataLoader(TensorDataset(images, torch.zeros(32).long()), batch_size=16, shuffle=True)
    model = Autoencoder().to(device)
    criterion = nn.MSELoss(size_average=False)
    optimizer = optim.Adam(model.parameters(), lr=1e-2, weight_decay=1e-5)
    scheduler = lr_scheduler.StepLR(optimizer, 1)
    losses = []
    for epoch in range(Settings().epochs):
        for img, _ in loader:
            img = Variable(img).to(device, non_blocking=True)
            loss = criterion(model(img), img)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        scheduler.step()
    noise = torch.FloatTensor(img.size()).normal_()
    print(len(losses), losses[-1] < losses[0], noise.shape == img.shape, img.size()[1:].numel(), img.type())
    print(sys.argv, __file__ == sys.argv[0], sys.path[0] == __file__.rpartition("/")[0], __name__)
    try:
        from torch.nn import LSTM
    except ImportError as error:
        print("from:", error)
    try:
        import torch.fx
    except ModuleNotFoundError as error:
        print("import:", error)
    print(hasattr(nn, "LSTM"))
    nn.LSTM(3, 4)
"""


def _python(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments], env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def run(monkeypatch):
    """Run a script or module in this process, without install(). For a script, return its ``__main__`` as a dict."""
    monkeypatch.setattr(command, "install", lambda: None)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])

    def run(*arguments):
        status = command.run(list(map(str, arguments)))
        return vars(sys.modules["__main__"]) if status == 0 else status

    return run


def _shown(error, capsys):
    """What Python prints for an exception that nobody catches."""
    sys.excepthook(type(error.value), error.value, error.value.__traceback__)
    return capsys.readouterr().err


def test_a_script_runs_unchanged_and_ends_with_pythons_own_traceback(tmp_path):
    script = tmp_path / "autoencoder.py"
    script.write_text(SCRIPT)
    done = _python("-W", "ignore::UserWarning", "-m", "minidl", "run", str(script), "--epochs", "2")
    assert done.stdout.splitlines() == [
        "4 True True 64 torch.FloatTensor",
        f"{[str(script), '--epochs', '2']} True True __main__",
        "from: " + done.stdout.splitlines()[2].removeprefix("from: "),
        "import: " + done.stdout.splitlines()[3].removeprefix("import: "),
        "False",
    ]
    assert "torch.nn.LSTM" in done.stdout.splitlines()[2]
    assert "torch.fx" in done.stdout.splitlines()[3]
    assert done.returncode == 1
    said, *rest = [line for line in done.stderr.splitlines() if "compiling kernels" not in line]
    assert said.startswith("minidl: torch is minidl")
    last = SCRIPT.count("\n")
    assert rest[:2] == ["Traceback (most recent call last):", f'  File "{script}", line {last}, in <module>']
    assert [line for line in rest if "File" in line] == rest[1:2]
    assert rest[-1].startswith("AttributeError: ")
    assert "torch.nn.LSTM" in rest[-1]


PROCESS = """
import sys
import minidl
assert not [name for name in sys.modules if name.startswith("minidl.compat")]
before = set(dir(minidl.Tensor))
assert not before & {"new", "ndimension", "is_xpu"}
assert type(minidl.ones(2).shape) is type(minidl.ones(2).size()) is tuple
import minidl.compat
import torch.nn
try:
    minidl.compat.install()
except RuntimeError as error:
    print(error)
assert set(dir(minidl.Tensor)) == before and torch.real
del sys.modules["torch"], sys.modules["torch.nn"], torch
import minidl.compat.torch as face  # minidl's own modules, which a star brings into it, must not stay
assert {face.nn.__name__, face.nn.init.__name__} == {"minidl.compat.torch.nn", "minidl.compat.torch.nn.init"}
assert face.cuda.__name__ == "minidl.compat.torch.cuda" and not hasattr(face, "plot")
assert face.optim.lr_scheduler.__name__ == "minidl.compat.torch.optim.lr_scheduler"
minidl.compat.install()
minidl.compat.install()
import importlib.util, torch, torch.nn.functional
assert torch.Tensor(2, 3).ndimension() == 2 and torch.nn is not minidl.nn
assert importlib.util.find_spec("torch").origin == torch.__file__ != minidl.__file__
assert importlib.util.find_spec("torch.nn.functional").origin == torch.nn.functional.__file__
assert sum(finder.__name__ == "MissingModules" for finder in sys.meta_path if isinstance(finder, type)) == 1
"""


NOTEBOOK = """\
import minidl.compat
minidl.compat.install()
# %%
import torch
import torch.nn as nn
import torchvision
from torch.utils.data import DataLoader, TensorDataset
# %%
torch.manual_seed(0)
x = torch.rand(64, 1, 8, 8)
loader = DataLoader(TensorDataset(x, x), batch_size=16, shuffle=True)
# %%
net = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), nn.ConvTranspose2d(4, 1, 2, stride=2))
optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
# %%
losses = []
for epoch in range(5):
    for images, _ in loader:
        loss = nn.MSELoss()(net(images), images)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
# %%
print(losses[-1] < losses[0], torchvision.utils.make_grid(net(x[:8]).detach()).shape, torch.__name__)
"""
CELLS = """
import json, sys
for cell in json.load(open(sys.argv[1]))["cells"]:
    if cell["cell_type"] == "code":
        exec("".join(cell["source"]), globals())
"""


@pytest.mark.slow
def test_a_notebook_runs_whole_after_its_first_cell(tmp_path):
    cells = [{"cell_type": "code", "source": text.splitlines(keepends=True)} for text in NOTEBOOK.split("# %%\n")]
    notebook = {"cells": [{"cell_type": "markdown", "source": ["# Lesson"]}, *cells], "nbformat": 4, "metadata": {}}
    (tmp_path / "lesson.ipynb").write_text(json.dumps(notebook))
    done = _python("-c", CELLS, str(tmp_path / "lesson.ipynb"))
    assert done.stdout == "True torch.Size([3, 12, 82]) minidl.compat.torch\n", done.stderr
    assert done.stderr.startswith("minidl: torch is minidl")


def test_install_refuses_to_mix_and_says_that_the_real_one_is_not_used(tmp_path):
    (tmp_path / "torch/nn").mkdir(parents=True)
    (tmp_path / "torch/nn/__init__.py").touch()
    (tmp_path / "torch/__init__.py").write_text("real = True\n")
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = _python("-c", PROCESS, PYTHONPATH=paths)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "install: PyTorch itself has been imported in this process (torch and 1 more modules)"
    )
    assert done.stderr.startswith("minidl: torch is minidl")
    assert done.stderr.endswith("the PyTorch installed here is not used\n")
    assert done.stderr.count("\n") == 1


def test_a_script_gets_what_python_sets(run, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "script.py").write_text("import sys\nargv, path = list(sys.argv), sys.path[0]\nhere = __name__\n")
    link = tmp_path / "link.py"
    link.symlink_to(folder / "script.py")
    main = run(link, "-x", "1")
    assert main["argv"] == [str(link), "-x", "1"]
    assert main["path"] == str(folder)
    assert (main["here"], main["__file__"], main["__spec__"]) == ("__main__", str(link), None)


def test_a_module_or_package_runs_as_by_python_m(run, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "package_here").mkdir()
    (tmp_path / "package_here/__init__.py").touch()
    (tmp_path / "package_here/sums.py").write_text("import sys\nprint(__name__, sys.argv)\n")
    (tmp_path / "package_here/__main__.py").write_text("from . import sums\nprint(__name__, __package__)\n1 / 0\n")
    with pytest.raises(ZeroDivisionError) as error:
        run("-m", "package_here", "7")
    main = str(tmp_path / "package_here/__main__.py")
    assert capsys.readouterr().out == f"package_here.sums {[main, '7']}\n__main__ package_here\n"
    assert [line for line in _shown(error, capsys).splitlines() if "File" in line] == [
        f'  File "{main}", line 3, in <module>'
    ]
    (tmp_path / "alone_here.py").write_text("print(__name__)\n")
    run("-m", "alone_here")
    assert capsys.readouterr().out == "__main__\n"


@pytest.mark.parametrize("name", ["no_such_module", "no_such.module", "minidl.no_such", "math"])
def test_a_module_that_cannot_be_run_is_named(run, name, capsys):
    with pytest.raises(ImportError, match=name.split(".")[0]) as error:
        run("-m", name)
    assert "compat" not in _shown(error, capsys)


def test_the_status_is_the_scripts(run, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import sys\nsys.exit(sys.argv[1])\n")
    with pytest.raises(SystemExit) as left:
        run(script, "the message")
    assert left.value.code == "the message"


def test_tracebacks_begin_in_the_script(run, tmp_path, capsys):
    script = tmp_path / "script.py"
    script.write_text("def inner():\n    raise KeyboardInterrupt\n\n\ninner()\n")
    with pytest.raises(KeyboardInterrupt) as error:
        run(script)
    files = [line for line in _shown(error, capsys).splitlines() if "File" in line]
    assert files == [f'  File "{script}", line 5, in <module>', f'  File "{script}", line 2, in inner']


def test_a_scripts_own_excepthook_is_called(run, tmp_path, capsys):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nsys.excepthook = lambda *error: print(error[0].__name__, error[2].tb_lineno)\n1 / 0\n"
    )
    with pytest.raises(ZeroDivisionError) as error:
        run(script)
    sys.excepthook(type(error.value), error.value, error.value.__traceback__)
    assert capsys.readouterr().out == "ZeroDivisionError 3\n"


def test_a_syntax_error_shows_the_line_alone(run, tmp_path, capsys):
    script = tmp_path / "script.py"
    script.write_text("x = 1\ndef f(:\n")
    with pytest.raises(SyntaxError) as error:
        run(script)
    assert _shown(error, capsys).startswith(f'  File "{script}", line 2\n    def f(:\n')


def test_a_missing_script_a_notebook_and_no_argument(run, capsys):
    with pytest.raises(SystemExit) as left:
        run("no_such_script.py")
    assert left.value.code == 2
    assert "can't open file" in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"first cell: import minidl\.compat"):
        run("lesson.ipynb")
    assert run() == 2
    assert "script.py" in capsys.readouterr().err


def test_every_face_is_registered_under_pytorchs_name():
    found = faces()
    for name in (
        "torch torch.nn torch.nn.functional torch.nn.init torch.optim torch.optim.lr_scheduler torch.utils.data "
        "torch.utils.data.sampler torch.autograd torch.cuda torch.backends.cudnn"
    ).split():
        assert found[name].__name__ == f"minidl.compat.{name}"
        assert found[name].__doc__
