"""Scripts as PyTorch courses write them, run twice with only the imports changed: the same losses."""

import numpy as np
import pytest

import minidl
from tests.helpers.with_torch import BOTH, array

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

CLASSIFIER = """
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from torch.utils.data import DataLoader, TensorDataset

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 8, 3, padding=1)
        self.fc1 = nn.Linear(8 * 3 * 3, 20)
        self.drop = nn.Dropout(p=0.0)
        self.fc2 = nn.Linear(20, 4)

    def forward(self, x):
        x = self.pool(F.relu(self.conv1(x)))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = x.view(-1, 8 * 3 * 3)
        x = self.drop(F.relu(self.fc1(x)))
        return self.fc2(x)

net = Net()
load(net)
images = torch.from_numpy(np.concatenate(batches))
labels = (images.mean(dim=(1, 2, 3)) > 0.5).long() + 2 * (images[:, 0, 0, 0] > 0.5).long()
trainloader = DataLoader(TensorDataset(images, labels), batch_size=10, shuffle=False)
criterion = nn.CrossEntropyLoss()
optimizer = optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
losses = []
for epoch in range(5):
    for i, data in enumerate(trainloader, 0):
        inputs, labels = data
        optimizer.zero_grad()
        outputs = net(inputs)
        loss = criterion(outputs, labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
net.eval()
correct = total = 0
with torch.no_grad():
    for data in trainloader:
        inputs, labels = data
        outputs = net(inputs)
        _, predicted = torch.max(outputs.data, 1)
        total += labels.size(0)
        correct += (predicted == labels).sum().item()
losses.append(1 + correct / total)
result = F.softmax(outputs, dim=1).numpy()
"""

UPSAMPLING = """
import torch
import torch.nn as nn
import torch.nn.functional as F

class ConvAutoencoder(nn.Module):
    def __init__(self):
        super(ConvAutoencoder, self).__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 4, 3, padding=1)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv4 = nn.Conv2d(4, 16, 3, padding=1)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.conv5 = nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, x):
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = F.relu(self.conv4(x))
        x = self.up(x)
        return torch.sigmoid(self.conv5(x))

model = ConvAutoencoder()
load(model)
criterion = nn.BCELoss()
optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
losses = []
for epoch in range(5):
    for images in batches:
        images = torch.from_numpy(images)
        optimizer.zero_grad()
        outputs = model(images)
        loss = criterion(outputs, images)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
coarse = F.avg_pool2d(outputs, 2)
smooth = F.interpolate(coarse, size=(16, 16), mode="bilinear", align_corners=False)
losses.append(smooth.sub(images).abs().mean().item())
result = outputs.view(len(images), 1, 16, 16).detach().numpy()
"""

VAE = """
import torch
from torch import nn, optim
import torch.nn.functional as F

class VAE(nn.Module):
    def __init__(self, latent=3):
        super().__init__()
        self.fc1 = nn.Linear(256, 30)
        self.fc21 = nn.Linear(30, latent)
        self.fc22 = nn.Linear(30, latent)
        self.fc3 = nn.Linear(latent, 30)
        self.fc4 = nn.Linear(30, 256)

    def encode(self, x):
        h1 = F.relu(self.fc1(x))
        return self.fc21(h1), self.fc22(h1)

    def reparameterize(self, mu, logvar):
        std = torch.exp(0.5 * logvar)
        eps = noise(std)
        return mu + eps * std

    def decode(self, z):
        h3 = F.relu(self.fc3(z))
        return self.fc4(h3)

    def forward(self, x):
        mu, logvar = self.encode(x.view(-1, 256))
        z = self.reparameterize(mu, logvar)
        return self.decode(z), mu, logvar

def noise(like):
    drawn = np.random.default_rng(len(losses)).standard_normal(tuple(like.shape))
    return torch.randn_like(like) * 0 + torch.from_numpy(drawn.astype("float32"))

def loss_function(logits, x, mu, logvar):
    BCE = F.binary_cross_entropy_with_logits(logits, x.view(-1, 256), reduction="sum")
    KLD = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    return BCE + KLD

model = VAE()
load(model)
optimizer = optim.Adam(model.parameters(), lr=1e-3)
losses = []
for epoch in range(5):
    for batch in batches:
        data = torch.from_numpy(batch)
        optimizer.zero_grad()
        logits, mu, logvar = model(data)
        loss = loss_function(logits, data, mu, logvar)
        loss.backward()
        optimizer.step()
        losses.append(loss.item() / len(data))
with torch.no_grad():
    result = torch.sigmoid(model.decode(torch.zeros(2, 3))).cpu().numpy()
losses.append(1.0)
"""

