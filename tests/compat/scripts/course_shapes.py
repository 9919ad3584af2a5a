# The slides' claims about shapes, cell by cell
import torch
import torch.nn as nn

# %%
x = torch.randn(32, 8, 28, 28)
conv = nn.Conv2d(in_channels=8, out_channels=8, kernel_size=5)
y = conv(x)
print(y.shape)
convt = nn.ConvTranspose2d(in_channels=8, out_channels=8, kernel_size=5)
x = torch.randn(32, 8, 64, 64)
y = convt(x)
print(y.shape)
conv = nn.Conv2d(in_channels=8, out_channels=8, kernel_size=5)
y = convt(conv(x))
print(y.shape == x.shape)

# %% padding
convt = nn.ConvTranspose2d(16, 8, kernel_size=5, padding=2)
x = torch.randn(32, 16, 64, 64)
print(convt(x).shape)

# %% stride, and why output_padding exists
convt = nn.ConvTranspose2d(16, 8, kernel_size=5, stride=2)
print(convt(x).shape)
convt = nn.ConvTranspose2d(16, 8, kernel_size=5, stride=2, output_padding=1, padding=2)
print(convt(x).shape)
for size in [63, 64]:
    conv = nn.Conv2d(3, 4, kernel_size=3, stride=2, padding=1)
    down = conv(torch.randn(1, 3, size, size))
    up = nn.ConvTranspose2d(4, 3, kernel_size=3, stride=2, padding=1)
    print(size, down.size(), up(down).size(), up(down, output_size=torch.Size([1, 3, size, size])).size())

# %% a convolution and its transpose with the same weights
weight = torch.randn(6, 3, 4, 4)
a, b = torch.randn(2, 3, 17, 17), torch.randn(2, 6, 8, 8)
left = (nn.functional.conv2d(a, weight, stride=2, padding=1) * b).sum()
back = nn.functional.conv_transpose2d(b, weight, stride=2, padding=1, output_padding=1)
right = (back * a).sum()
print('loss {:.4f} {:.4f}'.format(left.item(), right.item()))

# %% parameters
total = sum(p.numel() for p in nn.ConvTranspose2d(16, 8, 5, bias=False).parameters())
print(total, [tuple(p.size()) for p in convt.parameters()])
pool = nn.MaxPool2d(2, return_indices=True)
out, indices = pool(x)
print(out.shape, indices.dtype, nn.MaxUnpool2d(2)(out, indices).shape)
print(nn.Upsample(scale_factor=2, mode='nearest')(x).shape, nn.functional.interpolate(x, size=(10, 20)).shape)
print(convt)
