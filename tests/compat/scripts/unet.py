"""A small U-Net that finds discs in noise."""
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import Dataset, DataLoader, random_split


class Discs(Dataset):
    def __init__(self, n, size=24, seed=0):
        rng = np.random.RandomState(seed)
        yy, xx = np.mgrid[:size, :size]
        self.images, self.masks = [], []
        for _ in range(n):
            cy, cx, r = rng.randint(6, size - 6), rng.randint(6, size - 6), rng.randint(3, 6)
            mask = ((yy - cy) ** 2 + (xx - cx) ** 2 < r * r).astype(np.float32)
            self.images.append((mask * 0.5 + rng.rand(size, size) * 0.7).astype(np.float32))
            self.masks.append(mask)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return {'image': torch.from_numpy(self.images[i])[None], 'mask': torch.as_tensor(self.masks[i]).unsqueeze(0)}


class DoubleConv(nn.Module):
    """(convolution => [BN] => ReLU) * 2"""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.double_conv = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))

    def forward(self, x):
        return self.double_conv(x)


class Up(nn.Module):
    def __init__(self, in_channels, out_channels, bilinear=True):
        super().__init__()
        if bilinear:
            self.up = nn.Sequential(nn.Upsample(scale_factor=2, mode='bilinear', align_corners=True),
                                    nn.Conv2d(in_channels, in_channels // 2, 1))
        else:
            self.up = nn.ConvTranspose2d(in_channels, in_channels // 2, kernel_size=2, stride=2)
        self.conv = DoubleConv(in_channels, out_channels)

    def forward(self, x1, x2):
        x1 = self.up(x1)
        diffY, diffX = x2.size()[2] - x1.size()[2], x2.size()[3] - x1.size()[3]
        x1 = F.pad(x1, [diffX // 2, diffX - diffX // 2, diffY // 2, diffY - diffY // 2])
        return self.conv(torch.cat([x2, x1], dim=1))


class UNet(nn.Module):
    def __init__(self, n_channels, n_classes):
        super().__init__()
        self.inc = DoubleConv(n_channels, 8)
        self.down1 = nn.Sequential(nn.MaxPool2d(2), DoubleConv(8, 16))
        self.down2 = nn.Sequential(nn.MaxPool2d(2), DoubleConv(16, 32))
        self.up1, self.up2 = Up(32, 16), Up(16, 8, bilinear=False)
        self.outc = nn.Conv2d(8, n_classes, kernel_size=1)

    def forward(self, x):
        x1 = self.inc(x)
        x2 = self.down1(x1)
        x = self.up1(self.down2(x2), x2)
        return self.outc(self.up2(x, x1))


def dice_coeff(pred, target, smooth=1.):
    pred, target = pred.contiguous().view(pred.shape[0], -1), target.contiguous().view(target.shape[0], -1)
    inter = (pred * target).sum(1)
    return ((2. * inter + smooth) / (pred.sum(1) + target.sum(1) + smooth)).mean()


dataset = Discs(60)
train_set, val_set = random_split(dataset, [48, 12], generator=torch.Generator().manual_seed(0))
loader_args = dict(batch_size=8, num_workers=0, pin_memory=True)
train_loader = DataLoader(train_set, shuffle=True, **loader_args)
val_loader = DataLoader(val_set, shuffle=False, drop_last=True, **loader_args)
net = UNet(1, 1)
optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=1e-8)
criterion = nn.BCEWithLogitsLoss()
for epoch in range(2):
    net.train()
    for batch in train_loader:
        images, true_masks = batch['image'].to(dtype=torch.float32), batch['mask']
        masks_pred = net(images)
        loss = criterion(masks_pred, true_masks) + (1 - dice_coeff(torch.sigmoid(masks_pred), true_masks))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_value_(net.parameters(), 0.1)
        optimizer.step()
        print('loss (batch) %.6f' % loss.item())
    net.eval()
    scores = []
    for batch in val_loader:
        with torch.no_grad():
            pred = (torch.sigmoid(net(batch['image'])) > 0.5).float()
        scores.append(dice_coeff(pred, batch['mask']).item())
    print('epoch', epoch, 'Dice %.3f' % np.mean(scores))
torch.save(net.state_dict(), 'unet.pth')
