"""Long trainings and many models: memory stays where it is, losses stay finite, and nothing is left behind.

Each is measured in a process of its own, so that nothing else is counted. The quick variants run the same code.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.jit
MB = 2**20

COMMON = """
import gc, json, os, sys, weakref
import numpy as np
import minidl
from minidl import nn, optim
from minidl.nn import functional as F

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
"""

TRAIN = (
    COMMON
    + """
class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, stride=2, padding=1),
            nn.Tanh(),
        )
        self.code = nn.Sequential(nn.Flatten(), nn.Linear(128, 32), nn.Dropout(0.2), nn.Linear(32, 128), nn.ReLU())
        self.decoder = nn.Sequential(
            nn.Unflatten(1, (8, 4, 4)),
            nn.ConvTranspose2d(8, 8, 3, stride=2, padding=1, output_padding=1),
            nn.Sigmoid(),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.Conv2d(8, 1, 1),
        )

    def forward(self, x):
        return self.decoder(self.code(self.encoder(x)))

steps, warm_up = map(int, sys.argv[1:])
minidl.manual_seed(0)
images = np.zeros((256, 1, 16, 16), np.float32)
for i, image in enumerate(images):
    image[0, i % 12 : i % 12 + 4, i // 16 % 12 : i // 16 % 12 + 5] = 1
loader = minidl.data.DataLoader(minidl.data.TensorDataset(minidl.tensor(images)), 16, shuffle=True)
model = Autoencoder()
optimizer = optim.Adam(model.parameters(), lr=1e-3)
losses, sizes = np.zeros(steps), []
step = 0
while step < steps:
    for (x,) in loader:
        loss = F.binary_cross_entropy_with_logits(model(x), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses[step] = loss.item()
        step += 1
        if step >= warm_up and step % (steps // 10) == 0:
            sizes.append(resident())
        if step == steps:
            break
finite = all(np.isfinite(p.numpy()).all() for p in map(minidl.Tensor.detach, model.parameters()))
first, last = losses[:16].mean(), losses[-16:].mean()
print(json.dumps({"sizes": sizes, "finite": bool(finite and np.isfinite(losses).all()), "losses": [first, last]}))
"""
)

MODELS = (
    COMMON
    + """
def live_and_die():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.ConvTranspose2d(4, 4, 2, stride=2), nn.Upsample(scale_factor=2), nn.AvgPool2d(2),
        nn.Flatten(), nn.Dropout(0.2), nn.Linear(4 * 12 * 12, 10),
    )
    optimizer = optim.Adam(model.parameters())
    loss = F.cross_entropy(model(minidl.rand(40, 1, 12, 12)), minidl.randint(0, 10, (40,)))
    loss.backward()
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    model.load_state_dict(model.state_dict())
    return [weakref.ref(thing) for thing in (model, optimizer, loss, *model.children(), *model.parameters())]

number, warm_up = map(int, sys.argv[1:])
sizes, objects, alive = [], [], 0
for _ in range(warm_up):
    live_and_die()
gc.collect()
gc.disable()  # what dies now dies by itself: it was in no cycle
for i in range(1, number + 1):
    alive += sum(reference() is not None for reference in live_and_die())
    if i % (number // 10) == 0:
        sizes.append(resident())
        objects.append(len(gc.get_objects()))
print(json.dumps({"sizes": sizes, "objects": objects, "alive": alive, "unreachable": gc.collect()}))
"""
)


def measure(code: str, *numbers: int) -> dict:
    if not Path("/proc/self/statm").exists():
        pytest.skip("resident memory is read from /proc/self/statm")
    done = subprocess.run([sys.executable, "-c", code, *map(str, numbers)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("steps", "warm_up"), [(100, 40), pytest.param(20_000, 2_000, marks=pytest.mark.slow)])
def test_a_training_holds_its_memory_and_its_losses_finite(steps, warm_up):
    found = measure(TRAIN, steps, warm_up)
    sizes = found["sizes"]
    print(f"{steps} steps: resident {[round(size / MB, 2) for size in sizes]} MB, losses {found['losses']}")
    assert max(sizes) - sizes[0] < 2 * MB
    assert found["finite"]
    assert found["losses"][1] < found["losses"][0]


@pytest.mark.parametrize(("number", "warm_up"), [(100, 20), pytest.param(10_000, 100, marks=pytest.mark.slow)])
def test_short_lived_models_leave_nothing_behind(number, warm_up):
    found = measure(MODELS, number, warm_up)
    sizes, objects = found["sizes"], found["objects"]
    print(f"{number} models: resident {[round(size / MB, 2) for size in sizes]} MB, objects {objects}")
    assert found["alive"] == 0
    assert found["unreachable"] == 0
    assert max(objects) - objects[0] < 10  # the lists of this measurement
    assert max(sizes) - sizes[0] < 2 * MB


@pytest.mark.slow
def test_a_leak_would_be_noticed():
    leak = "kept = []\n" + MODELS.replace("    loss.backward()", "    kept.append(np.ones(2**14)); loss.backward()")
    found = measure(leak, 200, 20)
    assert max(found["sizes"]) - found["sizes"][0] > 2 * MB
    cycle = MODELS.replace("    loss.backward()", "    model.itself = [model]; loss.backward()")
    found = measure(cycle, 50, 5)
    assert found["alive"] > 0
    assert found["unreachable"] > 0
