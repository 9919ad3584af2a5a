"""DistributedDataParallel: N ranks train as one process on the joined batch, and every mistake ends in an error."""

import numpy as np
import pytest

import minidl
from minidl import distributed as dist
from minidl import nn, optim
from minidl.data import DataLoader, DistributedSampler, SyntheticDigits
from minidl.nn.parallel import DistributedDataParallel
from tests.helpers.ranks import ended, mpiexec, needs_mpi, on_ranks

pytestmark = [pytest.mark.slow, needs_mpi]

BATCH, IMAGES, EPOCHS = 32, 256, 2  # of all ranks together
SMALL = 0.01  # MiB, for several buckets


def model(norm=False):
    minidl.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1)]
    layers += [nn.BatchNorm2d(16)] if norm else []
    return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(16 * 7 * 7, 40), nn.ReLU(), nn.Linear(40, 10))


def arrays(module):
    return {name: x.numpy().copy() for name, x in module.state_dict().items()}


def train(ranks, cap, accumulate=1, norm=False):
    """The loss of each step, averaged over the ranks, and the values of parameters and buffers at the end."""
    data = SyntheticDigits(IMAGES, seed=0)
    net, together = model(norm), dist.is_initialized()
    sampler = DistributedSampler(data, *(() if together else (1, 0)), seed=3)
    loader = DataLoader(data, BATCH // ranks // accumulate, sampler=sampler)
    wrapped = DistributedDataParallel(net, bucket_cap_mb=cap) if together else net
    optimizer, losses = optim.Adam(net.parameters(), lr=2e-3), []
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        for step, (images, labels) in enumerate(loader, 1):
            last = step % accumulate == 0
            with wrapped.no_sync() if together and not last else minidl.enable_grad():
                loss = nn.functional.cross_entropy(wrapped(images), labels) / accumulate
                loss.backward()
            mean = loss.detach().clone()
            if together:
                dist.all_reduce(mean, dist.ReduceOp.AVG)
            losses.append(mean.item())
            if last:
                optimizer.step()
                optimizer.zero_grad()
    return losses, arrays(net)


@pytest.fixture(scope="module")
def alone():
    """What one process does on the whole batches."""
    return train(1, 25)


def bits(state):
    return {name: x.tobytes() for name, x in state.items()}


@pytest.mark.parametrize("cap", [25, SMALL])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_train_as_one_process_does_and_end_with_the_same_bits(ranks, cap, alone):
    runs = [on_ranks(ranks, train, ranks, cap) for _ in range(2)]
    (losses, state), *_ = runs[0]
    np.testing.assert_allclose(losses, alone[0], rtol=1e-5)
    for name, x in alone[1].items():
        np.testing.assert_allclose(state[name], x, rtol=1e-3, atol=1e-5)
    for other_losses, other_state in runs[0] + runs[1]:
        assert other_losses == losses
        assert bits(other_state) == bits(state)


def test_gradients_accumulated_without_reductions_are_averaged_once(alone):
    (losses, state), (_, other) = on_ranks(2, train, 2, SMALL, 2)
    np.testing.assert_allclose(np.sum(np.reshape(losses, (-1, 2)), axis=1), alone[0], rtol=1e-5)
    assert bits(other) == bits(state)


def buckets():
    """The parameters of each bucket, in MiB of 2, 1 and 3 with at most 3."""
    net = nn.Module()
    for name, mib in (("a", 2), ("b", 1), ("c", 3), ("d", 0.5), ("e", 0.5), ("f", 0.25)):
        setattr(net, name, nn.Parameter(minidl.zeros(int(mib * 2**18))))
    net.g = nn.Parameter(minidl.zeros(3, dtype=minidl.float64))
    return [list(b.parameters) for b in DistributedDataParallel(net, bucket_cap_mb=3)._reducer.buckets]


def test_buckets_are_filled_from_the_last_parameter_and_hold_one_dtype():
    assert on_ranks(1, buckets) == [[["g"], ["f", "e", "d"], ["c"], ["b", "a"]]]


def statistics():
    """The running means of a BatchNorm layer after each forward pass, and at the end."""
    rank = dist.get_rank()
    net = nn.BatchNorm1d(1, momentum=0.5)
    wrapped, means = DistributedDataParallel(net), []
    for step in range(2):
        wrapped(minidl.full((4, 1), 8.0 * step + 2 * rank)).sum().backward()
        means.append(net.running_mean.item())
    wrapped.eval()
    wrapped(minidl.ones(2, 1))
    return [*means, net.running_mean.item()]


def test_buffers_are_those_of_rank_0_from_the_next_forward_pass_on():
    # Rank 0 sees 0 and 8, rank 1 sees 2 and 10; each update is the mean of the old value and the batch's.
    assert on_ranks(2, statistics) == [[0, 4, 4], [1, 5, 4]]


def error_of(action):
    with pytest.raises(RuntimeError) as caught:
        action()
    return str(caught.value)


def mistakes():
    """The error that each rank gets, by what was wrong."""
    rank, found = dist.get_rank(), {}
    found["shape"] = error_of(lambda: DistributedDataParallel(nn.Sequential(nn.Linear(2, 3 + (rank == 1)))))
    found["name"] = error_of(lambda: DistributedDataParallel(nn.Linear(2, 3, bias=rank == 1)))
    found["buffer"] = error_of(lambda: DistributedDataParallel(nn.BatchNorm1d(2, track_running_stats=rank == 0)))
    net = nn.ModuleDict({"always": nn.Linear(2, 2), "never": nn.Linear(2, 2), "sometimes": nn.Linear(2, 2)})
    net["never"].requires_grad_(False)

    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = net

        def forward(self, x):
            return self.parts["sometimes"](self.parts["always"](x)) if rank == 1 else self.parts["always"](x)

    part = DistributedDataParallel(Sometimes())
    found["missing"] = error_of(lambda: part(minidl.ones(1, 2)).sum().backward())
    whole = DistributedDataParallel(nn.Linear(2, 2))
    for _ in range(3):
        whole(minidl.ones(1, 2)).sum().backward()
    if rank == 1:  # has a batch more
        found["uneven"] = error_of(lambda: whole(minidl.ones(1, 2)).sum().backward())
    else:
        found["uneven"] = error_of(lambda: dist.all_reduce(minidl.zeros(1)))
    dist.barrier()  # the group is in order after errors
    return found


def test_mistakes_are_errors_on_every_rank():
    first, *others = on_ranks(3, mistakes)
    assert others == [first, first]
    assert first["shape"] == (
        "DistributedDataParallel: '0.weight' differs between the ranks: "
        "ranks 0, 2: (3, 2) float32; rank 1: (4, 2) float32"
    )
    assert "'bias' differs between the ranks: ranks 0, 2: missing; rank 1: (3,) float32" in first["name"]
    assert "'running_mean' differs between the ranks: rank 0: (2,) float32; ranks 1, 2: missing" in first["buffer"]
    names = "parts.sometimes.bias, parts.sometimes.weight"
    assert f"no gradient in backward pass 1: ranks 0, 2: {names}; rank 1: none. Freeze" in first["missing"]
    assert "ranks 0, 2: all_reduce with SUM of shape (1,), float32; rank 1: backward pass 4 with 1 " in first["uneven"]


def unused():
    """The gradients where rank 1 does not use the first layer, and nobody the last."""
    net = nn.ModuleList([nn.Linear(1, 1, bias=False) for _ in range(3)])
    for layer in net:
        layer.weight.data.fill_(2.0)

    class Part(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net[1](self.net[0](x) if dist.get_rank() == 0 else x)

    DistributedDataParallel(Part(), find_unused_parameters=True)(minidl.ones(1, 1)).sum().backward()
    return [None if layer.weight.grad is None else layer.weight.grad.item() for layer in net]


def test_unused_parameters_may_be_allowed():
    # Rank 0: y = w1 * w0 * x, with gradients 2 and 2; rank 1: y = w1 * x, with gradients none and 1.
    assert on_ranks(2, unused) == [[1.0, 1.5, None]] * 2


def failing():
    """A pass that fails after its first gradients, and what the next one says."""
    net = model()
    wrapped = DistributedDataParallel(net, bucket_cap_mb=SMALL)
    images = minidl.ones(2, 1, 28, 28)

    def fail(g):
        raise ArithmeticError("in a hook")

    with net[2].weight.register_hook(fail), pytest.raises(ArithmeticError):
        wrapped(images).sum().backward()
    wrapped(images).sum().backward()


def test_a_pass_that_failed_in_the_middle_of_its_reductions_ends_all_ranks():
    code = "from tests.distributed import test_parallel as t; t.dist.init_process_group(); t.failing()"
    process = mpiexec(2, "-c", code)
    _, errors = ended(process, 30)
    assert "RuntimeError: DistributedDataParallel: backward pass 1 with" in errors
    assert "failed before its reductions were complete" in errors
    assert process.returncode != 0
