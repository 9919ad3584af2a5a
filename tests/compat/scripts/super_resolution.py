from math import log10

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import CIFAR10
from torchvision.transforms import Compose, Grayscale, ToTensor
from torchvision.utils import make_grid, save_image


class Pairs(Dataset):
    def __init__(self, root, train, factor):
        super(Pairs, self).__init__()
        self.photos = CIFAR10(root, train=train, download=True, transform=Compose([Grayscale(), ToTensor()]))
        self.factor = factor

    def __getitem__(self, index):
        target = self.photos[index][0]
        return F.avg_pool2d(target.unsqueeze(0), self.factor).squeeze(0), target

    def __len__(self):
        return len(self.photos) // 2


class SuperRes(nn.Module):
    def __init__(self, upscale_factor):
        super(SuperRes, self).__init__()
        self.relu = nn.ReLU()
        self.body = nn.ModuleList([nn.Conv2d(1, 16, 5, 1, 2), nn.Conv2d(16, 16, 3, 1, 1)])
        self.up = nn.Upsample(scale_factor=upscale_factor, mode='bilinear', align_corners=False)
        self.last = nn.Conv2d(16, 1, (3, 3), (1, 1), (1, 1))
        self._initialize_weights()

    def forward(self, x):
        skip = F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=False)
        for conv in self.body:
            x = self.relu(conv(x))
        return skip + self.last(self.up(x))

    def _initialize_weights(self):
        for conv in self.body:
            nn.init.kaiming_uniform_(conv.weight, nonlinearity='relu')
            nn.init.zeros_(conv.bias)
        nn.init.normal_(self.last.weight, std=1e-3)


train = DataLoader(Pairs('data', True, 2), batch_size=16, shuffle=True)
test = DataLoader(Pairs('data', False, 2), batch_size=16)
model, criterion = SuperRes(2), nn.MSELoss()
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
scheduler = CosineAnnealingLR(optimizer, T_max=3, eta_min=1e-4)
for epoch in range(3):
    epoch_loss = 0
    for iteration, (small, target) in enumerate(train, 1):
        optimizer.zero_grad()
        loss = criterion(model(small), target)
        epoch_loss += loss.item()
        loss.backward()
        optimizer.step()
    scheduler.step()
    avg_psnr = 0
    with torch.no_grad():
        for small, target in test:
            prediction = model(small)
            avg_psnr += 10 * log10(1 / criterion(prediction, target).item())
    print("Epoch {} loss {:.7f}".format(epoch, epoch_loss / len(train)))
    print("PSNR {:.4f} dB".format(avg_psnr / len(test)))
    torch.save(model.state_dict(), "model_epoch_{}.pth".format(epoch))
sheet = make_grid(torch.stack([target[0], prediction[0].clamp(0, 1), target[1], prediction[1].clamp(0, 1)]), nrow=2)
print(sheet.shape)
save_image(sheet, 'pairs.png')
