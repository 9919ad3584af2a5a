import argparse
import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision.transforms as transforms
from torch.autograd import Variable
from torch.utils.data import DataLoader
from torchvision import datasets
from torchvision.utils import save_image

os.makedirs("images", exist_ok=True)
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.0002, help="adam: learning rate")
parser.add_argument("--latent_dim", type=int, default=20, help="size of the noise")
parser.add_argument("--img_size", type=int, default=16, help="size of the images")
opt = parser.parse_args()
print(opt)
shape = (1, opt.img_size, opt.img_size)
cuda = True if torch.cuda.is_available() else False
Tensor = torch.cuda.FloatTensor if cuda else torch.FloatTensor
np.random.seed(0)

class Generator(nn.Module):
    def __init__(self):
        super(Generator, self).__init__()

        def layers(n_in, n_out, normalize=True):
            found = [nn.Linear(n_in, n_out)]
            if normalize:
                found.append(nn.BatchNorm1d(n_out, 0.8))
            found.append(nn.LeakyReLU(0.2, inplace=True))
            return found

        self.model = nn.Sequential(*layers(opt.latent_dim, 32, normalize=False), *layers(32, 64),
                                   nn.Linear(64, int(np.prod(shape))), nn.Tanh())

    def forward(self, z):
        img = self.model(z)
        return img.view(img.size(0), *shape)

class Discriminator(nn.Module):
    def __init__(self):
        super(Discriminator, self).__init__()
        self.model = nn.Sequential(nn.Linear(int(np.prod(shape)), 64), nn.LeakyReLU(0.2, inplace=True),
                                   nn.Linear(64, 1), nn.Sigmoid())

    def forward(self, img):
        return self.model(img.view(img.size(0), -1))

adversarial_loss = torch.nn.BCELoss()
generator, discriminator = Generator(), Discriminator()
if cuda:
    generator.cuda()
    discriminator.cuda()
    adversarial_loss.cuda()
dataloader = DataLoader(
    datasets.MNIST("data", train=True, download=True, transform=transforms.Compose(
        [transforms.Resize(opt.img_size), transforms.ToTensor(), transforms.Normalize([0.5], [0.5])])),
    batch_size=64, shuffle=True)
optimizer_G = torch.optim.Adam(generator.parameters(), lr=opt.lr, betas=(0.5, 0.999))
optimizer_D = torch.optim.Adam(discriminator.parameters(), lr=opt.lr, betas=(0.5, 0.999))
for epoch in range(2):
    for i, (imgs, _) in enumerate(dataloader):
        valid = Variable(Tensor(imgs.size(0), 1).fill_(1.0), requires_grad=False)
        fake = Variable(Tensor(imgs.size(0), 1).fill_(0.0), requires_grad=False)
        real_imgs = Variable(imgs.type(Tensor))
        optimizer_G.zero_grad()
        z = Variable(Tensor(np.random.normal(0, 1, (imgs.shape[0], opt.latent_dim))))
        gen_imgs = generator(z)
        g_loss = adversarial_loss(discriminator(gen_imgs), valid)
        g_loss.backward()
        optimizer_G.step()
        optimizer_D.zero_grad()
        real_loss = adversarial_loss(discriminator(real_imgs), valid)
        fake_loss = adversarial_loss(discriminator(gen_imgs.detach()), fake)
        d_loss = (real_loss + fake_loss) / 2
        d_loss.backward()
        optimizer_D.step()
        print("[Epoch %d] [Batch %d/%d] [D loss: %f] [G loss: %f]"
              % (epoch, i, len(dataloader), d_loss.item(), g_loss.item()))
    save_image(gen_imgs.data[:25], "images/%d.png" % epoch, nrow=5, normalize=True)
