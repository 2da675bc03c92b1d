"""A training loop written by hand: an estimator is a loss like any other.

    python examples/plain_loop.py
    python examples/plain_loop.py --quick

The loop takes whatever a loop in torch may hold: other optimisers, mixed precision, several models.
The networks run in bfloat16 here. Plain autocast would round the draws and the densities too, and
their errors add up over the pixels of a datum; ``Bfloat16Networks`` leaves those alone.
"""

import argparse

import torch
from torch.utils.data import DataLoader

import pyrovae as pv
from pyrovae import estimators, nets
from pyrovae.nets.precision import Bfloat16Networks


def train(vae, data, epochs):
    loss = estimators.IWAE(num_particles=5)(vae.model, vae.guide)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=2e-3)
    loader = DataLoader(data, batch_size=64, shuffle=True)  # type: ignore[arg-type]
    for epoch in range(epochs):
        total = 0.0
        for x in loader:
            optimizer.zero_grad()
            with Bfloat16Networks():
                value = loss(x)  # the negative bound, summed over the batch
            (value / len(x)).backward()
            optimizer.step()
            total += value.item()
        print(f"epoch {epoch + 1}: bound {-total / len(data):.2f} nats per datum")


def main(quick):
    torch.manual_seed(0)
    digits = pv.data.load("digits").binarize("threshold")
    vae = pv.VAE(digits.data_shape, 8, encoder=nets.MLP(64), decoder=nets.MLP(64))
    train(vae, digits.train, epochs=2 if quick else 100)
    evidence = vae.log_marginal(digits.test, num_particles=20 if quick else 1_000)
    print(f"held-out log p(x): {evidence.mean():.2f} nats")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds, to see that it runs")
    main(parser.parse_args().quick)
