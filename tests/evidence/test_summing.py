"""Discrete latent sites summed out: against exact evidence, and against densities written down by
hand.
"""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae import likelihoods, posteriors, priors
from pyrovae.evidence import AIS, ImportanceSampling, bdmc, convergence
from pyrovae.evidence.inspection import inspect
from pyrovae.evidence.plan import plan
from pyrovae.models import ClusteringVAE
from pyrovae.testing import DiscreteMixture


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Clusters:
    """c, a scalar z given c, and x given both: p(x) is a mixture of Gaussians.

    The guide draws c and then z given c ("given"), z and then c given z ("after"), or z alone
    ("without"). With ``broadcast=False`` the decoder joins z and the code of c, for which both must
    have one batch shape.
    """

    def __init__(self, order: str = "given", num: int = 3, *, broadcast: bool = True):
        self.order, self.num, self.broadcast = order, num, broadcast
        self.log_shares = normal(num, seed=1).log_softmax(-1)
        self.locs, self.scale, self.noise = 2 * normal(num, seed=2), 0.6, 0.8
        self.weight, self.offsets = normal(2, seed=3), normal(num, 2, seed=4)
        self.guide_logits, self.gain = normal(2, num, seed=5), 0.5 * normal(num, 2, seed=6)

    def model(self, x):
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(logits=self.log_shares))
            z = pyro.sample("z", dist.Normal(self.locs[c], self.scale))
            pyro.sample("x", dist.Normal(self.decode(z, c), self.noise).to_event(1), obs=x)

    def decode(self, z, c):
        if self.broadcast:
            return z.unsqueeze(-1) * self.weight + self.offsets[c]
        both = torch.cat([z.unsqueeze(-1), torch.nn.functional.one_hot(c, self.num).to(z)], -1)
        return both @ torch.cat([self.weight[None], self.offsets])

    def guide(self, x):
        with pyro.plate("data", len(x)):
            if self.order == "given":
                c = pyro.sample("c", dist.Categorical(logits=x @ self.guide_logits))
                pyro.sample("z", dist.Normal((x * self.gain[c]).sum(-1), 1.3))
            else:
                z = pyro.sample("z", dist.Normal(0.6 * x[:, 0], 1.5))
                if self.order == "after":
                    pyro.sample(
                        "c", dist.Categorical(logits=z.unsqueeze(-1) * self.guide_logits[0])
                    )

    def log_joint(self, x, z):
        """``(K, B)``: log p(x, z), by a loop over c."""
        terms = [
            self.log_shares[c]
            + dist.Normal(self.locs[c], self.scale).log_prob(z)
            + dist.Normal(z.unsqueeze(-1) * self.weight + self.offsets[c], self.noise)
            .log_prob(x)
            .sum(-1)
            for c in range(self.num)
        ]
        return torch.logsumexp(torch.stack(terms), 0)

    def log_guide(self, x, z):
        """``(K, B)``: log q(z | x), by a loop over c."""
        if self.order != "given":
            return dist.Normal(0.6 * x[:, 0], 1.5).log_prob(z)
        logits = (x @ self.guide_logits).log_softmax(-1)
        terms = [
            logits[:, c] + dist.Normal(x @ self.gain[c], 1.3).log_prob(z) for c in range(self.num)
        ]
        return torch.logsumexp(torch.stack(terms), 0)

    def log_prob(self, x):
        """``(B,)``: log p(x), exact."""
        covariance = self.noise**2 * torch.eye(2).double() + self.scale**2 * self.weight.outer(
            self.weight
        )
        means = self.locs[:, None] * self.weight + self.offsets
        each = dist.MultivariateNormal(means, covariance).log_prob(x[:, None])
        return torch.logsumexp(each + self.log_shares, -1).numpy()

    def sample(self, num_data: int, seed: int = 0):
        c = torch.multinomial(
            self.log_shares.exp(), num_data, True, generator=torch.Generator().manual_seed(seed)
        )
        z = self.locs[c] + self.scale * normal(num_data, seed=seed + 10)
        return (
            z[:, None] * self.weight
            + self.offsets[c]
            + self.noise * normal(num_data, 2, seed=seed + 20)
        )


