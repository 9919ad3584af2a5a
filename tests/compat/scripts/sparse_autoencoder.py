import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.parameter import Parameter
import torchvision
import torchvision.transforms as transforms

BATCH, EPOCHS, RHO, BETA, LAMBDA = 32, 2, 0.1, 1e-2, 1e-4
trainset = torchvision.datasets.MNIST('data', transform=transforms.ToTensor(), download=True)
x_all = trainset.data.float().view(-1, 784).div(255)
print(x_all.shape, trainset.targets[:5].tolist())
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x_all, trainset.targets), BATCH, shuffle=True)


class TiedAutoencoder(nn.Module):
    """The decoder's weight is the encoder's, transposed."""

    def __init__(self, n_in, n_hidden):
        super().__init__()
        self.W = Parameter(torch.Tensor(n_hidden, n_in))
        self.b = Parameter(torch.Tensor(n_hidden))
        self.c = Parameter(torch.zeros(n_in))
        self.reset_parameters()

    def reset_parameters(self):
        stdv = 1. / (self.W.size(1) ** 0.5)
        self.W.data.uniform_(-stdv, stdv)
        self.b.data.uniform_(-stdv, stdv)

    def forward(self, x):
        h = torch.sigmoid(F.linear(x, self.W, self.b))
        return h, torch.sigmoid(F.linear(h, self.W.t(), self.c))


def kl_divergence(p, q):
    s1 = torch.sum(p * torch.log(p / q))
    s2 = torch.sum((1 - p) * torch.log((1 - p) / (1 - q)))
    return s1 + s2


def contractive(W, h):
    """The squared norm of the encoder's Jacobian."""
    dh = h * (1 - h)
    w_sum = torch.sum(W ** 2, dim=1).unsqueeze(1)
    return torch.mm(dh ** 2, w_sum).sum()


for kind in ['l1', 'kl', 'contractive']:
    ae = TiedAutoencoder(784, 40)
    optimizer = torch.optim.Adam(ae.parameters(), lr=2e-3)
    rho = torch.FloatTensor([RHO for _ in range(40)]).unsqueeze(0)
    for epoch in range(EPOCHS):
        for b_index, (x, _) in enumerate(loader):
            x = torch.autograd.Variable(x)
            h, decoded = ae(x)
            mse = (x - decoded) * (x - decoded)
            mse = mse.sum(1).mean()
            if kind == 'l1':
                penalty = h.abs().mean()
            elif kind == 'kl':
                penalty = BETA * kl_divergence(rho, torch.mean(h, dim=0, keepdim=True))
            else:
                penalty = LAMBDA * contractive(ae.W, h)
            loss = mse + penalty
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print('%s epoch %d loss %.5f penalty loss %.6f' % (kind, epoch, loss.item(), penalty.item()))
