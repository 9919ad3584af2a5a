import random
import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision
from torch.utils.data import Dataset, DataLoader
from torchvision import transforms

random.seed(2)

class Pairs(Dataset):
    def __init__(self, dataset, n):
        self.dataset, self.n = dataset, n
        self.by_class = {c: (dataset.targets == c).nonzero().view(-1).tolist() for c in range(10)}

    def __getitem__(self, index):
        img0, label = self.dataset[random.randrange(len(self.dataset))]
        same = random.randint(0, 1)
        other = label if same else (label + random.randint(1, 9)) % 10
        img1, _ = self.dataset[random.choice(self.by_class[other])]
        return img0, img1, torch.tensor([float(not same)])

    def __len__(self):
        return self.n

class Siamese(nn.Module):
    def __init__(self):
        super(Siamese, self).__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 4, kernel_size=3), nn.ReLU(inplace=True), nn.BatchNorm2d(4), nn.MaxPool2d(2),
            nn.Conv2d(4, 8, kernel_size=3), nn.ReLU(inplace=True), nn.BatchNorm2d(8), nn.MaxPool2d(2))
        self.fc = nn.Sequential(nn.Linear(8 * 5 * 5, 32), nn.ReLU(inplace=True), nn.Linear(32, 5))

    def forward_once(self, x):
        output = self.cnn(x)
        return self.fc(output.view(output.size()[0], -1))

    def forward(self, a, b):
        return self.forward_once(a), self.forward_once(b)

class ContrastiveLoss(torch.nn.Module):
    def __init__(self, margin=2.0):
        super(ContrastiveLoss, self).__init__()
        self.margin = margin

    def forward(self, output1, output2, label):
        distance = torch.sqrt(torch.sum((output1 - output2) ** 2, dim=1, keepdim=True) + 1e-6)
        return torch.mean((1 - label) * torch.pow(distance, 2) +
                          label * torch.pow(torch.clamp(self.margin - distance, min=0.0), 2))

digits = torchvision.datasets.MNIST('data', train=True, download=True, transform=transforms.ToTensor())
loader = DataLoader(Pairs(digits, 128), shuffle=True, num_workers=0, batch_size=16)
net = Siamese().train()
criterion = ContrastiveLoss()
optimizer = torch.optim.Adam(net.parameters(), lr=0.0005)
counter, loss_history = [], []
for epoch in range(2):
    for i, data in enumerate(loader, 0):
        img0, img1, label = data
        optimizer.zero_grad()
        loss_contrastive = criterion(*net(img0, img1), label)
        loss_contrastive.backward()
        optimizer.step()
        if i % 4 == 0:
            print("Epoch {} current loss {:.6f}".format(epoch, loss_contrastive.item()))
            loss_history.append(loss_contrastive.item())
a, b, label = next(iter(loader))
net.eval()
d = F.mse_loss(*net(a, b), reduction='none').sum(1)
values, indices = d.topk(3)
print(label.shape, 'loss %.5f %.5f' % (min(loss_history), values[-1].item()), indices.numel())
