import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader
from torchvision.datasets import MNIST
from torchvision import transforms

device = 'cuda' if torch.cuda.is_available() else 'cpu'

def idx2onehot(idx, n):
    assert torch.max(idx).item() < n
    if idx.dim() == 1:
        idx = idx.unsqueeze(1)
    onehot = torch.zeros(idx.size(0), n)
    onehot.scatter_(1, idx, 1)
    return onehot

class CVAE(nn.Module):
    def __init__(self, latent_size, num_labels):
        super().__init__()
        self.latent_size, self.num_labels = latent_size, num_labels
        self.encoder = nn.Sequential()
        self.encoder.add_module(name="L0", module=nn.Linear(784 + num_labels, 64))
        self.encoder.add_module(name="A0", module=nn.ReLU())
        self.means = nn.Linear(64, latent_size)
        self.log_var = nn.Linear(64, latent_size)
        self.decoder = nn.Sequential()
        for i, (n_in, n_out) in enumerate(zip([latent_size + num_labels, 64], [64, 784])):
            self.decoder.add_module(name="L{:d}".format(i), module=nn.Linear(n_in, n_out))
            self.decoder.add_module(name="A{:d}".format(i), module=nn.ReLU() if i == 0 else nn.Sigmoid())

    def forward(self, x, c):
        h = self.encoder(torch.cat((x.view(-1, 784), c), dim=-1))
        means, log_var = self.means(h), self.log_var(h)
        std = log_var.mul(0.5).exp_()
        z = torch.randn(std.size(), device=std.device) * std + means
        return self.inference(z, c), means, log_var

    def inference(self, z, c):
        return self.decoder(torch.cat((z, c), dim=-1))

torch.manual_seed(0)
dataset = MNIST(root='data', train=True, transform=transforms.ToTensor(), download=True)
loader = DataLoader(dataset=dataset, batch_size=64, shuffle=True)
cvae = CVAE(2, 10).to(device)
optimizer = torch.optim.Adam(cvae.parameters(), lr=0.002)
for epoch in range(2):
    for iteration, (x, y) in enumerate(loader):
        x, y = x.to(device), y.to(device)
        recon, mean, log_var = cvae(x, idx2onehot(y, 10))
        BCE = F.binary_cross_entropy(recon.view(-1, 784), x.view(-1, 784), reduction='none').sum(1).mean()
        KLD = (-0.5 * (1 + log_var - mean.pow(2) - log_var.exp()).sum(dim=1)).mean()
        loss = BCE + KLD
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print("epoch {:02d} loss {:9.5f} KL {:.5f}".format(epoch, loss.item(), KLD.item()))
c = torch.arange(0, 10).long()
with torch.no_grad():
    made = cvae.inference(torch.randn([10, 2]), idx2onehot(c, 10))
print(made.shape, "{:.5f}".format(made.mean().item()))
