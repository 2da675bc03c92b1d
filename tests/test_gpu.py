"""Training and evidence on a CUDA device: started by hand with ``-m gpu``.

``--device cpu`` runs the same tests on the processor, where no graph is one of CUDA's.
"""

import copy
import json

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import pyrovae as pv
from pyrovae import estimators, likelihoods, nets, posteriors, priors, schedules
from pyrovae.evidence.streams import DatumStreams, data_keys
from pyrovae.svi import Step
from pyrovae.testing import LinearGaussian

pytestmark = pytest.mark.gpu

X = torch.bernoulli(
    torch.full((67, 12), 0.3), generator=torch.Generator().manual_seed(0)
)  # a last batch of three
SMALL = {"encoder": nets.MLP(8), "decoder": nets.MLP(8)}

MODELS = {
    "VAE": lambda: pv.VAE(12, 2, **SMALL),
    "gated": lambda: pv.VAE(12, 2, encoder=nets.GatedMLP(8), decoder=nets.GatedMLP(8)),
    "conv": lambda: pv.VAE((1, 6, 2), 2, encoder=nets.Conv(4), decoder=nets.Conv(4)),
    "Vamp": lambda: pv.VAE(12, 2, prior=priors.Vamp(4), **SMALL),
    "mixture prior": lambda: pv.VAE(12, 2, prior=priors.GaussianMixture(3), **SMALL),
    "flow": lambda: pv.VAE(12, 2, posterior=posteriors.Flow(1, hidden=(8,)), **SMALL),
    "full rank": lambda: pv.VAE(12, 2, posterior=posteriors.FullRankNormal(), **SMALL),
    "sphere": lambda: pv.VAE(
        12, 3, prior=priors.HypersphericalUniform(), posterior=posteriors.PowerSpherical(), **SMALL
    ),
    "hierarchical": lambda: pv.HierarchicalVAE(12, (2, 2), between=nets.MLP(4), **SMALL),
    "clustering": lambda: pv.ClusteringVAE(12, 2, 3, **SMALL),
    "Gaussian": lambda: pv.VAE(12, 2, likelihood=likelihoods.Gaussian("learned"), **SMALL),
    "logistic": lambda: pv.VAE(12, 2, likelihood=likelihoods.DiscretizedLogistic(2), **SMALL),
    "negative binomial": lambda: pv.VAE(
        12, 2, likelihood=likelihoods.ZeroInflatedNegativeBinomial(), **SMALL
    ),
}
ESTIMATORS = [
    estimators.AnalyticKL(), estimators.STL(), estimators.IWAE(4), estimators.DReG(4),
    estimators.MIWAE(2, 2), estimators.CIWAE(0.5, 4), estimators.TVO(num_particles=4),
    estimators.VIMCO(4), estimators.RWS(4), estimators.FreeBits(estimators.AnalyticKL(), 0.1),
]  # fmt: skip


@pytest.fixture(scope="module")
def device(request):
    """The torch device of ``--device``, else CUDA's."""
    return torch.device(request.config.getoption("--device") or "cuda")


@pytest.fixture
def kind(device):
    """What a captured graph is on the device."""
    return "cuda graph" if device.type == "cuda" else "captured"


def fitted(make, device, x=X, **options):
    torch.manual_seed(0)
    vae = make()
    x = x.reshape(len(x), *vae.data_shape)
    options = {"epochs": 3, "batch_size": 16, "seed": 1, "progress": False, **options}
    return vae, vae.fit(x, valid=x[:20], device=device, **options)


def weights(vae):
    return {name: value.cpu() for name, value in vae.state_dict().items()}


def assert_same_weights(left, right):
    for name, value in weights(left).items():
        assert torch.equal(value, weights(right)[name]), name


