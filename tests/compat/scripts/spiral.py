# %% Deep learning, homework 2: three spirals
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn, optim

np.random.seed(12)
N, D, C, H = 60, 2, 3, 40
X = torch.zeros(N * C, D)
y = torch.zeros(N * C, dtype=torch.long)
for c in range(C):
    t = np.linspace(0, 1, N)
    angle = np.linspace(c * 4 / C * np.pi, (c + 2) * 4 / C * np.pi / 2, N) + np.random.randn(N) * 0.2
    X[c * N:(c + 1) * N] = torch.from_numpy(np.stack([t * np.sin(angle), t * np.cos(angle)], 1)).float()
    y[c * N:(c + 1) * N] = c
device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
X, y = X.to(device), y.to(device)
print("X:", tuple(X.size()), "y:", tuple(y.size()))

# %% a linear model, then one hidden layer, then two
lr, lambda_l2 = 1e-1, 1e-5
architectures = {
    'linear': nn.Sequential(nn.Linear(D, H), nn.Linear(H, C)),
    'relu': nn.Sequential(nn.Linear(D, H), nn.ReLU(), nn.Linear(H, C)),
    'deep': nn.Sequential(nn.Linear(D, H), nn.Tanh(), nn.Linear(H, H), nn.LeakyReLU(0.1), nn.Linear(H, C)),
}
for name, model in architectures.items():
    model.to(device)
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=lambda_l2)
    for t in range(60):
        y_pred = model(X)
        loss = criterion(y_pred, y)
        score, predicted = torch.max(y_pred, 1)
        acc = (y == predicted).sum().float() / len(y)
        if t % 20 == 19:
            print("[%s] epoch %d loss %.6f" % (name, t, loss.item()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print("accuracy %.2f" % acc)

# %% the decision boundary
mesh = np.arange(-1.1, 1.1, 0.1)
xx, yy = np.meshgrid(mesh, mesh)
with torch.no_grad():
    data = torch.from_numpy(np.vstack((xx.reshape(-1), yy.reshape(-1))).T).float()
    Z = model(data).detach()
probabilities = torch.softmax(Z, 1)
Z = np.argmax(Z, axis=1).reshape(xx.shape)
fig = plt.figure()
plt.contourf(xx, yy, Z, alpha=0.3)
plt.scatter(X[:, 0].cpu(), X[:, 1], c=y, s=10)
plt.savefig('spiral.png')
print(len(Z), len(Z[0]), 'mean loss %.5f' % -probabilities.max(1)[0].log().mean())
print(list(model.parameters())[0].shape)
