"""Figures of results show the numbers of these results."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import xarray

import pyrovae as pv
from pyrovae import plots
from pyrovae.testing import LinearGaussian

COLUMNS = {"log_marginal": np.linspace(-1, -5, 20), "standard_error": np.full(20, 0.1)}


def history_of(num, valid=True):
    history = pv.History()
    for i in range(num):
        row = dict.fromkeys(history.keys(), 0.0) | {"epoch": i + 1, "train_bound": -50.0 + i}
        row |= {"valid_bound": -51.0 + i if valid else float("nan")}
        history.rows.append(row | {"reconstruction": -40.0 + i, "kl": 10.0})
    history.best_epoch = num
    return history


def test_learning_curve():
    axes = history_of(30).plot()
    lines = {line.get_label(): line for line in axes[0].get_lines()}
    np.testing.assert_array_equal(lines["training"].get_ydata(), np.arange(-50, -20))
    np.testing.assert_array_equal(lines["validation"].get_ydata(), np.arange(-51, -21))
    assert lines["weights kept (epoch 30)"].get_xdata() == [30, 30]
    np.testing.assert_array_equal(axes[1].get_lines()[0].get_ydata(), np.arange(-40, -10))
    np.testing.assert_array_equal(axes[2].get_lines()[0].get_ydata(), np.full(30, 10))
    assert axes[0].get_ylim()[0] > -51  # the steep start may leave the frame
    without = history_of(5, valid=False).plot()
    assert "validation" not in {line.get_label() for line in without[0].get_lines()}
    assert history_of(1).plot()[0].get_lines()[0].get_marker() == "o"


def test_evidence_is_sorted_and_marks_bad_weights():
    k = np.linspace(0.0, 1.0, 20)
    axes = pv.Evidence.from_columns({**COLUMNS, "pareto_k": k}).plot()
    good, bad = (container[0] for container in axes.containers)
    # The values fall while k rises: in the order of the values, bad ones come first.
    np.testing.assert_allclose(np.concatenate([bad.get_ydata(), good.get_ydata()]),
                               COLUMNS["log_marginal"][::-1])  # fmt: skip
    assert len(bad.get_ydata()) == (k > 0.7).sum()
    assert all(float(tick).is_integer() for tick in axes.get_xticks())  # there is no datum 2.5
    plain = pv.Evidence.from_columns(COLUMNS).plot()
    assert len(plain.containers) == 1


def test_pareto_k_counts_every_datum():
    k = np.array([-2.0, 0.1, 0.2, 0.69, 0.71, 3.0, np.inf])
    columns = {"log_marginal": np.zeros(7), "standard_error": np.zeros(7), "pareto_k": k}
    axes = plots.pareto_k(pv.Evidence.from_columns(columns))
    heights = np.array([bar.get_height() for bar in axes.patches])
    lefts = np.array([bar.get_x() for bar in axes.patches])
    assert heights.sum() == 6
    assert heights[lefts >= 0.7 - 1e-9].sum() == 2
    assert axes.get_title("left").startswith("42.9%")  # infinite k counts as above
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.pareto_k(pv.Evidence.from_columns(COLUMNS))


@pytest.fixture(scope="module")
def oracle():
    return LinearGaussian(latent_dim=3, shift=0.5)


def test_the_bar_ends_at_the_elbo(oracle):
    method = pv.ImportanceSampling(100)
    nats = pv.where_the_nats_go(oracle.model, oracle.guide, oracle.sample(50), method=method)
    axes = nats.plot()
    ends = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches]
    assert ends[0][1] == pytest.approx(nats.mean("reconstruction"))
    assert ends[0][0] == pytest.approx(
        nats.mean("reconstruction") - nats.mean("mutual_information")
    )
    assert ends[1] == pytest.approx((nats.mean("elbo"), ends[0][0]))
    line = axes.get_lines()[-1]
    assert line.get_xdata()[0] == pytest.approx(nats.mean("log_marginal"))
    cells = nats._repr_html_()
    assert f"{nats.mean('elbo'):.4f}" in cells
    assert "3 of 3 latent elements active" in cells


def test_numbers_along_the_bar_of_nats_have_room():
    """Many nats, of which the KL is a small part."""
    oracle = LinearGaussian(data_dim=5_000, stretch=0.02)
    found = pv.where_the_nats_go(
        oracle.model, oracle.guide, oracle.sample(10), method=pv.ImportanceSampling(100)
    )
    axes = found.plot()
    axes.figure.draw_without_rendering()
    labels = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert abs(axes.get_xticks()[0]) > 1_000
    assert all(left.x1 < right.x0 for left, right in pairwise(labels))
    assert axes.get_title("left").startswith("ELBO \N{MINUS SIGN}")
    assert not axes.texts


def test_units_show_the_kl_of_each_element(oracle):
    x = oracle.sample(100)
    nats = pv.where_the_nats_go(oracle.model, oracle.guide, x, num_particles=500)
    scale = oracle.log_scale.exp()
    q = torch.distributions.Normal(x @ oracle.gain.T + oracle.offset, scale)
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).mean(0)
    found = nats.dataset["unit_kl"].values
    # 50,000 draws of terms that vary by about a nat.
    np.testing.assert_allclose(found, kl.detach(), atol=0.02)
    assert found.sum() == pytest.approx(nats.mean("kl"), rel=1e-5)
    heights = [bar.get_height() for bar in plots.units(nats).patches]
    np.testing.assert_allclose(heights, np.sort(found)[::-1])


def test_units_show_the_activity_where_elements_depend_on_each_other():
    torch.manual_seed(0)
    vae = pv.VAE(6, 3, prior=pv.priors.GaussianMixture(2), encoder=pv.nets.MLP(8))
    nats = pv.where_the_nats_go(vae.model, vae.guide, torch.rand(20, 6).round())
    assert np.isnan(nats.dataset["unit_kl"]).all()
    heights = [bar.get_height() for bar in plots.units(nats).patches]
    np.testing.assert_allclose(heights, np.sort(nats.dataset["activity"].values)[::-1])


def test_sandwich_and_convergence(oracle):
    method = pv.ImportanceSampling(20)
    found = pv.bdmc(oracle.model, oracle.guide, num_data=9, method=method)
    above = found.plot().containers[1][0]
    np.testing.assert_allclose(above.get_ydata(), np.sort(found.gap.values))
    assert "gap" in found._repr_html_()
    x = oracle.sample(5)
    rising = pv.evidence.convergence(oracle.model, oracle.guide, x, num_particles=(1, 4, 16))
    first = rising.plot().get_lines()[0]
    np.testing.assert_allclose(first.get_ydata(), rising.dataset["mean"])
    assert f"{float(rising.dataset['mean'][0]):.4f}" in rising._repr_html_()


def test_calibration(oracle):
    found = pv.evidence.calibration(oracle.model, oracle.guide, num_data=60)
    counts, shares = found.histogram()
    axes = found.plot()
    np.testing.assert_allclose(axes.patches[0].get_data().values, counts[:, 0])
    assert shares.sum() == pytest.approx(1)
    assert "mean rank" in found._repr_html_()


@pytest.fixture(scope="module")
def table():
    one, two = LinearGaussian(), LinearGaussian(noise=1.4)
    x = one.sample(60)
    return pv.compare_models(
        {
            name: pv.log_marginal(o.model, o.guide, x, num_particles=50)
            for name, o in {"one": one, "two": two}.items()
        }
    )


def test_forest(table):
    axes = table.plot()
    row = table.dataset.sel(model="two", reference="one")
    ends, mark = axes.get_lines()[-2:]
    np.testing.assert_allclose(ends.get_xdata(), [row["lower"], row["upper"]])
    np.testing.assert_allclose(mark.get_xdata(), [row["difference"]])
    level = float(table.dataset["mean"].sel(model="one"))
    axes = plots.forest(table, reference="two", runs={"one": [level, level - 1]})
    single = axes.get_lines()[1].get_xdata()
    np.testing.assert_allclose(single, np.array([0, -1]) - float(row["difference"]), atol=1e-12)
    with pytest.raises(ValueError, match="no model 'three'"):
        plots.forest(table, reference="three")


def test_tables_of_comparisons(table):
    html = table._repr_html_()
    row = table.dataset.sel(model="two", reference="one")
    assert f">{float(row['difference']):.3f}</td>" in html
    assert ">P(better)</th>" in html
    assert html.count("<tr>") == 3


def test_rate_distortion_and_time():
    columns = {"rate": ("beta", [9.0, 5.0]), "distortion": ("beta", [20.0, 26.0])}
    axes = plots.rate_distortion(xarray.Dataset(columns, coords={"beta": [0.5, 2.0]}))
    np.testing.assert_array_equal(axes.get_lines()[0].get_xydata(), [[9, 20], [5, 26]])
    beta = np.linspace(0, 1, 101)
    columns = {"rate": ("beta", beta), "distortion": ("beta", 9 - beta)}
    axes = plots.rate_distortion(xarray.Dataset(columns, coords={"beta": beta}))
    assert len(axes.get_lines()[0].get_xdata()) == 101
    labels = [text.get_text() for text in axes.texts]
    assert len(labels) == 8
    assert (labels[0], labels[-1]) == ("β = 0", "β = 1")
    axes = plots.training_time({"small": ([1.0, 1.2], [-30.0, -31.0]), "large": ([9.0], [-25.0])})
    small, large = axes.get_lines()
    np.testing.assert_array_equal(small.get_xydata(), [[1, -30], [1.2, -31]])
    assert small.get_marker() != large.get_marker()
