"""The whole job in ten lines: declare a VAE, train it on real digits, and estimate its held-out
log-likelihood.
"""

import sys

import torch

import pyrovae as pv
from pyrovae import estimators, likelihoods, priors

smoke = "--smoke" in sys.argv

torch.manual_seed(0)
digits = pv.data.load("digits").binarize("threshold")
vae = pv.VAE(
    digits.data_shape,
    latent_dim=8,
    prior=priors.StandardNormal(),
    likelihood=likelihoods.Bernoulli(),
)
history = pv.fit(
    vae.model,
    vae.guide,
    digits.train,
    valid=digits.valid,
    estimator=estimators.IWAE(num_particles=5),
    epochs=2 if smoke else 100,
    patience=10,
)
evidence = pv.log_marginal(vae.model, vae.guide, digits.test, num_particles=100 if smoke else 1000)
print(history)
print(evidence)