def step_of(vae, estimator, **options):
    parameters = list(vae.parameters())
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    return Step(vae.model, vae.guide, estimator, optimizer, parameters, **options)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_trains_in_a_graph_and_has_evidence(name, device, kind):
    vae, history = fitted(MODELS[name], device, epochs=2)
    assert np.isfinite(history["valid_bound"]).all()
    assert next(vae.parameters()).device.type == device.type
    x = X.reshape(len(X), *vae.data_shape).to(device)
    step = step_of(vae, estimators.ELBO(), compile=False)
    assert torch.isfinite(step(x).bound)
    assert step.compiled.reason is None
    assert {graph.kind for graph in step.compiled.graphs} == {kind}
    evidence = vae.log_marginal(x[:5], num_particles=50)
    assert np.isfinite(evidence.log_marginal.values).all()
    assert vae.reconstruct(x[:3]).device.type == device.type
    assert vae.sample(2).device.type == device.type


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_gradients_in_a_graph_are_those_outside(estimator, device, kind):
    """The mean over many data, which are the same datum: draws of the two differ."""
    torch.manual_seed(0)
    vae = pv.VAE(12, 2, **SMALL).double().to(device)
    x = X[:1].double().to(device).expand(20_000, -1)
    found = []
    for capture in (True, False):
        twin = copy.deepcopy(vae)
        step = step_of(twin, copy.deepcopy(estimator), compile=False, capture=capture)
        torch.manual_seed(1)
        reports = [step.gradients(x) for _ in range(3)]
        gradient = torch.cat([p.grad.flatten() for p in twin.parameters()]) / 3
        found.append((torch.stack([r.bound for r in reports]).mean() / len(x), gradient))
        if capture:
            assert {graph.kind for graph in step._unclipped.graphs} == {kind}
            assert len({r.bound.item() for r in reports}) == 3  # draws stay live
    # A bound varies by some nats between draws, so the mean of 60,000 data is known to 0.01 or so.
    assert_close(found[0][0], found[1][0], rtol=0.01, atol=0)
    # A gradient's deviation is a few times its size, which 60,000 data divide by 245.
    error = (found[0][1] - found[1][1]).norm() / found[1][1].norm()
    assert error < 0.1


def test_sums_over_discrete_sites_in_a_graph_are_those_outside(device, kind):
    """Nothing is drawn, so that losses and gradients agree but for rounding."""
    torch.manual_seed(0)
    parts = {"prior": priors.Categorical(3), "posterior": posteriors.Categorical(3)}
    vae = pv.VAE(12, 6, **parts, **SMALL).double().to(device)
    x, found = X[:20].double().to(device), []
    for capture in (True, False):
        twin = copy.deepcopy(vae)
        step = step_of(twin, estimators.EnumELBO(), compile=False, capture=capture)
        report = step.gradients(x)
        found.append((report.bound, torch.cat([p.grad.flatten() for p in twin.parameters()])))
        if capture:
            assert {graph.kind for graph in step._unclipped.graphs} == {kind}
    assert_close(found[0], found[1])


@pytest.mark.parametrize("compile", [False, True])
def test_a_seed_gives_one_run(compile, device):
    runs = [fitted(MODELS["VAE"], device, compile=compile, beta=0.5)[0] for _ in range(2)]
    assert_same_weights(*runs)


@pytest.mark.parametrize("compile", [False, True])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(compile, device, tmp_path):
    options = {
        "compile": compile, "transform": pv.data.resample,
        "beta": schedules.Linear(0, 1, steps=9),
    }  # fmt: skip
    whole, _ = fitted(MODELS["Vamp"], device, epochs=5, **options)
    options |= {"checkpoint": tmp_path / "checkpoint.pt", "resume": True}
    fitted(MODELS["Vamp"], device, epochs=2, **options)
    again, history = fitted(MODELS["Vamp"], device, epochs=5, **options)
    assert len(history) == 5
    assert_same_weights(whole, again)


def test_a_transform_draws_anew_in_each_replay(device):
    seen = []
    vae = MODELS["VAE"]().to(device)
    probs = torch.full((8, 12), 0.5, device=device)
    step = step_of(vae, estimators.AnalyticKL(), compile=False, transform=pv.data.resample)
    for _ in range(4):
        seen.append(step(probs).reconstruction.item())
    assert len(set(seen)) == 4


def test_a_changed_learning_rate_and_beta_reach_the_graph(device, kind):
    """Rates of zero leave the weights; beta of zero leaves the reconstruction alone."""
    vae = MODELS["VAE"]().to(device)
    step = step_of(vae, estimators.AnalyticKL(), compile=False)
    x = X.to(device)
    for _ in range(2):
        step(x, beta=0.5)
    (group,) = step.optimizer.param_groups
    group["lr"] = 0.0
    before = weights(vae)
    report = step(x, beta=0.0)
    assert {graph.kind for graph in step.compiled.graphs} == {kind}
    assert all(torch.equal(value, before[name]) for name, value in weights(vae).items())
    assert_close(report.bound, report.reconstruction)


