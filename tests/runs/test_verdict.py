"""The verdict on a run: against a model without latent variables, and against its own weights."""

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli, Normal

import pyrovae as pv
from pyrovae import likelihoods, nets
from pyrovae.data import Splits
from pyrovae.runs.baseline import without_latents
from pyrovae.runs.noise import add_noise
from pyrovae.runs.terminal import headline
from pyrovae.runs.verdict import diagnosis, result


def splits_of(x):
    return Splits(x[:400], x[400:500], x[500:])


def small(dim, likelihood):
    return pv.VAE(dim, 2, likelihood=likelihood, encoder=nets.MLP(4), decoder=nets.MLP(4))


def test_without_latents_is_the_closed_form_of_binary_data():
    torch.manual_seed(0)
    shares = torch.tensor([0.1, 0.5, 0.9, 0.3])
    splits = splits_of((torch.rand(600, 4) < shares).float())
    found = without_latents(small(4, likelihoods.Bernoulli()), splits)
    expected = Bernoulli(splits.train.double().mean(0)).log_prob(splits.test.double()).sum(1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_without_latents_is_the_closed_form_of_normal_data():
    torch.manual_seed(0)
    x = torch.randn(600, 3) * torch.tensor([0.5, 4.0, 20.0]) + torch.tensor([3.0, -40.0, 170.0])
    splits = splits_of(x)
    for likelihood in (likelihoods.Gaussian("per-element"), likelihoods.Gaussian("decoder")):
        found = without_latents(small(3, likelihood), splits)
        train = splits.train.double()
        law = Normal(train.mean(0), train.std(0, correction=0))
        expected = law.log_prob(splits.test.double()).sum(1)
        # Fitted until the validation data gain less than 1e-4 nats.
        np.testing.assert_allclose(found, expected, atol=0.05)
        assert found.mean() == pytest.approx(float(expected.mean()), abs=0.01)


def test_without_latents_leaves_the_model_alone():
    torch.manual_seed(0)
    part = likelihoods.Gaussian("optimal")
    vae = small(3, part)
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    assert len(without_latents(vae, splits_of(torch.randn(600, 3)))) == 100
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())


@pytest.mark.parametrize(
    "likelihood",
    [
        likelihoods.Columns({"a": likelihoods.Poisson(), "b": likelihoods.NegativeBinomial()}),
        likelihoods.ZeroInflatedNegativeBinomial(),
    ],
    ids=repr,
)
def test_without_latents_of_counts(likelihood):
    torch.manual_seed(0)
    splits = splits_of(torch.poisson(torch.full((600, 2), 3.0)))
    found = without_latents(small(2, likelihood), splits)
    exact = torch.distributions.Poisson(3.0).log_prob(splits.test).sum(1)
    assert found.mean() == pytest.approx(float(exact.mean()), abs=0.1)


def test_where_there_is_no_comparison_the_verdict_says_why():
    torch.manual_seed(0)
    splits = splits_of(torch.randn(600, 1))
    missing = small(1, likelihoods.Columns({"a": likelihoods.Gaussian()}, missing=True))
    noisy = small(1, likelihoods.Gaussian())
    add_noise(noisy)
    for vae, word in ((missing, "missing cells"), (noisy, "noise of the grey levels")):
        found = result(evidence_of(VALUES, 0.1), "digits", without_latents(vae, splits))
        assert found["verdict"][0].startswith("How the same likelihood does without")
        assert word in found["verdict"][0]
        assert "Without latent variables" not in dict(found["facts"])


def evidence_of(values, k=None, **attributes):
    columns = {"log_marginal": values, "standard_error": np.full(len(values), 0.01)}
    if k is not None:
        columns |= {"pareto_k": np.full(len(values), k), "num_particles": np.full(len(values), 100)}
    attributes = {"method": "ImportanceSampling", "settings": {}, **attributes}
    return pv.Evidence.from_columns(columns, **attributes)


VALUES = np.random.default_rng(0).normal(-20, 1, 200)


@pytest.mark.parametrize(
    ("shift", "word"), [(-3.0, "Better than"), (0.0, "No better than"), (3.0, "Worse than")]
)
def test_the_verdict_is_that_of_the_paired_difference(shift, word):
    baseline = VALUES + shift + np.random.default_rng(1).normal(0, 0.5, 200)
    found = result(evidence_of(VALUES, 0.1), "digits", baseline)
    assert found["verdict"][0].startswith(word)
    gain = VALUES - baseline
    spread = 2 * gain.std(ddof=1) / np.sqrt(200)
    assert f"± {spread:.2f}" in found["verdict"][0]
    assert found["number"] == f"{VALUES.mean():.3f}".replace("-", "\N{MINUS SIGN}")
    assert "too low" not in found["verdict"][0]
    unsure = result(evidence_of(VALUES, 0.9), "digits", baseline)
    assert ("too low" in unsure["verdict"][0]) == (word != "Better than")
    assert "1.44 bits" in found["meaning"]
    given = result(evidence_of(VALUES, 0.1, given="y"), "digits", baseline)
    assert "that knows nothing of y" in given["verdict"][0]


def test_the_line_of_the_result_has_an_interval_also_where_an_end_is_unknown():
    oracle = pv.testing.LinearGaussian(shift=5.0)  # a few weights decide
    few = pv.log_marginal(oracle.model, oracle.guide, oracle.sample(20), num_particles=30)
    low, high = few.interval()
    assert np.isinf(high)
    assert headline(few, "digits", "test").endswith(f"Monte Carlo interval above {low:.3f}")
    low, high = evidence_of(VALUES, 0.1).interval()
    line = headline(evidence_of(VALUES, 0.1), "digits", "test")
    assert line.endswith(f"Monte Carlo interval {low:.3f} to {high:.3f}")


def test_the_diagnosis_says_what_to_do_next():
    good = diagnosis(evidence_of(VALUES, 0.1), "runs/a", "")
    assert "command" not in good
    assert "nothing to be done" in " ".join(good["text"])
    bad = diagnosis(evidence_of(VALUES, 0.9), "runs/a", " --trust")
    assert bad["command"] == (
        "pyrovae evaluate runs/a --trust --method ImportanceSampling "
        "--method.num_particles 1000 --method.refine_steps 100"
    )
    worse = diagnosis(evidence_of(VALUES, 0.9, settings={"refine_steps": 100}), "runs/a", "")
    assert "--method AIS --method.num_temperatures 100" in worse["command"]
    more = evidence_of(VALUES, 0.9, method="AIS", settings={"num_temperatures": 50})
    assert "--method.num_temperatures 100" in diagnosis(more, "runs/a", "")["command"]
    few = evidence_of(VALUES, np.inf)
    few.dataset["num_particles"][:] = 10
    assert "no diagnosis" in diagnosis(few, "runs/a", "")["text"][0]
    exact = evidence_of(VALUES, notes={"exact": True})
    assert "exact" in diagnosis(exact, "runs/a", "")["text"][0]
    assert "exact" in result(exact, "digits", VALUES - 3)["verdict"][1]
