import argparse
import os
import torch
import torch.utils.data
from torch import nn, optim
from torch.nn import functional as F
from torchvision import datasets, transforms
from torchvision.utils import save_image

parser = argparse.ArgumentParser()
parser.add_argument('--epochs', type=int, default=2)
parser.add_argument('--log-interval', type=int, default=2)
parser.add_argument('--no-accel', action='store_true')
args = parser.parse_args()
accel = not args.no_accel and torch.accelerator.is_available()
device = torch.accelerator.current_accelerator() if accel else torch.device('cpu')
kwargs = {'num_workers': 1, 'persistent_workers': True, 'pin_memory': True, 'shuffle': True} if accel \
    else {'shuffle': True}
print(device)

train = torch.utils.data.DataLoader(
    datasets.MNIST('./data', train=True, download=True, transform=transforms.ToTensor()), batch_size=64, **kwargs)
test = torch.utils.data.DataLoader(
    datasets.MNIST('./data', train=False, transform=transforms.ToTensor()), batch_size=50)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(784, 100)
        self.mu = nn.Linear(100, 8)
        self.lv = nn.Linear(100, 8)
        self.down1 = nn.Linear(8, 100)
        self.down2 = nn.Linear(100, 784)

    def encode(self, x):
        h = F.relu(self.up(x))
        return self.mu(h), self.lv(h)

    def reparameterize(self, mu, logvar):
        if not self.training:
            return mu
        std = torch.exp(0.5 * logvar)
        eps = torch.randn_like(std)
        return mu + eps * std

    def decode(self, z):
        return torch.sigmoid(self.down2(F.relu(self.down1(z))))

    def forward(self, x):
        mu, logvar = self.encode(x.view(-1, 784))
        return self.decode(self.reparameterize(mu, logvar)), mu, logvar


def objective(recon, x, mu, logvar):
    bce = F.binary_cross_entropy(recon, x.view(-1, 784), reduction='sum')
    kld = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    return bce + kld


model = Model().to(device)
optimizer = optim.Adam(model.parameters(), lr=1e-3)
os.makedirs('results', exist_ok=True)
for epoch in range(1, args.epochs + 1):
    model.train()
    running = 0
    for i, (x, _) in enumerate(train):
        x = x.to(device)
        optimizer.zero_grad()
        recon, mu, logvar = model(x)
        loss = objective(recon, x, mu, logvar)
        loss.backward()
        running += loss.item()
        optimizer.step()
        if i % args.log_interval == 0:
            print(f'{epoch} [{i * len(x)}/{len(train.dataset)}] loss {loss.item() / len(x):.6f}')
    print(f'epoch {epoch} loss {running / len(train.dataset):.6f}')
    model.eval()
    with torch.no_grad():
        total = 0
        for i, (x, _) in enumerate(test):
            recon, mu, logvar = model(x.to(device))
            total += objective(recon, x, mu, logvar).item()
            if i == 0:
                n = min(x.size(0), 8)
                comparison = torch.cat([x[:n], recon.view(50, 1, 28, 28)[:n]])
                save_image(comparison.cpu(), f'results/reconstruction_{epoch}.png', nrow=n)
        print(f'test loss {total / len(test.dataset):.6f}')
        z = torch.randn(16, 8).to(device)
        save_image(model.decode(z).cpu().view(16, 1, 28, 28), f'results/sample_{epoch}.png')
