"""Two scripts as PyTorch courses write them, run twice with only the imports changed: the same losses."""

import numpy as np
import pytest
from with_torch import BOTH, array

import minidl

AUTOENCODER = """
import torch
from torch import nn, optim
import torch.nn.functional as F

class Autoencoder(nn.Module):
    def __init__(self):
        super(Autoencoder, self).__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(4, 8, 3, stride=2, padding=1),
            nn.ReLU(True),
            nn.Conv2d(8, 16, 3),
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(16, 8, 3),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1, output_padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(4, 1, 3, stride=2, padding=1, output_padding=1),
            nn.Sigmoid(),
        )

    def forward(self, x):
        x = self.encoder(x)
        x = self.decoder(x)
        return x

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
model = Autoencoder().to(device)
load(model)
criterion = nn.MSELoss()
optimizer = optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-5)
losses, running_loss = [], 0.0
for epoch in range(5):
    model.train()
    for img in batches:
        img = torch.from_numpy(img).to(device)
        recon = model(img)
        loss = criterion(recon, img)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        running_loss += loss.item() * img.size(0)
model.eval()
with torch.no_grad():
    outputs = model(torch.from_numpy(batches[0]))
    losses.append(F.mse_loss(outputs, torch.from_numpy(batches[0])).item())
result = outputs.cpu().detach().numpy()
"""

REGRESSION = """
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(0)

class Net(nn.Module):
    def __init__(self, features, hidden=32, p=0.0):
        super().__init__()
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(features, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(p)
        self.out = nn.Linear(hidden, 1)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        x = self.flatten(x)
        x = F.relu(self.fc1(x))
        x = self.dropout(torch.tanh(self.fc2(x)))
        return self.out(x).squeeze(1) * self.scale

model = Net(64)
load(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
losses = []
for epoch in range(5):
    for batch in batches:
        x = torch.tensor(batch, dtype=torch.float32)
        x = x.view(x.shape[0], -1)
        y = (x[:, ::2].mean(dim=1) > 0.5).float() + 0.1 * x.max(dim=1)[0]
        y_hat = model(x)
        l2 = sum((w ** 2).sum() for w in model.parameters() if w.ndim > 1)
        loss = torch.mean((y_hat - y) ** 2) + 1e-4 * l2
        model.zero_grad()
        loss.backward()
        for w in model.parameters():
            w.grad.data.clamp(-1, 1)
        optimizer.step()
        with torch.no_grad():
            model.scale.mul_(0.999)
            model.out.bias -= 0.001 * model.out.bias.grad
        losses.append(loss.item())
model.eval()
result = torch.cat([model(torch.tensor(b).flatten(1)) for b in batches]).detach().numpy()
accuracy = ((model(x) > 0.5) == (y > 0.5)).float().mean().item()
losses.append(accuracy + 1)
"""

IMPORTS = {  # what a reader would change
    "import torch\n": "import minidl as torch\n",
    "from torch import nn, optim\n": "from minidl import nn, optim\n",
    "import torch.nn as nn\n": "import minidl.nn as nn\n",
    "import torch.nn.functional as F\n": "import minidl.nn.functional as F\n",
}


def run(m, script):
    """The script's losses and last output, from weights that do not depend on the library."""

    def load(model):
        rng = np.random.default_rng(1)
        shapes = {k: tuple(v.shape) for k, v in model.state_dict().items()}
        drawn = {k: (0.3 * rng.standard_normal(s)).astype("float32") for k, s in shapes.items()}
        model.load_state_dict({k: m.tensor(v) for k, v in drawn.items()})

    for theirs, ours in IMPORTS.items() if m is minidl else ():
        script = script.replace(theirs, ours)
    batches = list(np.random.default_rng(0).random((4, 8, 1, 16, 16)).astype("float32"))
    batches = [b[:, :, :8, :8] for b in batches] if "Net(64)" in script else batches
    space = {"__name__": "script", "load": load, "batches": [np.ascontiguousarray(b) for b in batches]}
    exec(script, space)
    return np.array(space["losses"]), array(space["result"])


@pytest.mark.parametrize("script", [AUTOENCODER, REGRESSION], ids=["autoencoder", "regression"])
def test_a_course_script_runs_with_only_its_imports_changed(script):
    (losses, result), (expected, wanted) = (run(m, script) for m in BOTH)
    assert len(expected) == 21
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=1e-5)
