"""Training: what it promises about weights, history, seeds and failure."""

import json
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import (
    SVI,
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from pyrovae import likelihoods, nets, schedules
from pyrovae.estimators import ELBO, IWAE, AnalyticKL
from pyrovae.models.vae import VAE
from pyrovae.objective import objective
from pyrovae.testing import LinearGaussian
from pyrovae.training import NonFiniteLoss, fit


def make(**kwargs):
    torch.manual_seed(0)
    return VAE((6,), 2, encoder=nets.MLP(8), decoder=nets.MLP(8), **kwargs)


@pytest.fixture
def x():
    return torch.bernoulli(torch.full((70, 6), 0.4), generator=torch.Generator().manual_seed(2))


def weights(vae):
    return torch.cat([p.detach().flatten() for p in vae.parameters()])


def test_learns_the_linear_gaussian_to_its_entropy():
    """At the optimum the mean bound is the mean log-density of a model that fits the data at least
    as well.
    """
    truth = LinearGaussian(data_dim=4, latent_dim=2)
    learner = LinearGaussian(data_dim=4, latent_dim=2, seed=1)
    x = truth.sample(2_000)
    before = learner.log_prob(x).mean().item()
    fit(
        learner.model,
        learner.guide,
        x,
        estimator=AnalyticKL(num_particles=4),
        epochs=60,
        lr=0.02,
        batch_size=200,
    )
    after, best = learner.log_prob(x).mean().item(), truth.log_prob(x).mean().item()
    assert before < best - 0.3
    # The maximum-likelihood fit of 11 free parameters to 2,000 data gains about 11 / 4,000 nats
    # over the truth; stopping at a learning rate of 0.02 loses more than that.
    assert best - 0.03 < after < best + 0.02


def test_one_step_is_stock_pyros(x):
    """One batch, one step, plain SGD: the same parameters as Pyro's own SVI, on the mean instead of
    the sum.
    """
    ours, theirs = make(), make()
    fit(
        ours.model,
        ours.guide,
        x,
        epochs=1,
        batch_size=70,
        optimizer=lambda p: torch.optim.SGD(p, 0.1),
        shuffle=False,
        seed=3,
    )
    torch.manual_seed(3)
    svi = SVI(theirs.model, theirs.guide, pyro.optim.SGD({"lr": 0.1 / 70}), Trace_ELBO())
    svi.step(x)
    assert_close(weights(ours), weights(theirs))


def test_same_seed_same_weights_and_the_global_state_is_left_alone(x):
    state = torch.get_rng_state()
    results = []
    for seed in (0, 0, 1):
        vae = make()
        torch.set_rng_state(state)
        fit(vae.model, vae.guide, x, epochs=2, batch_size=16, seed=seed)
        assert torch.equal(torch.get_rng_state(), state)
        results.append(weights(vae))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_history_is_exact_for_unequal_batches(x):
    """With a frozen model and a posterior independent of the batch, the epoch mean weighs data, not
    batches.
    """
    vae = make()
    frozen = lambda p: torch.optim.SGD(p, 0.0)  # noqa: E731
    whole = fit(
        vae.model, vae.guide, x, epochs=1, batch_size=70, optimizer=frozen, estimator=AnalyticKL()
    )
    cut = fit(
        vae.model, vae.guide, x, epochs=1, batch_size=33, optimizer=frozen, estimator=AnalyticKL()
    )  # 33, 33, 4
    assert_close(cut["kl"], whole["kl"], rtol=1e-5, atol=0)
    with torch.no_grad():
        q = vae.encode(x).base_dist
        kl = -0.5 * (1 + q.variance.log() - q.mean**2 - q.variance).sum(-1)
    assert_close(cut["kl"][0], kl.mean().item(), rtol=1e-5, atol=0)
    assert_close(cut["train_bound"], cut["reconstruction"] - cut["kl"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_history_bounds_are_at_beta_one(x, beta):
    vae = make()
    history = fit(
        vae.model, vae.guide, x, epochs=1, beta=beta, optimizer=lambda p: torch.optim.SGD(p, 0.0)
    )
    assert_close(
        history["train_bound"], history["reconstruction"] - history["kl"], rtol=1e-4, atol=1e-4
    )
    assert history["beta"].tolist() == [beta]


def test_beta_changes_what_is_learnt(x):
    kls = []
    for beta in (0.05, 1.0, 20.0):
        vae = make()
        kls.append(
            fit(vae.model, vae.guide, x, epochs=40, batch_size=16, beta=beta, lr=1e-2)["kl"][-1]
        )
    assert kls[0] > kls[1] > kls[2]


def test_linear_schedule_reaches_history(x):
    vae = make()
    history = fit(
        vae.model, vae.guide, x, epochs=3, batch_size=35, beta=schedules.Linear(0.0, 1.0, steps=4)
    )
    assert history["beta"].tolist() == [0.25, 0.75, 1.0]


def test_a_controller_hears_of_every_step_and_survives_a_resume(x, tmp_path):
    heard = []

    class Counter(schedules.Schedule):
        feedback = True
        count = 0

        def __call__(self, step):
            return 1.0 + 0.01 * self.count

        def update(self, reconstruction, kl):
            self.count += 1
            heard.append((reconstruction, kl))

        def state_dict(self):
            return {"count": self.count}

        def load_state_dict(self, state):
            self.count = state["count"]

    vae = make()
    common = {"batch_size": 35, "checkpoint": tmp_path / "state.pt"}
    history = fit(vae.model, vae.guide, x, epochs=2, beta=Counter(), **common)
    assert len(heard) == 4
    assert_close(sum(r for r, _ in heard[2:]) / 2, history["reconstruction"][-1], rtol=1e-6, atol=0)
    assert_close(sum(k for _, k in heard[2:]) / 2, history["kl"][-1], rtol=1e-6, atol=0)
    resumed = fit(vae.model, vae.guide, x, epochs=3, beta=Counter(), resume=True, **common)
    assert resumed["beta"].tolist() == [1.01, 1.03, 1.05]


def test_importance_weighted_estimators_refuse_beta(x):
    vae = make()
    with pytest.raises(ValueError, match="IWAE is importance-weighted"):
        fit(vae.model, vae.guide, x, epochs=1, beta=0.5, estimator=IWAE(num_particles=3))


def test_best_weights_are_kept_and_patience_stops(x):
    vae = make()
    rates = schedules.Linear(0.02, 5.0, steps=20)  # a learning rate that soon does harm
    history = fit(vae.model, vae.guide, x, valid=x, epochs=60, batch_size=35, lr=rates, patience=4)
    assert history.stopped_early
    assert len(history) == history.best_epoch + 4
    assert history["valid_bound"].argmax() + 1 == history.best_epoch
    # The kept weights give the best epoch's bound again, with the same draws.
    again = fit(
        vae.model,
        vae.guide,
        x,
        valid=x,
        epochs=1,
        batch_size=35,
        optimizer=lambda p: torch.optim.SGD(p, 0.0),
    )
    assert again["valid_bound"][0] == history["valid_bound"].max()


def test_patience_waits_for_the_warm_up(x):
    vae = make()
    history = fit(
        vae.model,
        vae.guide,
        x,
        valid=x,
        epochs=9,
        batch_size=70,
        patience=2,
        beta=schedules.Linear(0.0, 1.0, steps=5),
        optimizer=lambda p: torch.optim.SGD(p, 0.0),
    )
    assert len(history) == 7  # epochs 6 and 7 are the first that count


def test_resumed_run_equals_an_uninterrupted_one(x, tmp_path):
    common = {"batch_size": 16, "valid": x, "beta": schedules.Linear(0.0, 1.0, steps=20)}
    whole, cut = make(), make()
    full = fit(whole.model, whole.guide, x, epochs=6, **common)
    fit(cut.model, cut.guide, x, epochs=3, checkpoint=tmp_path / "state.pt", **common)
    rest = fit(
        cut.model, cut.guide, x, epochs=6, checkpoint=tmp_path / "state.pt", resume=True, **common
    )
    assert torch.equal(weights(whole), weights(cut))
    assert full["valid_bound"].tolist() == rest["valid_bound"].tolist()


def test_resume_refuses_what_is_not_a_checkpoint(x, tmp_path):
    vae = make()
    (tmp_path / "junk.pt").write_bytes(b"junk")
    with pytest.raises(ValueError, match="not a checkpoint"):
        fit(vae.model, vae.guide, x, epochs=1, checkpoint=tmp_path / "junk.pt", resume=True)
    fit(vae.model, vae.guide, x, epochs=1, checkpoint=tmp_path / "a.pt")
    other = VAE((6,), 3)
    with pytest.raises(ValueError, match="another model"):
        fit(other.model, other.guide, x, epochs=1, checkpoint=tmp_path / "a.pt", resume=True)


def test_log_has_a_json_line_an_epoch(x, tmp_path):
    vae = make()
    history = fit(vae.model, vae.guide, x, epochs=3, log=tmp_path / "metrics.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["train_bound"] for row in rows] == history["train_bound"].tolist()


@pytest.mark.parametrize("kind", ["numpy", "float64", "dataset", "loader", "labelled"])
def test_every_container_of_the_same_data(x, kind):
    labels = torch.arange(70)
    data = {
        "numpy": x.numpy(),
        "float64": x.double().numpy(),
        "dataset": TensorDataset(x),
        "loader": DataLoader(TensorDataset(x), batch_size=16),
        "labelled": TensorDataset(x, labels),
    }[kind]
    reference, vae = make(), make()
    expected = fit(reference.model, reference.guide, x, epochs=2, batch_size=16, shuffle=False)
    found = fit(vae.model, vae.guide, data, epochs=2, batch_size=16, shuffle=False)
    assert len(found) == 2
    if kind != "loader":  # a loader takes from the random state itself
        assert found["train_bound"].tolist() == expected["train_bound"].tolist()


def test_tuple_of_arrays_reaches_plain_functions():
    """A regression of y on z with covariates, as two functions and Pyro's own parameter store."""
    pyro.clear_param_store()
    generator = torch.Generator().manual_seed(0)
    covariate = torch.randn(200, generator=generator)
    y = 2.0 * covariate + 0.5 * torch.randn(200, generator=generator)

    def model(y, covariate):
        slope = pyro.param("slope", torch.tensor(0.0))
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Normal(0.0, 0.4))
            pyro.sample("y", dist.Normal(slope * covariate + z, 0.3), obs=y)

    def guide(y, covariate):
        gain = pyro.param("gain", torch.tensor(0.0))
        scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
        with pyro.plate("data", len(y)):
            pyro.sample(
                "z",
                dist.Normal(gain * (y - pyro.param("slope", torch.tensor(0.0)) * covariate), scale),
            )

    fit(model, guide, (y, covariate), epochs=60, lr=0.05, batch_size=50, device="cpu")
    slope = (covariate @ y / (covariate @ covariate)).item()  # maximum likelihood
    assert_close(pyro.param("slope").item(), slope, atol=0.05, rtol=0)
    assert_close(
        pyro.param("gain").item(), 0.16 / (0.16 + 0.09), atol=0.1, rtol=0
    )  # the exact posterior's
    pyro.clear_param_store()


def test_transform_sees_every_batch(x):
    vae, grey = make(), torch.full((40, 6), 0.3)
    sizes = []

    def binarize(batch):
        sizes.append(len(batch))
        return torch.bernoulli(batch)

    fit(vae.model, vae.guide, grey, epochs=2, batch_size=16, transform=binarize)
    assert sizes[-6:] == [16, 16, 8, 16, 16, 8]


def test_captured_binarisation_draws_anew_as_the_eager_one(x):
    from pyrovae.data import resample

    grey = torch.full((40, 6), 0.3)
    results = []
    for capture in (True, False):
        vae = make()
        history = fit(
            vae.model, vae.guide, grey, epochs=3, batch_size=20, transform=resample, capture=capture
        )
        results.append(weights(vae))
    assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)  # another order of float32 sums
    assert len(set(history["reconstruction"].tolist())) == 3


def test_stock_elbo_is_accepted(x):
    vae = make()
    history = fit(
        vae.model, vae.guide, x, valid=x, epochs=20, estimator=Trace_ELBO(), lr=1e-2, batch_size=16
    )
    assert history["valid_bound"][-1] > history["valid_bound"][0]
    assert math.isnan(history["kl"][0])


@pytest.mark.parametrize("beta", [0.0, 0.3, 2.0])
@pytest.mark.parametrize(
    "stock",
    [Trace_ELBO(), TraceMeanField_ELBO(), TraceGraph_ELBO(), TraceEnum_ELBO()],
    ids=lambda stock: type(stock).__name__,
)
def test_a_stock_elbo_under_beta_reports_what_the_same_of_ours_does(x, beta, stock):
    frozen = {"optimizer": lambda p: torch.optim.SGD(p, 0.0), "epochs": 1, "batch_size": 32}
    mean_field = isinstance(stock, TraceMeanField_ELBO)
    rows = []
    for estimator in (stock, AnalyticKL() if mean_field else ELBO()):
        vae = make()
        history = fit(vae.model, vae.guide, x, beta=beta, estimator=estimator, valid=x, **frozen)
        rows.append([history[name][0] for name in ("train_bound", "kl", "reconstruction")])
    # Float32 sums of some 70 nats, and a difference of two of them divided by 1 - beta.
    assert_close(torch.tensor(rows[0]), torch.tensor(rows[1]), rtol=1e-4, atol=1e-3)


def test_a_stock_elbo_that_weighs_particles_refuses_beta(x):
    vae = make()
    with pytest.raises(ValueError, match="RenyiELBO weighs particles"):
        fit(vae.model, vae.guide, x, beta=0.5, estimator=RenyiELBO())


def test_a_stock_elbo_sees_a_plate_that_has_changed(x):
    """The full size of the plate is read anew at every step."""
    total = [100]

    def model(x):
        with pyro.plate("data", total[0], subsample=x):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x.flatten(1)[:, :1])

    def guide(x):
        with pyro.plate("data", total[0], subsample=x):
            pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))

    evaluate = objective(model, guide, Trace_ELBO())
    bounds = []
    for total[0] in (100, 5000):
        torch.manual_seed(0)
        bounds.append(evaluate.report(None, x[:10])[0].bound)
    assert_close(bounds[0], bounds[1], rtol=1e-6, atol=0)


