"""On the quantitative analysis of decoder-based models (Wu et al., 2017, arXiv:1611.04273):
annealed importance sampling beside importance sampling, with rising effort.

    python examples/papers/ais.py --data static --seed 0

The decoder is that of ``vampprior.py`` with the same options: its run is taken up where it stands,
and trained to the end first. AIS takes 16 chains, 10 leapfrog steps and an acceptance of 0.65, from
the prior and from the guide. The gap is that between the bounds of bidirectional Monte Carlo on
simulated data. ``--quick`` trains for 20 epochs, and takes 10 data and little effort.
"""

import argparse
from typing import Any

import vampprior
from protocol import evaluate, record, sandwiched

import pyrovae as pv


def main(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    splits, folder = vampprior.prepared(arguments)
    vae, history = vampprior.fitted(arguments, splits, folder)
    efforts = (10, 50) if arguments.quick else (100, 1_000)
    methods: dict[tuple[str, int], Any] = {}
    for effort in efforts:
        methods["importance sampling, K", 100 * effort] = pv.ImportanceSampling(100 * effort)
        for start in ("prior", "guide"):
            key = (f"AIS from the {start}, temperatures", effort)
            methods[key] = pv.AIS(effort, 16, start=start, num_leapfrog=10, target_acceptance=0.65)
    test = splits.take(arguments.tested or (10 if arguments.quick else 100)).test
    lines = []
    for (name, effort), method in methods.items():
        figures = sandwiched(vae, folder, method, len(test))
        figures |= evaluate(vae, test, folder, method)
        lines.append(record(arguments, history, method=name, effort=effort, **figures))
    return lines


def parser() -> argparse.ArgumentParser:
    parser = vampprior.parser(__doc__)
    parser.set_defaults(script=__file__, annealed=0)
    return parser


if __name__ == "__main__":
    main(parser().parse_args())
