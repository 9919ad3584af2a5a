# Sets of different sizes: collate_fn pads them and returns a mask. Deep sets learn their largest element.
import torch
import torch.nn as nn
import torch.utils.data as data

class Bags(data.Dataset):
    def __init__(self, n):
        self.sizes = [3 + (7 * i) % 5 for i in range(n)]
        self.bags = [torch.rand(size, 2) for size in self.sizes]

    def __getitem__(self, index):
        bag = self.bags[index]
        return bag, bag.max().item(), index

    def __len__(self):
        return len(self.bags)

def collate(batch):
    batch.sort(key=lambda item: len(item[0]), reverse=True)
    bags, targets, indices = zip(*batch)
    longest = max(len(b) for b in bags)
    padded = torch.zeros(len(bags), longest, 2)
    mask = torch.zeros(len(bags), longest).byte()
    for i, bag in enumerate(bags):
        end = bag.size(0)
        padded[i, :end] = bag[:end]
        mask[i, :end] = 1
    return padded, mask, torch.Tensor(targets), torch.LongTensor(indices)

class DeepSets(nn.Module):
    def __init__(self, dim=16):
        super(DeepSets, self).__init__()
        self.phi = nn.Sequential(nn.Linear(2, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU())
        self.rho = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 1))

    def forward(self, x, mask):
        h = self.phi(x) * mask.unsqueeze(-1).float()
        return self.rho(h.sum(1) / mask.sum(1, keepdim=True).float()).squeeze(-1)

bags = Bags(90)
sampler = data.sampler.BatchSampler(data.sampler.SequentialSampler(bags), batch_size=18, drop_last=False)
loader = data.DataLoader(bags, batch_sampler=sampler, collate_fn=collate)
print(len(loader), [x.shape for x in next(iter(loader))])
model = DeepSets()
optimizer = torch.optim.Adam([{'params': model.phi.parameters()}, {'params': model.rho.parameters(), 'lr': 5e-3}], lr=1e-2)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_lambda=lambda e: 0.9 ** e)
for epoch in range(4):
    for x, mask, target, index in loader:
        model.zero_grad()
        loss = ((model(x, mask) - target) ** 2).mean()
        loss.backward()
        total_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
        optimizer.step()
    scheduler.step()
    print('epoch {} loss {:.7f} norm {:.6f} rates {}'.format(
        epoch, loss.item(), float(total_norm), ['%.5f' % group['lr'] for group in optimizer.param_groups]))