def planned(owner, x, enumerate="auto", **options):
    """The inspection and the plan of a single particle."""
    inspection = inspect(owner.model, owner.guide, x, **options)
    with inspection.evaluating():
        return inspection, plan(inspection, 1, enumerate=enumerate)


# --- exact, where nothing else is latent
# --------------------------------------------------------------------------


def test_a_single_discrete_site_is_summed():
    oracle = DiscreteMixture()
    x = oracle.sample(9)
    evidence = pv.log_marginal(oracle.model, oracle.guide, x, num_particles=5)
    np.testing.assert_allclose(evidence.log_marginal, oracle.log_prob(x).detach(), rtol=1e-12)
    assert evidence.notes == {"summed": {"c": 4}, "exact": True}
    assert "exact, but for rounding" in repr(evidence)
    assert "c over its 4 values" in repr(evidence)
    assert float(evidence.standard_error.max()) < 1e-14
    assert (evidence.pareto_k == -math.inf).all()
    low, high = evidence.interval()
    assert high - low < 1e-13
    drawn = pv.log_marginal(
        oracle.model, oracle.guide, x, method=ImportanceSampling(2000, enumerate=False), seed=1
    )
    assert "summed" not in repr(drawn)
    assert drawn.notes == {}
    scores = (drawn.log_marginal - evidence.log_marginal) / drawn.standard_error
    assert float(abs(scores).max()) < 4
    for budget in (1, 2000):
        cut = pv.log_marginal(oracle.model, oracle.guide, x, memory_budget=budget)
        np.testing.assert_allclose(cut.log_marginal, evidence.log_marginal, rtol=1e-12)


def test_a_vae_with_a_categorical_prior():
    torch.manual_seed(0)
    vae = pv.VAE(
        (5,),
        6,
        prior=priors.Categorical(3, learned=True),
        posterior=posteriors.Categorical(3),
        encoder=pv.nets.MLP(8),
        decoder=pv.nets.MLP(8),
    ).double()
    torch.nn.init.normal_(vae.prior.logits)
    x = torch.bernoulli(torch.full((9, 5), 0.5, dtype=torch.float64))
    evidence = pv.log_marginal(vae.model, vae.guide, x)
    with torch.no_grad():
        truth = torch.zeros(9, 0, dtype=torch.float64)
        for one in torch.eye(3).double():
            for other in torch.eye(3).double():
                z = torch.cat([one, other])
                term = vae.prior().log_prob(z) + vae.likelihood(z.expand(9, 6)).log_prob(x)
                truth = torch.cat([truth, term[:, None]], 1)
    np.testing.assert_allclose(evidence.log_marginal, truth.logsumexp(1), rtol=1e-12)
    assert evidence.notes["summed"] == {"z": 9}


