import itertools
import os
import numpy as np
import torch
import torch.nn as nn
from torch.autograd import Variable
from torch.utils.data import DataLoader
from torchvision import datasets, transforms
from torchvision.utils import save_image

img_shape, latent_dim = (1, 28, 28), 6
cuda = torch.cuda.is_available()
FloatTensor = torch.cuda.FloatTensor if cuda else torch.FloatTensor
LongTensor = torch.cuda.LongTensor if cuda else torch.LongTensor
np.random.seed(7)

def reparameterization(mu, logvar):
    std = torch.exp(logvar / 2)
    sampled_z = Variable(FloatTensor(np.random.normal(0, 1, (mu.size(0), latent_dim))))
    return sampled_z * std + mu

class Encoder(nn.Module):
    def __init__(self):
        super(Encoder, self).__init__()
        self.model = nn.Sequential(nn.Linear(int(np.prod(img_shape)), 64), nn.LeakyReLU(0.2, inplace=True),
                                   nn.Linear(64, 64), nn.BatchNorm1d(64), nn.LeakyReLU(0.2, inplace=True))
        self.mu, self.logvar = nn.Linear(64, latent_dim), nn.Linear(64, latent_dim)

    def forward(self, img):
        x = self.model(img.view(img.shape[0], -1))
        return reparameterization(self.mu(x), self.logvar(x))

class Decoder(nn.Module):
    def __init__(self):
        super(Decoder, self).__init__()
        self.model = nn.Sequential(nn.Linear(latent_dim, 64), nn.LeakyReLU(0.2, inplace=True), nn.Linear(64, 64),
                                   nn.BatchNorm1d(64), nn.LeakyReLU(0.2, inplace=True),
                                   nn.Linear(64, int(np.prod(img_shape))), nn.Tanh())

    def forward(self, z):
        return self.model(z).view(-1, *img_shape)

encoder, decoder = Encoder(), Decoder()
discriminator = nn.Sequential(nn.Linear(latent_dim, 64), nn.LeakyReLU(0.2, inplace=True), nn.Linear(64, 1), nn.Sigmoid())
adversarial_loss, pixelwise_loss = torch.nn.BCELoss(), torch.nn.L1Loss()
one_hot = torch.eye(10)[LongTensor([3, 1, 4])]
print(one_hot.size(), isinstance(one_hot, torch.FloatTensor), one_hot.type())
dataloader = DataLoader(datasets.MNIST('data', transform=transforms.Compose(
    [transforms.ToTensor(), transforms.Normalize([0.5], [0.5])]), download=True), batch_size=64, shuffle=True)
optimizer_G = torch.optim.Adam(itertools.chain(encoder.parameters(), decoder.parameters()), lr=2e-4, betas=(0.5, 0.999))
optimizer_D = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
os.makedirs("images", exist_ok=True)
for epoch in range(2):
    for i, (imgs, _) in enumerate(dataloader):
        valid = Variable(FloatTensor(imgs.shape[0], 1).fill_(1.0), requires_grad=False)
        fake = Variable(FloatTensor(imgs.shape[0], 1).fill_(0.0), requires_grad=False)
        real_imgs = Variable(imgs.type(FloatTensor))
        optimizer_G.zero_grad()
        encoded_imgs = encoder(real_imgs)
        decoded_imgs = decoder(encoded_imgs)
        g_loss = 0.05 * adversarial_loss(discriminator(encoded_imgs), valid) + \
            0.95 * pixelwise_loss(decoded_imgs, real_imgs)
        g_loss.backward()
        optimizer_G.step()
        optimizer_D.zero_grad()
        z = Variable(FloatTensor(np.random.normal(0, 1, (imgs.shape[0], latent_dim))))
        d_loss = 0.5 * (adversarial_loss(discriminator(z), valid) +
                        adversarial_loss(discriminator(encoded_imgs.detach()), fake))
        d_loss.backward()
        optimizer_D.step()
        print("[%d/%d] [D loss: %f] [G loss: %f]" % (i, len(dataloader), d_loss.item(), g_loss.item()))
decoder.eval()
gen_imgs = decoder(Variable(FloatTensor(np.random.normal(0, 1, (4, latent_dim)))))
save_image(gen_imgs.data, "images/samples.png", nrow=2, normalize=True)
