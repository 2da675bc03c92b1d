"""log_marginal by importance sampling: against exact values, and free of how the work was cut."""

import math
from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from arviz_stats.base import array_stats
from scipy import stats

import pyrovae as pv
from pyrovae import likelihoods, posteriors
from pyrovae.evidence.inspection import inspect
from pyrovae.handlers import KLScale
from pyrovae.testing import DiscreteMixture, LinearGaussian, quadrature


def exact(oracle, x) -> np.ndarray:
    return oracle.log_prob(x).detach().numpy()


def weights_of(oracle, x, num_particles, seed=0):
    """All log weights (K, B) that an evidence run with these settings meets."""
    inspection = inspect(oracle.model, oracle.guide, x, seed=seed)
    with inspection.evaluating():
        return inspection.sampler().select(slice(None)).draw(num_particles).log_weights


# --- right
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_particles", [1, 2, 30, 300])
def test_exact_guide_has_no_variance(num_particles):
    oracle = LinearGaussian()
    x = oracle.sample(9)
    evidence = pv.log_marginal(oracle.model, oracle.guide, x, num_particles=num_particles)
    np.testing.assert_allclose(evidence.log_marginal, exact(oracle, x), atol=1e-10)
    if num_particles > 1:
        assert float(evidence.standard_error.max()) < 1e-10
        np.testing.assert_allclose(evidence.ess, num_particles, rtol=1e-10)
    if num_particles >= 25:
        assert (evidence.pareto_k == -math.inf).all()  # equal weights have no tail
        assert evidence.share_flagged == 0


def test_exact_discrete_guide_has_no_variance():
    oracle = DiscreteMixture(exact_guide=True)
    x = oracle.sample(9)
    method = pv.ImportanceSampling(40, enumerate=False)
    evidence = pv.log_marginal(oracle.model, oracle.guide, x, method=method)
    np.testing.assert_allclose(evidence.log_marginal, exact(oracle, x), atol=1e-10)


@pytest.mark.parametrize(
    "oracle", [LinearGaussian(shift=0.5, stretch=1.4), DiscreteMixture()], ids=["z", "c"]
)
def test_interval_covers_as_often_as_it_says(oracle):
    x, runs = oracle.sample(8, seed=1), 500
    truth = exact(oracle, x).mean()
    # Equal data have streams of their own: as good as 500 seeds.
    method = pv.ImportanceSampling(60, enumerate=False)
    all_runs = pv.log_marginal(oracle.model, oracle.guide, x.repeat(runs, 1), method=method)
    apart = [pv.Evidence(all_runs.dataset.isel(datum=slice(8 * r, 8 * r + 8))) for r in range(runs)]
    for prob in (0.5, 0.8, 0.95):
        hits = np.mean(
            [low <= truth <= high for low, high in (run.interval(prob) for run in apart)]
        )
        # Three binomial errors either way, and the upper side may be wider, at most to miss only
        # below.
        slack = 3 * math.sqrt(prob * (1 - prob) / runs)
        assert prob - slack - 0.005 < hits < prob + (1 - prob) / 2 + slack


def test_each_standard_error_is_that_of_its_datum():
    oracle = LinearGaussian(shift=0.5, stretch=1.4)
    x = oracle.sample(6, seed=1)
    runs = [
        pv.log_marginal(oracle.model, oracle.guide, x, num_particles=200, seed=s)
        for s in range(150)
    ]
    scores = np.stack([(run.log_marginal - exact(oracle, x)) / run.standard_error for run in runs])
    # 900 standard scores, a little skewed at K = 200.
    assert abs(scores.mean()) < 0.2
    assert scores.std() == pytest.approx(1.0, abs=0.12)


