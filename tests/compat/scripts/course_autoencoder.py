# %% [markdown]
# Squeeze a digit into 64 numbers with convolutions, unfold it with transposed ones, then walk between two digits.

# %%
import torch
from torch import nn, optim
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

torch.manual_seed(3)
digits = datasets.MNIST('data', train=True, download=True, transform=transforms.ToTensor())
digits = Subset(digits, range(256))
loader = DataLoader(digits, batch_size=64, shuffle=True)

# %%
class ConvAE(nn.Module):
    def __init__(self, code=64):
        super(ConvAE, self).__init__()
        self.down = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(),    # 14 x 14
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),   # 7 x 7
            nn.Conv2d(32, code, 7),                                 # 1 x 1
        )
        self.up = nn.Sequential(
            nn.ConvTranspose2d(code, 32, 7), nn.ReLU(),
            nn.ConvTranspose2d(32, 16, 3, stride=2, padding=1, output_padding=1), nn.ReLU(),
            nn.ConvTranspose2d(16, 1, 3, stride=2, padding=1, output_padding=1), nn.Sigmoid(),
        )

    def forward(self, x):
        return self.up(self.down(x))

net = ConvAE()
mse = nn.MSELoss()
adam = optim.Adam(net.parameters(), lr=1e-3, weight_decay=1e-5)

# %%
history = []
for epoch in range(3):
    for batch, _ in loader:
        rebuilt = net(batch)
        loss = mse(rebuilt, batch)
        adam.zero_grad()
        loss.backward()
        adam.step()
    history.append((batch, rebuilt))
    print(f'epoch {epoch}: loss {loss.item():.7f}')

# %%
for before, after in history:
    pair = torch.cat([before[:3], after[:3].detach()], dim=3).numpy()
    print(pair.shape, '%.4f %.4f' % (pair.mean(), pair.std()))

# %% from one digit to another, through the code and through the pixels
first, last = history[-1][0][0], history[-1][0][8]
with torch.no_grad():
    a, b = net.down(torch.stack([first, last]))
    steps = torch.linspace(0, 1, 9)
    codes = torch.stack([(1 - t) * a + t * b for t in steps])
    between = net.up(codes)
pixels = torch.stack([first + t * (last - first) for t in steps])
print(codes.shape, between.shape)
for t, x, y in zip(steps.tolist(), between, pixels):
    print('%.3f code %.4f pixels %.4f' % (t, x.mean(), y.mean()))
