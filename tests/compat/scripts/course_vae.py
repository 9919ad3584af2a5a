# Variational autoencoder. The loss class wraps any reconstruction loss and adds the model's own regulariser to it.
import os

import torch
from torch import nn
from torch.autograd import Variable
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import MNIST
from torchvision.utils import save_image

cuda = torch.cuda.is_available()
Floats = torch.cuda.FloatTensor if cuda else torch.FloatTensor
if not os.path.exists('./samples'):
    os.makedirs('./samples')

class Encoder(nn.Module):
    def __init__(self, latent):
        super(Encoder, self).__init__()
        self.hidden = nn.Linear(28 * 28, 200)
        self.mean = nn.Linear(200, latent)
        self.log_variance = nn.Linear(200, latent)

    def forward(self, x):
        h = torch.relu(self.hidden(x.view(x.size(0), -1)))
        return self.mean(h), self.log_variance(h)

class VAE(nn.Module):
    def __init__(self, latent=20):
        super(VAE, self).__init__()
        self.encoder = Encoder(latent)
        self.decoder = nn.Sequential(nn.Linear(latent, 200), nn.ReLU(True), nn.Linear(200, 28 * 28), nn.Sigmoid())
        self.penalty = None

    def sample(self, mu, logvar):
        noise = Variable(Floats(mu.size()).normal_())
        return noise.mul(logvar.mul(0.5).exp()).add_(mu)

    def forward(self, x):
        mu, logvar = self.encoder(x)
        terms = mu.pow(2).add_(logvar.exp()).mul_(-1).add_(1).add_(logvar)
        self.penalty = torch.sum(terms).mul_(-0.5)
        return self.decoder(self.sample(mu, logvar))

class Regularised(nn.Module):
    def __init__(self, model, loss, weight=1.0):
        super(Regularised, self).__init__()
        self.model, self.loss, self.weight = model, loss, weight

    def forward(self, output, target):
        return self.loss(output, target) + self.weight * self.model.penalty

loader = DataLoader(MNIST('./data', transform=transforms.Compose([transforms.ToTensor()]), download=True),
                    batch_size=64, shuffle=True)
vae = VAE()
if cuda:
    vae.cuda()
criterion = Regularised(vae, nn.BCELoss(size_average=False))
optimizer = torch.optim.Adam(vae.parameters(), lr=1e-3)
print(sum(p.numel() for p in criterion.parameters()))
for epoch in range(3):
    vae.train()
    total = 0
    for i, (x, _) in enumerate(loader):
        x = Variable(x.view(x.size(0), -1))
        optimizer.zero_grad()
        y = vae(x)
        loss = criterion(y, x)
        loss.backward()
        optimizer.step()
        total += loss.data
        if i % 2 == 0:
            print('{} [{}/{} ({:.0f}%)]\tloss {:.6f}'.format(
                epoch, i * len(x), len(loader.dataset), 100. * i / len(loader), loss.data / len(x)))
    print('epoch {}: loss {:.4f}'.format(epoch, total / len(loader.dataset)))
    save_image(y.data.cpu().clamp(0, 1).view(-1, 1, 28, 28), './samples/epoch_{}.png'.format(epoch))
torch.save(vae.state_dict(), './vae.pth')
vae.eval()
print('%.5f' % vae.decoder(Variable(torch.randn(8, 20))).data.mean())
