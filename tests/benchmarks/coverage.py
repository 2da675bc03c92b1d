"""How often `Evidence.interval()` holds the true log p(x): a table in Markdown, by one command.

    python tests/benchmarks/coverage.py             # some minutes on one core
    python tests/benchmarks/coverage.py --full      # eight times the replications, and larger cells

Importance weights are drawn from their law, which for a Gaussian posterior and a Gaussian guide is
known and does not depend on x; they pass through the same summary as those of `log_marginal`.
Annealed weights come from `log_marginal` itself on the linear Gaussian oracle. All draws follow
from seed 0, so the table does not depend on the machine beyond rounding.
"""

import argparse
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

import pyrovae as pv
from pyrovae.evidence.intervals import reach
from pyrovae.evidence.methods.base import Estimate
from pyrovae.testing import LinearGaussian
from pyrovae.weights import RunningWeights

PARTICLES = (10, 30, 100, 1_000, 10_000)
DATA = (1, 3, 20, 1_000)
REPLICATIONS = {1: 2_000, 3: 1_000, 20: 400, 1_000: 100}
MOST_WEIGHTS = 5_000_000  # in one row; beyond, there are fewer replications
LEAST_REPLICATIONS = 20
LATENT_DIM = 2


def gaussian(shift: float, stretch: float) -> Callable[..., Tensor]:
    """Log weights of a guide N(shift, stretch^2) against the posterior N(0, 1), in two independent
    dimensions.
    """

    def draw(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        u = torch.randn(LATENT_DIM, *shape, generator=generator, dtype=torch.float64)
        z = shift + stretch * u
        return (0.5 * (u**2 - z**2) + math.log(stretch)).sum(0)

    return draw


def two_modes(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """A posterior of two modes, at -2 and 2, under a guide N(0, 2^2) that reaches both."""
    u = torch.randn(shape, generator=generator, dtype=torch.float64)
    z = 2 * u
    log_p = torch.logaddexp(-((z - 2) ** 2) / 2, -((z + 2) ** 2) / 2) - math.log(2)
    return log_p + u**2 / 2 + math.log(2)


def heavy_posterior(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """A posterior with the tails of Student's t with 5 degrees of freedom under a guide N(0,
    1.5^2).
    """
    u = torch.randn(shape, generator=generator, dtype=torch.float64)
    student = torch.distributions.StudentT(torch.tensor(5.0, dtype=torch.float64))
    return student.log_prob(1.5 * u) + u**2 / 2 + math.log(1.5 * math.sqrt(2 * math.pi))


def heavy_guide(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """A posterior N(0, 1) under a guide that is Student's t with 3 degrees of freedom."""
    normal = torch.randn(4, *shape, generator=generator, dtype=torch.float64)
    z = normal[0] / (normal[1:].square().sum(0) / 3).sqrt()
    student = torch.distributions.StudentT(torch.tensor(3.0, dtype=torch.float64))
    return -(z**2) / 2 - math.log(2 * math.pi) / 2 - student.log_prob(z)


GUIDES = {
    "exact": gaussian(0.0, 1.0),
    "good": gaussian(0.2, 1.1),
    "wide": gaussian(0.0, 2.0),
    "narrow": gaussian(0.0, 0.6),
    "very narrow": gaussian(0.0, 0.3),
    "shifted": gaussian(1.5, 1.0),
    "far shifted": gaussian(2.0, 1.0),
    "bimodal": two_modes,
    "heavy posterior": heavy_posterior,
    "heavy guide": heavy_guide,
}


def importance_columns(guide: str, num_particles: int, num_data: int, seed: int = 0) -> dict:
    """The columns of an Evidence of so many data, whose true log p(x) is 0."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    size = max(1, min(num_data, 10_000_000 // num_particles))
    for start in range(0, num_data, size):
        running = RunningWeights(min(size, num_data - start), num_particles)
        running.update(GUIDES[guide]((num_particles, len(running.top)), generator))
        parts.append(Estimate.of_weights(running))
    return Estimate.join(parts).columns


def annealed_columns(oracle: LinearGaussian, method: pv.AIS, num_data: int, seed: int = 0) -> dict:
    """As :func:`importance_columns`, of AIS on copies of one datum, which have random streams of
    their own.
    """
    x = oracle.sample(1)
    copies = x.repeat(num_data, 1)
    evidence = pv.log_marginal(oracle.model, oracle.guide, copies, method=method, seed=seed)
    columns = evidence.columns
    columns["log_marginal"] = columns["log_marginal"] - oracle.log_prob(x).item()
    return columns


def coverage(
    columns: dict, num_data: int, num_runs: int, prob: float = 0.95
) -> tuple[float, float]:
    """Share of runs of ``num_data`` data each whose interval holds 0, and share that have no upper
    end.
    """
    hits = unknown = 0
    for start in range(0, num_runs * num_data, num_data):
        run = {name: column[start : start + num_data] for name, column in columns.items()}
        mean, found = run["log_marginal"].mean(), reach(run, prob)
        hits += mean - found.chance <= 0 <= mean + found.bias + found.beyond
        unknown += math.isinf(found.beyond)
    return hits / num_runs, unknown / num_runs


def runs_for(num_data: int, num_particles: int, factor: float) -> int:
    """Replications of a cell; 0 if it costs too much."""
    affordable = int(MOST_WEIGHTS * factor) // (num_data * num_particles)
    runs = min(int(REPLICATIONS[num_data] * factor), affordable)
    return runs if runs >= LEAST_REPLICATIONS else 0


def cell(columns: dict, num_data: int, num_runs: int) -> str:
    if not num_runs:
        return "–"
    held, unknown = coverage(columns, num_data, num_runs)
    return f"{held:.3f}" + (f" ({unknown:.0%} unknown)" if unknown >= 0.005 else "")


def importance_rows(factor: float) -> Iterator[str]:
    for guide in GUIDES:
        for num_particles in PARTICLES:
            runs = {num: runs_for(num, num_particles, factor) for num in DATA}
            pool = max(num * count for num, count in runs.items())
            columns = importance_columns(guide, num_particles, pool)
            cells = " | ".join(cell(columns, num, count) for num, count in runs.items())
            yield f"| {guide} | {num_particles:,} | {cells} |"


def annealed_rows(factor: float) -> Iterator[str]:
    oracles = {
        "narrow": LinearGaussian(stretch=0.5),
        "shifted": LinearGaussian(shift=2.0),
        "wide, shifted": LinearGaussian(shift=0.5, stretch=1.4),
        "prior": LinearGaussian(),
    }
    for name, oracle in oracles.items():
        start = "prior" if name == "prior" else "guide"
        for temperatures, chains, num in (
            (10, 16, 1_000),
            (10, 32, 500),
            (30, 16, 500),
            (100, 16, 200),
        ):
            pool = int(num * factor)
            method = pv.AIS(temperatures, chains, start=start, num_leapfrog=5)
            columns = annealed_columns(oracle, method, pool)
            cells = " | ".join(cell(columns, num, pool // num) for num in DATA[:3])
            yield f"| {name} | {temperatures} | {chains} | {cells} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="eight times the replications")
    factor = 8.0 if parser.parse_args().full else 1.0
    heads = " | ".join(f"{num:,} data" if num > 1 else "1 datum" for num in DATA)
    print(f"| guide | K | {heads} |\n|---|---|{'---|' * len(DATA)}")
    for row in importance_rows(factor):
        print(row, flush=True)
    heads = " | ".join(f"{num:,} data" if num > 1 else "1 datum" for num in DATA[:3])
    print(f"\n| AIS from | temperatures | chains | {heads} |\n|---|---|---|{'---|' * 3}")
    for row in annealed_rows(factor):
        print(row, flush=True)


if __name__ == "__main__":
    main()
