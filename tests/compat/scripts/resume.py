"""Train three epochs; train one, save everything, start anew and train two more: the same."""
import io
import os
import shutil
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset


class AverageMeter(object):
    """Computes and stores the average and current value"""

    def __init__(self):
        self.reset()

    def reset(self):
        self.val = self.avg = self.sum = self.count = 0

    def update(self, val, n=1):
        self.val = val
        self.sum += val * n
        self.count += n
        self.avg = self.sum / self.count


def save_checkpoint(state, is_best, filename='checkpoint.pth.tar'):
    torch.save(state, filename)
    if is_best:
        shutil.copyfile(filename, 'model_best.pth.tar')


def make():
    model = nn.Sequential()
    model.add_module('fc1', nn.Linear(10, 20))
    model.add_module('act', nn.Tanh())
    model.add_module('bn', nn.BatchNorm1d(20))
    model.add_module('fc2', nn.Linear(20, 2))
    model = torch.nn.DataParallel(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, betas=(0.9, 0.99), eps=1e-7)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    return model, optimizer, scheduler


def accuracy(output, target, topk=(1,)):
    """Precision@k"""
    maxk = max(topk)
    _, pred = output.topk(maxk, 1, True, True)
    correct = pred.t().eq(target.view(1, -1).expand_as(pred.t()))
    return [correct[:k].reshape(-1).float().sum(0).mul_(100.0 / target.size(0)).item() for k in topk]


def train(model, optimizer, scheduler, epochs):
    for epoch in epochs:
        losses = AverageMeter()
        for x, y in loader:
            output = model(x)
            loss = criterion(output, y)
            losses.update(loss.item(), x.size(0))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        scheduler.step()
        print('Epoch: [{0}]\tLoss {loss.val:.6f} ({loss.avg:.6f})'.format(epoch, loss=losses))
        print('Prec@1 {:.3f} Prec@2 {:.1f}'.format(*accuracy(output, y, topk=(1, 2))))
    return losses.avg


x = torch.randn(80, 10)
y = (x[:, 0] * x[:, 1] > 0).long()
loader = DataLoader(TensorDataset(x, y), batch_size=20, shuffle=False)
criterion = nn.CrossEntropyLoss()
model, optimizer, scheduler = make()
first = io.BytesIO()
torch.save(model.state_dict(), first)
straight = train(model, optimizer, scheduler, range(3))

model, optimizer, scheduler = make()
first.seek(0)
model.load_state_dict(torch.load(first))
loss = train(model, optimizer, scheduler, range(1))
save_checkpoint({'epoch': 1, 'arch': 'mlp', 'state_dict': model.state_dict(), 'best_prec1': loss,
                 'optimizer': optimizer.state_dict(), 'scheduler': scheduler.state_dict()}, True)
model, optimizer, scheduler = make()
if os.path.isfile('model_best.pth.tar'):
    checkpoint = torch.load('model_best.pth.tar')
    print("=> loaded checkpoint '{}' (epoch {})".format(checkpoint['arch'], checkpoint['epoch']))
    model.load_state_dict(checkpoint['state_dict'])
    optimizer.load_state_dict(checkpoint['optimizer'])
    scheduler.load_state_dict(checkpoint['scheduler'])
resumed = train(model, optimizer, scheduler, range(checkpoint['epoch'], 3))
print('same loss' if abs(resumed - straight) < 1e-6 else 'different: %f %f' % (resumed, straight))
print(list(model.state_dict())[:3])
