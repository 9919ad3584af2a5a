# Denoising autoencoder, best weights kept
import os
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import FashionMNIST
from torchvision.utils import save_image

img_transform = transforms.Compose([
    transforms.ToTensor(),
    transforms.Lambda(lambda tensor: (tensor - tensor.min()) / (tensor.max() - tensor.min() + 1e-8)),
])
dataset = FashionMNIST('./data', transform=img_transform, download=True)
dataloader = DataLoader(dataset, batch_size=64, shuffle=True)

class Autoencoder(nn.Module):
    def __init__(self):
        super(Autoencoder, self).__init__()
        self.encoder = nn.Sequential(nn.Linear(28 * 28, 128), nn.ReLU(True), nn.Linear(128, 16), nn.ReLU(True))
        self.decoder = nn.Sequential(nn.Linear(16, 128), nn.ReLU(True), nn.Linear(128, 28 * 28), nn.Sigmoid())

    def forward(self, x):
        return self.decoder(self.encoder(x))

def add_noise(img):
    noise = torch.randn(img.size()) * 0.2
    return img + noise

model = Autoencoder()
criterion = nn.MSELoss()
mse = nn.MSELoss(reduction='none')
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-5)
scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.9)
best = float('inf')
for epoch in range(4):
    for img, _ in dataloader:
        img = img.view(img.size(0), -1)
        noisy = add_noise(img).clamp(0, 1)
        output = model(noisy)
        loss = criterion(output, img)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scheduler.step()
    print('epoch [{}/{}], loss:{:.6f}, rate:{:.6f}, per image:{:.4f}'.format(
        epoch + 1, 4, loss.item(), optimizer.param_groups[0]['lr'], mse(output, img).mean(1).max().item()))
    if loss.item() < best:
        best = loss.item()
        torch.save({'epoch': epoch, 'state_dict': model.state_dict(), 'optimizer': optimizer.state_dict()}, 'best.tar')
    if epoch % 2 == 0:
        pic = torch.cat([img, noisy, output.data], 1).view(-1, 1, 28, 28)[:24]
        save_image(pic, './image_{}.png'.format(epoch))

checkpoint = torch.load('best.tar', map_location=lambda storage, loc: storage)
other = Autoencoder()
other.load_state_dict(checkpoint['state_dict'])
optimizer = torch.optim.Adam(other.parameters())
optimizer.load_state_dict(checkpoint['optimizer'])
print(sorted(checkpoint), checkpoint['epoch'], optimizer.param_groups[0]['weight_decay'])
torch.manual_seed(5)
out = other(noisy)
loss = criterion(out, img)
loss.backward()
optimizer.step()
print('resumed loss %.7f, then %.7f' % (loss, criterion(other(noisy), img)))
print(os.path.exists('image_2.png'))
