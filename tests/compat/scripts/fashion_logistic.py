"""Softmax regression and an MLP on FashionMNIST, as lecture notes have it."""
import torch
import torchvision
from torch import nn
from torch.nn import init
from torch.utils import data
from torchvision import transforms

def load_data(batch_size, resize=None):
    trans = [transforms.ToTensor()]
    if resize:
        trans.insert(0, transforms.Resize(resize))
    trans = transforms.Compose(trans)
    train = torchvision.datasets.FashionMNIST(root="./data", train=True, transform=trans, download=True)
    test = torchvision.datasets.FashionMNIST(root="./data", train=False, transform=trans, download=True)
    return data.DataLoader(train, batch_size, shuffle=True, num_workers=4), data.DataLoader(test, batch_size, num_workers=4)

def softmax(X):
    X_exp = torch.exp(X - X.max(dim=1, keepdim=True)[0])
    partition = X_exp.sum(1, keepdim=True)
    return X_exp / partition

def cross_entropy(y_hat, y):
    return -torch.log(y_hat[range(len(y_hat)), y])

def sgd(params, lr, batch_size):
    with torch.no_grad():
        for param in params:
            param -= lr * param.grad / batch_size
            param.grad.zero_()

class Accumulator:
    def __init__(self, n):
        self.data = [0.0] * n

    def add(self, *args):
        self.data = [a + float(b) for a, b in zip(self.data, args)]

train_iter, test_iter = load_data(64)
W = torch.normal(0, 0.01, size=(784, 10), requires_grad=True)
b = torch.zeros(10, requires_grad=True)
for epoch in range(2):
    metric = Accumulator(2)
    for X, y in train_iter:
        y_hat = softmax(torch.matmul(X.reshape((-1, W.shape[0])), W) + b)
        l = cross_entropy(y_hat, y)
        l.sum().backward()
        sgd([W, b], 0.1, X.shape[0])
        metric.add(l.sum(), y.numel())
    print(f'epoch {epoch + 1}, loss {metric.data[0] / metric.data[1]:f}')
    correct = 0
    for X, y in test_iter:
        y_hat = X.reshape((-1, 784)) @ W + b
        cmp = y_hat.argmax(axis=1).type(y.dtype) == y
        correct += float(cmp.type(y.dtype).sum())
    print('correct', correct)

net = nn.Sequential(nn.Flatten(), nn.Linear(14 * 14, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 10))
for params in net.parameters():
    init.normal_(params, mean=0, std=0.01)
train_iter, test_iter = load_data(64, resize=14)
loss = nn.CrossEntropyLoss(reduction='none')
trainer = torch.optim.SGD(net.parameters(), lr=0.1)
for epoch in range(2):
    net.train()
    for X, y in train_iter:
        trainer.zero_grad()
        l = loss(net(X), y)
        l.mean().backward()
        trainer.step()
    print('epoch %d, loss %.6f' % (epoch + 1, l.mean()))
net.eval()
X, y = next(iter(test_iter))
print('test loss %.6f' % loss(net(X), y).sum())
