"""Strategies that draw priors and posteriors of all kinds, sizes, batches and parameters."""

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from pyrovae import nets, posteriors, priors

counts, scales = st.integers(1, 3), st.floats(0.1, 4.0)
categories = st.integers(2, 3)
maps = {
    "num_transforms": st.integers(1, 2),
    "hidden": st.lists(st.integers(1, 6), min_size=1, max_size=2).map(tuple),
    "transform": st.sampled_from(["affine", "spline"]),
    "bins": st.integers(2, 4),
    "coupling": st.booleans(),
}
# Classes with the dimensions that they may have, and how to draw their arguments.
POSTERIORS: dict[str, tuple[Any, Any]] = {
    "DiagonalNormal": (
        counts,
        {"scale": st.sampled_from(["softplus", "exp"]), "min_scale": st.floats(0, 0.1)},
    ),
    "FullRankNormal": (counts, {}),
    "LowRankNormal": (counts, {"rank": counts}),
    "Mixture": (counts, {"num_components": counts}),
    "Flow": (counts, {**maps, "context": counts}),
    "PowerSpherical": (st.integers(2, 5), {"min_concentration": st.floats(0.01, 2.0)}),
    "Categorical": (counts, {"num_categories": categories}),
    "RelaxedCategorical": (st.integers(1, 2), {"num_categories": categories}),
}
PRIORS: dict[str, tuple[Any, Any]] = {
    "StandardNormal": (counts, {}),
    "GaussianMixture": (counts, {"num_components": counts, "spread": scales}),
    "Laplace": (counts, {"scale": scales}),
    "StudentT": (counts, {"df": st.floats(1.5, 30.0), "scale": scales}),
    "Flow": (counts, maps),
    "Vamp": (None, {"num_components": counts}),
    "Exemplar": (None, {"num_neighbours": counts, "scale": scales}),
    "HypersphericalUniform": (st.integers(2, 5), {}),
    "Categorical": (counts, {"num_categories": categories, "learned": st.booleans()}),
    "RelaxedCategorical": (
        st.integers(1, 2),
        {
            "num_categories": categories,
            "temperature": st.floats(0.4, 1.5),
            "learned": st.booleans(),
        },
    ),
}
ALONE = st.just(())
data_shapes = st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple)
spreads = st.floats(0.0, 0.6)


@dataclass
class Law:
    """One distribution with the part that made it, and for a posterior the encoder outputs it was
    made of.
    """

    part: Any
    distribution: Any
    space: str
    outputs: Tensor | None = None

    def __repr__(self) -> str:
        dim, batch = self.distribution.event_shape[0], tuple(self.distribution.batch_shape)
        return f"{self.part!r} of {dim}, batch {batch}"


def size_of(dim, values):
    """Categorical latents come in blocks."""
    return dim * values["num_categories"] if "num_categories" in values else dim


def shake(part, spread):
    with torch.no_grad():
        for parameter in part.parameters():
            parameter += spread * torch.randn_like(parameter)
    return part


@st.composite
def bound_posteriors(draw, name):
    dims, arguments = POSTERIORS[name]
    values = {key: draw(strategy) for key, strategy in arguments.items()}
    part = getattr(posteriors, name)(**values)
    part.bind(
        latent_dim=size_of(draw(dims), values), data_shape=draw(data_shapes), encoder=nets.MLP(3)
    )
    return part.double()


@st.composite
def laws(draw, kind, name, batch=ALONE):
    torch.manual_seed(draw(st.integers(0, 10**6)))
    spread = draw(spreads)
    if kind == "posterior":
        part = shake(draw(bound_posteriors(name)), spread)
        outputs = spread * torch.randn(*draw(batch), part.output_size(), dtype=torch.float64)
        return Law(part, part.distribution(outputs), part.space, outputs)
    dims, arguments = PRIORS[name]
    values = {key: draw(strategy) for key, strategy in arguments.items()}
    mixed = None
    if name in ("Vamp", "Exemplar"):
        names = sorted(POSTERIORS) if name == "Vamp" else ["DiagonalNormal", "FullRankNormal"]
        mixed = draw(st.sampled_from(names).flatmap(bound_posteriors))
        sizes = {"latent_dim": mixed.latent_dim, "data_shape": mixed.data_shape}
    else:
        sizes = {"latent_dim": size_of(draw(dims), values), "data_shape": draw(data_shapes)}
    part = shake(getattr(priors, name)(**values).bind(**sizes, posterior=mixed).double(), spread)
    if name == "Exemplar":
        part.eval().initialize_from(torch.rand(draw(counts), *mixed.data_shape))
    found = part()
    assert tuple(found.batch_shape) == ()
    return Law(part, found.expand(draw(batch)), part.space)
