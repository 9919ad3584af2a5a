# An iterable data set, read by workers, and a data set with a worker_init_fn
import math
import random
import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset, get_worker_info

class Waves(IterableDataset):
    def __init__(self, start, end):
        super().__init__()
        assert end > start
        self.start, self.end = start, end

    def __iter__(self):
        info = get_worker_info()
        if info is None:
            first, last = self.start, self.end
        else:
            per_worker = int(math.ceil((self.end - self.start) / float(info.num_workers)))
            first = self.start + info.id * per_worker
            last = min(first + per_worker, self.end)
        for k in range(first, last):
            x = torch.linspace(0, 1, 16) + k / 7
            yield torch.tensor([math.sin(6 * v) for v in x.tolist()]), torch.tensor([k % 7 / 7.0])

def init(worker_id):
    assert get_worker_info().id == worker_id
    worker_seed = torch.initial_seed() % 2**32
    np.random.seed(worker_seed)
    random.seed(worker_seed)

model = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, dampening=0.1)
for workers in [0, 2]:
    loader = DataLoader(Waves(0, 84), batch_size=12, num_workers=workers)
    count = 0
    for epoch in range(2):
        for x, t in loader:
            loss = nn.functional.mse_loss(model(x), t)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            count += len(x)
        print(workers, epoch, count, 'loss', loss.item())

fixed = [item for item in Waves(0, 40)]
x, t = torch.stack([a for a, _ in fixed]), torch.stack([b for _, b in fixed])
part = Subset(TensorDataset(x, t), list(range(0, 40, 2)))
loader = DataLoader(part, batch_size=6, num_workers=2, worker_init_fn=init, prefetch_factor=2, persistent_workers=True,
                    drop_last=True, timeout=30, generator=torch.Generator().manual_seed(0))
it = iter(loader)
print(len(loader), len(loader.dataset), [tuple(v.shape) for v in next(it)], type(next(it)).__name__)
try:
    while True:
        last = next(it)
except StopIteration:
    print('mse loss %.7f' % ((model(last[0]) - last[1]) ** 2).mean().item())