def test_non_finite_loss_stops_and_restores(x):
    vae = make(likelihood=likelihoods.Gaussian(1.0))
    data = x.clone()
    before = weights(vae)
    with pytest.raises(NonFiniteLoss, match=r"step \d+ \(epoch 1\).*last good weights") as caught:
        fit(
            vae.model,
            vae.guide,
            data,
            epochs=3,
            batch_size=7,
            optimizer=lambda p: torch.optim.SGD(p, 1e30),
        )
    assert caught.value.term in ("reconstruction", "kl")
    assert caught.value.step <= 10
    assert torch.equal(weights(vae), before)


def test_callback_can_stop(x):
    vae = make()
    assert len(fit(vae.model, vae.guide, x, epochs=9, callback=lambda row: row["epoch"] == 2)) == 2


def test_validation_setting_of_pyro_survives(x):
    vae = make()
    with pyro.validation_enabled(True):
        fit(vae.model, vae.guide, x, epochs=1)
        with pytest.raises(ValueError, match="grey"):
            vae.model(x * 0.5)


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (np.zeros((0, 6), np.float32), ValueError, "empty"),
        (np.full((3, 6), np.nan, np.float32), ValueError, "NaN or infinite values, in 3 of 3"),
        (np.zeros((3, 5), np.float32), ValueError, r"shape \(B, 6\)"),
        (np.zeros((3, 6), np.int64), TypeError, "floating point"),
        (np.full((3, 6), 0.5, np.float32), ValueError, "grey"),
        (np.array([["a"]]), TypeError, "numeric dtype"),
        ("data", TypeError, "found str"),
        ((np.zeros((3, 6)), np.zeros(2)), ValueError, "different lengths"),
        (TensorDataset(torch.zeros(0, 6)), ValueError, "empty"),
    ],
)
def test_bad_data(data, kind, message):
    vae = make()
    with pytest.raises(kind, match=message):
        fit(vae.model, vae.guide, data, epochs=1)


