"""Latent-side densities against mpmath, at the largest and smallest parameters that float32
carries.

The truth is evaluated at the very float32 numbers that the code is given, so the error that is left
is that of the formula. It may reach some roundings of the terms that the density is a sum of, and
no more.
"""

import mpmath as mp
import pytest
import torch
from helpers.exact import EPS, LARGEST, SMALLEST, assert_rounded, exact
from torch.distributions import kl_divergence

from pyrovae import priors
from pyrovae.distributions.mixture import ComponentMixture, DiagonalNormalMixture
from pyrovae.distributions.onehot import OneHotProduct, RelaxedOneHotProduct


@pytest.fixture(autouse=True)
def digits():
    torch.manual_seed(0)
    with mp.workdps(60):
        yield


# Heavy tails.


@pytest.mark.parametrize("df", [SMALLEST, 0.1, 1.0, 5.0, 1e3, 1e4, 1e6, 1e12, 1e30, LARGEST])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_student_t_prior_is_its_formula(df, scale):
    p = priors.StudentT(df, scale).bind(latent_dim=1, data_shape=(1,))()
    for t in (0.0, 1e-4, 0.7, 3.0, 40.0, 1e6):
        z = torch.tensor([t * scale], requires_grad=True)
        s, v = mp.mpf(torch.tensor(scale).item()), mp.mpf(torch.tensor(df).item())
        ratio = exact(z.detach())[0] / s
        peak = mp.loggamma((v + 1) / 2) - mp.loggamma(v / 2) - mp.log(v * mp.pi) / 2
        tail = -(v + 1) / 2 * mp.log1p(ratio**2 / v)
        log_p = p.log_prob(z)
        assert_rounded(log_p, peak - mp.log(s) + tail, [peak, mp.log(s), tail])
        (slope,) = torch.autograd.grad(log_p, z)
        truth = -(v + 1) * ratio / (v + ratio**2) / s
        if abs(truth) < LARGEST:
            assert_rounded(slope[0], truth, [truth])


@pytest.mark.parametrize("scale", [1e-37, 1e-6, 1.0, 1e6, 1e38])
def test_laplace_prior_is_its_formula(scale):
    p = priors.Laplace(scale).bind(latent_dim=1, data_shape=(1,))()
    for t in (0.0, 1e-4, 0.7, 2.0):
        z = torch.tensor([t * scale], requires_grad=True)
        s = mp.mpf(torch.tensor(scale).item())
        ratio = exact(z.detach())[0] / s
        log_p = p.log_prob(z)
        assert_rounded(log_p, -ratio - mp.log(2 * s), [ratio, mp.log(2 * s)])
        if t:
            assert_rounded(torch.autograd.grad(log_p, z)[0][0], -1 / s, [1 / s])


# Mixtures.


def mixture_truth(z, locs, scales, logits):
    """log p(z), its gradient in z, and the largest of the terms that it is summed of."""
    scores, slopes = [], []
    total = mp.log(mp.fsum(mp.exp(x) for x in logits))
    for loc, scale, logit in zip(locs, scales, logits, strict=True):
        ratios = [(x - m) / s for x, m, s in zip(z, loc, scale, strict=True)]
        terms = [
            -(r**2) / 2 - mp.log(s) - mp.log(2 * mp.pi) / 2
            for r, s in zip(ratios, scale, strict=True)
        ]
        scores.append(mp.fsum(terms) + logit - total)
        slopes.append([-r / s for r, s in zip(ratios, scale, strict=True)])
    top = max(scores)
    weights = [mp.exp(score - top) for score in scores]
    value = top + mp.log(mp.fsum(weights))
    gradient = [
        mp.fsum(w * slope[d] for w, slope in zip(weights, slopes, strict=True)) / mp.fsum(weights)
        for d in range(len(z))
    ]
    return value, gradient, max(abs(score) for score in scores if score > top - 50)


