"""Frames of three libraries as the data of a model, and back with their columns and types."""

import math

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from torch.testing import assert_close

import pyrovae as pv
from pyrovae import nets
from pyrovae.likelihoods import Bernoulli, Categorical, Columns, Gaussian, Poisson

pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")

N = 30


def columns(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "height": rng.normal(170, 10, N), "sex": rng.choice(["f", "m"], N).tolist(),
        "visits": rng.poisson(3, N), "blood": rng.choice(["0", "A", "B"], N).tolist(),
        "smokes": rng.random(N) < 0.3, "delta": rng.integers(-5, 5, N),
    }  # fmt: skip


def pandas_frame():
    frame = pd.DataFrame(columns(), index=np.arange(N) + 100)
    return frame.astype({"blood": "category", "height": "float32"})


def pandas_nullable():
    return pandas_frame().convert_dtypes()


def polars_frame():
    return pl.DataFrame(columns()).with_columns(
        pl.col("blood").cast(pl.Categorical), pl.col("sex").cast(pl.Enum(["m", "f"])),
        pl.col("visits").cast(pl.UInt8),
    )  # fmt: skip


def arrow_table():
    table = pa.table(columns())
    i = table.column_names.index("blood")
    return table.set_column(i, "blood", table["blood"].dictionary_encode())


FRAMES = [pandas_frame, pandas_nullable, polars_frame, arrow_table]
frames = pytest.mark.parametrize("build", FRAMES, ids=lambda build: build.__name__)


def types(frame):
    return dict(frame.dtypes) if isinstance(frame, pd.DataFrame) else frame.schema


def rows(frame):
    return frame.to_dict("list") if isinstance(frame, pd.DataFrame) else frame.to_pydict() if (
        isinstance(frame, pa.Table)) else frame.to_dict(as_series=False)  # fmt: skip


def make(likelihood):
    pyro.set_rng_seed(0)
    return pv.VAE(likelihood.data_shape, 2, likelihood=likelihood, encoder=nets.MLP(4),
                  decoder=nets.MLP(4))  # fmt: skip


@frames
def test_numbers_and_back(build):
    frame = build()
    likelihood = Columns.infer(frame)
    x = likelihood.read(frame)
    assert x.shape == (N, 6)
    back = likelihood.show(x, frame)
    assert types(back) == types(frame)
    assert rows(back) == rows(frame)
    again = likelihood.show(x)  # from the declaration alone
    assert isinstance(again, type(frame))
    assert rows(again) == rows(frame)
    if build is not arrow_table:  # whose dictionaries may have indices of another width
        assert {k: str(v) for k, v in dict(types(again)).items()} == {
            k: str(v) for k, v in dict(types(frame)).items()
        }


@frames
def test_a_model_takes_frames_and_gives_them(build):
    frame = build()
    vae = make(Columns.infer(frame))
    assert np.isfinite(vae.fit(frame, valid=frame, epochs=1)["valid_bound"]).all()
    x = vae.read(frame)
    by_frame = vae.log_marginal(frame, num_particles=20)
    by_tensor = pv.log_marginal(vae.model, vae.guide, x, num_particles=20)
    assert np.array_equal(by_frame.log_marginal, by_tensor.log_marginal)
    assert types(vae.reconstruct(frame)) == types(frame)
    drawn = vae.sample(4)
    assert isinstance(drawn, type(frame))
    assert vae.read(drawn).shape == (4, 6)
    codes = vae.embed(frame)
    assert isinstance(codes, type(frame))
    assert_close(torch.tensor(np.asarray(codes), dtype=torch.float32), vae.encode(x).mean.detach())
    if isinstance(frame, pd.DataFrame):
        assert codes.index.equals(frame.index)
        assert vae.reconstruct(frame).index.equals(frame.index)
    # Draws of z by the model, from data of known shape.
    sandwich = pv.bdmc(vae.model, vae.guide, num_data=3, method=pv.ImportanceSampling(10))
    assert len(sandwich.gap) == 3


@frames
def test_missing_cells_of_frames(build):
    frame = build()
    full = Columns.infer(frame)
    x = full.read(frame)
    x[2, 0] = x[3, 3] = x[4, 1] = math.nan
    with pytest.raises(ValueError, match=r"'height' has missing cells \(3 in all"):
        full.read(full.show(x, frame))
    gappy = full.show(x, frame)
    likelihood = Columns.infer(gappy)
    assert likelihood.missing
    assert_close(likelihood.read(gappy), x, equal_nan=True)
    vae = make(likelihood)
    assert np.isfinite(vae.fit(gappy, epochs=1)["train_bound"]).all()
    imputed = vae.impute(gappy, num_draws=2, num_particles=10)
    assert len(imputed.draws) == 2
    assert types(imputed.draws[0]) == types(gappy)
    values = full.read(imputed.draws[1])
    seen = ~x.isnan()
    assert torch.equal(values[seen], x[seen])
    assert not values.isnan().any()


