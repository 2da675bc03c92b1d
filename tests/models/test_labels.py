"""Partly missing labels: the bounds of Kingma et al. (2014) by enumeration written out."""

import math

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import TraceEnum_ELBO
from torch import nn
from torch.testing import assert_close

import pyrovae as pv
from pyrovae import nets, posteriors

F64 = torch.float64
SMALL = {"encoder": nets.MLP(4), "decoder": nets.MLP(5, activation="tanh")}
Y = torch.tensor([0, 1, 2, -1, -1, -1, 0, -1])
ENUM = TraceEnum_ELBO(max_plate_nesting=1)


def make(weight=0.0, **options):
    pyro.set_rng_seed(0)
    vae = pv.ConditionalVAE(
        6, 2, 3, joint=nets.MLP(4), features=4, classifier=nets.MLP(4),
        classification_weight=weight, **SMALL, **options,
    ).double()  # fmt: skip
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return vae


def data():
    return (torch.rand(8, 6, generator=torch.Generator().manual_seed(0)) < 0.5).double()


def by_hand(vae, x, y, seed):
    """Equations 6 and 7, summed over the data, at the draws of z that a seed gives each label."""
    every = torch.eye(3, dtype=F64)[:, None]  # (C, 1, C)
    torch.manual_seed(seed)
    q = vae.posterior(x, every)
    z = q.rsample()  # (C, B, D)
    p_x = vae.likelihood(torch.cat([z, every.expand(3, 8, 3)], -1))
    low = p_x.log_prob(x) + vae._prior_given(every).log_prob(z) - q.log_prob(z) - math.log(3)
    probs = vae.classify(x).T  # (C, B)
    unlabelled = (probs * (low - probs.log())).sum(0)
    labelled = low.gather(0, y.clamp(min=0)[None])[0]
    return torch.where(y < 0, unlabelled, labelled)


@pytest.mark.parametrize("prior", [None, posteriors.DiagonalNormal()])
def test_the_bound_is_the_sum_over_labels_written_out(prior):
    vae, x = make(prior=prior).eval(), data()
    torch.manual_seed(5)
    found = ENUM.loss(vae.joint_model, vae.joint_guide, x, Y)
    assert found == pytest.approx(-by_hand(vae, x, Y, 5).sum().item(), rel=1e-10)
    torch.manual_seed(5)  # no label known at all
    found = ENUM.loss(vae.joint_model, vae.joint_guide, x, torch.full_like(Y, -1))
    exact = by_hand(vae, x, torch.full_like(Y, -1), 5)
    assert found == pytest.approx(-exact.sum().item(), rel=1e-10)


def test_known_labels_train_the_classifier_by_their_weight():
    """Equation 9, in training; the bound in evaluation has no such term."""
    vae, x = make(weight=7.0), data()
    torch.manual_seed(5)
    found = ENUM.differentiable_loss(vae.joint_model, vae.joint_guide, x, Y)
    known = Y >= 0
    log_q = vae._log_classes(x)[known].gather(1, Y[known, None]).sum()
    bound = by_hand(vae, x, Y, 5).sum()
    assert_close(found, -bound - 7 * log_q)
    gradient = torch.autograd.grad(found, vae.classifier.net[-1].weight)[0]
    expected = torch.autograd.grad(
        -(vae._log_classes(x)[known].gather(1, Y[known, None])).sum() * 7,
        vae.classifier.net[-1].weight,
    )[0]
    assert (gradient - expected).abs().max() > 1e-6  # unknown labels teach it, too
    vae.eval()
    torch.manual_seed(5)
    evaluated = ENUM.loss(vae.joint_model, vae.joint_guide, x, Y)
    assert evaluated == pytest.approx(-bound.item(), rel=1e-10)


