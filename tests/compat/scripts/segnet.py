"""Encoder-decoder that remembers where its maxima were (max-unpooling), for segmentation with three classes."""
from collections import OrderedDict
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import Dataset, DataLoader
from torchvision.transforms import functional as TF
from torchvision.datasets import MNIST


class Segments(Dataset):
    """Background 0, thin strokes 1, thick strokes 2."""

    def __init__(self, train):
        self.mnist = MNIST('data', train=train, download=True)

    def __len__(self):
        return 96

    def __getitem__(self, i):
        img, label = self.mnist[i]
        x = TF.to_tensor(img)
        target = (x[0] > 0.3).long() + (x[0] > 0.8).long()
        return x, target


class SegNet(nn.Module):
    def __init__(self, classes=3):
        super(SegNet, self).__init__()
        self.down = nn.ModuleList([self.stage(1, 8), self.stage(8, 16)])
        self.up = nn.ModuleList([self.stage(16, 8), self.stage(8, 8)])
        self.head = nn.Conv2d(8, classes, 1)

    @staticmethod
    def stage(n_in, n_out):
        return nn.Sequential(OrderedDict([
            ('conv', nn.Conv2d(n_in, n_out, 3, padding=1)), ('bn', nn.BatchNorm2d(n_out, momentum=0.2)),
            ('relu', nn.ReLU(inplace=True))]))

    def forward(self, x):
        memory = []
        for stage in self.down:
            x = stage(x)
            size = x.size()
            x, indices = F.max_pool2d(x, kernel_size=2, stride=2, return_indices=True)
            memory.append((indices, size))
        for stage, (indices, size) in zip(self.up, reversed(memory)):
            x = stage(F.max_unpool2d(x, indices, kernel_size=2, stride=2, output_size=size))
        return self.head(x)


def iou(pred, target, n_classes=3):
    result = []
    for k in range(n_classes):
        a, b = pred == k, target == k
        union = (a | b).long().sum().item()
        result.append(float('nan') if union == 0 else (a & b).long().sum().item() / union)
    return result


model = SegNet()
print(list(model.state_dict().keys())[:7])
optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
criterion = nn.NLLLoss()
loader = DataLoader(Segments(True), batch_size=16, shuffle=True)
for epoch in range(2):
    model.train()
    for step, (x, target) in enumerate(loader):
        out = F.log_softmax(model(x), dim=1)
        loss = criterion(out, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 3 == 0:
            print(f'epoch: {epoch}, step: {step}, loss: {loss.item():.6f}')
model.eval()
with torch.no_grad():
    x, target = next(iter(DataLoader(Segments(False), batch_size=32)))
    pred = model(x).argmax(dim=1)
    print(pred.shape, ['%.2f' % v for v in iou(pred, target)], 'loss %.6f' % F.cross_entropy(model(x), target))
