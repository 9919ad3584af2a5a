# A denser code: pool twice, then upsample with nearest neighbours and convolve (no transposed convolution)
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision.transforms as transforms
from torchvision import datasets

to_tensor = transforms.ToTensor()
train_set = datasets.MNIST(root='data', train=True, download=True, transform=to_tensor)
test_set = datasets.MNIST(root='data', train=False, download=True, transform=to_tensor)
train_loader = torch.utils.data.DataLoader(train_set, batch_size=20, num_workers=0)
test_loader = torch.utils.data.DataLoader(test_set, batch_size=20, num_workers=0)

# %% a look at the data
images, labels = iter(train_loader).next()
one = np.squeeze(images.numpy()[0])
print(one.shape, one.dtype, one.min(), one.max(), labels[:5].tolist())

# %%
class PoolAE(nn.Module):
    def __init__(self):
        super(PoolAE, self).__init__()
        self.enc1 = nn.Conv2d(1, 16, 3, padding=1)
        self.enc2 = nn.Conv2d(16, 4, 3, padding=1)
        self.halve = nn.MaxPool2d(2, 2)
        self.dec1 = nn.Conv2d(4, 16, 3, padding=1)
        self.dec2 = nn.Conv2d(16, 1, 3, padding=1)

    def encode(self, x):
        x = self.halve(F.relu(self.enc1(x)))
        return self.halve(F.relu(self.enc2(x)))

    def decode(self, z):
        z = F.upsample(z, scale_factor=2, mode='nearest')   # F.interpolate, as it is called now
        z = F.upsample(F.relu(self.dec1(z)), scale_factor=2, mode='nearest')
        return F.sigmoid(self.dec2(z))

    def forward(self, x):
        return self.decode(self.encode(x))

autoencoder = PoolAE()
print(autoencoder)

# %%
loss_function = nn.BCELoss()
opt = torch.optim.Adam(autoencoder.parameters(), lr=0.001)
for epoch in range(2):
    total = 0.0
    for x, _ in train_loader:
        opt.zero_grad()
        loss = loss_function(autoencoder(x), x)
        loss.backward()
        opt.step()
        total += loss.item() * x.size(0)
    print('after epoch {}:\tloss {:.6f}'.format(epoch + 1, total / len(train_set)))

# %%
test_iterator = iter(test_loader)
images, labels = test_iterator.next()
shown = autoencoder(images).view(20, 1, 28, 28).detach().numpy()
print('test loss %.7f' % np.mean((shown - images.numpy()) ** 2))
