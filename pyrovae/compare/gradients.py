"""Replicates of one estimator's bound and gradient at fixed weights, and what their moments say."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyro.infer
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyrovae.objective import objective
from pyrovae.particles import check_right_most, draw
from pyrovae.programs import Program

__all__ = ["Replicates", "parameter_groups", "replicate", "squared_norm"]

MOST_BLOCKS = 10


class _Decodings(Messenger):
    """Count how many (particle, datum) pairs the observed sites were evaluated at."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["is_observed"]:
            frames = (frame.size for frame in msg["cond_indep_stack"] if frame.vectorized)
            self.count = max(self.count, math.prod(frames))


@dataclass
class Replicates:
    """What many runs of one estimator gave.

    Attributes:
        bound: ``(R,)``, mean over data of each run's bound, in nats per datum.
        blocks: For each parameter, means of the gradient over successive blocks of runs,
            ``(blocks, *shape)``.
        variance: For each parameter, the variance of its gradient over runs.
        seconds: Median time of one run.
        decodings: Pairs of particle and datum that the likelihood was evaluated at in one run.
    """

    bound: Tensor
    blocks: list[Tensor]
    variance: list[Tensor]
    seconds: float
    decodings: int

    @property
    def means(self) -> list[Tensor]:
        """The mean gradient, ascending, for each parameter."""
        return [block.mean(0) for block in self.blocks]


def replicate(
    estimator: pyro.infer.ELBO,
    model: Program,
    guide: Program,
    data: tuple[Tensor, ...],
    parameters: Sequence[Tensor],
    *,
    runs: int,
    seed: int,
) -> Replicates:
    """Run an estimator many times; gradients are of the mean bound over data, ascending.

    Args:
        estimator: One of ours, or a stock Pyro ELBO.
        model, guide, data, parameters: What it is run on.
        runs: Number of runs R, at least four.
        seed: Of the draws.
    """
    num_blocks = min(MOST_BLOCKS, runs // 2)
    blocks = [
        torch.zeros(num_blocks, *p.shape, dtype=torch.float64, device=p.device) for p in parameters
    ]
    mean = [torch.zeros_like(block[0]) for block in blocks]
    spread = [torch.zeros_like(block[0]) for block in blocks]
    sizes = [0] * num_blocks
    bounds, seconds = [], []
    decoding = _Decodings()
    torch.manual_seed(seed)
    evaluate = objective(model, guide, estimator, parameters)
    counting = objective(decoding(model), guide, estimator, parameters)
    for run in range(runs):
        start = _now(parameters)
        _, loss, gradients = (evaluate if run else counting)(None, *data)
        seconds.append(_now(parameters) - start)
        bounds.append(-loss)
        block = run * num_blocks // runs
        sizes[block] += 1
        for i, gradient in enumerate(gradients):
            if gradient is None:
                continue
            value = -gradient.double()
            blocks[i][block] += value
            step = value - mean[i]
            mean[i] += step / (run + 1)
            spread[i] += step * (value - mean[i])
    for block in blocks:
        block /= torch.tensor(sizes, dtype=block.dtype, device=block.device).reshape(
            -1, *[1] * (block.dim() - 1)
        )
    return Replicates(
        bound=torch.stack(bounds).double().cpu(),
        blocks=blocks,
        variance=[s / (runs - 1) for s in spread],
        seconds=float(torch.tensor(seconds).median()),
        decodings=decoding.count,
    )


def _now(parameters: Sequence[Tensor]) -> float:
    if parameters and parameters[0].device.type == "cuda":
        torch.cuda.synchronize(parameters[0].device)
    return time.perf_counter()


def squared_norm(blocks: Sequence[Tensor]) -> tuple[float, float]:
    r"""Unbiased :math:`\lVert E[g] \rVert^2` from independent block means of g, and its jackknife
    error.

    The mean over pairs of different blocks has no variance of one gradient in it.
    """
    num = blocks[0].shape[0]
    gram = torch.stack(
        [torch.einsum("ai,bi->ab", b.reshape(num, -1), b.reshape(num, -1)).cpu() for b in blocks]
    ).sum(0)
    gram = gram - torch.diag(gram.diagonal())
    whole = gram.sum() / (num * (num - 1))
    if num < 3:
        return whole.item(), math.inf
    without = (gram.sum() - 2 * gram.sum(0)) / ((num - 1) * (num - 2))
    error = ((num - 1) / num * (without - without.mean()).square().sum()).sqrt()
    return whole.item(), error.item()


def parameter_groups(
    model: Program,
    guide: Program,
    data: tuple[Tensor, ...],
    parameters: Sequence[Tensor],
    max_plate_nesting: int,
) -> dict[str, list[int]]:
    """Places of the parameters behind the model, the guide, and each site of either.

    A parameter belongs to a site if the site's density at fixed draws depends on it. Those that the
    guide uses are the guide's, also where a prior shares them.
    """
    with torch.random.fork_rng(), torch.enable_grad():
        particles = draw(
            model,
            guide,
            1,
            data,
            max_plate_nesting=max_plate_nesting,
            draws="detached",
            plate=False,
        )
        check_right_most(particles, data)

        def reached(score: Tensor) -> set[int]:
            if not score.requires_grad:
                return set()
            found = torch.autograd.grad(
                score.sum(), list(parameters), retain_graph=True, allow_unused=True
            )
            return {i for i, g in enumerate(found) if g is not None}

        sites = particles.latents.values()
        layers = {f"guide:{site.name}": reached(site.log_q) for site in sites}
        layers |= {f"model:{site.name}": reached(site.log_p) for site in sites}
        layers["model:likelihood"] = reached(particles.log_likelihood)
    guides = set().union(*(v for k, v in layers.items() if k.startswith("guide:")))
    models = set().union(*(v for k, v in layers.items() if k.startswith("model:"))) - guides
    whole = {"model": models, "guide": guides}
    parts = {k: v for k, v in layers.items() if v and v != whole[k.split(":")[0]]}
    return {k: sorted(v) for k, v in (whole | parts).items() if v}
