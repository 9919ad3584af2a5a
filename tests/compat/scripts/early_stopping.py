import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import random_split, DataLoader, TensorDataset
from torch.optim.lr_scheduler import ReduceLROnPlateau


class EarlyStopping:
    """Stops when the validation loss has not improved for `patience` epochs."""

    def __init__(self, patience=3, delta=1e-3, path='checkpoint.pt'):
        self.patience, self.delta, self.path = patience, delta, path
        self.counter, self.best, self.stop = 0, None, False

    def __call__(self, val_loss, model):
        if self.best is None or val_loss < self.best - self.delta:
            self.best, self.counter = val_loss, 0
            torch.save(model.state_dict(), self.path)
        else:
            self.counter += 1
            self.stop = self.counter >= self.patience


torch.manual_seed(0)
x = torch.linspace(-3, 3, 200).view(-1, 1)
y = x.pow(3) / 9 - x + 0.3 * torch.randn(x.size())
n_val = int(0.25 * len(x))
train_set, val_set = random_split(TensorDataset(x, y), [len(x) - n_val, n_val])
train_loader, val_loader = DataLoader(train_set, 25, True), DataLoader(val_set, 25)

model = nn.Sequential(nn.Linear(1, 40), nn.Tanh(), nn.Linear(40, 1))
for layer in model:
    if isinstance(layer, nn.Linear):
        nn.init.xavier_uniform_(layer.weight, gain=nn.init.calculate_gain('tanh'))
        layer.bias.data.fill_(0.01)
optimizer = torch.optim.SGD(model.parameters(), lr=0.08, momentum=0.8)
scheduler = ReduceLROnPlateau(optimizer, mode='min', factor=0.5, patience=1, min_lr=1e-4)
early = EarlyStopping()
criterion = nn.L1Loss()
for epoch in range(30):
    model.train()
    train_losses = []
    for xb, yb in train_loader:
        optimizer.zero_grad()
        loss = criterion(model(xb), yb)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        train_losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        valid = np.mean([criterion(model(xb), yb).item() for xb, yb in val_loader])
    scheduler.step(valid)
    print('%2d train loss %.6f valid loss %.6f' % (epoch, np.average(train_losses), valid),
          optimizer.state_dict()['param_groups'][0]['lr'])
    early(valid, model)
    if early.stop:
        print('Early stopping')
        break
model.load_state_dict(torch.load('checkpoint.pt'))
print('best loss %.6f' % early.best, len(list(model.named_parameters())))
