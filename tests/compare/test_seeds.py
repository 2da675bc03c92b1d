"""Models compared over training seeds, against differences that are known."""

import math

import numpy as np
import pytest
from scipy import stats

from pyrovae.compare import compare_models
from pyrovae.compare.seeds import Noise, crossed, noise_of, ranked
from pyrovae.evidence import Evidence
from pyrovae.evidence.intervals import quantile


def made(values, error=0.0, **attributes) -> Evidence:
    values = np.asarray(values, float)
    columns = {
        "log_marginal": values,
        "standard_error": np.full(len(values), error),
        "pareto_k": np.full(len(values), 0.2),
    }
    return Evidence.from_columns(columns, **{"data": "same", **attributes})


def drawn(generator, hard, num_seeds, *, mean=0.0, seed=0.0, datum=0.0, rest=0.0):
    """``(S, N)``: effects of seeds and of data, their interaction, and a difficulty that all models
    share.
    """
    size = len(hard)
    return (
        mean
        + hard
        + seed * generator.standard_normal((num_seeds, 1))
        + datum * generator.standard_normal(size)
        + rest * generator.standard_normal((num_seeds, size))
    )


# Seeds of both sides, data, and the spreads of seeds on both sides, of data and of the interaction.
WORLDS = {
    "seeds decide": (3, 3, 100, (0.15, 0.15), 0.5, 0.3),
    "data decide": (3, 3, 100, (0.0, 0.0), 0.5, 0.3),
    "unequal spreads": (5, 5, 300, (0.15, 0.05), 0.5, 0.3),
    "unequal numbers": (5, 3, 100, (0.3, 0.02), 0.1, 0.5),
    "many seeds, few data": (10, 10, 50, (0.1, 0.1), 1.0, 1.0),
    "two seeds": (2, 2, 100, (0.15, 0.15), 0.5, 0.3),
    "two seeds, unequal spreads": (2, 2, 100, (0.3, 0.02), 0.5, 0.3),
}


@pytest.mark.parametrize("world", WORLDS)
def test_interval_holds_the_true_difference_as_often_as_it_says(world):
    """800 sweeps of two equal models. The effects of data are 5 nats, shared and so paired away.

    Allowed beside three binomial errors: 2 points for Satterthwaite's approximation, and 6 where it
    is at its worst. (4,000 sweeps gave 0.94 to 0.95 in each of these worlds, and there 0.895.)
    """
    first, second, size, spreads, datum, rest = WORLDS[world]
    generator, runs, hits, naive = np.random.default_rng(0), 800, 0, 0
    for _ in range(runs):
        hard = 5 * generator.standard_normal(size)
        one, two = (
            drawn(generator, hard, num, seed=seed, datum=datum, rest=rest)
            for num, seed in zip((first, second), spreads, strict=True)
        )
        mean, error, degrees = crossed(one, two)
        hits += abs(mean) <= quantile(0.95, degrees) * error
        single = one[0] - two[0]
        naive += abs(single.mean()) <= 1.98 * single.std(ddof=1) / math.sqrt(size)
    margin = 3 * math.sqrt(0.95 * 0.05 / runs)
    allowed = 0.06 if world == "two seeds, unequal spreads" else 0.02
    assert 0.95 - allowed - margin < hits / runs < 0.95 + 0.01 + margin
    # What one run of each says is far too sure of the models, unless the data decide.
    if world not in ("data decide", "many seeds, few data"):
        assert naive / runs < 0.8


def test_for_these_very_data_it_is_welchs_test():
    generator = np.random.default_rng(1)
    hard = generator.standard_normal(30)
    one = drawn(generator, hard, 4, seed=0.3, rest=0.5)
    two = drawn(generator, hard, 3, mean=0.4, seed=0.1, rest=0.5)
    mean, error, degrees = crossed(one, two, Noise(0.0, 0.0, math.inf))
    expected = stats.ttest_ind(one.mean(1), two.mean(1), equal_var=False)
    assert mean / error == pytest.approx(float(expected.statistic))
    assert degrees == pytest.approx(float(expected.df))


# Spread of seeds, seeds of both sides, and the share of the Monte Carlo noise that runs have in
# common.
NOISES = {
    "noise of its own in each run": (0.0, (3, 3), 0.0),
    "noise of all runs": (0.0, (3, 3), 1.0),
    "seeds and both noises": (0.05, (5, 3), 0.5),
    "seeds decide": (0.5, (3, 3), 0.5),
}