DECONVNET = """
import torch
import torch.nn as nn
import torch.nn.functional as F

class Features(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 8, 3, padding=1)
        self.pool = nn.MaxPool2d(2, stride=2, return_indices=True)
        self.unpool = nn.MaxUnpool2d(2, stride=2)

    def forward(self, x):
        x, self.switches1 = self.pool(F.relu(self.conv1(x)))
        x, self.switches2 = self.pool(F.relu(self.conv2(x)))
        return x

    def project(self, x):
        x = F.relu(self.unpool(x, self.switches2))
        x = F.conv_transpose2d(x, self.conv2.weight, padding=1)
        x = F.relu(self.unpool(x, self.switches1, output_size=(16, 16)))
        return F.conv_transpose2d(x, self.conv1.weight, padding=1)

model = Features()
load(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
losses = []
for epoch in range(5):
    for batch in batches:
        images = torch.from_numpy(batch)
        features = model(images)
        loss = F.mse_loss(model.project(features), images)
        model.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
model.eval()
features = model(images)
top = features.view(len(images), -1).max(dim=1)
kept = torch.zeros_like(features).view(len(images), -1)
for i, (value, place) in enumerate(zip(top.values, top.indices)):
    kept[i, place] = value
result = model.project(kept.view(*features.shape)).detach().numpy()
losses.append(top.values.sum().item())
"""

PIXELWISE = """
import torch
from torch import nn, optim
import torch.nn.functional as F

net = nn.Sequential(
    nn.Conv2d(1, 8, 3, stride=2, padding=1),
    nn.ReLU(inplace=True),
    nn.ConvTranspose2d(8, 2, kernel_size=4, stride=2, padding=1),
)
load(net)
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(net.parameters(), 1e-2, betas=(0.8, 0.99))
losses = []
for epoch in range(5):
    for batch in batches:
        images = torch.from_numpy(batch)
        masks = (images[:, 0] > 0.5).long()
        scores = net(images)
        loss = criterion(scores, masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
predicted = scores.argmax(dim=1)
union = ((predicted == 1) | (masks == 1)).sum().item()
losses.append(((predicted == 1) & (masks == 1)).sum().item() / union)
result = F.log_softmax(scores, dim=1).detach().numpy()
"""

IMPORTS = {  # what a reader would change
    "import torch\n": "import minidl as torch\n",
    "from torch import nn, optim\n": "from minidl import nn, optim\n",
    "import torch.nn as nn\n": "import minidl.nn as nn\n",
    "import torch.nn.functional as F\n": "import minidl.nn.functional as F\n",
    "import torch.optim as optim\n": "import minidl.optim as optim\n",
    "from torch.utils.data import DataLoader, TensorDataset\n": "from minidl.data import DataLoader, TensorDataset\n",
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
    space = {"__name__": "script", "np": np, "load": load, "batches": [np.ascontiguousarray(b) for b in batches]}
    exec(script, space)
    return np.array(space["losses"]), array(space["result"])


SCRIPTS = [AUTOENCODER, REGRESSION, CLASSIFIER, UPSAMPLING, VAE, DECONVNET, PIXELWISE]
NAMES = ["autoencoder", "regression", "classifier", "upsampling", "vae", "deconvnet", "pixelwise"]


@pytest.mark.parametrize("script", SCRIPTS, ids=NAMES)
def test_a_course_script_runs_with_only_its_imports_changed(script):
    (losses, result), (expected, wanted) = (run(m, script) for m in BOTH)
    assert len(expected) == 21
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=1e-5)
