"""What processes that train together send each other, and what they say when one is gone."""

import signal
from datetime import timedelta
from threading import Thread

import pytest
import torch
import torch.distributed as dist

from pyrovae.signals import ignored
from pyrovae.training import distributed
from pyrovae.training.distributed import LostProcess, Processes


@pytest.fixture
def processes():
    """A group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield Processes(torch.device("cpu"))
    dist.destroy_process_group()


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor([0.5, -2.0], dtype=torch.bfloat16),
        torch.tensor([True, False]),
        torch.tensor([1 + 2j]),
        torch.tensor([3, 4], dtype=torch.int16),
        torch.tensor(7.0),
        torch.ones(2, 0),
        torch.arange(6.0).reshape(2, 3).t(),
    ],
    ids=lambda x: f"{x.dtype} {tuple(x.shape)}",
)
def test_tensors_of_any_kind_can_be_taken_over(processes, tensor):
    expected = tensor.clone()
    processes.take_over([tensor])
    assert torch.equal(tensor, expected)


def test_what_is_no_lost_process_is_not_told_as_one(processes):
    with pytest.raises(RuntimeError, match="scalar type") as caught:
        processes.sum(torch.ones(2, dtype=torch.int16))
    assert not isinstance(caught.value, LostProcess)


def test_a_lost_process_is_told_with_its_cause(processes):
    """Of two members of a group, one goes."""
    store, members = dist.HashStore(), {}

    def join(rank):
        members[rank] = dist.ProcessGroupGloo(store, rank, 2, timedelta(seconds=20))

    threads = [Thread(target=join, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    del members[1]
    with pytest.raises(LostProcess, match=r"has ended or does not answer \(.*(by peer|closed)"):
        processes._collective(lambda: members[0].allreduce([torch.ones(2)]).wait())
    members.clear()


@pytest.mark.parametrize(
    ("cuda", "nccl", "backend"),
    [(True, True, "cpu:gloo,cuda:nccl"), (True, False, "gloo"), (False, True, "gloo")],
)
def test_the_backend_serves_every_device_of_the_machine(monkeypatch, cuda, nccl, backend):
    """The command line joins on the CPU before a model goes to the GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(dist, "is_nccl_available", lambda: nccl)
    assert distributed._backend() == backend


def test_signals_are_ignored_and_their_handlers_come_back(monkeypatch):
    stops = signal.SIGINT, signal.SIGTERM
    before = [signal.getsignal(each) for each in stops]
    with ignored():
        for each in stops:
            signal.raise_signal(each)
    assert [signal.getsignal(each) for each in stops] == before
    # A handler that is none of Python's could not be put back.
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    monkeypatch.setattr(signal, "signal", lambda *_: pytest.fail("a handler was replaced"))
    with ignored():
        pass
