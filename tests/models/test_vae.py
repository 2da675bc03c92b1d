"""The VAE: a declaration that becomes two Pyro programs."""

import copy
import pickle

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from torch import nn
from torch.testing import assert_close

from pyrovae import likelihoods, nets, posteriors, priors
from pyrovae.estimators import ELBO, IWAE
from pyrovae.handlers import KLScale
from pyrovae.models.vae import VAE
from pyrovae.testing import LinearGaussian


def make(**kwargs):
    torch.manual_seed(0)
    small = {"encoder": nets.MLP(16), "decoder": nets.MLP(16)}
    return VAE((4, 3), 2, **{**small, **kwargs})


@pytest.fixture
def x():
    return torch.bernoulli(torch.full((5, 4, 3), 0.4), generator=torch.Generator().manual_seed(2))


def parameters(vae):
    return torch.cat([p.detach().flatten() for p in vae.parameters()])


@pytest.mark.parametrize(
    "elbo", [Trace_ELBO(), TraceMeanField_ELBO()], ids=lambda e: type(e).__name__
)
def test_stock_svi_trains_every_parameter(elbo, x):
    vae = make()
    before = [p.detach().clone() for p in vae.parameters()]
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), elbo)
    losses = [svi.step(x) for _ in range(300)]
    assert all(not torch.equal(a, b) for a, b in zip(before, vae.parameters(), strict=True))
    # 12 fair bits cost 8.3 nats a datum; five images are learnt by heart.
    assert sum(losses[-20:]) / 20 < 0.8 * losses[0]


def test_two_vaes_never_share_parameters_whatever_the_store_holds(x):
    first = make()
    SVI(first.model, first.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO()).step(x)
    kept = parameters(first).clone()
    for second in (make(), copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
        start = parameters(second).clone()
        svi = SVI(second.model, second.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
        for _ in range(3):
            svi.step(x)
        assert torch.equal(parameters(first), kept)
        assert not torch.equal(parameters(second), start)


def test_a_stale_entry_in_the_store_gives_way(x):
    vae = make()
    name = f"vae{vae._serial}.posterior.encoder.net.1.weight"
    pyro.param(name, torch.zeros(16, 12))
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    svi.step(x)
    assert (
        pyro.get_param_store().get_param(name)
        is dict(vae.named_parameters())["posterior.encoder.net.1.weight"]
    )


def test_parameters_that_are_not_contiguous_are_trained_too(x):
    net = nn.Sequential(nn.Linear(2, 12))
    net[0].weight = nn.Parameter(torch.randn(2, 12).T)
    vae = make(decoder=net)
    before = net[0].weight.detach().clone()
    SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO()).step(x)
    assert (net[0].weight != before).all()
    assert torch.equal(parameters(pickle.loads(pickle.dumps(vae))), parameters(vae))


def test_parts_are_declarations_and_networks_are_kept(x):
    likelihood, net = likelihoods.Gaussian("learned"), nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    one, two = make(likelihood=likelihood, encoder=net), make(likelihood=likelihood)
    assert one.likelihood is not two.likelihood
    assert not {id(p) for p in one.likelihood.parameters()} & {
        id(p) for p in two.likelihood.parameters()
    }
    assert not list(likelihood.parameters())  # sized in the copies alone
    assert one.posterior.encoder.net is net


def test_model_scores_are_the_formula(x):
    vae = make().double()
    x = x.double()
    trace = pyro.poutine.trace(vae.guide).get_trace(x)
    z = trace.nodes["z"]["value"]
    joint = pyro.poutine.trace(pyro.poutine.replay(vae.model, trace=trace)).get_trace(x)
    joint.compute_log_prob()
    logits = vae.likelihood.decoder.net(z).reshape(5, 4, 3)
    log_x = -nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none").sum((1, 2))
    log_z = -0.5 * (z.square() + torch.tensor(2 * torch.pi).log()).sum(-1)
    assert_close(joint.nodes["x"]["log_prob"], log_x)
    assert_close(joint.nodes["z"]["log_prob"], log_z.double(), rtol=1e-6, atol=1e-6)


def test_parts_can_be_called_alone(x):
    vae = make()
    assert vae.prior().event_shape == (2,)
    assert vae.posterior(x).batch_shape == (5,)
    p_x = vae.likelihood(torch.zeros(7, 5, 2))
    assert (tuple(p_x.batch_shape), tuple(p_x.event_shape)) == ((7, 5), (4, 3))


def test_sample_reconstruct_encode_decode_interpolate(x):
    vae = make()
    drawn = vae.sample(6)
    assert drawn.shape == (6, 4, 3)
    assert set(drawn.unique().tolist()) <= {0.0, 1.0}
    means = vae.sample(6, mean=True)
    assert ((means > 0) & (means < 1)).all()
    assert vae.reconstruct(x).shape == x.shape
    path = vae.interpolate(x[:1], x[1:2], steps=5)
    assert_close(path[0], vae.decode(vae.encode(x[:1]).mean))
    assert_close(path[-1], vae.decode(vae.encode(x[1:2]).mean))
    assert_close(path[2], vae.decode(vae.encode(x[:2]).mean.mean(0, keepdim=True)))
    assert not path.requires_grad


def test_sample_follows_the_prior_that_was_given():
    class Far(priors.Prior):
        def forward(self):
            return pyro.distributions.Normal(torch.full((self.latent_dim,), 5.0), 0.01).to_event(1)

    vae = make(prior=Far(), likelihood=likelihoods.Gaussian(0.01))
    assert_close(vae.sample(50).mean(0), vae.decode(torch.full((2,), 5.0)), atol=0.02, rtol=0)


def test_repr_reads_like_the_declaration():
    vae = make(
        likelihood=likelihoods.Gaussian("decoder", min_scale=0.01),
        encoder=nets.MLP(8, 4, activation="tanh"),
    )
    text = repr(vae)
    assert "likelihood=Gaussian(scale='decoder', min_scale=0.01)" in text
    assert "encoder=MLP(8, 4, activation='tanh')" in text
    names = {**vars(nets), **vars(priors), **vars(posteriors), **vars(likelihoods), "VAE": VAE}
    assert repr(eval(text, names)) == text


def test_initialize_from_gives_the_data_mean(x):
    vae = make(decoder=nets.MLP())
    with torch.no_grad():
        vae.likelihood.decoder.net[-1].weight.zero_()
    vae.initialize_from(x)
    assert_close(vae.decode(torch.zeros(2)), x.mean(0).clamp(1e-3, 1 - 1e-3))


def test_delta_posterior_with_beta_zero_is_the_plain_autoencoder(x):
    """Under a Gaussian likelihood of scale 1 the loss is half the squared error plus a constant."""
    vae = make(likelihood=likelihoods.Gaussian(1.0), posterior=posteriors.Delta())
    loss = ELBO().differentiable_loss(KLScale(0.0)(vae.model), KLScale(0.0)(vae.guide), x)
    codes = vae.posterior.encoder.net(x)
    outputs = vae.likelihood.decoder.net(codes).reshape(x.shape)
    plain = 0.5 * (outputs - x).square().sum() + 0.5 * x.numel() * torch.log(
        torch.tensor(2 * torch.pi)
    )
    assert_close(loss, plain)
    leaves = list(vae.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(loss, leaves), torch.autograd.grad(plain, leaves), strict=True
    ):
        assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("kwargs", "kind", "message"),
    [
        ({"data_shape": ()}, ValueError, "positive integers"),
        ({"data_shape": (4, 0)}, ValueError, "positive integers"),
        ({"latent_dim": 0}, ValueError, "latent_dim"),
        ({"prior": likelihoods.Bernoulli()}, TypeError, "prior must be"),
        ({"prior": "Vamp"}, TypeError, r"an object, such as Vamp\(\)"),
        ({"likelihood": likelihoods.Bernoulli}, TypeError, "Give an instance"),
        ({"encoder": "mlp"}, TypeError, "net recipe"),
        ({"decoder": nn.Linear(2, 5)}, ValueError, r"expected \(2, 12\)"),
        ({"encoder": nn.Linear(3, 3)}, ValueError, "Change its last layer"),
        ({"encoder": nn.Linear(7, 3)}, ValueError, "failed on a zero input"),
    ],
)
def test_bad_declarations(kwargs, kind, message):
    with pytest.raises(kind, match=message):
        VAE(**{"data_shape": (4, 3), "latent_dim": 2, **kwargs})


