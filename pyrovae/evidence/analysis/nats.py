"""Where the nats go: the ELBO taken apart, and what lies between it and log p(x)."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from pyrovae.evidence.methods.base import Method, check_count
from pyrovae.evidence.problem import Encoded, Problem, prepare
from pyrovae.particles import guide_log_prob
from pyrovae.programs import Program

if TYPE_CHECKING:
    import xarray

__all__ = ["Nats", "rate_distortion", "where_the_nats_go"]

ACTIVE = 0.01


class Nats:
    r"""The parts of the ELBO and of its distance to log p(x), in nats.

    ``dataset`` holds over ``datum``: ``elbo``, ``reconstruction`` and ``kl`` (with elbo = reconstruction - kl),
    ``mutual_information`` and ``marginal_kl`` (with kl = their sum, up to the Monte Carlo error that both share), and
    where a method was given ``log_marginal``, ``inference_gap`` (log p(x) - elbo), and with refinement
    ``amortization_gap`` and ``approximation_gap``, which add up to it. Over ``unit``: ``activity``, the variance over
    data of the mean of each latent element under the guide.
    """

    def __init__(self, dataset: "xarray.Dataset"):
        self.dataset = dataset

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "dataset":
            raise AttributeError(name)
        if name in self.dataset:
            return self.dataset[name]
        raise AttributeError(f"There is no '{name}' here; there are {list(self.dataset)}.")

    def mean(self, name: str) -> float:
        """Mean of a part over data."""
        return float(self.dataset[name].mean())

    def error(self, name: str) -> float:
        """Standard error of that mean over data."""
        values = self.dataset[name].values
        if values.size == 1 or np.isinf(values).any():
            return math.inf
        return float(values.std(ddof=1)) / math.sqrt(values.size)

    @property
    def active_units(self) -> int:
        """Latent elements whose activity is above 0.01 (Burda et al., 2016, section 5.2)."""
        return int((self.dataset["activity"] > ACTIVE).sum())

    def __repr__(self) -> str:
        names = [name for name in self.dataset if "datum" in self.dataset[name].dims]
        width = max(len(str(name)) for name in names)
        lines = [f"Where the nats go, means over {self.dataset.sizes['datum']} data"]
        lines += [
            f"  {name:<{width}}  {self.mean(str(name)):>10.4f} ± {self.error(str(name)):.2g}"
            for name in names
        ]
        units = self.dataset.sizes["unit"]
        return "\n".join([*lines, f"  {self.active_units} of {units} latent elements active"])


def where_the_nats_go(
    model: Program,
    guide: Program,
    data: Any,
    *,
    num_particles: int = 64,
    method: Method | None = None,
    seed: int = 0,
    memory_budget: int | None = None,
    device: Any = None,
    max_plate_nesting: int = 1,
    progress: bool = False,
) -> Nats:
    r"""Take the ELBO apart, and with a method also its distance to log p(x).

    .. math:: \mathrm{ELBO} = \mathbb E_q \log p(x \mid z) - \mathrm{KL}, \qquad
              \overline{\mathrm{KL}} = I_q(n; z) + \mathrm{KL}\Big(\frac1N \sum_n q(z \mid x_n) \,\Big\|\, p(z)\Big)

    with :math:`I_q` the information that z, all latent sites together, carries on which datum it came from, at most
    log N; it is exact for these N data as an empirical distribution. It takes the density of each draw under the guide
    of every datum, so the work grows with the square of N; N of a few thousand are enough. A guide with auxiliary sites
    has no density of z: mutual information is ``nan`` there.

    Args:
        model, guide, data, seed, memory_budget, device, max_plate_nesting, progress: As
            :func:`~pyrovae.evidence.log_marginal`.
        num_particles: Draws from the guide for each datum.
        method: How to estimate log p(x). ``ImportanceSampling(5000, refine_steps=200)`` also splits the inference gap
            into amortisation (what a Gaussian fitted to each datum gains) and approximation (the rest).

    Raises:
        ValueError: As log_marginal.

    References:
        ELBO Surgery: Yet Another Way to Carve Up the Variational Evidence Lower Bound (Hoffman and Johnson, 2016),
        equations 6 to 8; Inference Suboptimality in Variational Autoencoders (Cremer et al., 2018), equations 3 to 5.
    """
    import xarray

    check_count("num_particles", num_particles)
    problem = prepare(
        model,
        guide,
        data,
        seed=seed,
        memory_budget=memory_budget,
        device=device,
        max_plate_nesting=max_plate_nesting,
        progress=progress,
    )
    with problem.session():
        problem.inspect()
        columns, activity = _elbo(problem, num_particles)
        columns["mutual_information"] = _mutual_information(problem)
        columns["marginal_kl"] = columns["kl"] - columns["mutual_information"]
        if method is not None:
            found = method.evaluate(problem).columns
            columns["log_marginal"] = found["log_marginal"]
            columns["inference_gap"] = found["log_marginal"] - columns["elbo"]
            if "refinement_gain" in found:
                columns["amortization_gap"] = found["refinement_gain"]
                columns["approximation_gap"] = columns["inference_gap"] - found["refinement_gain"]
    return Nats(
        xarray.Dataset(
            {
                **{name: ("datum", column) for name, column in columns.items()},
                "activity": ("unit", activity),
            },
            attrs={"data": problem.fingerprint, "num_particles": num_particles, "seed": seed},
        )
    )


def _elbo(problem: Problem, num_particles: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    size, _ = problem.pieces(num_particles)
    parts: list[tuple[Tensor, Tensor]] = []
    centres: list[Tensor] = []
    for first in range(0, problem.num_data, size):
        particles = problem.encode(np.arange(first, min(first + size, problem.num_data))).draw(
            num_particles
        )
        kl = (particles.log_q - particles.log_prior).double().mean(0)
        parts.append((particles.log_likelihood.double().mean(0), kl))
        axis = problem.max_plate_nesting
        means = [
            site.value.double().mean(0).movedim(axis - 1, 0) for site in particles.latents.values()
        ]
        centres.append(torch.cat([mean.reshape(len(mean), -1) for mean in means], 1))
    reconstruction, kl = (torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True))
    activity = torch.cat(centres).var(0, correction=0).cpu().numpy()
    return {"elbo": reconstruction - kl, "reconstruction": reconstruction, "kl": kl}, activity


def _mutual_information(problem: Problem) -> np.ndarray:
    """``(B,)``: log q(z_n | x_n) - log mean_m q(z_n | x_m) for one draw z_n of each datum, averaged over 4 draws.

    z_n is all latent sites together: their densities given datum m are those of a guide of m replayed at n's draw.
    """
    num_draws, axis, num_data = 4, problem.max_plate_nesting, problem.num_data
    size, _ = problem.pieces(num_draws)
    parts = [
        problem.encode(np.arange(first, min(first + size, num_data))).draw(num_draws)
        for first in range(0, num_data, size)
    ]
    if parts[0].auxiliary:  # the guide's density of z alone is not known
        return np.full(num_data, math.nan)
    own = torch.cat([part.log_q for part in parts], 1).double()
    # (S, B, ..., *event) of each site
    values = {
        name: torch.cat([part.latents[name].value.movedim(axis, 1) for part in parts], 1)
        for name in parts[0].latents
    }
    encoded = problem.encode(np.arange(num_data))
    width = 8 * 4 * sum(math.prod(value.shape[2:]) for value in values.values())
    each = width if encoded.trace is not None else max(width, problem.bytes_per_particle)
    rows = max(1, problem.memory_budget // (each * num_data))
    total = torch.zeros(num_data, dtype=torch.float64, device=own.device)
    for s in range(num_draws):
        mixed = []
        for first in range(0, num_data, rows):
            asked = {
                name: value[s, first : first + rows].unsqueeze(axis)
                for name, value in values.items()
            }
            mixed.append(_under_all(problem, encoded, asked).logsumexp(1))
        total += own[s] - torch.cat(mixed) + math.log(num_data)
    return (total / num_draws).cpu().numpy()


def _under_all(problem: Problem, encoded: Encoded, values: dict[str, Tensor]) -> Tensor:
    """``(R, B)``: log q of R draws ``(R, ..., 1, *event)`` given each datum."""
    axis, num_data = problem.max_plate_nesting, problem.num_data
    if encoded.trace is not None:
        ((name, value),) = values.items()
        site = encoded.trace.nodes[name]
        return _own(scale_and_mask(site["fn"].log_prob(value), mask=site["mask"]), axis)
    repeated = {}
    for name, value in values.items():
        shape = list(value.shape)
        shape[axis] = num_data
        repeated[name] = value.expand(shape)
    return guide_log_prob(problem.guide, repeated, encoded.args, max_plate_nesting=axis).double()


def _own(log_prob: Tensor, axis: int) -> Tensor:
    """``(K, B)`` of a batch ``(K, ..., B)``."""
    return (
        log_prob.double()
        .movedim(axis, 1)
        .reshape(log_prob.shape[0], log_prob.shape[axis], -1)
        .sum(-1)
    )


def rate_distortion(runs: Mapping[float, Nats]) -> "xarray.Dataset":
    """The curve of models trained at several beta: rate (mean KL) and distortion (minus mean reconstruction).

    Args:
        runs: What :func:`where_the_nats_go` found, by the beta that each model was trained at.

    References:
        Fixing a Broken ELBO (Alemi et al., 2018), section 2.
    """
    import xarray

    betas = sorted(runs)
    return xarray.Dataset(
        {
            "rate": ("beta", [runs[beta].mean("kl") for beta in betas]),
            "distortion": ("beta", [-runs[beta].mean("reconstruction") for beta in betas]),
            "elbo": ("beta", [runs[beta].mean("elbo") for beta in betas]),
            "mutual_information": (
                "beta",
                [runs[beta].mean("mutual_information") for beta in betas],
            ),
        },
        coords={"beta": betas},
    )
