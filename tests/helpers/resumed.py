"""Trainings that end within an epoch and go on, in several processes: ``python resumed.py FOLDER
NAME ...`` writes what this process saw of the whole run and of the one in two parts to a file.
"""

import os
import sys
from pathlib import Path

import torch

from helpers import trainings
from pyrovae.svi import Step
from pyrovae.training import failures

CUT = 2  # steps of the run that ends


class Ended(BaseException):
    """As a process that is killed: nothing in the package catches it."""


def main(folder, *names):
    rank = os.environ["RANK"]
    counts = {"taken": 0, "looks": 0, "graphs": 0}
    take, prepare, check = Step.take, Step.prepare, failures.check

    def taken(self, *batch, **options):
        counts["taken"] += 1
        if counts["taken"] > counts["most"]:
            raise Ended
        return take(self, *batch, **options)

    def prepared(self, *batch):
        prepare(self, *batch)
        counts["graphs"] += len(self.compiled.graphs)

    def checked(trainer):
        counts["looks"] += 1
        check(trainer)

    Step.take, Step.prepare, failures.check = taken, prepared, checked
    for name in names:
        path, found = Path(folder) / f"{name}.checkpoint", {}
        for part, most in (("whole", 100), ("cut", CUT), ("resumed", 100)):
            counts.update(taken=0, looks=0, graphs=0, most=most)
            kept = {"checkpoint": path.with_suffix(".whole" if part == "whole" else ".cut")}
            try:
                kept |= {"checkpoint_every": 2, "resume": part == "resumed"}
                seen = trainings.run(name, capture=False, **kept)
            except Ended:
                continue
            found[part] = {**seen, **counts}
        torch.save(found, Path(folder) / f"{name}-{rank}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
