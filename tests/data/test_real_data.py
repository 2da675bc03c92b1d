"""A short training on real data buys many nats, by the importance-weighted
held-out log-likelihood.
"""

import pytest
import torch

import pyrovae as pv
from pyrovae import nets


def factorised(train, test):
    """Mean log-likelihood of independent pixels with the training frequencies
    (add-one smoothing).
    """
    p = (train.sum(0) + 1) / (len(train) + 2)
    return torch.distributions.Bernoulli(p).log_prob(test).flatten(1).sum(1).mean().item()


def held_out(vae, test):
    return pv.log_marginal(vae.model, vae.guide, test, num_particles=100, seed=0)


def train_and_compare(data, *, margin, **kwargs):
    torch.manual_seed(0)
    vae = pv.VAE(data.data_shape, 8, encoder=nets.MLP(128), decoder=nets.MLP(128))
    untrained = held_out(vae, data.test).mean()
    pv.fit(vae.model, vae.guide, data.train, valid=data.valid, transform=data.transform, **kwargs)
    evidence = held_out(vae, data.test)
    baseline = factorised(data.train, data.test)
    # With 100 particles the estimate is a lower bound in expectation, so the margins are
    # conservative.
    assert evidence.interval()[0] > baseline + margin
    assert baseline > untrained
    return evidence


def test_digits():
    data = pv.data.load("digits").binarize("threshold")
    # Measured: independent pixels -24.5, this model about -17.5 nats a datum.
    train_and_compare(data, margin=4.0, epochs=40)


def test_fashion_mnist(debian_fashion_mnist):
    data = (
        pv.data.load("fashion-mnist", root=debian_fashion_mnist).binarize("threshold").take(2_000)
    )
    # 784 pixels: independent ones cost about 400 nats.
    train_and_compare(data, margin=100.0, epochs=20)


def test_static_mnist(real_path):
    data = pv.data.load(real_path("mnist_static_binarized.npz")).take(3_000)
    train_and_compare(data, margin=50.0, epochs=15)


def test_the_test_set_is_binarised_once():
    grey = pv.data.load("digits")
    first, second = grey.binarize("dynamic", seed=0), grey.binarize("dynamic", seed=0)
    assert torch.equal(first.test, second.test)
    assert torch.equal(first.valid, second.valid)
    assert torch.equal(first.train, grey.train)
    assert not torch.equal(first.transform(grey.train), first.transform(grey.train))


@pytest.mark.parametrize("how", ["threshold", "dynamic"])
def test_splits_do_not_overlap(how):
    data = pv.data.load("digits").binarize(how)
    assert sum(map(len, (data.train, data.valid, data.test))) == 1797
