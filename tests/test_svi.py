"""The captured step against the eager one under the same draws, and against stock Pyro."""

import copy
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyrovae import VAE, estimators, fit, likelihoods, nets, posteriors, priors
from pyrovae.estimators.kl_control import KLControl
from pyrovae.handlers import KLScale
from pyrovae.svi import SVI, Step
from pyrovae.testing import DiscreteMixture, LinearGaussian

ESTIMATORS = [
    getattr(estimators, name)
    for name in estimators.__all__
    if isinstance(getattr(estimators, name), type)
    and issubclass(getattr(estimators, name), estimators.Estimator)
    and getattr(estimators, name) is not estimators.Estimator
]
EXACT = {"rtol": 1e-12, "atol": 1e-12}  # float64: the same operations, in nearly the same order


@pytest.fixture
def x():
    return LinearGaussian(seed=7).sample(12, seed=1)


def make_step(owner, estimator, *, lr=1e-2, optimizer=torch.optim.Adam, **options):
    parameters = list(owner.parameters())
    return Step(
        owner.model,
        owner.guide,
        estimator,
        optimizer(parameters, lr=lr),
        parameters,
        compile=False,
        **options,
    )


def pair(owner, estimator, **options):
    """The same programs twice: one step captured, one eager."""
    twin = copy.deepcopy(owner)
    captured, eager = (
        make_step(owner, estimator, **options),
        make_step(twin, estimator, capture=False, **options),
    )
    return captured, eager


def run(step, batches, *, seed=3, **options):
    torch.manual_seed(seed)
    return [torch.stack(tuple(step(*batch, **options))) for batch in batches]


def assert_same(captured, eager, batches, *, tolerance=EXACT, **options):
    """The same reports at every step, the same weights and the same random state afterwards."""
    left, right = run(captured, batches, **options), run(eager, batches, **options)
    assert captured.compiled.reason is None, captured.compiled.reason
    assert captured.compiled.graphs
    torch.testing.assert_close(left, right, **tolerance)
    for a, b in zip(captured.parameters, eager.parameters, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: e.__name__)
def test_every_estimator_is_captured_exactly(estimator, x):
    owner = LinearGaussian(shift=0.3, stretch=0.8)
    wraps = issubclass(estimator, KLControl)
    made = estimator(estimators.AnalyticKL(4)) if wraps else estimator(num_particles=4)
    captured, eager = pair(owner, made)
    assert_same(captured, eager, [(x,), (x + 0.1,), (x - 0.2,)])
    next_draws = [torch.rand(1)]  # both left the generator at the same place
    run(eager, [(x,)] * 3)
    next_draws.append(torch.rand(1))
    run(captured, [(x,)] * 3)
    assert torch.equal(next_draws[1], torch.rand(1))


@pytest.mark.parametrize(
    "estimator", [estimators.ELBO, estimators.VIMCO, estimators.RWS], ids=lambda e: e.__name__
)
def test_discrete_latents_are_captured_exactly(estimator):
    owner = DiscreteMixture()
    batch = (owner.sample(9),)
    captured, eager = pair(owner, estimator(num_particles=5))
    assert_same(captured, eager, [batch] * 3)


PARTS = {
    "vamp": {"prior": priors.Vamp(num_components=4)},
    "mixture": {"prior": priors.GaussianMixture(num_components=3)},
    "flow prior": {"prior": priors.Flow()},
    "full rank": {"posterior": posteriors.FullRankNormal()},
    "low rank": {"posterior": posteriors.LowRankNormal(rank=1)},
    "flow posterior": {"posterior": posteriors.Flow()},
    "gaussian": {"likelihood": likelihoods.Gaussian("learned")},
    "continuous bernoulli": {"likelihood": likelihoods.ContinuousBernoulli()},
    "discretized": {"likelihood": likelihoods.DiscretizedLogistic()},
    "poisson": {"likelihood": likelihoods.Poisson()},
}


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_a_sample_of_parts_is_captured_exactly(parts):
    torch.manual_seed(0)
    vae = VAE(9, 2, encoder=nets.MLP(8), decoder=nets.MLP(8), **parts).double()
    data = torch.bernoulli(torch.full((10, 9), 0.4, dtype=torch.float64))
    captured, eager = pair(vae, estimators.ELBO(num_particles=2))
    # Splines and triangular solves gather in another order.
    assert_same(captured, eager, [(data,)] * 3, tolerance={"rtol": 1e-9, "atol": 1e-9})


