import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
import torchvision
import torchvision.transforms as transforms

data_transform = transforms.Compose([
    transforms.ToTensor(),
    transforms.Normalize((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
])
splits = {name: torchvision.datasets.CIFAR10('./data', train=(name == 'train'), download=True,
                                             transform=data_transform) for name in ['train', 'test']}
loaders = {'train': torch.utils.data.DataLoader(splits['train'], batch_size=32, shuffle=True),
           'test': torch.utils.data.DataLoader(splits['test'], batch_size=32)}
names = splits['train'].classes

# %% a sheet of training images
batch, targets = next(iter(loaders['train']))
sheet = torchvision.utils.make_grid(batch, nrow=8)
sheet = np.transpose(sheet.numpy(), (1, 2, 0))
print(sheet.shape, '%.4f' % sheet.mean(), ' '.join('%10s' % names[t] for t in targets[:5]))

# %%
class SmallCNN(nn.Module):
    def __init__(self):
        super(SmallCNN, self).__init__()
        self.c1 = nn.Conv2d(3, 6, 5)
        self.c2 = nn.Conv2d(6, 16, 5)
        self.l1 = nn.Linear(16 * 5 * 5, 60)
        self.l2 = nn.Linear(60, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.c1(x)), (2, 2))
        x = F.max_pool2d(F.relu(self.c2(x)), 2)
        x = x.view(-1, self.num_flat_features(x))
        return self.l2(F.relu(self.l1(x)))

    def num_flat_features(self, x):
        n = 1
        for s in x.size()[1:]:
            n *= s
        return n

cnn = SmallCNN()
print(cnn)
print([p.shape for p in cnn.parameters()][0], len(list(cnn.parameters())))
cost = nn.CrossEntropyLoss()
sgd = optim.SGD(cnn.parameters(), lr=0.01, momentum=0.9)
for epoch in range(2):
    window = 0.0
    for step, (x, t) in enumerate(loaders['train'], 1):
        sgd.zero_grad()
        loss = cost(cnn(x), t)
        loss.backward()
        sgd.step()
        window += loss.item()
        if step % 5 == 0:
            print('[%d,%3d] loss %.6f' % (epoch, step, window / 5))
            window = 0.0

# %% save, load, count
torch.save(cnn.state_dict(), 'cnn.pth')
again = SmallCNN()
print(again.load_state_dict(torch.load('cnn.pth')))
hits, seen = np.zeros(10), np.zeros(10)
again.eval()
with torch.no_grad():
    for x, t in loaders['test']:
        _, guess = torch.max(again(x), 1)
        for right, k in zip((guess == t).squeeze(), t):
            hits[k] += right.item()
            seen[k] += 1
for k, name in enumerate(names):
    print('%12s %2d of %2d' % (name, hits[k], seen[k]))
filters = again.c1.weight.data.clone()
filters -= filters.min()
filters /= filters.max()
torchvision.utils.save_image(filters, 'filters.png', nrow=3, padding=1)