@pytest.mark.parametrize("batched", [False, True], ids=["shared", "per datum"])
@pytest.mark.parametrize(
    ("spread", "scale"),
    [(1.0, 1.0), (1e3, 1.0), (1e3, 1e-3), (1.0, 1e-6), (1e-30, 1e-30), (1e15, 1e15), (1e6, 1.0)],
)
def test_mixture_is_its_formula(spread, scale, batched):
    """Up to means a million scales apart: the matrix product in float64 then errs by 1e-16 times
    1e12.
    """
    locs = spread * torch.randn(3, 2)
    scales, logits = scale * torch.rand(3, 2).add(0.5), torch.tensor([0.3, -2.0, 40.0])
    shape = (1,) if batched else ()
    p = DiagonalNormalMixture(
        locs.expand(*shape, 3, 2), scales.expand(*shape, 3, 2), logits.expand(*shape, 3)
    )
    assert (p.locs.dim() == 2) is not batched
    lost = 1e-16 * (4 * spread / scale) ** 2
    for c in range(3):
        for step in (0.0, 0.3, 2.0):
            z = (locs[c] + step * scales[c]).expand(*shape, 2).clone().requires_grad_()
            row = exact(z.detach().reshape(2))
            value, gradient, largest = mixture_truth(row, exact(locs), exact(scales), exact(logits))
            log_p = p.log_prob(z).reshape(())
            assert_rounded(log_p, value, [largest, 4, lost / EPS])
            found = torch.autograd.grad(log_p, z)[0].reshape(2)
            for d in range(2):
                # A float32 gradient in units of 1 / scale; where two components meet, it weighs
                # both.
                slack = [gradient[d], largest / scale, lost / EPS / scale]
                assert_rounded(found[d], gradient[d], slack, roundings=64)


def test_mixture_variance_does_not_cancel():
    """About 10^4 with scales of 1e-2: the difference of second moments has no correct digit in
    float32.
    """
    locs = 1e4 + torch.tensor([[0.0], [0.5]])
    p = DiagonalNormalMixture(locs, torch.full((2, 1), 1e-2), torch.zeros(2))
    assert p.variance.item() == pytest.approx(0.0625 + 1e-4, rel=1e-5)


def test_equal_mixture_of_the_same_component_is_that_component():
    one = OneHotProduct(torch.randn(2, 3))
    same = ComponentMixture(one.expand((4,)))
    z = one.sample()
    assert same.log_prob(z).item() == pytest.approx(one.log_prob(z).item(), abs=1e-5)


# One-hot codes, exact and relaxed.


@pytest.mark.parametrize("size", [1e-30, 1.0, 80.0, 1e4, 1e20, 1e38])
def test_one_hot_is_its_formula(size):
    """Log probabilities, entropy and KL with logits as large as float32 carries."""
    raw = size * torch.tensor([[0.9, -0.3, 0.4], [-1.0, 1.0, 0.0]])
    p, q = OneHotProduct(raw), OneHotProduct(torch.zeros(2, 3))
    logs = [
        [x - max(row) - mp.log(mp.fsum(mp.exp(y - max(row)) for y in row)) for x in row]
        for row in exact(raw)
    ]
    for codes in ((0, 1), (1, 0), (2, 2)):
        z = torch.nn.functional.one_hot(torch.tensor(codes), 3).float().flatten()
        chosen = [logs[l][c] for l, c in enumerate(codes)]
        assert_rounded(p.log_prob(z), mp.fsum(chosen), [*chosen, 1])
    entropy = -mp.fsum(mp.exp(x) * x for row in logs for x in row)
    assert_rounded(p.entropy(), entropy, [1, entropy])
    assert_rounded(kl_divergence(p, q), 2 * mp.log(3) - entropy, [4])
    assert p.sample((100,)).reshape(100, 2, 3).sum(-1).eq(1).all()


