"""A VAE with several stochastic layers."""

import itertools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyro
import torch
from torch import Tensor, nn

from pyrovae.likelihoods import Likelihood
from pyrovae.models.base import Model, check_size, check_spaces, join, unbound
from pyrovae.models.joint import as_recipe, conditional_prior
from pyrovae.models.layers import BottomUp, Draw, Ladder, LayeredGuide, TopDown
from pyrovae.nets import Recipe
from pyrovae.posteriors import Posterior
from pyrovae.priors import Prior, StandardNormal

__all__ = ["HierarchicalVAE"]

_GUIDES: dict[str, type[LayeredGuide]] = {
    "top-down": TopDown,
    "bottom-up": BottomUp,
    "ladder": Ladder,
}


class HierarchicalVAE(Model):
    r"""A VAE with L stochastic layers, two by default.

    .. math:: p(x, z) = p(z_L) \prod_{n < L} p(z_n \mid z_{n+1})\; p(x \mid z_1, \dots, z_L)

    ``model`` and ``guide`` are plain Pyro programs of x, ``(B, *data_shape)``, in the plate
    ``"data"``. The model draws the latent sites ``"zL"`` (such as ``"z2"``) down to ``"z1"``, and
    observes ``"x"``. The guide is one of three:

    - ``"top-down"`` draws in the model's order,
      :math:`q(z_L \mid x) \prod_n q(z_n \mid x, z_{n+1})`.
    - ``"bottom-up"`` draws from the data upwards,
      :math:`q(z_1 \mid x) \prod_n q(z_{n+1} \mid z_n)`.
    - ``"ladder"`` shares the generative path. Networks carry features of x up to every layer, where
      they make a normal; on the way down each layer's q is the product of that normal and
      :math:`p(z_n \mid z_{n+1})`, weighted by precision. It keeps upper layers in use.

    With ``priors.Vamp`` as prior, p(zL) is a mixture of :math:`q(z_L \mid u_c)`; a bottom-up guide
    has no such distribution. Images take ``nets.Conv`` as encoder and decoder.

    Args:
        data_shape: Shape of one datum.
        latent_dims: Dimensions (D1, ..., DL) from the data upwards, or one number for two layers.
        prior: p(zL); default standard normal.
        likelihood: p(x | z); default Bernoulli.
        posterior: Family of all layers of the guide, which share no parameters; default diagonal
            normal, which a ladder needs.
        conditional: Family of :math:`p(z_n \mid z_{n+1})`, declared by a posterior; default
            diagonal normal.
        inference: The guide.
        encoder: Recipe of the networks that see x: one for each layer of a top-down guide, one in
            all of the others; default ``MLP(300, 300)``.
        decoder: Recipe or module from the latents, concatenated, to x; default ``MLP(300, 300)``.
        between: Recipe of the networks between the layers, those of :math:`p(z_n \mid z_{n+1})` and
            those of the guide, which see features of x, latents, or both; default ``MLP(300)``.
        features: Number of features of x in a top-down or ladder guide.
        decoder_sees: ``"all"`` layers, or the ``"lowest"``, z1, alone.

    Raises:
        TypeError: If an argument is of another kind, or encoder or ``between`` is not a recipe.
        ValueError: If sizes do not fit, distributions live on different spaces, p(z1 | z2) is a
            point mass, a word is unknown, or a ladder does not get normals.

    References:
        VAE with a VampPrior (Tomczak and Welling, 2018), section 4,
        `arXiv:1705.07120 <https://arxiv.org/abs/1705.07120>`_; Ladder Variational Autoencoders
        (Sønderby et al., 2016), `arXiv:1602.02282 <https://arxiv.org/abs/1602.02282>`_; Importance
        Weighted Autoencoders (Burda et al., 2016), section 5, for the bottom-up guide,
        `arXiv:1509.00519 <https://arxiv.org/abs/1509.00519>`_.

    Example:
        >>> vae = HierarchicalVAE((6,), latent_dims=(3, 2))
        >>> x = vae.sample(10)
        >>> vae.encode(x).sample().shape, vae.reconstruct(x).shape
        (torch.Size([10, 2]), torch.Size([10, 6]))
        >>> deep = HierarchicalVAE((6,), latent_dims=(8, 4, 2), inference="ladder")
        >>> [z.shape[-1] for z in deep.guide(x)]
        [8, 4, 2]
    """

    def __init__(
        self,
        data_shape: Sequence[int] | int,
        latent_dims: Sequence[int] | int = (40, 40),
        *,
        prior: Prior | None = None,
        likelihood: Likelihood | None = None,
        posterior: Posterior | None = None,
        conditional: Posterior | None = None,
        inference: Literal["top-down", "bottom-up", "ladder"] = "top-down",
        encoder: Recipe | None = None,
        decoder: Recipe | nn.Module | None = None,
        between: Recipe | None = None,
        features: int = 300,
        decoder_sees: Literal["all", "lowest"] = "all",
    ):
        super().__init__(data_shape)
        if isinstance(latent_dims, int | np.integer):
            latent_dims = (int(latent_dims),) * 2
        if len(latent_dims) < 2:
            raise ValueError(
                f"latent_dims must be two or more positive integers, found {latent_dims!r}."
            )
        if inference not in _GUIDES:
            raise ValueError(f"inference must be one of {', '.join(_GUIDES)}, found {inference!r}.")
        if decoder_sees not in ("all", "lowest"):
            raise ValueError(f"decoder_sees must be 'all' or 'lowest', found {decoder_sees!r}.")
        dims = self.latent_dims = tuple(check_size("latent_dims", d) for d in latent_dims)
        reading: Any = self._reading(likelihood, as_recipe("encoder", encoder, 300, 300))
        between = as_recipe("between", between, 300)
        self.posteriors: Any = _GUIDES[inference](
            posterior, conditional, reading, between, dims, self.data_shape, features
        )
        self.conditionals = nn.ModuleList(
            conditional_prior(
                conditional, f"p(z{n} | z{n + 1})", latent_dim=low, given_dim=high, encoder=between
            )
            for n, (low, high) in enumerate(itertools.pairwise(dims), start=1)
        )
        self.decoder_sees = decoder_sees
        seen = sum(dims) if decoder_sees == "all" else dims[0]
        self._bind_likelihood(likelihood, decoder, seen)
        top = None if inference == "bottom-up" else self.posteriors.first
        self.prior = unbound(prior, Prior, StandardNormal).bind(
            latent_dim=dims[-1], data_shape=self.data_shape, posterior=top
        )
        self._check_spaces()
        self._take_precision_of(decoder)

    def _check_spaces(self) -> None:
        *lower, top = self.posteriors.parts
        check_spaces(self.prior, top)
        for n, (above, part) in enumerate(zip(self.conditionals, lower, strict=True), start=1):
            if above.space != part.space:
                given = f"x, z{n + 1}" if isinstance(self.posteriors, TopDown) else "x"
                raise ValueError(
                    f"p(z{n} | z{n + 1}) = {above!r} lives on the space {above.space!r}, but "
                    f"q(z{n} | {given}) = {part!r} on {part.space!r}. Give conditional= the family "
                    "of posterior=."
                )

    def model(self, x: Tensor) -> Tensor:
        """Generative program: the layers from the top down, and x given them, observed."""
        self.check(x)
        self.register_parameters("likelihood", "conditionals", "prior")
        with pyro.plate("data", x.shape[0], dim=-1):
            z = self._descend(pyro.sample(f"z{len(self.latent_dims)}", self.prior()), _pyro_draw)
            return pyro.sample("x", self.likelihood(self._seen(z)), obs=x)

    def guide(self, x: Tensor) -> tuple[Tensor, ...]:
        """Variational program: all layers given x; returns (z1, ..., zL)."""
        self.check(x, support=False)
        self.register_parameters("posteriors")
        if isinstance(self.posteriors, Ladder):
            self.register_parameters("conditionals")
        with pyro.plate("data", x.shape[0], dim=-1):
            return tuple(self.posteriors(x, _pyro_draw, self.conditionals))

    def encode(self, x: Any) -> Any:
        """The distribution of the layer that the guide draws first, batch shape ``(B,)``: q(zL |
        x), or q(z1 | x) of a bottom-up guide.

        Args:
            x: Data ``(B, *data_shape)``, an array or a tensor of floating-point numbers.
        """
        return self.posteriors.first(self._as_data(x))

    def decode(self, *latents: Tensor, mean: bool = True) -> Tensor:
        """``(*batch, *data_shape)``: E[x | z1, ..., zL], or with ``mean=False`` a draw of x."""
        return self._decode(self._seen(latents), mean=mean)

    def _exported(self) -> Any:
        latents = {f"z{n}": (dim,) for n, dim in enumerate(self.latent_dims, start=1)}
        return {"x": self.data_shape}, latents

    @torch.no_grad()
    def sample(self, num_samples: int = 1, *, mean: bool = False) -> Tensor:
        """``(num_samples, *data_shape)``: draws of x; with ``mean=True``, E[x | z] of drawn z.

        Raises:
            ValueError: If ``num_samples < 1``.
        """
        shape = (check_size("num_samples", num_samples),)
        z = self._descend(self.prior().sample(shape), _plain_draw)
        return self.likelihood.show(self.decode(*z, mean=mean))

    @torch.no_grad()
    def reconstruct(self, x: Any, *, mean: bool = True) -> Tensor:
        """``(B, *data_shape)``: E[x | z], or a draw of x, at one draw of all layers given x."""
        z = self.posteriors(self._as_data(x), _plain_draw, self.conditionals)
        return self.likelihood.show(self.decode(*z, mean=mean), x)

    def _descend(self, top: Tensor, draw: Draw) -> list[Tensor]:
        """All layers from the model, given zL; z1 first, shapes ``(*K, B, Dn)``."""
        z = [top]
        for n in range(len(self.conditionals), 0, -1):
            z.insert(0, draw(n, self.conditionals[n - 1](z[0])))
        return z

    def _seen(self, latents: Sequence[Tensor]) -> Tensor:
        """What the decoder sees of the layers."""
        return join(*latents) if self.decoder_sees == "all" else latents[0]


def _pyro_draw(layer: int, distribution: Any) -> Tensor:
    return pyro.sample(f"z{layer}", distribution)


def _plain_draw(layer: int, distribution: Any) -> Tensor:
    return distribution.sample()
