"""A script for PyTorch's DistributedDataParallel, as one finds them: run as it is by both libraries."""

import argparse
import os

import numpy as np
import torch
import torch.distributed as dist
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler


def setup():
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend=backend, init_method="env://")
    return int(os.environ["LOCAL_RANK"]), int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4 * 8 * 8, 10)

    def forward(self, x):
        return self.fc(F.relu(self.bn(self.conv(x))).flatten(1))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--log", required=True)
    args = parser.parse_args()
    local_rank, rank, world_size = setup()
    assert local_rank == dist.get_rank() == rank
    log = open(f"{args.log}.{rank}", "w")  # noqa: SIM115

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 1, 8, 8)).astype(np.float32), rng.integers(0, 10, 60)
    dataset = TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    sampler = DistributedSampler(dataset, num_replicas=world_size, rank=rank, shuffle=False)
    loader = DataLoader(dataset, batch_size=args.batch_size, sampler=sampler)

    model = Net()
    with torch.no_grad():
        weights = np.random.default_rng(1 + rank)  # DDP takes those of rank 0
        for p in model.parameters():
            p.copy_(torch.from_numpy(weights.normal(0, 0.1, tuple(p.shape)).astype(np.float32)))
    model = DDP(model, find_unused_parameters=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)

    for epoch in range(args.epochs):
        sampler.set_epoch(epoch)
        model.train()
        for images, labels in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
        scheduler.step()
        total = loss.detach().clone()
        dist.all_reduce(total, op=dist.ReduceOp.SUM)
        every = [torch.zeros_like(total) for _ in range(world_size)]
        dist.all_gather(every, loss.detach())
        local_means = [f"{m:.6f}" for m in model.module.bn.running_mean.tolist()]
        print(f"epoch {epoch} loss {total.item() / world_size:.6f}", *(f"{v.item():.6f}" for v in every), file=log)
        print("buffers", *local_means, model.module.bn.num_batches_tracked.item(), file=log)
        model.eval()
        with torch.no_grad():
            correct = (model(torch.from_numpy(x)).argmax(1) == torch.from_numpy(y)).sum()
        dist.reduce(correct, dst=0)
        if rank == 0:
            print(f"correct {correct.item() / world_size}", file=log)
            print("parameters", *(f"{p.abs().sum().item():.5f}" for p in model.parameters()), file=log)
    log.close()
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