def test_evidence_sums_unknown_labels():
    """log p(x, y) where y is known, and elsewhere log p(x), from the evidence of x given each y."""
    vae, x = make().eval(), data()
    with torch.no_grad():  # a proposal wider than the prior keeps the weights bounded
        last = [m for m in vae.posterior.posterior.modules() if isinstance(m, nn.Linear)][-1]
        last.weight.zero_()
        last.bias.copy_(torch.tensor([0.0, 0.0, 1.0, 1.0]))
    evidence = pv.log_marginal(vae.joint_model, vae.joint_guide, (x, Y), num_particles=5_000)
    each = [
        pv.log_marginal(vae.model, vae.guide, (x, torch.full_like(Y, k)), num_particles=20_000)
        for k in range(3)
    ]
    joint = np.stack([e.log_marginal.values - math.log(3) for e in each])
    unknown = np.logaddexp.reduce(joint)
    exact = np.where(Y < 0, unknown, joint[Y.clamp(min=0), np.arange(8)])
    error = np.hypot(
        evidence.standard_error.values, max(float(e.standard_error.max()) for e in each)
    )
    assert error.max() < 0.05
    assert (abs(evidence.log_marginal.values - exact) < 5 * error).all()


def test_training_with_few_labels():
    """Two clear classes, of which ten data each are labelled."""
    torch.manual_seed(0)
    y = torch.arange(200) % 2
    x = (torch.rand(200, 12) < torch.where(y[:, None] == 0, 0.15, 0.85)).float()
    some = torch.where(torch.arange(200) < 20, y, -1)
    vae = pv.ConditionalVAE(
        12, 2, 2, joint=nets.MLP(8), features=8, classifier=nets.MLP(), classification_weight=20.0,
        encoder=nets.MLP(8), decoder=nets.MLP(8),
    )  # fmt: skip
    history = pv.fit(vae.joint_model, vae.joint_guide, (x, some), estimator=ENUM, epochs=40,
                     lr=2e-2, batch_size=50)  # fmt: skip
    assert history["train_bound"][-1] > history["train_bound"][0]
    assert (vae.classify(x).argmax(1) == y).float().mean() > 0.95


def test_clusters_with_known_labels():
    pyro.set_rng_seed(0)
    vae = pv.ClusteringVAE(6, 2, 3, **SMALL).double().eval()
    x = data()
    torch.manual_seed(3)
    found = ENUM.loss(vae.joint_model, vae.joint_guide, x, Y)
    torch.manual_seed(3)
    q = vae.encode(x)
    z = q.rsample()
    log_x = vae.likelihood(z).log_prob(x) - q.log_prob(z)
    parts = vae.prior().component_log_prob(z)  # log p(z, c)
    exact = log_x + torch.where(Y < 0, parts.logsumexp(-1), parts.gather(
        1, Y.clamp(min=0)[:, None])[:, 0])  # fmt: skip
    assert found == pytest.approx(-exact.sum().item(), rel=1e-10)
    torch.manual_seed(3)
    without = ENUM.loss(vae.joint_model, vae.joint_guide, x)
    torch.manual_seed(3)
    unknown = torch.full_like(Y, -1)
    assert ENUM.loss(vae.joint_model, vae.joint_guide, x, unknown) == pytest.approx(without)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (torch.zeros(8, dtype=F64), TypeError, "integers, -1 where unknown, found torch.float64"),
        (torch.zeros(7, dtype=torch.long), ValueError, r"shape \(8,\)"),
        (torch.full((8,), 3), ValueError, r"0 \.\.\. 2, or be -1"),
        (torch.full((8,), -2), ValueError, "found -2"),
    ],
)
def test_wrong_labels_are_refused(y, error, message):
    vae = make()
    with pytest.raises(error, match=message):
        ENUM.loss(vae.joint_model, vae.joint_guide, data(), y)


def test_unknown_labels_take_a_classifier():
    vae = pv.ConditionalVAE(6, 2, 3, joint=nets.MLP(4), features=4, **SMALL).double()
    with pytest.raises(ValueError, match=r"no classifier.*classifier=nets\.MLP"):
        ENUM.loss(vae.joint_model, vae.joint_guide, data(), Y)
    with pytest.raises(ValueError, match=r"Labels must lie in 0 \.\.\. 2, found -1"):
        pv.fit(make().model, make().guide, (data(), Y), epochs=1)
    with pytest.raises(ValueError, match="classification_weight must be"):
        make(weight=-1.0)
