"""Training in several processes, which ``torchrun`` starts and ``torch.distributed`` joins."""

import atexit
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from pyrovae.compilation import Compiled
from pyrovae.data.batches import Batches
from pyrovae.data.hashing import content_hash
from pyrovae.objective import Evaluation, Objective, Report
from pyrovae.training.draws import Place
from pyrovae.training.outputs import Outputs
from pyrovae.training.shares import Share

__all__ = ["LostProcess", "Processes", "rank_and_size"]


class LostProcess(RuntimeError):
    """Another process of the group has ended, so this one cannot go on."""


def rank_and_size() -> tuple[int, int]:
    """The number of this process and how many there are: of ``torch.distributed`` if it is
    initialised, else what ``torchrun`` says; ``(0, 1)`` without either.

    >>> rank_and_size()
    (0, 1)
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    if dist.is_available() and all(name in os.environ for name in names):
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return 0, 1


class Processes:
    """The processes that train one model together, each on its rows of every batch.

    All of them go through the same batches, schedules and random numbers, and hold the same
    weights. A step evaluates the rows of this process, adds up the gradients of all in one
    collective operation, and takes the same update everywhere.

    Args:
        device: Where this process trains.

    Attributes:
        rank, size: The number of this process, and how many there are.
    """

    def __init__(self, device: torch.device):
        self.device = device
        if not dist.is_initialized():
            # After a restart the store may still hold the addresses of processes that are gone.
            attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            store, rank, size = next(rendezvous("env://"))
            named = dist.PrefixStore(f"attempt {attempt}", store)  # type: ignore[attr-defined]
            dist.init_process_group(_backend(), store=named, rank=rank, world_size=size)
            atexit.register(_leave)
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    @classmethod
    def join(cls, device: torch.device) -> "Processes | None":
        """The processes that this one belongs to; None if it is alone."""
        if rank_and_size()[1] == 1:
            return None
        if device.type == "cuda" and device.index is None:
            local = int(os.environ.get("LOCAL_RANK", 0))
            device = torch.device("cuda", local % torch.cuda.device_count())
        return cls(device)

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def place(self, total: int) -> Place:
        """Which rows of a batch are this process's: all of them where there are fewer than
        processes.
        """
        if total < self.size:
            return Place(self.rank, 0, total, total, self.size)
        low, high = (total * rank // self.size for rank in (self.rank, self.rank + 1))
        return Place(self.rank, low, high - low, total)

    def share(self, objective: Objective, **settings: Any) -> Share:
        """The part of an objective that a process evaluates."""
        return Share(objective, **settings)

    def evaluate(
        self, compiled: Compiled, beta: Tensor | None, batch: Sequence[Tensor]
    ) -> Evaluation:
        """Report, loss and gradients of a batch, from the shares of all processes.

        Args:
            compiled: Of a :class:`Share`.
            beta: Factor on the KL term.
            batch: All of its rows, the same in each process.
        """
        mine, share = self._mine(compiled, beta, batch), compiled.function
        share.compare(beta, batch)
        flat, present = compiled(*mine)
        return share.whole(self.sum(flat), present)

    def prepare(self, compiled: Compiled, beta: Tensor | None, batch: Sequence[Tensor]) -> None:
        """Capture the graph that :meth:`evaluate` would run, without an evaluation."""
        compiled.prepare(*self._mine(compiled, beta, batch))

    def _mine(
        self, compiled: Compiled, beta: Tensor | None, batch: Sequence[Tensor]
    ) -> tuple[Any, ...]:
        """The arguments of this process's share of a batch."""
        compiled.function.prepare(beta, batch)
        place = self.place(len(batch[0]))
        return beta, place, *(tensor[place.rows] for tensor in batch)

    def judging(self, compiled: Compiled) -> Callable[..., tuple[Report, Tensor]]:
        """A function of beta and a batch to the report and the loss of all its rows."""

        def judge(beta: Tensor | None, *batch: Tensor) -> tuple[Report, Tensor]:
            return self.evaluate(compiled, beta, batch)[:2]

        return judge

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes."""
        self._collective(lambda: dist.all_reduce(tensor))
        return tensor

    def take_over(self, tensors: Sequence[Tensor]) -> None:
        """Give tensors the values that they have in the first process."""
        with torch.no_grad():
            for tensor in tensors:
                held = tensor.detach().clone(memory_format=torch.contiguous_format)
                content = held.reshape(-1).view(torch.uint8)  # not every dtype can be sent
                self._collective(lambda content=content: dist.broadcast(content, 0))
                tensor.copy_(held)

    def outputs(self, outputs: Outputs) -> Outputs:
        """The first process writes the log and shows progress; it alone is asked to stop."""
        outputs.callback = self._decided(outputs.callback)
        if not self.first:
            outputs.progress, outputs.log = False, None
        return outputs

    def begin(
        self,
        modules: Sequence[nn.Module],
        parameters: Sequence[Tensor],
        train: Batches,
        valid: Batches | None,
    ) -> None:
        """Check that all processes have the same data, and begin with the first one's weights."""
        self._check_data(train, "train")
        if valid is not None:
            self._check_data(valid, "valid")
        buffers = [b for module in modules for b in module.buffers()]
        self.take_over([*parameters, *buffers])

    def _decided(self, decide: Callable[..., Any] | None) -> Callable[..., bool]:
        """A function that only the first process runs, if it has one, and whose truth all processes
        are told.
        """

        def agreed(*args: Any) -> bool:
            answer = bool(decide(*args)) if self.first and decide is not None else False
            flag = torch.tensor(float(answer), device=self.device)
            return bool(self.sum(flag) > 0)

        return agreed

    def settle(self, modules: Sequence[nn.Module], parameters: Sequence[Tensor]) -> None:
        """Check that all processes hold the same parameters, and average the modules' buffers,
        such as running means of the rows that each has seen.

        Raises:
            RuntimeError: If parameters differ.
        """
        self.check_same(parameters, "weights", "Report this with the model; it is not to happen.")
        buffers = [b for module in modules for b in module.buffers()]
        moving = [b for b in buffers if b.is_floating_point() and b.numel()]
        if not moving or self._alike(moving):
            return
        with torch.no_grad():
            flat = self.sum(torch.cat([b.reshape(-1).double() for b in moving])) / self.size
            for buffer, value in zip(moving, flat.split([b.numel() for b in moving]), strict=True):
                buffer.copy_(value.reshape(buffer.shape))

    def check_same(self, values: Sequence[Tensor], what: str, advice: str) -> None:
        """Raise a RuntimeError if values differ between the processes."""
        if not self._alike(values):
            raise RuntimeError(f"The processes hold different {what}. {advice}")

    def _check_data(self, batches: Batches, name: str) -> None:
        """Raise unless all processes were given the same data, in the same order."""
        if isinstance(batches.source, DataLoader):
            if isinstance(batches.source.sampler, DistributedSampler):
                raise ValueError(
                    f"The loader of the {name} data has a DistributedSampler. Give the same loader "
                    "as for one process: each process takes its rows of every batch by itself."
                )
            return
        count = len(batches.source[0])
        some = torch.arange(0, count, max(1, count // 64), device=batches.source[0].device)
        seen = [torch.tensor(count), *(tensor[some] for tensor in batches.source)]
        advice = "Give each process all of the data, in the same order: it takes its part itself."
        self.check_same(seen, f"{name} data", advice)

    def _alike(self, tensors: Sequence[Tensor]) -> bool:
        number = int.from_bytes(content_hash(tensors, 7), "little")
        mine = torch.tensor(number, dtype=torch.int64, device=self.device)
        every = [torch.zeros_like(mine) for _ in range(self.size)]
        self._collective(lambda: dist.all_gather(every, mine))
        return len({int(one) for one in every}) == 1

    def _collective(self, work: Callable[[], Any]) -> None:
        try:
            work()
        except RuntimeError as error:
            said = re.sub(r"^\[\S+\] ", "", str(error).strip())  # without a line of torch's source
            if not any(sign in said.lower() for sign in _LOST):
                raise
            raise LostProcess(
                "Another process of this training has ended or does not answer "
                f"({said.splitlines()[0]:.200}). Its own message says why. Go on from the last "
                "checkpoint."
            ) from error


_LOST = (
    "connection",
    "broken pipe",
    "pair closure",
    "timed out",
    "timeout",
    "remote process exited",
    "remote error",
    "communicator was aborted",
)
"""Of what gloo and NCCL say where the other end is gone."""


def _backend() -> str:
    """By the machine, not by the device: the command line meets the others before it knows where
    the model will be.
    """
    cuda = torch.cuda.is_available() and dist.is_nccl_available()
    return "cpu:gloo,cuda:nccl" if cuda else "gloo"


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
