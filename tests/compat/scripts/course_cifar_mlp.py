# How far does a multi-layer perceptron get on small photographs?
import torch
import torch.nn as nn
import torch.optim as optim
import torchvision
from torchvision import transforms

use_cuda = torch.cuda.is_available()
kwargs = {'num_workers': 2, 'pin_memory': True} if use_cuda else {'num_workers': 2}
normalise = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))])
train = torchvision.datasets.CIFAR10(root='./data', train=True, download=True, transform=normalise)
valid = torchvision.datasets.CIFAR10(root='./data', train=False, download=True, transform=normalise)
train_loader = torch.utils.data.DataLoader(train, batch_size=32, shuffle=True, **kwargs)
valid_loader = torch.utils.data.DataLoader(valid, batch_size=32, shuffle=False, **kwargs)

# %%
images, labels = next(iter(train_loader))
print(images.shape, images.type(), labels.type(), [train.classes[k] for k in labels[:4]])

# %%
class Perceptron(nn.Module):
    def __init__(self, width, depth, nonlinearity, drop):
        super(Perceptron, self).__init__()
        self.nonlinearity = nonlinearity
        sizes = [3 * 32 * 32] + [width] * depth
        self.hidden = nn.ModuleList([nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:])])
        self.drop = nn.Dropout(drop)
        self.last = nn.Linear(width, 10)

    def forward(self, x):
        x = x.view(x.size(0), -1)
        for layer in self.hidden:
            x = self.drop(self.nonlinearity(layer(x)))
        return nn.functional.log_softmax(self.last(x), dim=1)

def fit(model, epochs=2):
    if use_cuda:
        model.cuda()
    criterion = nn.NLLLoss()
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.5)
    for epoch in range(epochs):
        model.train()
        for i, (x, y) in enumerate(train_loader):
            if use_cuda:
                x, y = x.cuda(), y.cuda()
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            if i % 4 == 0:
                print('epoch {} {:3d}/{} loss {:.6f}'.format(epoch, i * len(x), len(train), loss.data.item()))
        model.eval()
        wrong, val_loss = 0, 0.
        for x, y in valid_loader:
            scores = model(x)
            val_loss += criterion(scores, y).data.item()
            best = scores.data.max(1)[1]
            wrong += best.ne(y.data).cpu().sum()
        print('validation loss {:.6f}, errors {}/{}'.format(val_loss / len(valid_loader), wrong, len(valid)))

for nonlinearity in [torch.relu, nn.Sigmoid()]:
    fit(Perceptron(50, 2, nonlinearity, drop=0.2))
