# Train a small convnet, then look at what its units see with a deconvnet (Zeiler and Fergus)
import torch
import torch.nn as nn
import torch.nn.functional as F
from torchvision import datasets, transforms

device = torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')
loader = torch.utils.data.DataLoader(
    datasets.MNIST('./data', train=True, download=True, transform=transforms.Compose([
        transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])),
    batch_size=64, shuffle=True)

class ConvNet(nn.Module):
    def __init__(self):
        super(ConvNet, self).__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, kernel_size=5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2, stride=2, return_indices=True),
            nn.Conv2d(8, 16, kernel_size=5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2, stride=2, return_indices=True),
        )
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(16 * 7 * 7, 10))
        self.feature_maps, self.pool_locs = {}, {}

    def forward(self, x):
        for i, layer in enumerate(self.features):
            if isinstance(layer, nn.MaxPool2d):
                x, self.pool_locs[i] = layer(x)
            else:
                x = layer(x)
            self.feature_maps[i] = x
        x = x.view(x.size()[0], -1)
        return self.classifier(x)

class DeconvNet(nn.Module):
    def __init__(self, conv):
        super(DeconvNet, self).__init__()
        self.layers = nn.ModuleList()
        self.index = []
        for i, layer in reversed(list(enumerate(conv.features))):
            if isinstance(layer, nn.Conv2d):
                new = nn.ConvTranspose2d(layer.out_channels, layer.in_channels, layer.kernel_size,
                                         stride=layer.stride, padding=layer.padding, bias=False)
                new.weight.data = layer.weight.data
            elif isinstance(layer, nn.MaxPool2d):
                new = nn.MaxUnpool2d(layer.kernel_size, stride=layer.stride)
            else:
                new = nn.ReLU()
            self.layers.append(new)
            self.index.append(i)

    def forward(self, x, start, pool_locs):
        for i, layer in zip(self.index, self.layers):
            if i > start:
                continue
            x = layer(x, pool_locs[i]) if isinstance(layer, nn.MaxUnpool2d) else layer(x)
        return x

net = ConvNet().to(device)
optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
for epoch in range(3):
    for data, target in loader:
        data, target = data.to(device), target.to(device)
        loss = F.cross_entropy(net(data), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print('epoch %d loss %.6f' % (epoch, loss.item()))

net.eval()
deconv = DeconvNet(net).to(device)
with torch.no_grad():
    image = data[:1]
    net(image)
    for layer in [2, 3, 5]:
        maps = net.feature_maps[layer]
        strongest = maps.view(maps.size(1), -1).max(1)[0].argmax()
        only = torch.zeros_like(maps)
        top = maps[0, strongest].max()
        only[0, strongest][maps[0, strongest] == top] = top
        seen = deconv(only, layer, net.pool_locs)
        print(layer, strongest.item(), tuple(seen.shape), 'loss %.5f %.5f' % (seen.abs().sum().item(), seen.max().item()))