@pytest.mark.parametrize("world", NOISES)
def test_monte_carlo_noise_counts_once(world):
    """250 comparisons of two equal models on the same 20 data, whose weights hold noise of a known
    size, in units so small that logs are linear.

    The variance may be too large by what the largest of noisy variances is above the true one: with
    four degrees of freedom 27 % where seeds and noise are equal. Beside that, and for coverage
    beside the 2 points above, three standard errors are allowed.
    """
    seed, nums, shared = NOISES[world]
    generator, size, sigma, unit, runs = np.random.default_rng(0), 20, 0.3, 1e-3, 250
    found, hits = [], 0
    for _ in range(runs):
        sides = []
        for num in nums:
            common, own = (generator.standard_normal((n, size, 8)) for n in (1, num))
            noise = math.sqrt(shared) * common + math.sqrt(1 - shared) * own
            effect = seed * generator.standard_normal((num, 1, 1))
            sides.append([weighed(each) for each in unit * (effect + sigma * 8**0.5 * noise)])
        values = (np.stack([one.log_marginal.values for one in side]) for side in sides)
        mean, error, degrees = crossed(*values, noise_of(*sides))
        found.append((error / unit) ** 2)
        hits += abs(mean) <= quantile(0.95, degrees) * error
    expected = sum(seed**2 / n + sigma**2 / size * (shared + (1 - shared) / n) for n in nums)
    uncertain = 3 * math.sqrt(2 / (sum(nums) - 2) / runs)
    assert 1 - uncertain < np.mean(found) / expected < 1.27 + uncertain
    assert hits / runs > 0.95 - 0.02 - 3 * math.sqrt(0.95 * 0.05 / runs)


def weighed(batches):
    """Evidence whose eight batches of weights have these log means."""
    columns = {
        "log_marginal": np.log(np.exp(batches).mean(1)),
        "standard_error": np.full(len(batches), math.nan),  # the batches tell
        "batch_log_mean": batches,
    }
    return Evidence.from_columns(columns, data="same")


def test_variance_is_that_of_the_mean_difference():
    """Against its formula, averaged over 2,000 sweeps, which leaves an error of 1 %."""
    generator = np.random.default_rng(2)
    seed, datum, rest, size = (1.0, 0.8), 1.0, 1.5, 20
    found, means = [], []
    for _ in range(2000):
        hard = 5 * generator.standard_normal(size)
        one, two = (
            drawn(generator, hard, num, seed=s, datum=datum, rest=rest)
            for num, s in zip((6, 4), seed, strict=True)
        )
        mean, error, _ = crossed(one, two)
        means.append(mean)
        found.append(error**2)
    expected = 1 / 6 + 0.64 / 4 + 2 * datum**2 / size + rest**2 / size * (1 / 6 + 1 / 4)
    assert np.mean(found) == pytest.approx(expected, rel=0.03)
    assert np.var(means) == pytest.approx(expected, rel=0.12)


def test_one_seed_says_nothing_of_a_model():
    generator = np.random.default_rng(3)
    hard = generator.standard_normal(50)
    values = drawn(generator, hard, 3, seed=0.2)
    table = compare_models(
        {
            "a": [made(v) for v in values],
            "b": [made(v - 9.0 + 0.1 * generator.standard_normal(50)) for v in values],
            "single": made(hard + 5.0),
        }
    )
    assert table.names == ["single", "a", "b"]
    assert table.ranks() == ["-", "1", "2"]
    row = table.dataset.sel(model="single", reference="a")
    assert math.isnan(float(row["probability"]))
    assert not bool(row["better"])
    assert math.isinf(float(row["upper"]))
    assert "One training seed shows weights, not a model: single cannot be ranked" in repr(table)
    assert "sweep" not in repr(table)


def test_single_results_name_the_sweep():
    table = compare_models({"a": made(np.arange(5.0)), "b": made(np.arange(5.0) + 1)})
    assert not table.over_seeds
    assert table.ranks() == ["-", "-"]
    assert "see pyrovae sweep" in repr(table)


def test_a_seed_that_is_luckier_makes_no_better_model():
    """Two samples of one law of seeds: runs differ beyond doubt, and the models do not."""
    generator = np.random.default_rng(4)
    hard = 5 * generator.standard_normal(300)
    runs = [made(hard + mean + 0.3 * generator.standard_normal(300)) for mean in (-17.23, -17.39)]
    other = [made(hard + mean + 0.3 * generator.standard_normal(300)) for mean in (-17.14, -17.49)]
    weights = compare_models({"seed 2": other[0], "seed 3": other[1]})
    assert float(weights.dataset["probability"][0, 1]) > 0.9999
    models = compare_models({"a": runs, "b": other})
    assert models.ranks() == ["1-2", "1-2"]
    assert 0.2 < float(models.dataset["probability"][0, 1]) < 0.8
    assert "a range is a tie" in repr(models)


