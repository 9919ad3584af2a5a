"""Conditional GAN from shape outlines to shapes: nested U-Net generator, patch discriminator, L1."""
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.utils.data as data
import torchvision.transforms as transforms
from torch.nn import init
from torchvision.datasets import CIFAR10


class EdgeDataset(data.Dataset):
    def __init__(self, root):
        super(EdgeDataset, self).__init__()
        self.base = CIFAR10(root, train=False, download=True, transform=transforms.Compose([
            transforms.Resize(16), transforms.ToTensor(), transforms.Normalize((.5, .5, .5), (.5, .5, .5))]))

    def __getitem__(self, index):
        B, _ = self.base[index]
        A = torch.zeros_like(B)
        A[:, 1:, 1:] = ((B[:, 1:, 1:] - B[:, :-1, 1:]).abs() + (B[:, 1:, 1:] - B[:, 1:, :-1]).abs()).clamp(max=1)
        return {'A': A, 'B': B, 'A_paths': 'img_%d' % index}

    def __len__(self):
        return 48


def weights_init(net, init_type='normal', gain=0.02):
    def init_func(m):
        classname = m.__class__.__name__
        if hasattr(m, 'weight') and (classname.find('Conv') != -1 or classname.find('Linear') != -1):
            if init_type == 'normal':
                init.normal_(m.weight.data, 0.0, gain)
            else:
                init.xavier_normal_(m.weight.data, gain=gain)
            if hasattr(m, 'bias') and m.bias is not None:
                init.constant_(m.bias.data, 0.0)
        elif classname.find('BatchNorm2d') != -1:
            init.normal_(m.weight.data, 1.0, gain)
            init.constant_(m.bias.data, 0.0)
    net.apply(init_func)
    return net


class UnetBlock(nn.Module):
    def __init__(self, outer, inner, submodule=None, outermost=False, use_dropout=False):
        super(UnetBlock, self).__init__()
        self.outermost = outermost
        down = [] if outermost else [nn.LeakyReLU(0.2, True)]
        down.append(nn.Conv2d(3 if outermost else outer, inner, 4, 2, 1, bias=False))
        up = [nn.ReLU(True), nn.ConvTranspose2d(inner * (2 if submodule else 1), outer, 4, 2, 1)]
        up += [nn.Tanh()] if outermost else [nn.BatchNorm2d(outer)]
        if use_dropout:
            up.append(nn.Dropout(0.5))
        self.model = nn.Sequential(*down, *([submodule] if submodule else []), *up)

    def forward(self, x):
        return self.model(x) if self.outermost else torch.cat([x, self.model(x)], 1)


netG = UnetBlock(32, 32, use_dropout=True)
netG = UnetBlock(16, 32, netG)
netG = weights_init(UnetBlock(3, 16, netG, outermost=True))
netD = weights_init(nn.Sequential(
    nn.Conv2d(6, 8, 4, 2, 1), nn.LeakyReLU(0.2, True), nn.Conv2d(8, 16, 4, 1, 1, bias=False), nn.BatchNorm2d(16),
    nn.LeakyReLU(0.2, True), nn.Conv2d(16, 1, 4, 1, 1)), 'xavier')
criterionGAN, criterionL1 = nn.MSELoss(), nn.L1Loss()
optimizer_G = torch.optim.Adam(netG.parameters(), lr=2e-4, betas=(0.5, 0.999))
optimizer_D = torch.optim.Adam(netD.parameters(), lr=2e-4, betas=(0.5, 0.999))

def lambda_rule(epoch):
    return 1.0 - max(0, epoch - 1) / float(3)

schedulers = [torch.optim.lr_scheduler.LambdaLR(o, lr_lambda=lambda_rule) for o in [optimizer_G, optimizer_D]]

def gan(prediction, real):
    return criterionGAN(prediction, torch.tensor(1.0 if real else 0.0).expand_as(prediction))

for epoch in range(2):
    for i, batch in enumerate(data.DataLoader(EdgeDataset('data'), batch_size=8, shuffle=True)):
        real_A, real_B = batch['A'], batch['B']
        fake_B = netG(real_A)
        for p in netD.parameters():
            p.requires_grad = True
        optimizer_D.zero_grad()
        loss_D = (gan(netD(torch.cat((real_A, fake_B.detach()), 1)), False) +
                  gan(netD(torch.cat((real_A, real_B), 1)), True)) * 0.5
        loss_D.backward()
        optimizer_D.step()
        for p in netD.parameters():
            p.requires_grad = False
        optimizer_G.zero_grad()
        loss_G_L1 = criterionL1(fake_B, real_B) * 100.0
        loss_G = gan(netD(torch.cat((real_A, fake_B), 1)), True) + loss_G_L1
        loss_G.backward()
        optimizer_G.step()
    print('(epoch: %d, iters: %d) loss_D: %.6f loss_G: %.5f' % (epoch, i, loss_D, loss_G), batch['A_paths'][0][:4])
    for scheduler in schedulers:
        scheduler.step()
print('learning rate = %.7f' % optimizer_G.param_groups[0]['lr'])
