"""A data set of one's own: samples are dicts, transforms are classes, annotations come from a csv file."""
from __future__ import print_function, division
import csv
import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import Dataset, DataLoader
from torchvision import transforms

os.makedirs('faces', exist_ok=True)
rng = np.random.RandomState(3)
with open('faces/points.csv', 'w', newline='') as f:
    writer = csv.writer(f)
    writer.writerow(['file', 'x0', 'y0', 'x1', 'y1'])
    for k in range(40):
        image = (rng.rand(20, 24) * 40).astype(np.uint8)
        x, y = rng.randint(2, 22, 2), rng.randint(2, 18, 2)
        image[y, x] = 255
        np.save('faces/%d.npy' % k, image)
        writer.writerow(['%d.npy' % k, x[0], y[0], x[1], y[1]])


class FaceDataset(Dataset):
    def __init__(self, csv_file, root_dir, transform=None):
        with open(csv_file) as f:
            self.rows = list(csv.reader(f))[1:]
        self.root_dir, self.transform = root_dir, transform

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, idx):
        if torch.is_tensor(idx):
            idx = idx.tolist()
        image = np.load(os.path.join(self.root_dir, self.rows[idx][0]))
        landmarks = np.array(self.rows[idx][1:]).astype('float').reshape(-1, 2)
        sample = {'image': image, 'landmarks': landmarks, 'name': self.rows[idx][0]}
        return self.transform(sample) if self.transform else sample


class RandomCrop(object):
    def __init__(self, output_size):
        assert isinstance(output_size, (int, tuple))
        self.output_size = (output_size, output_size) if isinstance(output_size, int) else output_size

    def __call__(self, sample):
        h, w = sample['image'].shape[:2]
        new_h, new_w = self.output_size
        top, left = np.random.randint(0, h - new_h + 1), np.random.randint(0, w - new_w + 1)
        return {**sample, 'image': sample['image'][top:top + new_h, left:left + new_w],
                'landmarks': sample['landmarks'] - [left, top]}


class ToTensor(object):
    def __call__(self, sample):
        return {'image': torch.from_numpy(sample['image'][None].astype(np.float32) / 255),
                'landmarks': torch.from_numpy(sample['landmarks']), 'name': sample['name']}


np.random.seed(0)
faces = FaceDataset('faces/points.csv', 'faces/', transform=transforms.Compose([RandomCrop(16), ToTensor()]))
for i in range(2):
    sample = faces[i]
    print(i, sample['image'].size(), sample['landmarks'].size(), sample['landmarks'].dtype)
loader = DataLoader(faces, batch_size=10, shuffle=True, num_workers=0)
net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8 * 7 * 7, 4)).double()
optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
for epoch in range(3):
    for i_batch, batch in enumerate(loader):
        images = batch['image'].double()
        target = batch['landmarks'].view(images.size(0), -1) / 16
        loss = F.mse_loss(net(images), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(epoch, len(batch['name']), type(batch['name']).__name__, 'loss', loss.item())
