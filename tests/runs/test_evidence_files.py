"""Which of the evidence that run folders hold is compared."""

import os

import numpy as np
import pytest

from pyrovae.evidence import Evidence
from pyrovae.runs import Config, Run
from pyrovae.runs.evidence_files import common_evidence

IS, AIS = ("ImportanceSampling", 50), ("AIS", 20)


def folder(path, *evaluated):
    """A run with evidence on such data by such methods, oldest first."""
    run = Run(path, Config())
    path.mkdir()
    for number, (data, (method, count)) in enumerate(evaluated):
        columns = {"log_marginal": np.zeros(3), "standard_error": np.ones(3)}
        about = {"data": data, "method": method, "settings": {"num_particles": count}}
        file = path / f"evidence-{number}.nc"
        Evidence.from_columns(columns, **about).save(file)
        os.utime(file, (number, number))
    return run


@pytest.mark.parametrize(
    ("one", "other", "chosen"),
    [
        # The newest of several by the same method.
        ([("test", IS), ("test", IS)], [("test", IS)], [1, 0]),
        # On the data of the newest, which are not those that came last for the first time.
        ([("valid", IS), ("test", IS), ("valid", IS)], [("valid", IS), ("test", IS)], [2, 0]),
        # By a method that the other was evaluated by, too.
        ([("test", IS), ("test", AIS)], [("test", IS)], [0, 0]),
        ([("test", IS), ("test", AIS)], [("test", AIS), ("test", IS)], [1, 0]),
        # Without such a method, on common data; the comparison refuses them or was told not to.
        ([("test", AIS), ("valid", IS)], [("test", IS)], [0, 0]),
        ([("valid", IS), ("valid", AIS)], [("test", IS), ("test", AIS)], [1, 1]),
    ],
)
def test_the_newest_that_can_be_compared(one, other, chosen, tmp_path):
    runs = [folder(tmp_path / "one", *one), folder(tmp_path / "other", *other)]
    opened = {run.path: run for run in runs}
    found = common_evidence([*opened], opened)
    assert [file.name for file, _ in found] == [f"evidence-{number}.nc" for number in chosen]
