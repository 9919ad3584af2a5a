"""One rank, on a stand-in for mpi4py that does what MPI does for one process: these tests need no MPI."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import minidl
from minidl import distributed as dist
from minidl import nn
from minidl.nn.parallel import DistributedDataParallel


class Request:
    """Completes at the second `Test`, as a message on its way does."""

    def __init__(self):
        self.asked = 0

    def Test(self):
        self.asked += 1
        return self.asked > 1


class Communicator:
    """MPI's, of one process; what it was asked for is in `calls`."""

    rank, size, aborted, disturb = 0, 1, None, False

    def __init__(self):
        self.calls = []

    def Dup(self):
        return self

    def Split_type(self, kind):
        return self

    def allgather(self, value):
        return [value]

    def Abort(self, status):
        self.aborted = status

    def Iallreduce(self, send, receive, op):
        self.calls.append(receive)
        if self.disturb and receive.dtype == np.int64:  # as if another rank were elsewhere
            receive += 1
        return Request()

    def Iallgather(self, send, receive):
        receive[...] = send
        return Request()

    def Ibarrier(self):
        return Request()

    Ireduce = Ibcast = lambda self, *args, **named: Request()


@pytest.fixture
def comm(monkeypatch):
    mpi = SimpleNamespace(COMM_WORLD=Communicator(), COMM_TYPE_SHARED=1, IN_PLACE=None)
    vars(mpi).update(SUM="sum", PROD="prod", MIN="min", MAX="max")
    package = ModuleType("mpi4py")
    package.MPI = mpi
    monkeypatch.setitem(sys.modules, "mpi4py", package)
    monkeypatch.delattr(sys, "last_value", raising=False)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.setenv(name, "1" if name == "WORLD_SIZE" else "0")
    yield mpi.COMM_WORLD
    mpi.COMM_WORLD.disturb = False
    dist.destroy_process_group()


@pytest.fixture
def group(comm):
    dist.init_process_group("gloo")
    return comm


def test_rank_0_says_what_it_is(comm, capsys):
    dist.init_process_group("gloo")
    assert (dist.get_rank(), dist.get_world_size(), dist.get_backend()) == (0, 1, "gloo")
    said = capsys.readouterr().err
    assert said.startswith('minidl: 1 rank on MPI, which backend="gloo" means here; on this machine 1 with ')
    with pytest.raises(RuntimeError, match="initialized already"):
        dist.init_process_group()
    with pytest.raises(NotImplementedError, match="one process group, of all ranks"):
        dist.barrier(group="another")


def test_the_launcher_says_who_is_who(monkeypatch):
    monkeypatch.setenv("RANK", "7")
    monkeypatch.setenv("PMI_RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    dist.set_environment()
    assert (dist.os.environ["RANK"], dist.os.environ["WORLD_SIZE"]) == ("3", "4")


def test_another_number_of_ranks_is_refused(comm):
    with pytest.raises(RuntimeError, match=r"should be rank 1 of 4, but to MPI it is rank 0 of 1: .* mpiexec -n 4 "):
        dist.init_process_group(world_size=4, rank=1)
    assert not dist.is_initialized()


def test_collectives_leave_one_rank_as_it_is(group):
    x, y = minidl.tensor([1.0, 2.0]), [minidl.zeros(2)]
    version = x._storage.version
    for op in dist.ReduceOp:
        dist.all_reduce(x, op)
    assert x._storage.version == version + len(dist.ReduceOp)  # gradients that saved x will notice
    dist.reduce(x, 0, dist.ReduceOp.AVG)
    dist.broadcast(x, 0)
    dist.all_gather(y, x)
    dist.barrier()
    assert x.tolist() == y[0].tolist() == [1, 2]
    work = dist.all_reduce(x.t(), async_op=True)
    assert not work.is_completed()
    assert work.wait()
    assert any(call is x.array for call in group.calls)  # MPI gets a contiguous array itself
    with pytest.raises(ValueError, match=r"must have 1 tensors, one for each rank, of shape \(2,\), and has those of"):
        dist.all_gather([], x)


def test_what_cannot_be_reduced_is_refused_before_others_wait(group):
    with pytest.raises(RuntimeError, match=r"there is no SUM of bool; convert the tensor with \.to\(\) first"):
        dist.all_reduce(minidl.tensor([True]))
    with pytest.raises(RuntimeError, match="there is no AVG of int64"):
        dist.reduce(minidl.tensor([1]), 0, dist.ReduceOp.AVG)
    assert not group.calls


def test_a_disagreement_is_an_error(group):
    group.disturb = True
    with pytest.raises(RuntimeError, match=r"the ranks are at different places: rank 0: barrier\. All must take"):
        dist.barrier()
    group.disturb = False
    dist.barrier()


def test_an_end_in_the_middle_of_a_reduction_ends_all_ranks(group, capsys):
    dist.all_reduce(minidl.ones(2), async_op=True)
    dist.destroy_process_group()
    assert group.aborted == 1
    assert (
        "rank 0 has ended in the middle of all_reduce with SUM of shape (2,), float32: ending"
        in capsys.readouterr().err
    )
    assert not dist.is_initialized()


def test_an_end_while_others_go_on_is_said(group, capsys):
    group.disturb = True
    dist.destroy_process_group()
    assert "rank 0: distributed: the ranks are at different places: rank 0: has ended." in capsys.readouterr().err
    assert group.aborted is None


def test_one_rank_trains_as_without(group):
    minidl.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)), minidl.randn(5, 3)
    net(x).square().sum().backward()
    wanted = [p.grad.numpy().copy() for p in net.parameters()]
    net.zero_grad()
    wrapped = DistributedDataParallel(net, bucket_cap_mb=1e-5)
    assert [*wrapped.state_dict()] == [f"module.{name}" for name in net.state_dict()]
    with wrapped.no_sync():
        sent = len(group.calls)
        wrapped(x).square().sum().backward()
        assert len(group.calls) == sent + 1  # the agreement on the buffers
    net.zero_grad()
    wrapped(x).square().sum().backward()
    for p, g in zip(net.parameters(), wanted, strict=True):
        np.testing.assert_allclose(p.grad.numpy(), g, rtol=1e-4, atol=1e-6)


def test_a_missing_gradient_is_an_error(group):
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)

    wrapped = DistributedDataParallel(Half())
    with pytest.raises(
        RuntimeError, match=r"no gradient in backward pass 1: rank 0: unused\.bias, unused\.weight\. Freeze what"
    ):
        wrapped(minidl.ones(1, 2)).sum().backward()
