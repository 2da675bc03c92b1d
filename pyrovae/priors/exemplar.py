"""A mixture over the training data."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pyrovae.distributions.exemplars import IsotropicNormalMixture
from pyrovae.priors.base import Prior
from pyrovae.programs import evaluation_mode

__all__ = ["Exemplar"]

_CHUNK = 2_000  # exemplars that go through the encoder at a time


class Exemplar(Prior):
    r"""Mixture of normals around the encoded training data, with one learned variance.

    .. math:: p(z) = \frac1N \sum_{n=1}^N N(z;\ \mu(x_n), \sigma^2 I)

    :math:`\mu(x)` is the mean of the posterior q(z | x), so the encoder is shared. The exemplars
    :math:`x_n` are given by ``vae.initialize_from(train)`` or by :meth:`initialize_from`.

    **In training** each datum is left out of its own prior, which it would otherwise learn by
    heart. So the prior has to know which datum it sees: ``vae.fit(train)`` tells it, and so do the
    programs of ``models.LeaveOneOut``, which take ``(x, index)``. Only the ``num_neighbours``
    exemplars nearest to z are encoded and summed, a lower bound on p(z). A table of all means
    serves the search. It is made anew whenever ``train()`` or ``eval()`` is called
    after a change of weights, in :func:`pyrovae.fit` once an epoch.

    **In evaluation mode** all exemplars count and nothing is left out. The table holds their means.
    Where gradients are asked for, all exemplars go through the encoder at once. A draw takes an
    exemplar at random and then a draw around it. Densities are scored in pieces of bounded memory.

    Args:
        num_exemplars: Number of training data to take, chosen at random; None for all. They are
            kept, and saved, with the weights.
        num_neighbours: Exemplars that are summed in training; None for all, with gradients through
            all.
        scale: Sigma at the start.

    Raises:
        ValueError: If a number is not positive, or the posterior has no mean in closed form; on
            use, if no data were given.

    Warns:
        UserWarning: If it is called with gradients in training mode and nothing is left out.

    References:
        Exemplar VAE: Linking Generative Models, Nearest Neighbor Retrieval, and Data Augmentation
        (Norouzi, Fleet and Norouzi, 2020), equations 4 to 11,
        `arXiv:2004.04795 <https://arxiv.org/abs/2004.04795>`_.

    Example:
        >>> from pyrovae import nets, posteriors
        >>> sizes = {"latent_dim": 2, "data_shape": (6,)}
        >>> posterior = posteriors.DiagonalNormal().bind(encoder=nets.MLP(8), **sizes)
        >>> prior = Exemplar().bind(posterior=posterior, **sizes)
        >>> prior.initialize_from(torch.rand(50, 6))
        >>> prior.eval()().sample((3,)).shape
        torch.Size([3, 2])
    """

    starts_at_data = True
    leaves_one_out = True
    """Whether a fit has to say which datum each is."""

    exemplars: Tensor
    rows: Tensor
    table: Tensor

    def __init__(
        self,
        num_exemplars: int | None = None,
        num_neighbours: int | None = 10,
        scale: float = 1.0,
    ):
        super().__init__()
        for name, value in (("num_exemplars", num_exemplars), ("num_neighbours", num_neighbours)):
            if value is not None and value < 1:
                raise ValueError(f"Exemplar needs {name} >= 1 or None, found {value}.")
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"Exemplar needs a positive scale, found {scale}.")
        self.num_exemplars, self.num_neighbours, self.scale = num_exemplars, num_neighbours, scale
        self._left_out: Tensor | None = None
        self._seen = _Seen()

    def build(self) -> None:
        if self.posterior is None:
            raise ValueError(
                "Exemplar is a mixture around means of the posterior: bind(..., posterior=...) "
                "hands it one, as VAE does."
            )
        if self.posterior.space != "real" or not self.posterior.has_density:
            raise ValueError(
                f"Exemplar is a mixture of normals, found {self.posterior!r}. Use "
                "posteriors.DiagonalNormal or another density on all of R^D."
            )
        self.raw_scale = nn.Parameter(torch.tensor(math.log(self.scale)))
        self.register_buffer("exemplars", torch.zeros(0, *self.data_shape))
        # Which training datum each exemplar is.
        self.register_buffer("rows", torch.zeros(0, dtype=torch.long))
        self.register_buffer("table", torch.zeros(0, self.latent_dim), persistent=False)
        like = next(self.posterior.parameters(), self.raw_scale)
        try:
            with torch.no_grad():
                self._means(torch.zeros(1, *self.data_shape).to(like))
        except NotImplementedError as error:
            raise ValueError(
                f"Exemplar needs the mean of its posterior, and {self.posterior!r} has none in "
                "closed form. Use posteriors.DiagonalNormal or FullRankNormal."
            ) from error

    @torch.no_grad()
    def initialize_from(self, data: Tensor) -> None:
        """Take the training data as exemplars.

        Args:
            data: ``(N, *data_shape)``, in the order in which they are counted in training.

        Raises:
            ValueError: If there are fewer data than ``num_exemplars``.
        """
        wanted = len(data) if self.num_exemplars is None else self.num_exemplars
        if len(data) < wanted or not len(data):
            raise ValueError(
                f"Exemplar takes {wanted} exemplars, found {len(data)} data. Give more data, or "
                "num_exemplars at most their number."
            )
        rows = torch.arange(len(data))
        if wanted < len(data):
            rows = torch.randperm(len(data))[:wanted].sort().values
        self.exemplars = data[rows.to(data.device)].to(self.raw_scale).clone()
        self.rows = rows.to(self.raw_scale.device)
        self.table = self.raw_scale.new_zeros(wanted, self.latent_dim)
        self.refresh()

    def start_at(self, data: Tensor) -> None:
        """As :meth:`initialize_from`, unless it was started from these data already.

        Raises:
            ValueError: If it was started from other data.
        """
        if not len(self.exemplars):
            self.initialize_from(data)
        elif int(self.rows[-1]) >= len(data) or not torch.equal(
            data[self.rows.to(data.device)].to(self.exemplars), self.exemplars
        ):
            raise ValueError(
                "Exemplar was started from other data than it is trained on, so no datum can be "
                "left out. Call vae.prior.initialize_from(train) with these."
            )

    @torch.no_grad()
    def refresh(self) -> None:
        """Make the table of means anew, if weights or exemplars have changed since."""
        if not len(self.exemplars):
            return
        tensors = [self.exemplars, *self.posterior.parameters(), *self.posterior.buffers()]
        if self._seen.same(tensors, self.table):
            return
        with evaluation_mode(self.posterior):
            means = [self._means(chunk) for chunk in self.exemplars.split(_CHUNK)]
        if len(self.table) != len(self.exemplars):
            self.table = self.raw_scale.new_zeros(len(self.exemplars), self.latent_dim)
        self.table.copy_(torch.cat(means))  # in place: captured graphs read this tensor
        self._seen.note(tensors, self.table)

    @contextmanager
    def leaving_out(self, index: Tensor | None) -> Iterator[None]:
        """Within, a datum of the batch is left out of its own density in training mode.

        Args:
            index: ``(B,)``: which training datum each is, or -1 for none.
        """
        before, self._left_out = self._left_out, index
        try:
            yield
        finally:
            self._left_out = before

    def forward(self) -> IsotropicNormalMixture:
        if not len(self.exemplars):
            raise ValueError(
                "Exemplar has seen no data yet. Before training call vae.initialize_from(train), "
                "or vae.prior.initialize_from(train), which leaves the decoder alone."
            )
        # Functional calls and graph capture replace the parameters by other tensors for a while.
        kept = isinstance(self.raw_scale, nn.Parameter)
        tensors = [self.raw_scale, *self.posterior.parameters()]
        gradient = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
        options: dict[str, Any] = {"validate_args": False}
        if self.training:
            options |= {"num_neighbours": self.num_neighbours, "encode": self._encode}
            options["left_out"] = self._exemplar_of(self._left_out)
            if gradient and kept and self._left_out is None:
                warnings.warn(
                    "Exemplar is being trained without leaving each datum out of its own prior, "
                    "so it overfits. Use vae.fit(train), or the programs of "
                    "models.LeaveOneOut(vae).",
                    stacklevel=2,
                )
        elif gradient:
            options["encode"] = self._encode
        elif kept:
            self.refresh()
        return IsotropicNormalMixture(self.table, self.raw_scale.exp(), **options)

    def _exemplar_of(self, index: Tensor | None) -> Tensor | None:
        """The exemplar that each training datum is, -1 where it is none."""
        if index is None:
            return None
        found = torch.searchsorted(self.rows, index.clamp_min(0)).clamp_max(len(self.rows) - 1)
        return torch.where(self.rows[found] == index, found, -torch.ones_like(found))

    def _encode(self, numbers: Tensor) -> Tensor:
        return self._means(self.exemplars[numbers])

    def _means(self, x: Tensor) -> Tensor:
        return self.posterior(x).mean

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in ("exemplars", "rows"):
            saved = state_dict.get(prefix + name)
            if saved is not None and saved.shape != getattr(self, name).shape:
                setattr(self, name, getattr(self, name).new_zeros(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)
        if len(self.table) != len(self.exemplars):
            self.table = self.raw_scale.new_zeros(len(self.exemplars), self.latent_dim)

    def train(self, mode: bool = True) -> "Exemplar":
        super().train(mode)
        self.refresh()
        if mode:  # the update within a captured step leaves the versions of parameters as they are
            self._seen.forget()
        return self


class _Seen:
    """The tensors, and their versions, that a table was made of.

    A plain object, which captured graphs take for no setting of theirs.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.tensors: list[Tensor] = []
        self.versions: list[int] = []

    def same(self, tensors: list[Tensor], table: Tensor) -> bool:
        now = [*tensors, table]
        return (
            len(now) == len(self.tensors)
            and all(a is b for a, b in zip(now, self.tensors, strict=True))
            and [t._version for t in now] == self.versions
        )

    def note(self, tensors: list[Tensor], table: Tensor) -> None:
        self.tensors = [*tensors, table]
        self.versions = [t._version for t in self.tensors]

    def __deepcopy__(self, memo: Any) -> "_Seen":
        return _Seen()

    def __reduce__(self) -> Any:
        return _Seen, ()