class Chain:
    """Two discrete sites, the second given the first; the guide has them in the other order."""

    first = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    second = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.5, 0.5]], dtype=torch.float64)
    logits = 2 * normal(3, 2, 4, seed=0)

    def model(self, x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Categorical(self.first))
            b = pyro.sample("b", dist.Categorical(self.second[a]))
            pyro.sample("x", dist.Bernoulli(logits=self.logits[a, b]).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            b = pyro.sample("b", dist.Categorical(torch.tensor([0.3, 0.7]).double()))
            pyro.sample("a", dist.Categorical(logits=b.unsqueeze(-1) * normal(3, seed=2)))


def test_two_discrete_sites():
    owner, x = Chain(), torch.bernoulli(torch.full((6, 4), 0.5, dtype=torch.float64))
    evidence = pv.log_marginal(owner.model, owner.guide, x)
    log_joint = (owner.first[:, None] * owner.second).log()[..., None] + dist.Bernoulli(
        logits=owner.logits[:, :, None]
    ).log_prob(x).sum(-1)
    np.testing.assert_allclose(evidence.log_marginal, log_joint.logsumexp((0, 1)), rtol=1e-12)
    assert evidence.notes == {"summed": {"b": 2, "a": 3}, "exact": True}


class Switches:
    """In an inner plate, or as a vector, three switches that each move an element of x; z moves all
    of them.
    """

    size = normal(3, seed=7)

    def __init__(self, inner: bool, with_z: bool):
        self.inner, self.with_z = inner, with_z

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = (
                pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
                if self.with_z
                else x.new_zeros(())
            )
            if not self.inner:
                on = pyro.sample(
                    "on", dist.Bernoulli(torch.full((3,), 0.3, dtype=torch.float64)).to_event(1)
                )
                loc = on * self.size + z.unsqueeze(-1)
                pyro.sample("x", dist.Normal(loc, 0.5).to_event(1), obs=x)
                return
            with pyro.plate("elements", 3, dim=-2):
                on = pyro.sample("on", dist.Bernoulli(torch.full((3, 1), 0.3, dtype=torch.float64)))
                pyro.sample("x", dist.Normal(on * self.size[:, None] + z, 0.5), obs=x.T)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            if self.with_z:
                pyro.sample("z", dist.Normal(0.3 * x.sum(-1), 0.7))
            if not self.inner:
                pyro.sample("on", dist.Bernoulli(torch.sigmoid(x)).to_event(1))
                return
            with pyro.plate("elements", 3, dim=-2):
                pyro.sample("on", dist.Bernoulli(torch.sigmoid(x.T)))

    def log_prob(self, x):
        covariance = 0.25 * torch.eye(3).double() + float(self.with_z)
        terms = []
        for code in range(8):
            on = torch.tensor([code >> i & 1 for i in range(3)]).double()
            share = (on * math.log(0.3) + (1 - on) * math.log(0.7)).sum()
            terms.append(share + dist.MultivariateNormal(on * self.size, covariance).log_prob(x))
        return torch.logsumexp(torch.stack(terms), 0).numpy()


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("with_z", [False, True])
def test_several_elements_in_one_site(inner, with_z):
    owner, x = Switches(inner, with_z), normal(7, 3, seed=8)
    options = {"max_plate_nesting": 2 if inner else 1}
    evidence = pv.log_marginal(owner.model, owner.guide, x, num_particles=3000, **options)
    assert evidence.notes["summed"] == {"on": 8}
    if with_z:
        scores = (evidence.log_marginal - owner.log_prob(x)) / evidence.standard_error
        assert float(abs(scores).max()) < 4
        assert planned(owner, x, **options)[1].summed.wide
    else:
        np.testing.assert_allclose(evidence.log_marginal, owner.log_prob(x), rtol=1e-12)


# --- with other sites beside
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("broadcast", [True, False])
@pytest.mark.parametrize("order", ["given", "after", "without"])
def test_weights_are_ratios_of_marginal_densities(order, broadcast):
    owner = Clusters(order, broadcast=broadcast)
    x = owner.sample(6)
    inspection, work = planned(owner, x)
    assert work.summed.wide == broadcast
    assert work.notes == {"summed": {"c": 3}}
    with inspection.evaluating():
        sampler = inspection.sampler(work.summed).select(slice(0, 6))
        prior = {name: site.value for name, site in sampler.draw_prior(50).latents.items()}
        for drawn in (sampler.draw(50), sampler.score(prior)):
            z = drawn.latents["z"].value
            torch.testing.assert_close(drawn.log_p, owner.log_joint(x, z), rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(drawn.log_q, owner.log_guide(x, z), rtol=1e-12, atol=1e-12)
    evidence = pv.log_marginal(owner.model, owner.guide, x, num_particles=4000)
    scores = (evidence.log_marginal - owner.log_prob(x)) / evidence.standard_error
    assert float(abs(scores).max()) < 4


class Folding(Clusters):
    """Right for particles; as many values as particles, in a dimension of their own, would be mixed
    up in silence.
    """

    def decode(self, z, c):
        offsets = self.offsets[c]
        return z.unsqueeze(-1) * self.weight + offsets.reshape(-1, *offsets.shape[-2:])


def test_programs_that_broadcast_wrongly_are_found_out():
    owner = Folding()
    x = owner.sample(6)
    inspection, work = planned(owner, x)
    assert not work.summed.wide
    with inspection.evaluating():
        drawn = inspection.sampler(work.summed).select(slice(0, 6)).draw(3)
    z = drawn.latents["z"].value
    torch.testing.assert_close(drawn.log_p, owner.log_joint(x, z), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("order", ["given", "after"])
def test_unbiased_and_of_less_variance_than_draws(order):
    owner, copies = Clusters(order), 4000
    x = owner.sample(1, seed=3).repeat(copies, 1)
    spreads = []
    for enumerate in (True, False):
        method = ImportanceSampling(2, enumerate=enumerate)
        evidence = pv.log_marginal(owner.model, owner.guide, x, method=method)
        ratio = np.exp(evidence.log_marginal.values - owner.log_prob(x))
        assert abs(ratio.mean() - 1) < 4 * ratio.std() / math.sqrt(copies)
        spreads.append(ratio.std())
    assert spreads[0] < 0.9 * spreads[1]


def test_values_may_be_summed_some_at_a_time():
    for broadcast in (True, False):
        owner = Clusters(num=20, broadcast=broadcast)
        x = owner.sample(5)
        whole = pv.log_marginal(owner.model, owner.guide, x, num_particles=200)
        cut = pv.log_marginal(owner.model, owner.guide, x, num_particles=200, memory_budget=200_000)
        np.testing.assert_allclose(cut.log_marginal, whole.log_marginal, rtol=1e-10)
        assert planned(owner, x, memory_budget=200_000)[1].summed.chunk < 20


def test_order_and_company_of_the_data_change_nothing():
    owner = Clusters("after")
    x = owner.sample(8)
    whole = pv.log_marginal(owner.model, owner.guide, x, num_particles=300)
    mixed = pv.log_marginal(
        owner.model, owner.guide, x.flip(0), num_particles=300, memory_budget=100_000
    )
    np.testing.assert_allclose(mixed.log_marginal[::-1], whole.log_marginal, rtol=1e-10)


def test_a_clustering_vae_has_one_evidence_however_it_is_written():
    torch.manual_seed(0)
    vae = ClusteringVAE((5,), 2, 4, encoder=pv.nets.MLP(8), decoder=pv.nets.MLP(8)).double()
    x = torch.bernoulli(torch.full((6, 5), 0.5, dtype=torch.float64))
    plain = pv.log_marginal(vae.model, vae.guide, x, num_particles=300)
    for guide in (vae.joint_guide, vae.guide):  # with a site c, and without
        joint = pv.log_marginal(vae.joint_model, guide, x, num_particles=300)
        assert joint.notes == {"summed": {"c": 4}}
        np.testing.assert_allclose(joint.log_marginal, plain.log_marginal, rtol=1e-10)
        np.testing.assert_allclose(joint.pareto_k, plain.pareto_k, atol=1e-6)
    both = bdmc(vae.joint_model, vae.guide, num_data=4, data=x, method=ImportanceSampling(50))
    assert len(both) == 4


def test_clusters_of_the_model_alone_are_summed_however_many():
    torch.manual_seed(0)
    vae = ClusteringVAE((5,), 2, 40, encoder=pv.nets.MLP(8), decoder=pv.nets.MLP(8)).double()
    x = torch.bernoulli(torch.full((6, 5), 0.5, dtype=torch.float64))
    plain = pv.log_marginal(vae.model, vae.guide, x, num_particles=50)
    joint = pv.log_marginal(vae.joint_model, vae.guide, x, num_particles=50)
    np.testing.assert_allclose(joint.log_marginal, plain.log_marginal, rtol=1e-10)
    with pytest.raises(ValueError, match="in the model but not in the guide"):
        pv.log_marginal(
            vae.joint_model, vae.guide, x, method=ImportanceSampling(5, enumerate=False)
        )


# --- the other methods
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broadcast", [True, False])
@pytest.mark.parametrize(
    ("start", "order"), [("prior", "given"), ("guide", "given"), ("guide", "without")]
)
def test_annealing_moves_what_is_left(start, order, broadcast):
    owner = Clusters(order, broadcast=broadcast)
    x = owner.sample(200)
    evidence = pv.log_marginal(
        owner.model, owner.guide, x, method=AIS(8, 4, start=start, num_leapfrog=3)
    )
    ratio = np.exp(evidence.log_marginal.values - owner.log_prob(x))
    # The mean of 200 ratios, in units of its own standard error.
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / math.sqrt(200)
    assert evidence.notes == {"summed": {"c": 3}}
    assert float(evidence.acceptance.mean()) == pytest.approx(0.65, abs=0.15)


@pytest.mark.parametrize(
    "method", [AIS(10, 4, num_leapfrog=3), ImportanceSampling(40)], ids=["ais", "is"]
)
def test_sandwich_holds_the_truth(method):
    owner = Clusters()
    sandwich = bdmc(owner.model, owner.guide, num_data=150, data=owner.sample(150), method=method)
    truth = owner.log_prob(sandwich.data[0])
    for side in (truth - sandwich.lower.values, sandwich.upper.values - truth):
        assert side.mean() > -4 * side.std() / math.sqrt(150)
    assert abs(sandwich.gap).mean() < 0.5
    assert sandwich.above.notes == sandwich.below.notes == {"summed": {"c": 3}}


@pytest.mark.parametrize("settings", [{"refine_steps": 60}, {"prior_share": 0.3}], ids=str)
def test_better_proposals_for_what_is_left(settings):
    owner = Clusters()
    x = owner.sample(40)
    evidence = pv.log_marginal(
        owner.model, owner.guide, x, method=ImportanceSampling(400, **settings)
    )
    scores = (evidence.log_marginal - owner.log_prob(x)) / evidence.standard_error
    assert float(abs(scores).max()) < 4.5
    assert evidence.notes == {"summed": {"c": 3}}


def test_convergence_shows_the_drawn_weights():
    """Its first row is the ELBO of the guide as it is."""
    oracle = DiscreteMixture()
    x = oracle.sample(40)
    found = convergence(oracle.model, oracle.guide, x, num_particles=(1, 1000))
    with torch.no_grad():
        share = oracle.log_guide(x).exp()
        elbo = (share * (oracle.log_joint(x) - oracle.log_guide(x))).sum(0).mean()
    assert float(found.dataset["mean"][0]) == pytest.approx(float(elbo), abs=0.05)  # 40,000 draws


# --- drawn, and said so
# -------------------------------------------------------------------------------------------


def test_many_values_are_drawn_unless_asked_for():
    owner = Clusters(num=40)
    x = owner.sample(5)
    drawn = pv.log_marginal(owner.model, owner.guide, x, num_particles=50)
    assert list(drawn.notes) == ["drawn"]
    assert "40 joint values" in drawn.notes["drawn"]["c"]
    assert "drawn      c: there are 40 joint values" in repr(drawn)
    summed = pv.log_marginal(
        owner.model, owner.guide, x, method=ImportanceSampling(3000, enumerate=True)
    )
    assert summed.notes == {"summed": {"c": 40}}
    scores = (summed.log_marginal - owner.log_prob(x)) / summed.standard_error
    assert float(abs(scores).max()) < 4
    assert summed.settings == {"num_particles": 3000, "enumerate": True}
    with pytest.raises(ValueError, match="site 'c' is Categorical"):
        pv.log_marginal(owner.model, owner.guide, x, method=AIS(5))
    pv.log_marginal(owner.model, owner.guide, x, method=AIS(5, enumerate=True))


def poisson_pair():
    def model(x):
        with pyro.plate("data", len(x)):
            n = pyro.sample("n", dist.Poisson(2.0))
            pyro.sample("x", dist.Normal(n, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("n", dist.Poisson(2.5 + 0 * x))

    return model, guide, torch.tensor([0.3, 2.1, 4.0])


def auxiliary_pair():
    owner = Clusters()

    def guide(x):
        with pyro.plate("data", len(x)):
            u = pyro.sample("u", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
            c = pyro.sample("c", dist.Categorical(logits=x @ owner.guide_logits + u.unsqueeze(-1)))
            pyro.sample("z", dist.Normal((x * owner.gain[c]).sum(-1), 1.3))

    return owner.model, guide, owner.sample(3)


def masked_pair():
    owner, x = Clusters("after"), Clusters().sample(3)

    def masked(program):
        def run(x):
            with pyro.poutine.mask(mask=x[:, 0] > 0):
                return program(x)

        return run

    return masked(owner.model), masked(owner.guide), x


def unlike_pair():
    """The guide knows a value that the model does not."""
    owner = Clusters()

    def guide(x):
        with pyro.plate("data", len(x)):
            logits = torch.cat(
                [x @ owner.guide_logits, torch.full((len(x), 1), -50.0).double()], -1
            )
            c = pyro.sample("c", dist.Categorical(logits=logits))
            pyro.sample("z", dist.Normal((x * owner.gain[c.clamp(max=2)]).sum(-1), 1.3))

    return owner.model, guide, owner.sample(3)


def counted_pair():
    """Values 0 to n, with another n for each datum."""

    def model(n, x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Binomial(n, 0.4))
            pyro.sample("x", dist.Normal(k, 1.0), obs=x)

    def guide(n, x):
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Binomial(n, 0.5))

    return model, guide, (torch.tensor([1.0, 4.0, 6.0]), torch.tensor([0.3, 2.1, 4.0]))


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (poisson_pair, "not finitely many"),
        (auxiliary_pair, "auxiliary"),
        (masked_pair, "masked"),
        (unlike_pair, "other values"),
        (counted_pair, "same for all data"),
    ],
)
@pytest.mark.parametrize("memory_budget", [None, 1])  # in one piece, and datum by datum
def test_what_cannot_be_summed_is_drawn(pair, reason, memory_budget):
    model, guide, data = pair()
    options = {"memory_budget": memory_budget}
    evidence = pv.log_marginal(model, guide, data, num_particles=50, **options)
    (why,) = evidence.notes["drawn"].values()
    assert reason in why
    assert "summed" not in evidence.notes
    plain = pv.log_marginal(
        model, guide, data, method=ImportanceSampling(50, enumerate=False), **options
    )
    np.testing.assert_allclose(evidence.log_marginal, plain.log_marginal, rtol=1e-12)
    with pytest.raises(ValueError, match="cannot be summed out"):
        pv.log_marginal(
            model, guide, data, method=ImportanceSampling(50, enumerate=True), **options
        )


def test_a_large_product_of_codes_is_not_even_listed():
    vae = pv.VAE((5,), 60, prior=priors.Categorical(2), posterior=posteriors.Categorical(2))
    evidence = pv.log_marginal(vae.model, vae.guide, torch.zeros(2, 5), num_particles=30)
    assert "1073741824 values" in evidence.notes["drawn"]["z"]


def test_continuous_programs_have_nothing_to_say():
    vae = pv.VAE((5,), 2, likelihood=likelihoods.Gaussian())
    evidence = pv.log_marginal(vae.model, vae.guide, torch.zeros(2, 5), num_particles=3)
    assert evidence.notes == {}


def test_notes_are_saved(tmp_path):
    oracle = DiscreteMixture()
    evidence = pv.log_marginal(oracle.model, oracle.guide, oracle.sample(3))
    evidence.save(tmp_path / "evidence.nc")
    loaded = pv.Evidence.load(tmp_path / "evidence.nc")
    assert loaded.notes == evidence.notes
    assert repr(loaded) == repr(evidence)


@pytest.mark.parametrize("method", [ImportanceSampling, AIS])
def test_refuses_another_word(method):
    with pytest.raises(ValueError, match="enumerate must be"):
        method(enumerate="yes")