@pytest.mark.parametrize("temperature", [1e-3, 0.1, 0.5, 1.0, 10.0, 1e3, 1e6, 1e30])
@pytest.mark.parametrize("spread", [0.0, 1.0, 50.0])
def test_relaxed_one_hot_is_its_formula(temperature, spread):
    """At points inside, near the corners and at the smallest coordinates that float32 carries."""
    raw = spread * torch.tensor([[0.9, -0.3, 0.4]])
    p, t = RelaxedOneHotProduct(raw, temperature), mp.mpf(temperature)
    logits = exact(raw)[0]
    if spread and temperature * EPS > 1:
        return  # float32 forgets the logits beside temperature * log z
    for point in (
        [0.2, 0.5, 0.3],
        [1e-6, 1e-3, 0.998999],
        [2e-38, 1e-20, 1.0],
        [1 / 3, 1 / 3, 1 / 3],
    ):
        z = torch.tensor(point, requires_grad=True)
        logs = [mp.log(x) for x in exact(z.detach())]
        score = [a - t * b for a, b in zip(logits, logs, strict=True)]
        top = max(score)
        norm = top + mp.log(mp.fsum(mp.exp(s - top) for s in score))
        value = (
            mp.fsum(s - norm - b for s, b in zip(score, logs, strict=True))
            + mp.log(2)
            + 2 * mp.log(t)
        )
        # The score's terms are rounded before they are compared with one another.
        terms = [*logits, *(t * b for b in logs), *logs, 2 * mp.log(t), 1]
        log_p = p.log_prob(z)
        assert_rounded(log_p, value, terms)
        (slope,) = torch.autograd.grad(log_p, z)
        for c in range(3):
            x = exact(z.detach())[c]
            share = mp.exp(score[c] - norm)
            truth = (-1 - t + 3 * t * share) / x
            size = [1 / x, t / x, 3 * t * share * sum(abs(term) for term in terms) / x]
            if sum(size) < LARGEST:
                assert_rounded(slope[c], truth, size)


# Numbers that a part holds stay in float64 where the model does.


@pytest.mark.parametrize(
    ("part", "truth"),
    [
        (priors.Laplace(0.3), lambda z: -abs(z) / mp.mpf(0.3) - mp.log(2 * mp.mpf(0.3))),
        (
            priors.StudentT(4.1, 0.3),
            lambda z: (
                mp.loggamma(mp.mpf(5.1) / 2)
                - mp.loggamma(mp.mpf(4.1) / 2)
                - mp.log(mp.mpf(4.1) * mp.pi) / 2
                - mp.log(mp.mpf(0.3))
                - mp.mpf(5.1) / 2 * mp.log1p((z / mp.mpf(0.3)) ** 2 / mp.mpf(4.1))
            ),
        ),
    ],
)
def test_scales_of_a_float64_model_are_float64(part, truth):
    """A scale that went through float32 would be off by 1e-8."""
    p = part.bind(latent_dim=1, data_shape=(1,)).double()()
    for z in (0.1, 1.7, 30.0):
        found = p.log_prob(torch.tensor([z], dtype=torch.float64))
        assert found.dtype == torch.float64
        assert_rounded(found, truth(mp.mpf(z)), [truth(mp.mpf(z)), 1], eps=2.0**-52)


def test_the_temperature_of_a_float64_model_is_float64():
    part = (
        priors.RelaxedCategorical(2, temperature=0.3).bind(latent_dim=2, data_shape=(1,)).double()
    )
    z, t = torch.tensor([0.2, 0.8], dtype=torch.float64), mp.mpf(0.3)
    logs = [mp.log(x) for x in exact(z)]
    norm = mp.log(mp.fsum(mp.exp(-t * b) for b in logs))
    truth = mp.fsum(-t * b - norm - b for b in logs) + mp.log(t)
    assert_rounded(part().log_prob(z), truth, [truth, 1], eps=2.0**-52)
