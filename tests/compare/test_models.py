"""Paired comparison of models, against differences that are known."""

import math

import numpy as np
import pytest

import pyrovae as pv
from pyrovae.compare import compare_models
from pyrovae.evidence import Evidence
from pyrovae.testing import LinearGaussian


def made(values, error=0.0, data="same", **attributes) -> Evidence:
    values = np.asarray(values, float)
    columns = {
        "log_marginal": values,
        "standard_error": np.full(len(values), error),
        "pareto_k": np.full(len(values), 0.2),
    }
    return Evidence.from_columns(columns, data=data, **attributes)


def test_differences_are_paired():
    """Data differ by 30 nats among themselves, models by 0.5 on each of them, up to 0.1."""
    generator = np.random.default_rng(0)
    hard = 30 * generator.standard_normal(400)
    noise = 0.1 * generator.standard_normal(400)
    table = compare_models({"worse": made(hard), "better": made(hard + 0.5 + noise)})
    assert table.best == "better"
    row = table.dataset.sel(model="better", reference="worse")
    assert float(row["difference"]) == pytest.approx(0.5 + noise.mean())
    assert float(row["standard_error"]) == pytest.approx(noise.std(ddof=1) / 20)
    assert float(row["lower"]) == pytest.approx(
        0.5 + noise.mean() - 1.96 * noise.std(ddof=1) / 20, rel=1e-4
    )
    assert float(row["probability"]) > 0.999
    back = table.dataset.sel(model="worse", reference="better")
    assert float(back["difference"]) == -float(row["difference"])
    assert float(back["probability"]) == pytest.approx(1 - float(row["probability"]))
    assert "better" in repr(table)


def test_large_differences_do_not_underflow():
    """Weights exp(elpd) would give both models one half."""
    table = compare_models({"a": made(np.full(50, -90.0)), "b": made(np.linspace(-310, -300, 50))})
    assert float(table.dataset["probability"].sel(model="a", reference="b")) == 1.0


@pytest.mark.parametrize("prob", [0.5, 0.9])
def test_interval_covers_the_true_difference_as_often_as_it_says(prob):
    generator = np.random.default_rng(1)
    hits, runs = 0, 600
    for _ in range(runs):
        shared = generator.normal(-90, 10, 40)
        table = compare_models(
            {"a": made(shared + generator.normal(0.3, 0.5, 40)), "b": made(shared)}, prob=prob
        ).dataset.sel(model="a", reference="b")
        hits += float(table["lower"]) <= 0.3 <= float(table["upper"])
    # Three binomial errors, and a normal for a t of 39 degrees of freedom.
    assert abs(hits / runs - prob) < 3 * math.sqrt(prob * (1 - prob) / runs) + 0.012


def test_errors_split():
    values = np.random.default_rng(2).normal(size=100)
    models = {
        "a": made(values + np.random.default_rng(3).normal(size=100), error=0.6),
        "b": made(values, error=0.8),
    }
    found = {
        error: float(
            compare_models(models, error=error)
            .dataset["standard_error"]
            .sel(model="a", reference="b")
        )
        for error in ("monte_carlo", "test_set", "both")
    }
    assert found["monte_carlo"] == pytest.approx(0.1)  # sqrt(0.36 + 0.64) / sqrt(100)
    if found["test_set"]:
        assert found["both"] == pytest.approx(math.hypot(found["monte_carlo"], found["test_set"]))


def test_evaluated_models():
    good, bad = LinearGaussian(), LinearGaussian(seed=1)
    x = good.sample(200)
    evidence = {
        name: pv.log_marginal(m.model, m.guide, x, num_particles=50)
        for name, m in {"bad": bad, "good": good}.items()
    }
    table = compare_models(evidence)
    expected = (good.log_prob(x) - bad.log_prob(x)).mean().item()
    assert table.best == "good"
    # Both guides are exact, so both estimates are.
    assert float(table.dataset["difference"].sel(model="good", reference="bad")) == pytest.approx(
        expected
    )


def test_refuses_what_cannot_be_compared():
    oracle = LinearGaussian()
    x = oracle.sample(5)
    first = pv.log_marginal(oracle.model, oracle.guide, x, num_particles=5)
    other = pv.log_marginal(oracle.model, oracle.guide, x + 1, num_particles=5)
    moved = pv.log_marginal(oracle.model, oracle.guide, x.flip(0), num_particles=5)
    with pytest.raises(ValueError, match="different data"):
        compare_models({"a": first, "b": other})
    with pytest.raises(ValueError, match="different data"):
        compare_models({"a": first, "b": moved})
    with pytest.raises(ValueError, match="two models or more"):
        compare_models({"a": first})
    with pytest.raises(TypeError, match="must be an Evidence"):
        compare_models({"a": first, "b": 3.0})
    with pytest.raises(ValueError, match="bound"):
        compare_models({"a": made([0.0]), "b": made([0.0], bound="upper")})
    with pytest.raises(ValueError, match="prob"):
        compare_models({"a": first, "b": first}, prob=1.0)
    with pytest.raises(ValueError, match="error must be"):
        compare_models({"a": first, "b": first}, error="none")