def test_errors_beside_the_mean():
    generator = np.random.default_rng(5)
    hard = 5 * generator.standard_normal(400)
    values = drawn(generator, hard, 4, seed=0.3, rest=0.1)
    table = compare_models(
        {"a": [made(v, 0.2) for v in values], "b": [made(v) for v in values + 1]}
    )
    row = table.dataset.sel(model="a")
    assert int(row["num_seeds"]) == 4
    assert float(row["mean"]) == pytest.approx(values.mean())
    assert float(row["seeds_error"]) == pytest.approx(values.mean(1).std(ddof=1) / 2)
    assert float(row["monte_carlo_error"]) == pytest.approx(0.2 / 20 / 2)
    spread = values.mean(0).var(ddof=1) / 400 - (0.2 / 20 / 2) ** 2
    assert float(row["test_set_error"]) == pytest.approx(math.sqrt(spread))


def test_holm_keeps_false_claims_of_a_whole_table_below_the_level():
    """Six equal models in 400 tables: 15 pairs each, of which one in twenty alone would be found.

    Allowed: three binomial errors.
    """
    generator, runs, wrong, alone = np.random.default_rng(6), 400, 0, 0
    for _ in range(runs):
        means = generator.standard_normal(6)
        difference = means[:, None] - means
        p_values = 2 * stats.norm.sf(np.abs(difference) / math.sqrt(2))
        wrong += ranked(difference, p_values, 0.95).any()
        alone += (p_values[np.triu_indices(6, 1)] < 0.05).any()
    assert wrong / runs < 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    assert alone / runs > 0.25


def test_ranks_follow_from_the_pairs_that_are_shown():
    difference = np.array([[0, 1, 3], [-1, 0, 2], [-3, -2, 0.0]])
    p_values = np.array([[np.nan, 0.5, 0.001], [0.5, np.nan, 0.03], [0.001, 0.03, np.nan]])
    # Holm: 0.001 < 0.05 / 3, then 0.03 > 0.05 / 2.
    assert ranked(difference, p_values, 0.95).tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert ranked(difference, p_values, 0.90)[1, 2]
    p_values[0, 1] = p_values[1, 0] = np.nan  # two pairs are left: 0.03 < 0.05 / 1
    assert ranked(difference, p_values, 0.95)[1, 2]


def test_estimates_that_may_lie_far_below_are_not_ranked():
    """An allowance for bias widens the end towards zero, and with it the p-value."""
    generator = np.random.default_rng(7)
    hard = generator.standard_normal(100)
    values = drawn(generator, hard, 3, seed=0.01)
    few = [
        Evidence.from_columns(
            {
                "log_marginal": v,
                "standard_error": np.full(100, 0.1),
                "pareto_k": np.full(100, np.inf),
            },
            data="same",
        )
        for v in values - 1
    ]
    table = compare_models({"a": [made(v, 0.1) for v in values], "few": few})
    assert table.ranks() == ["1-2", "1-2"]
    assert "unknown: an estimate has no upper end" in repr(table)
    sure = compare_models({"a": [made(v, 0.1) for v in values], "few": few}, error="test_set")
    assert sure.ranks() == ["1", "2"]


def test_the_same_run_twice_is_no_second_seed():
    one, two = made(np.arange(5.0)), made(np.arange(5.0) ** 2)
    with pytest.raises(ValueError, match="'a' has the same evidence at 0 and 1"):
        compare_models({"a": [one, one], "b": [two]})
    with pytest.raises(ValueError, match="'a' has no evidence"):
        compare_models({"a": [], "b": [two]})
    with pytest.raises(TypeError, match="'b' must be an Evidence"):
        compare_models({"a": [one], "b": [3.0]})
    with pytest.raises(ValueError, match=r"'a\[0\]' and 'b\[0\]' were evaluated on different"):
        compare_models({"a": [one], "b": [made(np.arange(5.0) + 1, data="other")]})
    with pytest.raises(ValueError, match=r"'a\[0\]' was evaluated by .* and 'b\[1\]'"):
        compare_models({"a": [one], "b": [two, made(np.arange(5.0) + 1, method="AIS")]})