def test_p_of_x_is_unbiased_and_its_log_a_lower_bound_that_rises():
    oracle = LinearGaussian(shift=1.0)
    x = oracle.sample(1, seed=3).repeat(4000, 1)  # equal data have streams of their own
    truth = exact(oracle, x[:1])[0]
    previous = -math.inf
    for num in (1, 4, 16):
        evidence = pv.log_marginal(oracle.model, oracle.guide, x, num_particles=num)
        ratio = np.exp(evidence.log_marginal.values - truth)
        assert abs(ratio.mean() - 1) < 4 * ratio.std() / math.sqrt(4000)
        assert previous < evidence.mean() < truth
        previous = evidence.mean()


@pytest.mark.parametrize("discrete", [False, True])
def test_vae_against_quadrature(discrete):
    torch.manual_seed(0)
    likelihood = likelihoods.Bernoulli() if discrete else likelihoods.Gaussian(0.5)
    vae = pv.VAE(
        (4,), 2, likelihood=likelihood, encoder=pv.nets.MLP(8), decoder=pv.nets.MLP(8)
    ).double()
    x = torch.bernoulli(torch.full((5, 4), 0.5, dtype=torch.float64))
    truth = quadrature(vae.prior, vae.likelihood, x).numpy()
    evidence = pv.log_marginal(vae.model, vae.guide, x, num_particles=4000)
    scores = (evidence.log_marginal - truth) / evidence.standard_error
    assert float(abs(scores).max()) < 4
    assert float(evidence.standard_error.max()) < 0.1


# --- free of the cut
# ----------------------------------------------------------------------------------------------


class TwoLayers:
    """Two latent sites, a Gamma among them, for data (B, 3)."""

    def model(self, x):
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(torch.full_like(x[:, 0], 3.0), 2.0))
            z = pyro.sample("z", dist.Normal(torch.zeros_like(rate), 1 / rate))
            pyro.sample(
                "x", dist.Normal(z.unsqueeze(-1).expand(*z.shape, 3), 0.7).to_event(1), obs=x
            )

    def guide(self, x):
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(2 + x[:, 0].square(), 1.5))
            pyro.sample("z", dist.Normal(0.5 * x.mean(-1), 1 / rate.sqrt()))


PAIRS = {
    "one site": (LinearGaussian(shift=0.3), 5),
    "categorical": (DiscreteMixture(), 6),
    "two sites": (TwoLayers(), 3),
}
pairs = pytest.mark.parametrize(("pair", "width"), PAIRS.values(), ids=PAIRS)


