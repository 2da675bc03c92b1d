"""What a configuration says of its data reaches the data, and what would mislead is refused."""

import numpy as np
import pandas
import pytest
import torch

import pyrovae as pv
from pyrovae.runs.building import load_data
from pyrovae.runs.config import Config
from pyrovae.runs.pipeline import settle


def test_options_of_tables_reach_the_data_and_the_file(tmp_path):
    frame = pandas.DataFrame({"a": np.arange(30) % 2, "b": np.ones(30), "kind": ["x", "y"] * 15})
    frame.to_csv(tmp_path / "t.csv", index=False)
    config = Config(
        data=str(tmp_path / "t.csv"),
        data_columns=["a"],
        data_labels="kind",
        model="ConditionalVAE",
        likelihood="Gaussian",
    )
    config, splits = settle(config)
    assert (config.condition_dim, splits.data_shape) == (2, (1,))
    config.save(tmp_path / "config.yaml")
    again = load_data(Config.load(tmp_path / "config.yaml"))
    assert torch.equal(again.train, splits.train)
    with pytest.raises(ValueError, match="layer= does not go with"):
        load_data(Config(data=str(tmp_path / "t.csv"), data_layer="counts"))


def test_colour_is_not_thresholded_without_being_told(tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)
    np.save(tmp_path / "rgb.npy", levels)
    data = str(tmp_path / "rgb.npy")
    with pytest.raises(ValueError, match=r"colour images.*DiscretizedLogistic.*--binarize"):
        settle(Config(data=data))
    config, splits = settle(Config(data=data, binarize="threshold"))
    assert set(splits.train.unique().tolist()) == {0.0, 1.0}
    config, splits = settle(Config(data=data, likelihood="DiscretizedLogistic"))
    assert config.binarize == "none"
    assert splits.levels == 256


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.tensor([[0.3, -1.2]]), "found -1.2 among the data. Use likelihoods.Gaussian"),
        (torch.tensor([[3.0, 0.0]]), "found 3 among the data.*Poisson"),
        (torch.tensor([[0.5, 1.0]]), "found 0.5 among the data.*ContinuousBernoulli"),
        (torch.tensor([[float("nan"), 1.0]]), "found nan"),
    ],
)
def test_the_likelihood_that_is_named_fits_the_data(x, message):
    with pytest.raises(ValueError, match=message):
        pv.VAE(2, 2).fit(x) if x.isfinite().all() else pv.VAE(2, 2).model(x)
