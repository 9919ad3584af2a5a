# Wasserstein GAN on two-dimensional points, with clipped weights
import torch
import torch.nn as nn
from torch import autograd
from torch.autograd import Variable

torch.manual_seed(1)
BATCH, CRITIC_ITERS, CLIP = 64, 3, 0.05

def points(n):
    corner = torch.randint(0, 8, (n,))
    x = torch.stack([corner.float() / 4, (corner > 3).float() * 2], 1)
    return x - 1 + 0.05 * torch.randn(n, 2)

class MLP(nn.Module):
    def __init__(self, n_in, n_out):
        super(MLP, self).__init__()
        self.main = nn.Sequential(nn.Linear(n_in, 32), nn.ReLU(True), nn.Linear(32, 32), nn.ReLU(True),
                                  nn.Linear(32, n_out))

    def forward(self, x):
        return self.main(x)

netG, netD = MLP(4, 2), MLP(2, 1)
one = torch.FloatTensor([1])
mone = one * -1
optD = torch.optim.RMSprop(netD.parameters(), lr=5e-4)
optG = torch.optim.RMSprop(netG.parameters(), lr=5e-4)
for iteration in range(12):
    for p in netD.parameters():
        p.requires_grad = True
    for _ in range(CRITIC_ITERS):
        for p in netD.parameters():
            p.data.clamp_(-CLIP, CLIP)
        netD.zero_grad()
        errD_real = netD(Variable(points(BATCH))).mean(0).view(1)
        errD_real.backward(one)
        noise = torch.randn(BATCH, 4)
        fake = Variable(netG(Variable(noise)).data)
        errD_fake = netD(fake).mean(0).view(1)
        errD_fake.backward(mone)
        errD = errD_real - errD_fake
        optD.step()
    for p in netD.parameters():
        p.requires_grad = False
    netG.zero_grad()
    errG = netD(netG(Variable(torch.randn(BATCH, 4)))).mean(0).view(1)
    errG.backward(one)
    optG.step()
    print('%d Loss_D: %.7f Loss_G: %.7f' % (iteration, errD.data[0], errG.data[0]))

# the improved way: a gradient penalty
netD = MLP(2, 1)
real, fake = points(BATCH), netG(torch.randn(BATCH, 4)).detach()
alpha = torch.rand(BATCH, 1).expand(real.size())
mixed = (alpha * real + (1 - alpha) * fake).requires_grad_(True)
out = netD(mixed)
grads = autograd.grad(outputs=out, inputs=mixed, grad_outputs=torch.ones(out.size()), create_graph=True,
                      retain_graph=True)[0]
penalty = ((grads.pow(2).sum(1).sqrt() - 1) ** 2).mean() * 10
penalty.backward()
print('penalty loss %.6f %.6f' % (penalty.item(), sum(p.grad.abs().sum() for p in netD.parameters() if p.grad is not None)))
