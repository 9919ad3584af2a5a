from __future__ import print_function
import argparse
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from torchvision import datasets, transforms
from torch.autograd import Variable

parser = argparse.ArgumentParser(description='digits, the 2017 way')
parser.add_argument('--batch-size', type=int, default=32, metavar='N')
parser.add_argument('--test-batch-size', type=int, default=50, metavar='N')
parser.add_argument('--epochs', type=int, default=2, metavar='N')
parser.add_argument('--lr', type=float, default=0.02, metavar='LR')
parser.add_argument('--momentum', type=float, default=0.5, metavar='M')
parser.add_argument('--no-cuda', action='store_true', default=False)
args = parser.parse_args()
args.cuda = not args.no_cuda and torch.cuda.is_available()

torch.manual_seed(7)
if args.cuda:
    torch.cuda.manual_seed(7)

kwargs = {'num_workers': 1, 'pin_memory': True} if args.cuda else {}
mean_std = transforms.Normalize((0.1307,), (0.3081,))
train_loader = torch.utils.data.DataLoader(
    datasets.MNIST('data', train=True, download=True, transform=transforms.Compose([transforms.ToTensor(), mean_std])),
    batch_size=args.batch_size, shuffle=True, **kwargs)
test_loader = torch.utils.data.DataLoader(
    datasets.MNIST('data', train=False, transform=transforms.Compose([transforms.ToTensor(), mean_std])),
    batch_size=args.test_batch_size, shuffle=False, **kwargs)


class Digits(nn.Module):
    def __init__(self):
        super(Digits, self).__init__()
        self.a = nn.Conv2d(1, 10, kernel_size=5)
        self.b = nn.Conv2d(10, 20, kernel_size=5)
        self.b_drop = nn.Dropout2d()
        self.fc = nn.Linear(320, 50)
        self.out = nn.Linear(50, 10)

    def forward(self, x):
        x = F.relu(F.max_pool2d(self.a(x), 2))
        x = F.relu(F.max_pool2d(self.b_drop(self.b(x)), 2))
        x = x.view(-1, 320)
        x = F.dropout(F.relu(self.fc(x)), training=self.training)
        return F.log_softmax(self.out(x))


model = Digits()
if args.cuda:
    model.cuda()
optimizer = optim.SGD(model.parameters(), lr=args.lr, momentum=args.momentum)

for epoch in range(1, args.epochs + 1):
    model.train()
    for batch_idx, (data, target) in enumerate(train_loader):
        if args.cuda:
            data, target = data.cuda(), target.cuda()
        data, target = Variable(data), Variable(target)
        optimizer.zero_grad()
        loss = F.nll_loss(model(data), target)
        loss.backward()
        optimizer.step()
        if batch_idx % 3 == 0:
            print('epoch {} [{}/{}]\tloss {:.6f}'.format(
                epoch, batch_idx * len(data), len(train_loader.dataset), loss.data.view(1)[0]))
    model.eval()
    test_loss, correct = 0, 0
    for data, target in test_loader:
        data, target = Variable(data, requires_grad=False), Variable(target)
        output = model(data)
        test_loss += F.nll_loss(output, target, size_average=False).data
        pred = output.data.max(1, keepdim=True)[1]
        correct += pred.eq(target.data.view_as(pred)).cpu().sum()
    test_loss /= len(test_loader.dataset)
    print('test loss {:.6f}, correct {}/{}'.format(test_loss, correct, len(test_loader.dataset)))
