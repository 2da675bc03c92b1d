"""The transformer by scikit-learn's own checks, and its numbers against exact ones."""

import io

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator
from torch import nn

from pyrovae import estimators, likelihoods, nets, priors
from pyrovae.sklearn import VAETransformer

SMALL = {"encoder": nets.MLP(6), "decoder": nets.MLP(6), "epochs": 2}
EAGER = {"fit_options": {"capture": False}}  # short trainings do not pay for a graph


def data(num=60, columns=4):
    rng = np.random.default_rng(0)
    return rng.normal(size=(num, 2)) @ rng.normal(size=(2, columns)) + rng.normal(size=columns)


def frame():
    x = data(40, 2)
    sex = np.where(x[:, 0] > np.median(x[:, 0]), "f", "m")
    return pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "sex": sex}, index=np.arange(40) + 5)


def test_follows_every_convention_that_scikit_learn_checks():
    made = VAETransformer(2, num_particles=4, **SMALL, **EAGER)
    found = check_estimator(made, on_skip=None, expected_failed_checks={})
    assert {f["check_name"] for f in found if f["status"] == "skipped"} <= {
        "check_array_api_input"  # arrays of other libraries, behind a switch of SciPy
    }


def test_scores_are_those_of_the_exact_density():
    """A linear decoder makes x jointly normal."""
    x = data()
    made = VAETransformer(
        2, encoder=nets.MLP(), decoder=nets.MLP(), epochs=60, lr=1e-2, num_particles=4000,
        random_state=0, **EAGER,
    ).fit(x)  # fmt: skip
    layer = made.vae_.likelihood.decoder.net[-1]
    weight, mean = layer.weight.detach(), layer.bias.detach()
    scale = made.vae_.likelihood.scale_of().item()
    covariance = weight @ weight.T + scale**2 * torch.eye(4)
    exact = stats.multivariate_normal(mean, covariance).logpdf(x)
    evidence = made.vae_.log_marginal(x, num_particles=4000, seed=made._seed)
    found, error = made.score_samples(x), evidence.standard_error.values
    assert np.array_equal(found, evidence.log_marginal.values)
    assert np.median(error) < 0.02
    assert (abs(found - exact) < 5 * error + 0.01).all()
    assert made.score(x) == pytest.approx(found.mean())
    np.testing.assert_allclose(made.transform(x), made.vae_.encode(x).mean.detach(), rtol=1e-12)
    np.testing.assert_allclose(
        made.inverse_transform(made.transform(x)), made.transform(x) @ weight.numpy().T
        + mean.numpy(), rtol=1e-9,
    )  # fmt: skip


def test_in_a_pipeline_a_search_and_a_file():
    x = data()
    steps = make_pipeline(StandardScaler(), VAETransformer(2, random_state=0, **SMALL, **EAGER))
    search = GridSearchCV(
        steps,
        {
            "vaetransformer__latent_dim": [1, 2],
            "vaetransformer__prior": [None, priors.GaussianMixture(2)],
        },
        cv=2,
    )
    search.fit(x)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    best = search.best_estimator_
    assert best.transform(x).shape == (60, search.best_params_["vaetransformer__latent_dim"])
    file = io.BytesIO()
    joblib.dump(best, file)
    file.seek(0)
    assert np.array_equal(joblib.load(file).transform(x), best.transform(x))


def test_names_of_the_codes():
    x = frame()[["a", "b"]]
    made = VAETransformer(3, **SMALL, **EAGER).set_output(transform="pandas")
    codes = made.fit(x).transform(x)
    assert list(codes.columns) == [f"vaetransformer{i}" for i in range(3)]
    assert codes.index.equals(x.index)
    assert list(made.feature_names_in_) == ["a", "b"]
    with pytest.raises(ValueError, match="feature names should match"):
        made.transform(x[["b", "a"]])


def test_mixed_tables_with_gaps():
    x = frame()
    x.loc[7, "a"] = np.nan
    x.loc[9, "sex"] = None
    made = VAETransformer(2, likelihood="infer", random_state=0, **SMALL, **EAGER).fit(x)
    assert isinstance(made.vae_.likelihood, likelihoods.Columns)
    codes = made.transform(x)
    assert np.isfinite(codes).all()
    assert np.isfinite(made.score_samples(x)).all()
    again = made.inverse_transform(codes)
    assert list(again.columns) == ["a", "b", "sex"]
    declared = VAETransformer(2, likelihood=likelihoods.Columns.infer(x), random_state=0,
                              **SMALL, **EAGER)  # fmt: skip
    assert np.array_equal(declared.fit(x).transform(x), codes)


def test_declarations_are_cloned_and_stay_untrained():
    net = nn.Linear(4, 4)
    before = net.weight.detach().clone()
    made = VAETransformer(
        2, likelihood=likelihoods.StudentT(), estimator=estimators.IWAE(2), encoder=net, epochs=1,
        validation_fraction=0.2, decoder=nets.MLP(4), **EAGER,
    )  # fmt: skip
    copied = clone(made)
    assert repr(copied.get_params()["likelihood"]) == "StudentT()"
    assert repr(copied.set_params(latent_dim=3).estimator) == repr(made.estimator)
    made.fit(data())
    assert torch.equal(net.weight, before)
    assert np.isfinite(made.history_["valid_bound"]).all()


def test_other_words_for_the_likelihood_are_refused():
    with pytest.raises(ValueError, match="None or 'infer', found 'gaussian'"):
        VAETransformer(likelihood="gaussian").fit(data())