@pytest.mark.parametrize(
    ("kwargs", "kind", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"lr": -1.0}, ValueError, "lr"),
        ({"lr": "1e-3"}, TypeError, "lr must be a number or a schedule, found '1e-3'"),
        ({"lr": float("nan")}, ValueError, "lr"),
        ({"batch_size": None}, ValueError, "batch_size must be a positive integer, found None"),
        ({"beta": -1.0}, ValueError, "beta must be finite and not negative, found -1"),
        ({"beta": None}, TypeError, "beta must be a number or a schedule, found None"),
        ({"optimizer": "adam"}, TypeError, "a function that makes .* found str"),
        (
            {"optimizer": torch.optim.SGD([torch.ones(1)], lr=0.1)},
            TypeError,
            r"lambda parameters: torch.optim.SGD\(parameters, lr=0.1\), found SGD",
        ),
        ({"patience": 3}, ValueError, "validation data"),
        ({"resume": True}, ValueError, "checkpoint"),
        ({"estimator": ELBO}, TypeError, "an instance"),
        ({"clip_norm": 0.0}, ValueError, "clip_norm"),
    ],
)
def test_bad_arguments(x, kwargs, kind, message):
    vae = make()
    with pytest.raises(kind, match=message):
        fit(vae.model, vae.guide, x, **kwargs)