@pytest.mark.parametrize(
    "method",
    [
        pv.ImportanceSampling(20_000),
        pv.ImportanceSampling(20_000, compile=True),
        pv.ImportanceSampling(5_000, refine_steps=20),
        pv.AIS(60, 8),
    ],
    ids=repr,
)
def test_evidence_is_that_of_the_closed_form(method, device):
    oracle = LinearGaussian(shift=0.4, stretch=1.2)
    x = oracle.sample(6)
    exact = oracle.log_prob(x).detach().numpy()
    oracle.to(device)
    evidence = pv.log_marginal(oracle.model, oracle.guide, x, method=method)
    # Five standard errors, of which the few of AIS are not known well below 0.001.
    error = 5 * np.maximum(evidence.standard_error.values, 1e-3)
    assert (np.abs(evidence.log_marginal.values - exact) < error).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_of_evidence_are_those_of_the_processor(dtype, device):
    """Up to the rounding of logarithm and cosine: of numbers up to seven."""
    keys = data_keys((torch.arange(50.0),), 0)
    here, there = DatumStreams(keys, 300, 128), DatumStreams(keys, 300, 128)
    for _ in range(2):
        like = torch.empty(300, 50, 7, dtype=dtype)
        close = {"rtol": 0, "atol": 32 * torch.finfo(dtype).eps}
        assert_close(there.normal(like.to(device)).cpu(), here.normal(like), **close)
        assert torch.equal(there.uniform(like.to(device)).cpu(), here.uniform(like))


def test_evidence_does_not_depend_on_the_pieces(device):
    vae, _ = fitted(MODELS["VAE"], device)
    whole = vae.log_marginal(X, num_particles=300, seed=3)
    pieces = vae.log_marginal(X[5:9], num_particles=300, seed=3, memory_budget=200_000)
    np.testing.assert_allclose(
        pieces.log_marginal.values, whole.log_marginal.values[5:9], rtol=1e-5
    )


def test_bfloat16_networks_stay_close(device):
    vae, history = fitted(MODELS["VAE"], device, networks="bfloat16", epochs=20)
    _, full = fitted(MODELS["VAE"], device, epochs=20)
    # A tenth of a nat is what rounding may cost a run, and a datum.
    assert abs(history["valid_bound"][-1] - full["valid_bound"][-1]) < 0.1
    evidence = vae.log_marginal(X, method=pv.ImportanceSampling(500, networks="bfloat16"))
    assert np.abs(evidence.dataset["rounding_error"].values).max() < 0.1


def test_data_that_stay_on_the_processor_are_sent_batch_by_batch(device, tmp_path):
    torch.manual_seed(0)
    data = torch.utils.data.TensorDataset(X)
    loader = torch.utils.data.DataLoader(data, batch_size=16, pin_memory=device.type == "cuda")
    np.save(tmp_path / "x.npy", X.numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for source in (loader, mapped):
        vae = MODELS["VAE"]()
        history = vae.fit(source, epochs=2, batch_size=16, device=device, progress=False)
        assert np.isfinite(history["train_bound"]).all()


def test_estimators_are_compared_there(device):
    vae, _ = fitted(MODELS["VAE"], device)
    table = pv.compare_estimators(
        vae.model, vae.guide, X[:8], {"ELBO": estimators.ELBO(), "IWAE": estimators.IWAE()},
        num_particles=(1, 4), num_replicates=20, reference_particles=200,
    )  # fmt: skip
    assert np.isfinite(table.dataset["snr"].values).all()


def test_the_command_line(device, tmp_path):
    from pyrovae.cli import main

    run = tmp_path / "run"
    common = ["--device", device.type]
    train = ["train", "--out", str(run), "--epochs", "2", *common]
    train += ["--method.num_particles", "100"]
    assert main(train) in (None, 0)
    assert main(["evaluate", str(run), "--limit", "20", *common]) in (None, 0)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 2
    assert all(np.isfinite(json.loads(line)["valid_bound"]) for line in lines)
