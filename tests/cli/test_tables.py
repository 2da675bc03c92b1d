"""A table of mixed columns, as a file and a command."""

import numpy as np
import pandas as pd
import pytest
from helpers.runs import TINY, call

import pyrovae as pv
from pyrovae.likelihoods import Bernoulli, Categorical, Columns, Gaussian, NegativeBinomial
from pyrovae.runs import load_data


@pytest.fixture
def table(tmp_path):
    """Numbers, counts and texts, with empty cells, and with names and texts that look like code,
    or like what YAML takes for something else.
    """
    draw, n = np.random.default_rng(0), 60
    frame = pd.DataFrame(
        {
            "body.age": draw.normal(50, 10, n).round(1),
            "visits": draw.poisson(3, n).astype(float),
            "site": draw.choice(["St.Louis", "null", "1.5"], n),
            "smoker": draw.choice(["yes", "no"], n),
        }
    )
    for row, name in enumerate(frame.columns):
        frame.loc[row, name] = None
    frame.to_csv(tmp_path / "t.csv", index=False)
    return tmp_path / "t.csv"


def test_a_table_is_trained_on_in_one_line(table, tmp_path):
    run = tmp_path / "run"
    assert call("train --data", table, "--likelihood Columns", TINY, "--out", run) == 0
    config = pv.Config.load(run / "config.yaml")  # without trust
    likelihood = config.build("likelihood")
    assert [type(entry.part) for entry in likelihood.entries] == [
        Gaussian,
        NegativeBinomial,
        Categorical,
        Bernoulli,
    ]
    assert likelihood.categories == {"site": ["1.5", "St.Louis", "null"], "smoker": ["no", "yes"]}
    assert likelihood.missing
    config.save(tmp_path / "again.yaml")
    assert pv.Config.load(tmp_path / "again.yaml") == config
    splits = load_data(config)
    gaps = sum(int(getattr(splits, part).isnan().sum()) for part in ("train", "valid", "test"))
    assert gaps == 4
    evidence = pv.load_run(run, device="cpu").log_marginal(splits.test, num_particles=50)
    np.testing.assert_allclose(
        evidence.log_marginal, pv.Evidence.load(run / "evidence.nc").log_marginal, rtol=1e-5
    )
    assert call("sample", run, "--num 3") == 0
    drawn = pd.read_csv(run / "samples.csv", dtype=str, keep_default_na=False)
    assert list(drawn.columns) == ["body.age", "visits", "site", "smoker"]
    assert set(drawn["smoker"]) <= {"yes", "no"}
    assert drawn["body.age"].str.len().max() <= 11  # the digits of a single number


def test_columns_are_inferred_from_tables_alone(tmp_path, capsys):
    assert call("train --likelihood Columns --out", tmp_path / "run") == 1
    assert "inferred from a table (.csv, .tsv or .parquet), found digits" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"Columns\.infer"):
        Columns()
