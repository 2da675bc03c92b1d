"""Digits of which half the pixels are missing: train on what is there, and fill in the rest.

Three VAEs with the same networks are trained: on whole digits; on digits with gaps, counting the
observed pixels alone (``pv.observe_part``); and on digits with zeros in the gaps, as if they were
data. Each is then judged by log p(x) of whole held-out digits, and by the share of missing pixels
that it fills in rightly in held-out digits with gaps.

    python examples/missing_pixels.py
    python examples/missing_pixels.py --quick
"""

import argparse

import torch

import pyrovae as pv
from pyrovae import nets


def with_gaps(x, seed):
    """Pixels, zero where missing, and a mask that is true where a pixel is there."""
    mask = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    return torch.where(mask, x, torch.zeros(())), mask


def compare(epochs=200, num_particles=500, seed=0):
    """``{name: (evidence of whole digits, share of right pixels)}``."""
    digits = pv.data.load("digits").binarize("threshold")
    train, valid, test = (
        with_gaps(part, k) for k, part in enumerate((digits.train, digits.valid, digits.test))
    )
    found = {}
    for name in ("whole digits", "observed pixels", "zeros in the gaps"):
        torch.manual_seed(seed)
        vae = pv.VAE(digits.data_shape, 8, encoder=nets.MLP(100), decoder=nets.MLP(100))
        programs, data = (vae.model, vae.guide), (digits.train, digits.valid)
        if name == "observed pixels":
            programs, data = pv.observe_part(*programs), (train, valid)
        elif name == "zeros in the gaps":
            data = train[0], valid[0]
        pv.fit(*programs, data[0], valid=data[1], epochs=epochs, lr=2e-3, patience=20, seed=seed)
        evidence = vae.log_marginal(digits.test, num_particles=num_particles)
        draws = pv.impute(
            vae.model, vae.guide, *test, num_draws=50, num_particles=num_particles
        ).draws
        missing = ~test[1]
        guess = draws.mean(0)[missing] > 0.5
        found[name] = evidence, float((guess == (digits.test[missing] == 1)).double().mean())
    return found


def main(quick):
    found = compare(1, 20) if quick else compare()
    print(f"{'trained on':<20}{'log p(x), nats a digit':>24}{'missing pixels right':>23}")
    for name, (evidence, right) in found.items():
        shown = f"{evidence.mean():.2f} ± {evidence.test_set_error():.2f}"
        print(f"{name:<20}{shown:>24}{right:>23.1%}")
    print("\n± is the standard error over held-out digits. One training seed.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds, to see that it runs")
    main(parser.parse_args().quick)
