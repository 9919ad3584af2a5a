"""An image is optimised until its features and their Gram matrices are those of two others."""
import copy
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
import torchvision.transforms as transforms
from PIL import Image
import os

folder = 'data/pictures/train'
paths = sorted(os.path.join(d, f) for d, _, files in os.walk(folder) for f in files)
loader = transforms.Compose([transforms.Resize((24, 24)), transforms.ToTensor()])

def image_loader(image_name):
    image = Image.open(image_name)
    return loader(image).unsqueeze(0).to('cpu', torch.float)

style_img, content_img = image_loader(paths[0]), image_loader(paths[-1])
assert style_img.size() == content_img.size()

class ContentLoss(nn.Module):
    def __init__(self, target):
        super(ContentLoss, self).__init__()
        self.target = target.detach()

    def forward(self, input):
        self.loss = F.mse_loss(input, self.target)
        return input

def gram_matrix(input):
    a, b, c, d = input.size()
    features = input.view(a * b, c * d)
    return torch.mm(features, features.t()).div(a * b * c * d)

class StyleLoss(nn.Module):
    def __init__(self, target_feature):
        super(StyleLoss, self).__init__()
        self.target = gram_matrix(target_feature).detach()

    def forward(self, input):
        self.loss = F.mse_loss(gram_matrix(input), self.target)
        return input

class Normalization(nn.Module):
    def __init__(self, mean, std):
        super(Normalization, self).__init__()
        self.mean = torch.tensor(mean).view(-1, 1, 1)
        self.std = torch.tensor(std).view(-1, 1, 1)

    def forward(self, img):
        return (img - self.mean) / self.std

cnn = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.Conv2d(8, 12, 3), nn.ReLU(inplace=True),
                    nn.MaxPool2d(2), nn.Conv2d(12, 16, 3), nn.ReLU(inplace=True)).eval()
model = nn.Sequential(Normalization([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
content_losses, style_losses, i = [], [], 0
for layer in copy.deepcopy(cnn).children():
    if isinstance(layer, nn.Conv2d):
        i += 1
        name = 'conv_{}'.format(i)
    elif isinstance(layer, nn.ReLU):
        name = 'relu_{}'.format(i)
        layer = nn.ReLU(inplace=False)
    else:
        name = 'pool_{}'.format(i)
        layer = nn.AvgPool2d(2)
    model.add_module(name, layer)
    if name in ['conv_2']:
        content_losses.append(ContentLoss(model(content_img)))
        model.add_module("content_loss_{}".format(i), content_losses[-1])
    if name.startswith('conv'):
        style_losses.append(StyleLoss(model(style_img)))
        model.add_module("style_loss_{}".format(i), style_losses[-1])
for p in model.parameters():
    p.requires_grad_(False)
print([name for name, _ in model.named_children()])
input_img = content_img.clone().requires_grad_(True)
optimizer = optim.Adam([input_img], lr=0.02)
for run in range(1, 16):
    optimizer.zero_grad()
    model(input_img)
    style_score = sum(sl.loss for sl in style_losses) * 1e3
    content_score = sum(cl.loss for cl in content_losses)
    loss = style_score + content_score
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        input_img.clamp_(0, 1)
    if run % 5 == 0:
        print('run {}: style loss {:7f} content loss {:7f}'.format(run, style_score.item(), content_score.item()))
transforms.ToPILImage()(input_img.detach().cpu().squeeze(0)).save('styled.png')
