"""Convolutional autoencoder for 32 x 32 colour images."""
import argparse
import os

import numpy as np
import torch
import torch.nn as nn
import torchvision
from torch.autograd import Variable
from torchvision import transforms

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument('--epochs', type=int, default=2)
parser.add_argument('--evaluate', action='store_true', help='load the weights and only evaluate')
parser.add_argument('--seed', type=int, default=87)

def block(layer, n_in, n_out, last=None):
    return [layer(n_in, n_out, 4, stride=2, padding=1), last or nn.ReLU()]

class CifarAE(nn.Module):
    def __init__(self):
        super(CifarAE, self).__init__()
        self.encoder = nn.Sequential(*block(nn.Conv2d, 3, 12) + block(nn.Conv2d, 12, 24) + block(nn.Conv2d, 24, 48))
        up = nn.ConvTranspose2d
        self.decoder = nn.Sequential(*block(up, 48, 24) + block(up, 24, 12) + block(up, 12, 3, nn.Sigmoid()))

    def forward(self, x):
        code = self.encoder(x)
        return code, self.decoder(code)

def wrap(x):
    return Variable(x.cuda() if torch.cuda.is_available() else x)

def main(args):
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed(args.seed)
    model = CifarAE()
    print('%s\n%s' % (model.encoder, model.decoder))
    data = torchvision.datasets.CIFAR10('./data', train=True, download=True,
                                        transform=transforms.Compose([transforms.ToTensor(), ]))
    loader = torch.utils.data.DataLoader(data, batch_size=16, shuffle=True, num_workers=2)
    criterion = nn.BCELoss()
    weights = os.path.join('weights', 'cifar_ae.pkl')
    if not args.evaluate:
        optimizer = torch.optim.Adam(model.parameters())
        for epoch in range(args.epochs):
            running = 0.0
            for i, (x, _) in enumerate(loader):
                x = wrap(x)
                code, y = model(x)
                loss = criterion(y, x)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                running += loss.data
                if i % 10 == 9:
                    print('%d %3d loss %.6f' % (epoch, i + 1, running / 10))
                    running = 0.0
        if not os.path.exists('weights'):
            os.mkdir('weights')
        torch.save(model.state_dict(), weights)
    model.load_state_dict(torch.load(weights))
    x, _ = next(iter(loader))
    code, y = model(wrap(x))
    torchvision.utils.save_image(torch.cat([x, y.data.cpu()]), 'rebuilt.png', nrow=8)
    print(code.size(), 'loss', criterion(y, x).item())

if __name__ == '__main__':
    main(parser.parse_args())
