"""Variational dequantisation: noise of grey levels that a guide learns."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import MaskedDistribution, TorchDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn
from torch.distributions import Independent, constraints
from torch.nn.functional import softplus

from pyrovae.data.dequantization import Dequantize
from pyrovae.distributions.base import innermost
from pyrovae.models.base import check_shape, unbound
from pyrovae.models.registered import Registered
from pyrovae.nets import MLP, Recipe
from pyrovae.posteriors import Posterior
from pyrovae.programs import Program, check_data, modules_of

__all__ = ["LogisticNoise", "VariationalDequantization"]


class VariationalDequantization(Registered):
    r"""Programs of grey levels, from programs of real numbers, with noise that a guide learns.

    A density p of real numbers gives level k of L, for each of D elements, the probability

    .. math:: P(k) = \int_{[0, 1)^D} p\Big(\frac{k + u}{L}\Big) \frac{du}{L^D},

    and a guide of the noise bounds it,

    .. math:: \log P(k) \ge E_{q(u \mid k)}\Big[\log p\Big(\frac{k + u}{L}\Big)
              - \log q(u \mid k)\Big] - D \log L.

    Uniform noise, as of :func:`pyrovae.data.dequantize`, is the special case q = 1. With more
    particles the bound rises to log P(k), as for any latent variable. ``model`` and ``guide`` are
    plain Pyro programs, so whatever takes a pair takes these::

        pair = pv.VariationalDequantization(vae.model, vae.guide, (28, 28), num_levels=256)
        pv.fit(pair.model, pair.guide, train)
        evidence = pv.log_marginal(pair.model, pair.guide, test, num_particles=1_000)

    Evidence is log P(k), a log-probability: its bits per dimension need no ``data_scale``, and may
    be compared with those of a discrete likelihood.

    The latent site ``"dequantization"`` is v with :math:`u = \operatorname{sigmoid}(v)`. Its prior
    is the standard logistic, so that u is uniform. The given guide sees the centres of the cells,
    (k + 1/2) / L, and the given model is scored at (k + u) / L.

    Args:
        model, guide: Programs of real numbers in [0, 1), and of further arguments if any. The data
            plate has no subsampling, and the model observes its data as they are, or a view of
            them whose first dimension counts the data.
        data_shape: Shape of one datum.
        num_levels: The number L of levels; level k is stored as k / (L - 1).
        posterior: q(v | x), a posterior on all of R^D, such as ``posteriors.Flow()``; default
            :class:`LogisticNoise`, which starts near uniform noise.
        encoder: The network of this posterior, a recipe or a module; default ``MLP(100)``.

    Raises:
        ValueError: If num_levels is less than 2, or the posterior does not live on R^D. On use, if
            the data are not levels, or the model observes none of them.

    References:
        Flow++: Improving Flow-Based Generative Models with Variational Dequantization and
        Architecture Design (Ho et al., 2019), equation 12,
        `arXiv:1902.00275 <https://arxiv.org/abs/1902.00275>`_; Learning Discrete Distributions by
        Dequantization (Hoogeboom et al., 2020), for the bound with several particles,
        `arXiv:2001.11235 <https://arxiv.org/abs/2001.11235>`_.

    Example:
        >>> import pyrovae as pv
        >>> vae = pv.VAE((6,), latent_dim=2, likelihood=pv.likelihoods.Gaussian("learned"))
        >>> pair = VariationalDequantization(vae.model, vae.guide, (6,), num_levels=4)
        >>> x = torch.arange(4).reshape(4, 1).expand(4, 6) / 3
        >>> pv.log_marginal(pair.model, pair.guide, x, num_particles=10).log_marginal.shape
        (4,)
    """

    def __init__(
        self,
        model: Program,
        guide: Program,
        data_shape: Sequence[int] | int,
        num_levels: int,
        *,
        posterior: Posterior | None = None,
        encoder: Recipe | nn.Module | None = None,
    ):
        super().__init__()
        self.data_shape = check_shape(data_shape)
        self.set_levels(num_levels)
        self._programs = model, guide
        self.owners = nn.ModuleList(modules_of(model, guide))
        posterior = unbound(posterior, Posterior, LogisticNoise)
        if posterior.space != "real" or not posterior.has_density:
            raise ValueError(
                f"The noise needs a density on all of R^D, and {posterior!r} has none. Take a "
                "posterior such as DiagonalNormal or Flow."
            )
        self.posterior = posterior.bind(
            latent_dim=math.prod(self.data_shape),
            data_shape=self.data_shape,
            encoder=MLP(100) if encoder is None else encoder,
        )

    def set_levels(self, num_levels: int) -> None:
        """Say how many levels there are.

        Raises:
            ValueError: If they are less than 2.
        """
        self.cells = Dequantize(num_levels)

    def model(self, x: Tensor, *rest: Any) -> Any:
        """Generative program: uniform noise within each cell, and the given model at the sum."""
        self._check_shape(x)
        flat = x.new_zeros(math.prod(self.data_shape))
        with pyro.plate("dequantized", len(x), dim=-1):
            uniform = _Logistic(flat, torch.ones_like(flat)).to_event(1)
            v = pyro.sample("dequantization", uniform)  # (*K, B, D)
        noise = torch.sigmoid(v).reshape(*v.shape[:-1], *self.data_shape)
        centres = self._centres(x)
        with _ObserveDrawn(centres, self.cells.cells(x, noise), self.cells.num_levels) as observed:
            result = self._programs[0](centres, *rest)
        if not observed.found:
            raise ValueError(
                "The model observes no view of its data whose first dimension counts them, so "
                "there is nothing to dequantise. Observe x itself, or x.flatten(1)."
            )
        return result

    def guide(self, x: Tensor, *rest: Any) -> Any:
        """Variational program: noise given x, and the given guide at the centres of the cells."""
        self._check_shape(x)
        self.register_parameters("posterior")
        centres = self._centres(x)
        with pyro.plate("dequantized", len(x), dim=-1):
            pyro.sample("dequantization", self.posterior(centres))
        return self._programs[1](centres, *rest)

    def check(self, x: Tensor, *rest: Any) -> None:
        """Raise an error if x are not levels, or the given programs refuse the cells' centres.

        Raises:
            ValueError: If x has another shape, or holds something else than the levels.
        """
        self._check_shape(x)
        self.cells.check(x)
        check_data(self._programs, self._centres(x), *rest)

    def _centres(self, x: Tensor) -> Tensor:
        return self.cells.cells(x, torch.full_like(x, 0.5))

    def _check_shape(self, x: Tensor) -> None:
        if tuple(x.shape[1:]) != self.data_shape or not x.is_floating_point():
            raise ValueError(
                f"Data must be floating point of shape (B, {', '.join(map(str, self.data_shape))})"
                f", found {x.dtype} of shape {tuple(x.shape)}."
            )


class LogisticNoise(Posterior):
    r"""Independent logistic variables, :math:`v = m(x) + s(x)\, \epsilon`.

    At m = 0 and s = 1, sigmoid(v) is uniform. The scale s stays above 1/2: below, the weights of a
    density that is not zero at the edges of a cell would have no variance.

    Example:
        >>> q = LogisticNoise().bind(latent_dim=6, data_shape=(6,), encoder=MLP(8))
        >>> q(torch.zeros(5, 6)).event_shape
        torch.Size([6])
    """

    def output_size(self) -> int:
        return 2 * self.latent_dim

    def distribution(self, outputs: Tensor) -> Any:
        loc, raw = outputs.chunk(2, dim=-1)  # (*batch, D) each
        scale = 0.5 + softplus(raw + math.log(math.expm1(0.5)))
        return _Logistic(loc, scale, validate_args=False).to_event(1)


class _Logistic(dist.Logistic):
    """Pyro's, whose draws are finite: a uniform number may be zero, whose logit is not."""

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        smallest = torch.finfo(self.loc.dtype).eps / 4
        uniform = self.loc.new_empty(self._extended_shape(sample_shape)).uniform_()
        return self.icdf(uniform.clamp(min=smallest))