def test_conditional_evidence_by_column():
    """log p(sex | the rest) sums to one over the two values of sex, at the same particles."""
    frame = pandas_frame().head(5)
    vae = make(Columns.infer(pandas_frame(), missing=True))
    with torch.no_grad():  # a proposal wider than the prior keeps the weights bounded
        encoder = [m for m in vae.posterior.modules() if isinstance(m, torch.nn.Linear)][-1]
        encoder.weight.zero_()
        encoder.bias.copy_(torch.tensor([0.0, 0.0, 1.0, 1.0]))
    rest = vae.log_marginal(frame.assign(sex=None), num_particles=20_000).log_marginal.values
    both = [
        vae.log_marginal(frame.assign(sex=value), num_particles=20_000).log_marginal.values - rest
        for value in ("f", "m")
    ]
    total = np.logaddexp(*both)
    # Three estimates, whose standard errors are below 0.02 each.
    np.testing.assert_allclose(total, 0, atol=0.1)


def test_pandas_keeps_counts_with_gaps_as_floats():
    frame = pd.DataFrame({"visits": [1.0, None, 4.0], "answer": [True, None, False]})
    likelihood = Columns.infer(frame)
    assert repr(likelihood.declaration["columns"]) == (
        "{'visits': NegativeBinomial(), 'answer': Bernoulli()}"
    )
    assert likelihood.categories == {"answer": [False, True]}
    assert rows(likelihood.show(likelihood.read(frame), frame))["answer"] == [True, None, False]


def test_whole_numbers_without_categories_are_levels():
    frame = pd.DataFrame({"grade": [0, 2, 3], "passed": [0, 1, 1]})
    likelihood = Columns({"grade": Categorical(4), "passed": Bernoulli()})
    x = likelihood.read(frame)
    assert_close(x, torch.tensor([[0, 0], [2 / 3, 1], [1, 1]], dtype=torch.float64))
    assert rows(likelihood.show(x, frame)) == rows(frame)


@pytest.mark.parametrize(
    ("frame", "error", "message"),
    [
        ({"a": ["x", "x"]}, ValueError, "'x' alone"),
        ({"a": [1.5, 1.5]}, ValueError, "1.5 alone"),
        ({"a": [None, None]}, ValueError, "no values"),
        ({"a": [1.0, math.inf]}, ValueError, "infinite"),
        ({"a": pd.to_datetime(["2020-01-01", "2021-01-01"])}, TypeError, "dates to days"),
        ({"a": [f"name{i}" for i in range(101)]}, ValueError, "101 different texts"),
    ],
)
def test_columns_without_a_likelihood_are_named(frame, error, message):
    with pytest.raises(error, match=message):
        Columns.infer(pd.DataFrame(frame))


def test_all_columns_without_a_likelihood_are_named_at_once_and_the_others():
    frame = pd.DataFrame({"id": [f"c{i}" for i in range(200)], "age": range(200), "unit": "cm"})
    frame["height"] = np.arange(200) / 7
    with pytest.raises(ValueError, match=r"'id' holds 200 .*'unit' holds 'cm' alone") as error:
        Columns.infer(frame)
    assert '--data_columns \'["age", "height"]\'' in str(error.value)
    Columns.infer(frame[["age", "height"]])


@pytest.mark.parametrize(
    ("likelihood", "frame", "error", "message"),
    [
        (Columns({"b": Gaussian()}), {"a": [1.0]}, ValueError, "no column 'b'"),
        (Columns({"a": Gaussian()}), {"a": ["x"]}, TypeError, "takes numbers"),
        (Columns({"a": Categorical(3)}), {"a": [5]}, ValueError, r"5, which is none of .*\[0, 1"),
        (Columns({"a": Poisson()}), {"a": [0.5]}, ValueError, "Column 'a': Poisson .* counts"),
    ],
)  # fmt: skip
def test_frames_that_do_not_fit_are_refused(likelihood, frame, error, message):
    vae = make(likelihood)
    with pytest.raises(error, match=message):
        vae.fit(pd.DataFrame(frame), epochs=1)


def test_what_is_no_frame_is_said():
    with pytest.raises(TypeError, match=r"takes a data frame .* found list"):
        Columns.infer([1, 2])
    vae = make(Columns({"a": Gaussian()}))
    with pytest.raises(TypeError, match=r"vae\.read"):
        vae.model(pd.DataFrame({"a": [1.0]}))
