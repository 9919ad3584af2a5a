import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset, ConcatDataset
from torch.utils.data.sampler import SubsetRandomSampler, WeightedRandomSampler

np.random.seed(4)
X = np.concatenate([np.random.randn(90, 5), np.random.randn(30, 5) + 1.5]).astype('float32')
y = np.array([0] * 90 + [1] * 30)
dataset = TensorDataset(torch.from_numpy(X), torch.from_numpy(y))

# hold out a fifth
indices = list(range(len(dataset)))
split = int(np.floor(0.2 * len(dataset)))
np.random.shuffle(indices)
train_idx, valid_idx = indices[split:], indices[:split]
train_loader = DataLoader(dataset, batch_size=16, sampler=SubsetRandomSampler(train_idx))
valid_loader = DataLoader(dataset, batch_size=16, sampler=SubsetRandomSampler(valid_idx))
print(len(train_loader), len(valid_loader), len(train_loader.sampler))

# or draw both classes as often
class_count = np.bincount(y)
weights = 1. / class_count[y]
sampler = WeightedRandomSampler(torch.DoubleTensor(weights), len(weights))
balanced_loader = DataLoader(dataset, batch_size=16, sampler=sampler)
print('drawn: %.3f' % torch.cat([t for _, t in balanced_loader]).float().mean().item())

class Logistic(torch.nn.Module):
    def __init__(self, n):
        super().__init__()
        self.linear = torch.nn.Linear(n, 1)

    def forward(self, x):
        return torch.sigmoid(self.linear(x))

for name, loader in [('subset', train_loader), ('balanced', balanced_loader)]:
    model = Logistic(5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(3):
        for xb, yb in loader:
            optimizer.zero_grad()
            loss = F.binary_cross_entropy(model(xb).squeeze(), yb.float())
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        valid_loss, hits, n = 0, 0, 0
        for xb, yb in valid_loader:
            p = model(xb).squeeze(1)
            valid_loss += F.binary_cross_entropy(p, yb.float(), reduction='sum').item()
            hits += ((p > 0.5) == (yb > 0)).sum().item()
            n += len(yb)
    print(name, 'loss %.6f valid loss %.6f' % (loss.item(), valid_loss / n))
    print('accuracy', hits, n)
both = ConcatDataset([dataset, TensorDataset(torch.ones(3, 5), torch.ones(3).long())])
print(len(both), both[-1][1].item(), both.cumulative_sizes)