def test_convolutions_are_captured():
    torch.manual_seed(0)
    vae = VAE((8, 8), 2, encoder=nets.Conv(4, hidden=8), decoder=nets.Conv(4, hidden=8)).double()
    data = torch.bernoulli(torch.full((6, 8, 8), 0.4, dtype=torch.float64))
    captured, eager = pair(vae, estimators.AnalyticKL())
    assert_same(captured, eager, [(data,)] * 3, tolerance={"rtol": 1e-9, "atol": 1e-9})


def test_beta_is_an_input_of_the_graph(x):
    captured, eager = pair(LinearGaussian(shift=0.5), estimators.AnalyticKL())
    for beta in (1.0, 0.2, 0.7, 0.0, 1.0):
        assert_same(captured, eager, [(x,)], beta=beta)
    assert len(captured.compiled.graphs) == 2  # one as declared, one for every beta


@pytest.mark.parametrize("capture", [True, False])
@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_a_step_reports_and_differentiates_the_mean_bound_under_beta(x, beta, capture):
    """Against the estimator itself, wrapped by hand."""
    owner, estimator = LinearGaussian(shift=0.5), estimators.AnalyticKL(3)
    twin = copy.deepcopy(owner)
    step = make_step(owner, estimator, capture=capture)
    step.gradients(x, beta=0.9)
    for parameter in step.parameters:
        parameter.grad = None
    torch.manual_seed(2)
    bound, reconstruction, kl = step.gradients(x, beta=beta)
    torch.manual_seed(2)
    scale = KLScale(beta)
    loss = estimator.differentiable_loss(scale(twin.model), scale(twin.guide), x)
    (loss / len(x)).backward()
    torch.testing.assert_close(bound, -loss.detach(), **EXACT)
    torch.testing.assert_close(bound, reconstruction - beta * kl, **EXACT)
    for a, b in zip(step.parameters, twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, **EXACT)


def test_beta_of_an_importance_weighted_bound_is_refused_as_ever(x):
    step = make_step(LinearGaussian(), estimators.IWAE(num_particles=3))
    step(x)
    with pytest.raises(ValueError, match="importance-weighted"):
        step(x, beta=0.5)
    step(x)
    assert step.compiled.reason is None


def test_gradients_are_added_and_left_unclipped(x):
    captured, eager = pair(LinearGaussian(shift=0.5), estimators.ELBO(), clip_norm=1e-3)
    for step in (captured, eager):
        torch.manual_seed(0)
        step.gradients(x)
        step.gradients(x + 1.0)
    for a, b in zip(captured.parameters, eager.parameters, strict=True):
        torch.testing.assert_close(a.grad, b.grad, **EXACT)
    assert max(p.grad.abs().max() for p in captured.parameters) > 1e-2


@pytest.mark.parametrize("clip_norm", [1e-3, 1e3], ids=["clipped", "loose"])
def test_clipping(x, clip_norm):
    # Plain gradient descent shows the size of the gradient, which Adam would normalise away.
    captured, eager = pair(
        LinearGaussian(shift=0.5), estimators.ELBO(), clip_norm=clip_norm, optimizer=torch.optim.SGD
    )
    assert_same(captured, eager, [(x,)] * 3)


def test_learning_rate_schedule(x):
    captured, eager = pair(LinearGaussian(shift=0.5), estimators.ELBO())
    for step in (captured, eager):
        scheduler = torch.optim.lr_scheduler.StepLR(step.optimizer, step_size=1, gamma=0.1)
        torch.manual_seed(0)
        for _ in range(4):
            step(x)
            scheduler.step()
    for a, b in zip(captured.parameters, eager.parameters, strict=True):
        torch.testing.assert_close(a, b, **EXACT)


def test_an_unequal_last_batch_has_a_graph_of_its_own(x):
    captured, eager = pair(LinearGaussian(shift=0.5), estimators.ELBO())
    for _ in range(4):
        assert_same(captured, eager, [(x,), (x[:5],)])
    assert len(captured.compiled.graphs) == 2