def binary(num_data: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.bernoulli(
        torch.full((num_data, width), 0.5, dtype=torch.float64), generator=generator
    )


@pairs
@pytest.mark.parametrize("num_particles", [1, 250, 700])
def test_memory_budget_changes_nothing(pair, width, num_particles):
    x, method = binary(11, width), pv.ImportanceSampling(num_particles, enumerate=False)
    whole = pv.log_marginal(pair.model, pair.guide, x, method=method)
    for budget in (1, 300_000):
        cut = pv.log_marginal(pair.model, pair.guide, x, method=method, memory_budget=budget)
        for name in ("log_marginal", "ess", "debiased"):
            np.testing.assert_allclose(
                cut.dataset[name], whole.dataset[name], rtol=1e-9, err_msg=name
            )
        # All K weights count, none twice: a wrong count shows as log(K / count) (K = 250 in pieces
        # of 128).
        assert (cut.num_particles == num_particles).all()


@pairs
def test_order_and_company_of_the_data_change_nothing(pair, width):
    x = torch.unique(binary(12, width), dim=0)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    method = pv.ImportanceSampling(300, enumerate=False)
    whole = pv.log_marginal(pair.model, pair.guide, x, method=method)
    mixed = pv.log_marginal(pair.model, pair.guide, x[order], method=method)
    alone = pv.log_marginal(pair.model, pair.guide, x[2:3], method=method)
    np.testing.assert_allclose(mixed.log_marginal, whole.log_marginal.values[order], rtol=1e-10)
    np.testing.assert_allclose(alone.log_marginal, whole.log_marginal[2:3], rtol=1e-10)


def test_equal_data_get_different_draws():
    oracle = LinearGaussian(shift=0.5)
    evidence = pv.log_marginal(
        oracle.model, oracle.guide, oracle.sample(1).repeat(50, 1), num_particles=30
    )
    assert len(np.unique(evidence.log_marginal)) == 50


def test_seed_decides_and_global_state_is_left_alone():
    oracle = LinearGaussian(shift=0.5)
    x = oracle.sample(5)
    torch.manual_seed(7)
    before, modes = torch.get_rng_state(), oracle.training
    first = pv.log_marginal(oracle.model, oracle.guide, x, num_particles=50, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.is_grad_enabled()
    assert oracle.training == modes
    torch.manual_seed(8)
    again = pv.log_marginal(oracle.model, oracle.guide, x, num_particles=50, seed=1)
    other = pv.log_marginal(oracle.model, oracle.guide, x, num_particles=50, seed=2)
    assert first.dataset.identical(again.dataset)
    assert (first.log_marginal != other.log_marginal).all()


def test_encoder_runs_once_for_each_datum():
    calls = []
    oracle = LinearGaussian(shift=0.5)

    def guide(x):
        calls.append(len(x))
        return oracle.guide(x)

    pv.log_marginal(
        oracle.model, guide, oracle.sample(20), num_particles=5000, memory_budget=2_000_000
    )
    # Once to inspect, for each of a few data once to try particles and once to see the memory, and
    # once to weigh.
    assert sum(calls) == 20 + 4 + 4 + 20


def test_pareto_k_is_that_of_all_weights():
    oracle = LinearGaussian(shift=1.5, stretch=0.6)
    x = oracle.sample(10)
    evidence = pv.log_marginal(oracle.model, oracle.guide, x, num_particles=3000)
    log_w = weights_of(oracle, x, 3000)
    np.testing.assert_allclose(
        evidence.log_marginal, torch.logsumexp(log_w, 0) - math.log(3000), rtol=1e-12
    )
    np.testing.assert_allclose(
        evidence.pareto_k, array_stats.psislw(-log_w.numpy(), axis=0)[1], atol=1e-9
    )


# --- honest
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shift", "stretch", "latent_dim"),
    [(2.0, 0.35, 4), (1.0, 0.5, 2), (0.0, 0.4, 4), (4.0, 1.0, 2)],
)
def test_bad_guide_is_flagged_and_its_interval_not_falsely_tight(shift, stretch, latent_dim):
    oracle = LinearGaussian(latent_dim=latent_dim, shift=shift, stretch=stretch)
    x = oracle.sample(200)
    evidence = pv.log_marginal(oracle.model, oracle.guide, x, num_particles=1000)
    assert evidence.share_flagged > 0.8
    assert "above 0.7" in repr(evidence)
    low, high = evidence.interval()
    truth = exact(oracle, x).mean()
    naive = evidence.mean() + 1.96 * evidence.monte_carlo_error()
    assert low < evidence.mean() < naive < truth < high  # the usual interval misses it


def test_too_few_particles_give_no_diagnosis():
    oracle = LinearGaussian(shift=0.5)
    evidence = pv.log_marginal(oracle.model, oracle.guide, oracle.sample(3), num_particles=24)
    assert (evidence.pareto_k == math.inf).all()
    assert "no diagnosis" in repr(evidence)


def uniform_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0))
        pyro.sample("x", dist.Uniform(z - 0.5, z + 0.5, validate_args=False), obs=x)


def uniform_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0))