def test_fit_is_a_function_however_it_was_imported():
    import pyrovae.training.fit
    from pyrovae import fit as imported

    assert imported is pyrovae.training.fit
    assert callable(imported)


@pytest.mark.parametrize("loader", [False, True])
def test_labels_become_no_setting_of_a_program(loader):
    x, labels = torch.ones(20, 2), torch.arange(20)
    pairs = TensorDataset(x, labels)
    data = DataLoader(pairs, batch_size=10) if loader else pairs
    seen = []

    def guide(x, *args, **kwargs):
        pass

    def with_setting(x, kl_weight=1.0, labels=None):
        seen.append((kl_weight, labels))
        loc = pyro.param("loc", torch.zeros(2))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def with_labels(x, labels=None):
        seen.append(labels)
        with_setting(x)

    options = {"epochs": 1, "batch_size": 10, "capture": False, "shuffle": False}
    fit(with_setting, guide, data, **options)
    assert seen
    assert all(entry == (1.0, None) for entry in seen)
    seen.clear()
    fit(with_labels, guide, data, **options)
    found = [entry for entry in seen if isinstance(entry, torch.Tensor)]
    assert found[-1].tolist() == list(range(10, 20))
    assert not any(entry is None for entry in seen)


@pytest.mark.parametrize("validated", [False, True])
def test_scales_that_overflow_stop_the_training_with_good_weights(validated):
    x = torch.ones(200, 2)
    growth = torch.nn.Parameter(torch.tensor(0.0))

    class Hierarchy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.growth = growth

        def model(self, x):
            pyro.module("hierarchy", self)
            with pyro.plate("data", len(x)):
                z2 = pyro.sample("z2", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                scale = (self.growth * 100).exp()  # overflows once growth passes 0.9
                z1 = dist.Normal(z2, scale, validate_args=validated)
                z1 = pyro.sample("z1", z1.to_event(1))
                pyro.sample("x", dist.Normal(0.0 * z1, 1.0).to_event(1), obs=x)

        def guide(self, x):
            with pyro.plate("data", len(x)):
                z2 = pyro.sample("z2", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                scale = 0.0 * z2 + 1e6
                pyro.sample("z1", dist.Normal(z2, scale).to_event(1))

    programs = Hierarchy()
    with pytest.raises(NonFiniteLoss, match="Training stopped at step") as caught:
        fit(
            programs.model,
            programs.guide,
            x,
            epochs=30,
            batch_size=2,
            lr=0.3,
            optimizer=lambda p: torch.optim.SGD(p, lr=0.3),
            capture=False,
        )
    assert bool(torch.isfinite(growth))
    if validated:
        assert caught.value.term == "parameters"
        for word in ("In the model, after site 'z2'", "parameter scale", "back in place"):
            assert word in str(caught.value)