def test_endlessly_changing_shapes_run_eagerly_with_one_message(x):
    step = make_step(LinearGaussian(shift=0.5), estimators.ELBO())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for size in range(1, 11):
            for _ in range(3):
                step(x[:size])
    assert len(step.compiled.graphs) == 8
    assert [str(w.message) for w in caught if "shapes" in str(w.message)] == [
        "Further batch shapes run eagerly: more than 8 have been met."
    ]


class Noisy(nn.Module):
    """A VAE's pair whose encoder drops out and normalises."""

    def __init__(self, momentum=0.1):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(5, 6),
            nn.BatchNorm1d(6, momentum=momentum),
            nn.Tanh(),
            nn.Dropout(0.4),
            nn.Linear(6, 2),
        )
        self.weight = nn.Parameter(torch.full((2, 5), 0.3))

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ self.weight, 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.net(x), 0.5).to_event(1))


def test_dropout_batch_norm_and_their_modes(x):
    torch.manual_seed(0)
    captured, eager = pair(Noisy().double(), estimators.ELBO(num_particles=2))
    owners = [step.objective.guide.__self__ for step in (captured, eager)]
    assert_same(captured, eager, [(x,)] * 4, tolerance={"rtol": 1e-10, "atol": 1e-10})
    assert owners[0].net[1].num_batches_tracked == 4
    for a, b in zip(owners[0].buffers(), owners[1].buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    mean = owners[0].net[1].running_mean.clone()
    for owner in owners:
        owner.eval()
    assert_same(captured, eager, [(x,)] * 2, tolerance={"rtol": 1e-10, "atol": 1e-10})
    assert torch.equal(owners[0].net[1].running_mean, mean)


def test_freezing_a_parameter_is_followed(x):
    captured, eager = pair(LinearGaussian(shift=0.5), estimators.ELBO())
    assert_same(captured, eager, [(x,)])
    for step in (captured, eager):
        step.parameters[0].requires_grad_(False)
    before = captured.parameters[0].clone()
    assert_same(captured, eager, [(x,)] * 3)
    assert torch.equal(captured.parameters[0], before)


def test_loaded_weights_and_optimiser_state_are_used(x):
    step, fresh = pair(LinearGaussian(shift=0.5), estimators.ELBO())
    run(step, [(x,)] * 3)
    weights = [p.detach().clone() for p in step.parameters]
    state = copy.deepcopy(step.optimizer.state_dict())
    expected = run(step, [(x,)] * 3, seed=5)
    run(step, [(x,)] * 2)
    for other in (step, fresh):
        with torch.no_grad():
            for parameter, value in zip(other.parameters, weights, strict=True):
                parameter.copy_(value)
        other.optimizer.load_state_dict(copy.deepcopy(state))
        torch.testing.assert_close(run(other, [(x,)] * 3, seed=5), expected, **EXACT)


def test_transform_is_captured_with_its_draws():
    torch.manual_seed(0)
    grey = torch.rand(40, 9, dtype=torch.float64)
    vae = VAE(9, 2, encoder=nets.MLP(8), decoder=nets.MLP(8)).double()
    captured, eager = pair(
        vae, estimators.ELBO(), transform=lambda index: torch.bernoulli(grey[index])
    )
    batches = [(torch.randperm(40)[:10],) for _ in range(3)]
    assert_same(captured, eager, batches)
    grey.fill_(1.0)  # data are read where they are
    assert_same(captured, eager, batches)


def peeking(x):
    """A model that branches on its latent."""
    loc = pyro.param("peeking.loc", torch.zeros(5, dtype=x.dtype))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
        scale = 1.0 if z.sum() > 0 else 2.0
        pyro.sample("x", dist.Normal(loc + z, scale).to_event(1), obs=x)


def plain_guide(x):
    with pyro.plate("data", len(x)):
        shift = pyro.param("peeking.shift", torch.zeros(1, dtype=x.dtype))
        scale = pyro.param(
            "peeking.scale", torch.ones(1, dtype=x.dtype), constraint=dist.constraints.positive
        )
        pyro.sample("z", dist.Normal(shift + x.mean(-1, True), scale).to_event(1))


def plain_model(x):
    loc = pyro.param("peeking.loc", torch.zeros(5, dtype=x.dtype))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(loc + z, 1.5).to_event(1), obs=x)