@pytest.mark.parametrize(
    "method", [pv.ImportanceSampling(200), pv.AIS(3, 30, num_leapfrog=2)], ids=["is", "ais"]
)
def test_data_that_no_draw_explains(method):
    """No weight is positive for the second datum: that is no sign of an exact guide, and no error
    is known.
    """
    x = torch.tensor([0.3, 100.0]).double()
    evidence = pv.log_marginal(uniform_model, uniform_guide, x, method=method)
    assert evidence.log_marginal[1] == -math.inf
    assert evidence.pareto_k[1] == evidence.unseen[1] == math.inf
    assert evidence.standard_error[1] == math.inf
    assert evidence.ess[1] == 0
    assert evidence.share_flagged >= 0.5
    assert evidence.test_set_error() == math.inf
    for error in ("monte_carlo", "test_set", "both"):
        assert evidence.interval(error=error) == (-math.inf, math.inf)
    assert "infinite   for 1 of 2" in repr(evidence)
    alone = pv.log_marginal(uniform_model, uniform_guide, x[:1], num_particles=20_000)
    truth = math.log(stats.norm.cdf(0.8) - stats.norm.cdf(-0.2))  # weights are zero or one
    assert float(abs(alone.log_marginal - truth)[0]) < 4 * float(alone.standard_error[0])


def test_a_single_particle_has_no_error():
    oracle = LinearGaussian(shift=0.5)
    evidence = pv.log_marginal(oracle.model, oracle.guide, oracle.sample(3), num_particles=1)
    assert (evidence.standard_error == math.inf).all()
    assert evidence.interval() == (-math.inf, math.inf)
    oracle = LinearGaussian(shift=0.05)  # whose k is small enough for an upper end
    single = pv.log_marginal(oracle.model, oracle.guide, oracle.sample(1), num_particles=500)
    assert (
        single.interval(error="both") == single.interval(error="test_set") == (-math.inf, math.inf)
    )
    assert math.isfinite(single.interval()[1])


def test_adaptive_effort_goes_where_it_is_wanted():
    oracle = LinearGaussian(shift=0.2, stretch=1.2)
    with torch.no_grad():
        oracle.gain *= 1.15  # the guide's mean errs the more the farther the datum is out
    x = torch.cat([oracle.sample(15), 3 * oracle.sample(5, seed=1)])
    target = 0.02
    evidence = pv.log_marginal(
        oracle.model,
        oracle.guide,
        x,
        num_particles=100,
        target_standard_error=target,
        max_particles=6400,
    )
    num = evidence.num_particles.values
    missed = evidence.missed_target()
    assert set(np.log2(num / 100)) <= set(range(7))
    assert len(set(num)) > 1
    reached = np.setdiff1d(np.arange(20), missed)
    assert (evidence.standard_error.values[reached] <= target).all()
    assert (num[missed] == 6400).all()
    scores = (evidence.log_marginal - exact(oracle, x)) / evidence.standard_error
    assert float(abs(scores).max()) < 4
    cut = pv.log_marginal(
        oracle.model,
        oracle.guide,
        x,
        num_particles=100,
        target_standard_error=target,
        max_particles=6400,
        memory_budget=100_000,
    )
    np.testing.assert_allclose(cut.log_marginal, evidence.log_marginal, rtol=1e-10)
    np.testing.assert_allclose(cut.pareto_k, evidence.pareto_k, atol=1e-8)


def test_unreached_target_is_listed():
    oracle = LinearGaussian(shift=1.0)
    evidence = pv.log_marginal(
        oracle.model,
        oracle.guide,
        oracle.sample(4),
        num_particles=30,
        target_standard_error=1e-4,
        max_particles=50,
    )
    assert evidence.missed_target().tolist() == [0, 1, 2, 3]
    assert (evidence.num_particles == 50).all()
    assert "4 of 4 data above it" in repr(evidence)


# --- refuses
# --------------------------------------------------------------------------------------------------


