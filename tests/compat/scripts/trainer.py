# A project's trainer: dataclass settings, groups of parameters, warm-up, accumulated gradients, averaged weights
import json
import logging
import math
import sys
from dataclasses import dataclass
from typing import Tuple

import numpy as np
import torch
import torch.nn.functional as F
import torch.nn.init as I
import torchvision.transforms as T
from torch import nn, Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, random_split
from torchvision.datasets import MNIST

logging.basicConfig(stream=sys.stdout, level=logging.INFO, format='%(message)s')
log = logging.getLogger(__name__)


@dataclass
class Config:
    lr: float = 1e-3
    device: torch.device = torch.device('cpu')
    sizes: Tuple[int, ...] = (784, 32, 10)


class Net(nn.Module):
    def __init__(self, sizes: Tuple[int, ...], dropout: float = 0.1) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(zip(sizes[:-1], sizes[1:])):
            layers += [nn.Linear(a, b)]
            if i < len(sizes) - 2:
                layers += [nn.ReLU(inplace=True), nn.BatchNorm1d(b), nn.Dropout(p=dropout)]
        self.net = nn.Sequential(*layers)
        self.register_buffer('steps', torch.tensor(0))
        self.temperature = nn.Parameter(torch.tensor(1.0))
        self.apply(self._init)

    @staticmethod
    def _init(m):
        if type(m) == nn.Linear:
            I.kaiming_uniform_(m.weight, a=math.sqrt(5))
            fan_in, _ = I._calculate_fan_in_and_fan_out(m.weight)
            I.uniform_(m.bias, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))

    @property
    def device(self):
        return next(self.parameters()).device

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        return self(x).argmax(-1)

    def forward(self, x: Tensor) -> Tensor:
        self.steps += 1
        return self.net(x.flatten(start_dim=1)) / self.temperature


cfg = Config()
full = MNIST('data', download=True, transform=T.Compose([T.ToTensor(), T.Normalize((0.1307,), (0.3081,))]))
train, valid = random_split(full, (int(0.8 * len(full)), len(full) - int(0.8 * len(full))))
train_loader, valid_loader = DataLoader(train, 32, shuffle=True, drop_last=True), DataLoader(valid, batch_size=64)
model = Net(cfg.sizes).to(cfg.device)
decay, no_decay = [], []
for name, p in model.named_parameters():
    (no_decay if name.endswith('bias') or p.ndim <= 1 else decay).append(p)
opt = Adam([{'params': decay, 'weight_decay': 1e-2}, {'params': no_decay, 'weight_decay': 0.}], lr=cfg.lr,
           betas=(0.9, 0.95), eps=1e-8)
warm = LambdaLR(opt, lambda step: min(1.0, (step + 1) / 10))
ema = {k: v.detach().clone() for k, v in model.state_dict().items() if v.is_floating_point()}
history = {'loss': [], 'acc': []}
for epoch in range(2):
    model.train()
    for i, (x, y) in enumerate(train_loader):
        loss = F.cross_entropy(model(x.to(model.device)), y)
        (loss / 2).backward()
        if (i + 1) % 2 == 0:
            norm = clip_grad_norm_(model.parameters(), 1.0)
            opt.step()
            opt.zero_grad()
            warm.step()
            with torch.no_grad():
                for k, v in model.state_dict().items():
                    if k in ema:
                        ema[k].mul_(0.9).add_(0.1 * v)
        history['loss'].append(loss.item())
    model.eval()
    hits = torch.cat([(model.predict(x) == y).float() for x, y in valid_loader])
    history['acc'].append(hits.mean().item())
    log.info(f'epoch {epoch} loss {np.mean(history["loss"][-4:]):.6f}')
    log.info(f'norm {norm:.4f} accuracy {history["acc"][-1]:.2f} lr {opt.param_groups[0]["lr"]:.5f}')
confusion = torch.zeros(10, 10, dtype=torch.int64)
for x, y in valid_loader:
    for t, p in zip(y.view(-1), model.predict(x).view(-1)):
        confusion[t.long(), p.long()] += 1
assert confusion.sum().item() == len(valid)
with open('history.json', 'w') as f:
    json.dump(history, f)
averaged = Net(cfg.sizes)
missing, unexpected = averaged.load_state_dict(ema, strict=False)
print(missing, unexpected)
averaged.eval()
with torch.no_grad():
    x, y = next(iter(valid_loader))
    print('averaged loss %.6f, steps %d' % (F.cross_entropy(averaged(x), y), model.steps.item()))