def test_data_dependent_programs_run_eagerly_with_one_reason(x):
    pyro.clear_param_store()
    svi = SVI(peeking, plain_guide, pyro.optim.Adam({"lr": 1e-2}), estimators.ELBO())
    with pytest.warns(
        UserWarning, match=r"Running eagerly.*reads the value of a tensor.*test_svi.py:\d+"
    ) as caught:
        losses = [svi.step(x) for _ in range(3)]
    assert len([w for w in caught if "eagerly" in str(w.message)]) == 1
    pyro.clear_param_store()
    assert all(torch.isfinite(torch.tensor(losses)))
    assert "reads the value" in svi.compiled.reason


def test_parameters_in_the_store_equal_stock_pyro(x):
    """Constrained parameters of plain functions, against stock SVI with stock Trace_ELBO."""
    results = []
    for kind in ("stock", "ours"):
        pyro.clear_param_store()
        optim = pyro.optim.Adam({"lr": 1e-2})
        if kind == "stock":
            svi = pyro.infer.SVI(plain_model, plain_guide, optim, pyro.infer.Trace_ELBO())
        else:
            svi = SVI(plain_model, plain_guide, optim, estimators.ELBO(), compile=False)
        torch.manual_seed(0)
        losses = [svi.step(x) for _ in range(5)] + [svi.evaluate_loss(x)]
        store = pyro.get_param_store()
        state = [s["state"][0]["exp_avg"] for _, s in sorted(optim.get_state().items())]
        results.append(
            (torch.tensor(losses), [store[n].detach().clone() for n in sorted(store.keys())], state)
        )
    assert svi.compiled.reason is None
    assert len(svi.compiled.graphs) == 1
    torch.testing.assert_close(results[1], results[0], rtol=1e-10, atol=1e-10)
    pyro.clear_param_store()


def test_a_cleared_store_starts_anew_as_stock_pyro_does(x):
    results = []
    for kind in ("stock", "ours"):
        pyro.clear_param_store()
        optim = pyro.optim.Adam({"lr": 1e-2})
        if kind == "stock":
            svi = pyro.infer.SVI(plain_model, plain_guide, optim, pyro.infer.Trace_ELBO())
        else:
            svi = SVI(plain_model, plain_guide, optim, estimators.ELBO(), compile=False)
        torch.manual_seed(0)
        losses = [svi.step(x) for _ in range(3)] + [svi.evaluate_loss(x)]
        pyro.clear_param_store()
        losses += [svi.evaluate_loss(x)] + [svi.step(x) for _ in range(3)] + [svi.evaluate_loss(x)]
        store = pyro.get_param_store()
        results.append([torch.tensor(losses), *(store[n].detach() for n in sorted(store.keys()))])
    torch.testing.assert_close(results[1], results[0], rtol=1e-10, atol=1e-10)
    pyro.clear_param_store()


def test_a_store_that_is_cleared_during_fit_is_an_error(x):
    pyro.clear_param_store()
    clear = lambda row: pyro.clear_param_store()  # noqa: E731
    with pytest.raises(ValueError, match="store was cleared, or a parameter replaced"):
        fit(plain_model, plain_guide, x, epochs=2, callback=clear, compile=False)
    pyro.clear_param_store()


def test_an_optimizer_that_wants_a_closure_is_refused_at_once(x):
    owner = LinearGaussian(shift=0.5)
    with pytest.raises(TypeError, match="LBFGS evaluates the loss several times"):
        SVI(
            owner.model,
            owner.guide,
            pyro.optim.PyroOptim(torch.optim.LBFGS, {}),
            estimators.ELBO(),
        )
    with pytest.raises(TypeError, match="LBFGS evaluates the loss several times"):
        fit(owner.model, owner.guide, x, optimizer=torch.optim.LBFGS)