def test_subsampling_scale_never_enters():
    oracle = LinearGaussian(shift=0.3)
    x = oracle.sample(6)

    def model(x):
        with pyro.plate("data", 1000, subsample=torch.arange(len(x))):
            zeros = torch.zeros(2, dtype=x.dtype)
            z = pyro.sample("z", dist.Normal(zeros, 1).to_event(1))
            loc = z @ oracle.weight.T + oracle.bias
            pyro.sample("x", dist.Normal(loc, oracle.log_noise.exp()).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", 1000, subsample=torch.arange(len(x))):
            loc = x @ oracle.gain.T + oracle.offset
            pyro.sample("z", dist.Normal(loc, oracle.log_scale.exp()).to_event(1))

    plain = pv.log_marginal(oracle.model, oracle.guide, x, num_particles=100)
    scaled = pv.log_marginal(model, guide, x, num_particles=100)
    np.testing.assert_allclose(scaled.log_marginal, plain.log_marginal, rtol=1e-10)


def test_refuses_scaled_programs():
    oracle = LinearGaussian()
    with pytest.raises(ValueError, match="beta belongs to training"):
        pv.log_marginal(KLScale(0.5)(oracle.model), KLScale(0.5)(oracle.guide), oracle.sample(3))


def test_refuses_a_point_mass():
    vae = pv.VAE((4,), 2, likelihood=likelihoods.Gaussian(), posterior=posteriors.Delta())
    with pytest.raises(ValueError, match="Delta"):
        pv.log_marginal(vae.model, vae.guide, torch.zeros(3, 4))


@pytest.mark.parametrize("size", [1, 2])
def test_refuses_programs_that_draw_a_subsample(size):
    x = torch.arange(6.0)

    def program(x, observe):
        with pyro.plate("data", len(x), subsample_size=size) as index:
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            if observe:
                pyro.sample("x", dist.Normal(z, 1.0), obs=x[index])

    model, guide = partial(program, observe=True), partial(program, observe=False)
    with pytest.raises(ValueError, match=rf"take {size} of 6 data"):
        pv.log_marginal(model, guide, x, num_particles=30)


def test_refuses_a_site_outside_the_data_plate():
    def model(x):
        shared = pyro.sample("shared", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(shared, 1.0), obs=x)

    def guide(x):
        pyro.sample("shared", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="outside the data plate"):
        pv.log_marginal(model, guide, torch.zeros(3))


@pytest.mark.parametrize(
    ("data", "change", "message"),
    [
        (torch.zeros(0, 5), {}, "empty"),
        (torch.full((3, 5), math.nan), {}, "NaN or infinite"),
        (torch.full((3, 5), math.inf), {}, "NaN or infinite"),
        ((torch.zeros(3, 5), torch.zeros(2)), {}, "different lengths"),
        (torch.zeros(3, 5), {"num_particles": 0}, "at least 1"),
        (torch.zeros(3, 5), {"num_particles": 5, "method": pv.ImportanceSampling(5)}, "Both"),
        (torch.zeros(3, 5), {"target_standard_error": -1.0}, "positive"),
        (torch.zeros(3, 5), {"max_particles": 10}, "target_standard_error"),
        (torch.zeros(3, 5), {"memory_budget": 0}, "memory_budget"),
        (torch.zeros(3, 5), {"data_scale": 0.0}, "data_scale"),
    ],
)
def test_refuses_bad_input(data, change, message):
    oracle = LinearGaussian()
    with pytest.raises(ValueError, match=message):
        pv.log_marginal(oracle.model, oracle.guide, data, **change)


def test_refuses_grey_pixels_anywhere_in_the_data():
    vae = pv.VAE((4,), 2)
    x = torch.zeros(300, 4)
    x[299, 3] = 0.5
    with pytest.raises(ValueError, match="Bernoulli is a distribution over 0 and 1"):
        pv.log_marginal(vae.model, vae.guide, x, num_particles=2)


def test_a_diverged_model_is_not_evaluated():
    oracle = LinearGaussian()
    with torch.no_grad():
        oracle.weight.fill_(math.nan)
    with pytest.raises(ValueError):
        pv.log_marginal(oracle.model, oracle.guide, torch.zeros(3, 5), num_particles=5)


# --- result
# --------------------------------------------------------------------------------------------------


def test_mean_weighs_every_datum_alike():
    """Pieces of unequal size must not be averaged as if they were equal."""
    oracle = LinearGaussian()
    x = oracle.sample(13)
    evidence = pv.log_marginal(
        oracle.model, oracle.guide, x, num_particles=200, memory_budget=100_000
    )
    assert evidence.mean() == pytest.approx(exact(oracle, x).mean(), abs=1e-10)
    assert evidence.total() == pytest.approx(exact(oracle, x).sum(), abs=1e-9)


def test_errors_split_into_monte_carlo_and_test_set():
    oracle = LinearGaussian(shift=0.5)
    x = oracle.sample(400)
    evidence = pv.log_marginal(oracle.model, oracle.guide, x, num_particles=30)
    # The test-set part is that of the exact values, whose spread has 5% error here and elsewhere.
    assert evidence.test_set_error() == pytest.approx(exact(oracle, x).std(ddof=1) / 20, rel=0.03)
    lengths = {
        error: np.ptp(evidence.interval(0.9, error))
        for error in ("monte_carlo", "test_set", "both")
    }
    assert lengths["both"] > lengths["test_set"] > lengths["monte_carlo"]
    t = stats.t.ppf(0.95, 399)
    assert lengths["test_set"] == pytest.approx(2 * t * evidence.test_set_error())
    with pytest.raises(ValueError, match="error must be"):
        evidence.interval(error="all")
    with pytest.raises(ValueError, match="between 0 and 1"):
        evidence.interval(1.5)


def test_bits_per_dim_account_for_the_scaling_of_x():
    """Data in units 256 times smaller have densities 256 times larger in each of 5 dimensions."""
    oracle = LinearGaussian()
    x = oracle.sample(50)
    plain = pv.log_marginal(oracle.model, oracle.guide, x, num_particles=2)
    scaled = pv.log_marginal(oracle.model, oracle.guide, x, num_particles=2, data_scale=1 / 256)
    assert plain.bits_per_dim == pytest.approx(-exact(oracle, x).mean() / 5 / math.log(2))
    assert scaled.bits_per_dim == pytest.approx(plain.bits_per_dim + 8)
    mixture = DiscreteMixture()
    with pytest.raises(ValueError, match="discrete"):
        pv.log_marginal(
            mixture.model, mixture.guide, mixture.sample(2), num_particles=2, data_scale=0.5
        )


def test_saves_and_loads(tmp_path):
    import xarray

    oracle = LinearGaussian(shift=0.5)
    evidence = pv.log_marginal(
        oracle.model, oracle.guide, oracle.sample(5), num_particles=40, seed=3
    )
    evidence.save(tmp_path / "evidence.nc")
    loaded = pv.Evidence.load(tmp_path / "evidence.nc")
    assert loaded.dataset.identical(evidence.dataset)
    assert repr(loaded) == repr(evidence)
    assert loaded.settings == {"num_particles": 40}
    tree = xarray.open_datatree(tmp_path / "evidence.nc", engine="h5netcdf")
    assert dict(tree["log_likelihood"].sizes) == {"chain": 1, "draw": 1, "datum": 5}
    np.testing.assert_array_equal(tree["log_likelihood"]["x"][0, 0], evidence.log_marginal)


def test_loading_what_is_no_evidence(tmp_path):
    import xarray

    with pytest.raises(FileNotFoundError):
        pv.Evidence.load(tmp_path / "nothing.nc")
    (tmp_path / "damaged.nc").write_bytes(b"no netCDF")
    with pytest.raises(ValueError, match="netCDF"):
        pv.Evidence.load(tmp_path / "damaged.nc")
    xarray.Dataset({"a": 1}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match="expected 'evidence'"):
        pv.Evidence.load(tmp_path / "other.nc")
