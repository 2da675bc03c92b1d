"""Exemplar VAE (Norouzi, Fleet and Norouzi, 2020, arXiv:2004.04795), table 2, dynamic MNIST.

The VAE of ``vampprior.py`` with three priors: a standard normal, a Vamp prior of 500
pseudo-inputs, and a mixture around all 50,000 training images with ten nearest neighbours in
training. The protocol is that of ``vampprior.py``.

    python examples/papers/exemplar.py --prior exemplar --seed 0 --tested 1000

Exemplars are the grey images, which the encoder sees as they are; the paper's are drawn black and
white. All 50,000 count in the evidence, so that of one datum takes seconds: ``--tested 1000`` draws
that many test data. ``--quick`` trains for 20 epochs on 5,000 images, to show that it runs.
"""

import argparse

import vampprior
from vampprior import main


def parser() -> argparse.ArgumentParser:
    parser = vampprior.parser(__doc__, priors=("exemplar", "vamp", "normal"))
    parser.set_defaults(data="dynamic", script=__file__, annealed=0)
    return parser


if __name__ == "__main__":
    arguments = parser().parse_args()
    if arguments.quick and arguments.limit is None:
        arguments.limit = 5_000
    main(arguments)