def test_svi_equals_stock_pyro_on_a_vae_with_a_scheduler_and_beta():
    torch.manual_seed(0)
    base = VAE(9, 2, encoder=nets.MLP(8), decoder=nets.MLP(8)).double()
    data = torch.bernoulli(torch.full((10, 9), 0.4, dtype=torch.float64))
    results = []
    for kind in (pyro.infer.SVI, SVI):
        vae = copy.deepcopy(base)
        optim = pyro.optim.ExponentialLR(
            {"optimizer": torch.optim.Adam, "optim_args": {"lr": 1e-2}, "gamma": 0.5}
        )
        svi = kind(
            KLScale(0.3)(vae.model), KLScale(0.3)(vae.guide), optim, estimators.AnalyticKL(2)
        )
        torch.manual_seed(1)
        losses = []
        for _ in range(4):
            losses.append(svi.step(data))
            optim.step()
        results.append((torch.tensor(losses), list(vae.parameters())))
    assert svi.compiled.reason is None
    torch.testing.assert_close(results[1], results[0], rtol=1e-10, atol=1e-10)


def test_svi_takes_stock_losses_eagerly_and_says_so(x):
    owner = LinearGaussian(shift=0.5)
    with pytest.warns(
        UserWarning, match="Trace_ELBO reads values on the host; use pyrovae.estimators"
    ):
        svi = SVI(owner.model, owner.guide, pyro.optim.Adam({"lr": 1e-2}), pyro.infer.Trace_ELBO())
    assert isinstance(svi.step(x), float)


def test_data_outside_the_support_are_found_before_the_capture():
    vae = VAE(9, 2, encoder=nets.MLP(8), decoder=nets.MLP(8))
    with pytest.raises(ValueError, match="Bernoulli is a distribution over 0 and 1"):
        make_step(vae, estimators.ELBO())(torch.full((4, 9), 0.5))


@pytest.mark.slow
@pytest.mark.parametrize(
    "estimator", [estimators.ELBO(), estimators.DReG(num_particles=5)], ids=repr
)
def test_compiled_step_agrees_to_rounding(estimator):
    torch.manual_seed(0)
    vae = VAE(9, 2, encoder=nets.MLP(8), decoder=nets.MLP(8)).double()
    data = torch.bernoulli(torch.full((10, 9), 0.4, dtype=torch.float64))
    twin, parameters = copy.deepcopy(vae), list(vae.parameters())
    compiled = Step(
        vae.model,
        vae.guide,
        estimator,
        torch.optim.Adam(parameters),
        parameters,
        clip_norm=5.0,
        compile=True,
    )
    eager = make_step(twin, estimator, lr=1e-3, clip_norm=5.0, capture=False)
    assert_same(compiled, eager, [(data,)] * 4, tolerance={"rtol": 1e-8, "atol": 1e-8})
    assert {graph.kind for graph in compiled.compiled.graphs} == {"compiled"}
    assert compiled.compiled.compile_seconds > 0


@pytest.mark.gpu
@pytest.mark.parametrize("compile", [False, True])
def test_cuda_graph_agrees_with_eager(compile):
    torch.manual_seed(0)
    vae = VAE(9, 2, encoder=nets.MLP(8), decoder=nets.MLP(8)).double().cuda()
    data = torch.bernoulli(torch.full((10, 9), 0.4, dtype=torch.float64)).cuda()
    twin, parameters = copy.deepcopy(vae), list(vae.parameters())
    step = Step(
        vae.model,
        vae.guide,
        estimators.AnalyticKL(1000),
        torch.optim.Adam(parameters),
        parameters,
        compile=compile,
    )
    eager = make_step(twin, estimators.AnalyticKL(1000), lr=1e-3, capture=False)
    left, right = (torch.stack(run(s, [(data,)] * 20)) for s in (step, eager))
    assert {graph.kind for graph in step.compiled.graphs} == {"cuda graph"}
    # Replays advance the generator by other strides: bounds over 10,000 draws agree to their
    # Monte-Carlo error.
    torch.testing.assert_close(left, right, rtol=0.02, atol=0.02)
    assert len(torch.unique(left[:, 1])) == 20  # draws stay live


def test_an_optimizer_whose_every_call_counts_is_called_once_a_step(x):
    """Pyro's ``ClippedAdam`` lowers its learning rate at each call, with or without gradients."""
    losses = []
    for kind in (pyro.infer.SVI, SVI):
        pyro.clear_param_store()
        owner = LinearGaussian(seed=7)
        optim = pyro.optim.ClippedAdam({"lr": 1e-1, "lrd": 0.5})
        svi = kind(owner.model, owner.guide, optim, estimators.ELBO())
        torch.manual_seed(0)
        losses.append([svi.step(x) for _ in range(5)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-12)
