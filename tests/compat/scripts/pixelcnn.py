"""Masked convolutions predict each pixel from those before it."""
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import optim
from torch.utils import data
from torchvision import datasets, transforms, utils

torch.backends.cudnn.benchmark = True


class MaskedConv2d(nn.Conv2d):
    def __init__(self, mask_type, *args, **kwargs):
        super(MaskedConv2d, self).__init__(*args, **kwargs)
        assert mask_type in {'A', 'B'}
        self.register_buffer('mask', self.weight.data.clone())
        _, _, kH, kW = self.weight.size()
        self.mask.fill_(1)
        self.mask[:, :, kH // 2, kW // 2 + (mask_type == 'B'):] = 0
        self.mask[:, :, kH // 2 + 1:] = 0

    def forward(self, x):
        self.weight.data *= self.mask
        return super(MaskedConv2d, self).forward(x)


fm = 8
net = nn.Sequential(
    MaskedConv2d('A', 1, fm, 7, 1, 3, bias=False), nn.BatchNorm2d(fm), nn.ReLU(True),
    MaskedConv2d('B', fm, fm, 5, 1, 2, bias=False), nn.BatchNorm2d(fm), nn.ReLU(True),
    nn.Conv2d(fm, 4, 1))
print(net)
small = transforms.Compose([transforms.Resize(14), transforms.ToTensor()])
tr = data.DataLoader(datasets.MNIST('data', train=True, download=True, transform=small),
                     batch_size=32, shuffle=True, num_workers=1, pin_memory=True)
te = data.DataLoader(datasets.MNIST('data', train=False, download=True, transform=small),
                     batch_size=50, shuffle=False, num_workers=1, pin_memory=True)
optimizer = optim.Adam(net.parameters())
for epoch in range(2):
    err_tr = []
    net.train(True)
    for input, _ in tr:
        target = (input.data[:, 0] * 3.999).long()
        loss = F.cross_entropy(net(input), target)
        err_tr.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    err_te = []
    net.train(False)
    with torch.no_grad():
        for input, _ in te:
            target = (input.data[:, 0] * 3.999).long()
            err_te.append(F.cross_entropy(net(input), target).item())
    print('epoch={}; train loss={:.7f}; test loss={:.7f}'.format(
        epoch, sum(err_tr) / len(err_tr), sum(err_te) / len(err_te)))

# sampling, a row of it
sample = torch.Tensor(4, 1, 14, 14)
sample.fill_(0)
net.eval()
for i in range(2):
    for j in range(14):
        with torch.no_grad():
            out = net(sample)
        probs = F.softmax(out[:, :, i, j], dim=1).data
        sample[:, :, i, j] = (probs.cumsum(1) > torch.rand(4, 1)).float().argmax(1, keepdim=True).float() / 3.
utils.save_image(sample, 'sample_{:02d}.png'.format(epoch), nrow=4, padding=0)
print('%.4f' % sample.mean().item())
