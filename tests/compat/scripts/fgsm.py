# Adversarial examples by the sign of the gradient, and a saliency map
import torch
import torch.nn as nn
import torch.nn.functional as F
from torchvision import datasets, transforms

epsilons = [0, .1, .3]
loader = torch.utils.data.DataLoader(
    datasets.MNIST('data', train=True, download=True, transform=transforms.Compose([transforms.ToTensor()])),
    batch_size=32, shuffle=True)
one_by_one = torch.utils.data.DataLoader(
    datasets.MNIST('data', train=False, transform=transforms.ToTensor()), batch_size=1, shuffle=False)

class Net(nn.Module):
    def __init__(self):
        super(Net, self).__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, 1)
        self.conv2 = nn.Conv2d(8, 16, 3, 2)
        self.dropout1 = nn.Dropout(0.25)
        self.fc1 = nn.Linear(16 * 12 * 12, 10)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        x = self.dropout1(x)
        x = torch.flatten(x, 1)
        return F.log_softmax(self.fc1(x), dim=1)

def fgsm_attack(image, epsilon, data_grad):
    sign_data_grad = data_grad.sign()
    perturbed_image = image + epsilon * sign_data_grad
    return torch.clamp(perturbed_image, 0, 1)

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
model = Net().to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
for epoch in range(2):
    for data, target in loader:
        optimizer.zero_grad()
        loss = F.nll_loss(model(data), target)
        loss.backward()
        optimizer.step()
    print('epoch', epoch, 'loss', loss.item())
model.eval()

def attack(epsilon):
    correct, total_loss = 0, 0.
    for n, (data, target) in enumerate(one_by_one):
        if n == 20:
            break
        data, target = data.to(device), target.to(device)
        data.requires_grad = True
        output = model(data)
        loss = F.nll_loss(output, target)
        model.zero_grad()
        loss.backward()
        perturbed = fgsm_attack(data, epsilon, data.grad.data)
        output = model(perturbed)
        final_pred = output.max(1, keepdim=True)[1]
        total_loss += F.nll_loss(output, target).item()
        correct += int(final_pred.item() == target.item())
    print("Epsilon: {}\tloss = {:.6f}".format(epsilon, total_loss / n))
    print("Accuracy = {} / {}".format(correct, n))

for eps in epsilons:
    attack(eps)
X, y = next(iter(one_by_one))
X.requires_grad_()
scores = model(X)
scores.gather(1, y.view(-1, 1)).squeeze().backward()
saliency, _ = torch.max(X.grad.data.abs(), dim=1)
print(saliency.shape, '%.5f' % saliency.max().item())
