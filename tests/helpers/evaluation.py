"""Evidence of a small model, shared by processes: ``python evaluation.py FOLDER [KILLED ...]``.

Killed processes end after their first part, when they run for the first time.
"""

import os
import signal
import sys
from pathlib import Path

import torch

import pyrovae as pv
from pyrovae import nets
from pyrovae.evidence.parts import Parts

METHOD = pv.ImportanceSampling(200)
OPTIONS = {"method": METHOD, "memory_budget": 2**18}


def model():
    """The same for every process."""
    torch.manual_seed(0)
    return pv.VAE((6,), 2, encoder=nets.MLP(8), decoder=nets.MLP(8))


def data(num=200):
    """Zeros and ones."""
    return torch.rand(num, 6, generator=torch.Generator().manual_seed(2)).round()


def main(folder, *killed):
    rank = os.environ["RANK"]
    if rank in killed:
        write = Parts._write

        def last(self, *arguments):
            write(self, *arguments)
            os.kill(os.getpid(), signal.SIGKILL)

        Parts._write = last
    found = model().log_marginal(data(), parts=Path(folder) / "parts", **OPTIONS)
    found.save(Path(folder) / f"evidence-{rank}.nc")


if __name__ == "__main__":
    main(*sys.argv[1:])