class _ObserveDrawn(Messenger):
    """Score the model at data that the guide drew, ``(*K, B, *data_shape)``, where it observes
    ``data``.
    """

    def __init__(self, data: Tensor, drawn: Tensor, num_levels: int):
        super().__init__()
        self.data, self.drawn, self.num_levels = data, drawn, num_levels
        self.found = False

    def _pyro_sample(self, msg: Any) -> None:
        value = msg["value"]
        if not msg["is_observed"] or site_is_subsample(msg) or not self._is_view(value):
            return
        particles = self.drawn.shape[: self.drawn.dim() - self.data.dim()]
        msg["value"] = self.drawn.reshape(*particles, *value.shape)
        msg["fn"] = _of_cells(msg["fn"], self.num_levels)
        self.found = True

    def _is_view(self, value: Any) -> bool:
        return (
            isinstance(value, Tensor)
            and value.numel() == self.data.numel()
            and value.shape[:1] == self.data.shape[:1]
            and value.is_contiguous()
            and _share_memory(value, self.data)
        )


def _share_memory(a: Tensor, b: Tensor) -> bool:
    torch_c: Any = torch._C
    return torch_c._is_alias_of(a, b)  # also of tensors without data, while a step is captured


def _of_cells(fn: Any, num_levels: int) -> Any:
    """The distribution with densities of elements turned into probabilities of their cells."""
    inner = innermost(fn, Independent)
    if isinstance(inner, MaskedDistribution):
        cells: Any = MaskedDistribution(_of_cells(inner.base_dist, num_levels), inner._mask)
    else:
        cells = Cells(inner, num_levels)
    outer = len(fn.event_shape) - len(inner.event_shape)
    return cells.to_event(outer) if outer else cells


class Cells(TorchDistribution):
    """A density times the volume of a cell: given the noise, what level k has of p(k).

    Args:
        base_dist: The density of numbers in [0, 1).
        num_levels: Cells of each element.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support: Any = constraints.nonnegative_integer

    def __init__(self, base_dist: Any, num_levels: int):
        self.base_dist, self.num_levels = base_dist, num_levels
        super().__init__(base_dist.batch_shape, base_dist.event_shape, validate_args=False)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return False

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Cells":
        return Cells(self.base_dist.expand(batch_shape), self.num_levels)

    def log_prob(self, value: Tensor) -> Tensor:
        volume = math.prod(self.event_shape) * math.log(self.num_levels)
        return self.base_dist.log_prob(value) - volume

    def sample(self, *args: Any, **kwargs: Any) -> Tensor:
        raise NotImplementedError(
            "Levels cannot be drawn given their noise. Draw real numbers from the model that was "
            "dequantised, and take floor(L x) as the level."
        )