@pytest.mark.parametrize(
    ("bad", "kind", "message"),
    [
        (torch.zeros(5, 12), ValueError, r"shape \(B, 4, 3\), found \(5, 12\)"),
        (torch.zeros(5, 4, 3, dtype=torch.long), TypeError, "floating point"),
        (torch.full((5, 4, 3), 0.5), ValueError, "ContinuousBernoulli"),
        ([[0.0]], TypeError, "takes tensors"),
    ],
)
def test_bad_data(bad, kind, message):
    with pytest.raises(kind, match=message):
        make().model(bad)


def test_bad_calls(x):
    vae = make()
    with pytest.raises(ValueError, match="num_samples"):
        vae.sample(0)
    with pytest.raises(ValueError, match="latent_dim=2"):
        vae.decode(torch.zeros(3))
    with pytest.raises(ValueError, match="steps"):
        vae.interpolate(x, x, steps=1)


def test_networks_in_float64_make_the_model_one_of_float64():
    """The scale, too: 0.7 of float32 would be another number."""
    oracle = LinearGaussian()

    class Encoder(nn.Linear):
        def forward(self, x):  # means, and logarithms of the variances
            return torch.cat([super().forward(x), 2 * oracle.log_scale.expand(len(x), 2)], -1)

    encoder, decoder = Encoder(5, 2), nn.Linear(2, 5)
    encoder.weight, encoder.bias = oracle.gain, oracle.offset
    decoder.weight, decoder.bias = oracle.weight, oracle.bias
    vae = VAE(
        5, 2, likelihood=likelihoods.Gaussian(0.7), encoder=encoder, decoder=decoder,
        posterior=posteriors.DiagonalNormal("exp"),
    )  # fmt: skip
    assert vae.sample(3).dtype == torch.float64
    x = oracle.sample(4)
    bound = IWAE(3).bound(vae.model, vae.guide, x)  # tight, as the guide is exact
    assert_close(bound, oracle.log_prob(x), rtol=1e-12, atol=0)
