"""Tables whose columns have likelihoods of their own."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Independent

from pyrovae.distributions.base import innermost
from pyrovae.distributions.columnwise import ColumnSupport, Columnwise, Piece
from pyrovae.distributions.levels import LevelCategorical, from_levels
from pyrovae.likelihoods import frames
from pyrovae.likelihoods.base import Likelihood
from pyrovae.likelihoods.entries import categories_of, check_keys, entries_of
from pyrovae.nets import Recipe

__all__ = ["Columns"]


class Columns(Likelihood):
    r"""Another likelihood for each column of a table, or for each block of columns.

    .. math:: \log p(x \mid z) = \sum_j \log p_j(x_j \mid z)

    x has the shape ``(B, D)``, one number for each of D columns, in the units of the table. The
    decoder has the outputs of all parts, one after the other. A frame (pandas, polars or pyarrow)
    is read by :meth:`read` and made again by :meth:`show`; the methods of a model do both.
    :meth:`infer` proposes a declaration for a frame.

    The encoder does not see x itself, but numbers that suit a network: real columns less their
    location and over their scale, logarithms of positive columns and of counts plus one, and one
    number for each category. With ``missing=True`` it also sees which cells are missing.

    Args:
        columns: The likelihood of each column, or of each block of columns, by name. Only a run may
            leave them out (``pyrovae train --data FILE.csv --likelihood Columns``): it infers them.
        blocks: The columns of a block, by the name of the block.
        categories: The values of a column with ``Categorical`` or ``Bernoulli``, in the order of
            their numbers, by the name of the column.
        units: Location and scale ``(m, s)`` of a real column or block: its likelihood is that of
            (x - m) / s. The density is still one of x. A positive column takes ``(0, s)``.
        dtypes: The type of each column in frames of draws.
        library: The library of frames of draws: ``"pandas"``, ``"polars"`` or ``"pyarrow"``; None
            for tensors.
        missing: Whether cells may be missing, null or NaN. They are integrated out exactly: since
            columns are independent given z, a missing cell counts as zero in the sum. Otherwise
            missing cells are refused.

    Raises:
        TypeError: If a part is no likelihood.
        ValueError: If names do not fit together, a part is not independent over its elements, a
            unit does not suit its column, or the categories are not as many as the part takes.

    References:
        Handling Incomplete Heterogeneous Data using VAEs (Nazabal et al., 2020), sections 2 and 3,
        `arXiv:1807.03653 <https://arxiv.org/abs/1807.03653>`_.

    Example:
        >>> import pyrovae as pv
        >>> from pyrovae.likelihoods import Bernoulli, Categorical, Columns, Gaussian, Poisson
        >>> likelihood = Columns(
        ...     {"age": Gaussian("learned"), "smoker": Bernoulli(), "blood": Categorical(4)},
        ...     categories={"blood": ["0", "A", "AB", "B"]}, units={"age": (50.0, 20.0)},
        ... )
        >>> vae = pv.VAE(likelihood.data_shape, latent_dim=2, likelihood=likelihood)
        >>> vae.sample(3).shape
        torch.Size([3, 3])
    """

    def __init__(
        self,
        columns: Mapping[str, Likelihood] | None = None,
        blocks: Mapping[str, Sequence[str]] | None = None,
        categories: Mapping[str, Sequence[str | bool | int | float]] | None = None,
        units: Mapping[str, Sequence[float]] | None = None,
        dtypes: Mapping[str, str] | None = None,
        library: str | None = None,
        missing: bool = False,
    ):
        super().__init__()
        if columns is None:
            raise ValueError(
                "Columns needs columns, the likelihood of each column by name. "
                "Columns.infer(frame) proposes them."
            )
        self.entries = entries_of(columns, blocks or {}, units or {})
        self.parts = nn.ModuleList(entry.part for entry in self.entries)
        self.names = tuple(name for entry in self.entries for name in entry.names)
        self.categories = categories_of(self.entries, categories or {})
        check_keys("dtypes", dtypes or {}, self.names)
        if library not in (None, "pandas", "polars", "pyarrow"):
            raise ValueError(
                f"library must be 'pandas', 'polars', 'pyarrow' or None, found {library!r}."
            )
        self.dtypes, self.library, self.missing = dict(dtypes or {}), library, bool(missing)
        self.data_shape = (len(self.names),)
        self.discrete = all(entry.part.discrete for entry in self.entries)
        self.support = ColumnSupport(
            [(e.part.support, len(e.names), e.loc, e.scale) for e in self.entries]
        )

    @classmethod
    def infer(cls, frame: Any, *, missing: bool | None = None) -> "Columns":
        """The declaration that the types of a frame's columns suggest, to print and to edit.

        Truth values become ``Bernoulli``, texts and categories ``Categorical`` (``Bernoulli`` where
        there are two), whole numbers from zero up ``NegativeBinomial``, and other numbers
        ``Gaussian`` in units of their mean and standard deviation.

        Args:
            frame: A pandas, polars or pyarrow frame.
            missing: Whether cells may be missing; by default whether there are any.

        Raises:
            TypeError: If it is no frame, or a column holds something else, such as dates.
            ValueError: If a column has no values, one value only, or more than 100 different texts.

        Example:
            >>> import pandas as pd
            >>> from pyrovae.likelihoods import Columns
            >>> Columns.infer(pd.DataFrame({"age": [31.5, 60.0], "sex": ["f", "m"]}))
            Columns(
                columns={
                    'age': Gaussian(scale='learned'),
                    'sex': Bernoulli(),
                },
                categories={'sex': ['f', 'm']},
                units={'age': (45.75, 14.25)},
                dtypes={'age': 'float64', 'sex': 'object'},
                library='pandas',
            )
        """
        from pyrovae.likelihoods.inference import declaration

        return cls(**declaration(frame, missing))

    def build(self) -> None:
        for entry in self.entries:
            entry.part.data_shape = (len(entry.names),)
            entry.part.build()
        self.sizes = [math.prod(entry.part.output_shape()) for entry in self.entries]
        trial = self._laws(torch.zeros(1, sum(self.sizes)))
        for entry, law in zip(self.entries, trial, strict=True):
            optimal = getattr(entry.part, "optimal", False)  # one scale for all cells of a batch
            if innermost(law, Independent).event_shape or optimal:
                raise ValueError(
                    f"{entry.part!r} cannot be the likelihood of columns: its elements are not "
                    "independent given z. Use one that factorises, without exposure='total' or "
                    "scale='optimal'."
                )

    def bind(
        self, *, latent_dim: int, data_shape: tuple[int, ...], decoder: Recipe | nn.Module
    ) -> "Likelihood":
        if tuple(data_shape) != self.data_shape:
            raise ValueError(
                f"Columns declares {len(self.names)} columns, but data_shape is "
                f"{tuple(data_shape)}. Give data_shape=likelihood.data_shape."
            )
        return super().bind(latent_dim=latent_dim, data_shape=data_shape, decoder=decoder)

    def output_shape(self) -> tuple[int, ...]:
        return (sum(self.sizes),)

    def distribution(self, outputs: Tensor) -> Columnwise:
        laws = zip(self.entries, self._laws(outputs), strict=True)
        return Columnwise(
            [Piece(innermost(law, Independent), len(e.names), e.loc, e.scale) for e, law in laws]
        )

    def mean(self, distribution: Any) -> Tensor:
        """E[x_j | z] of each column; of a ``Categorical`` one the most probable category."""
        pieces = innermost(distribution, Independent).pieces
        shape = distribution.batch_shape
        found = []
        for entry, piece in zip(self.entries, pieces, strict=True):
            law = piece.distribution
            if isinstance(law, LevelCategorical):
                own = from_levels(law.logits.argmax(-1).to(law.logits), law.num_levels)
            else:
                own = entry.part.mean(law.to_event(1))
            found.append((own * piece.scale + piece.loc).expand(*shape, piece.num_columns))
        return torch.cat(found, -1)

    def check(self, x: Tensor) -> None:
        if self._inside(x).all():
            return
        for entry, block in zip(self.entries, self._standard(x), strict=True):
            for name, column in zip(entry.names, block.unbind(-1), strict=True):
                try:
                    entry.part.check(column.unsqueeze(-1))
                except ValueError as error:
                    raise ValueError(f"Column {name!r}: {error}") from None

    def initial_bias(self, mean: Tensor) -> Tensor | None:
        blocks = zip(self.entries, self._standard(mean), strict=True)
        biases = [entry.part.initial_bias(block) for entry, block in blocks]
        known = [bias.flatten() for bias in biases if bias is not None]
        return torch.cat(known) if len(known) == len(biases) else None

    def only(self, *names: str) -> Tensor:
        """``(D,)`` truth values: which columns have one of these names.

        Expanded to the shape of the data, ``only("age").expand(x.shape)``, it is a mask of
        :func:`pyrovae.observe_part` or :func:`pyrovae.impute` that leaves these columns observed
        and hides the others.

        Raises:
            ValueError: If there is no such column.
        """
        unknown = [name for name in names if name not in self.names]
        if unknown:
            raise ValueError(f"There is no column {unknown[0]!r} among {list(self.names)}.")
        return torch.tensor([name in names for name in self.names])

    def read(self, data: Any) -> Any:
        """``(N, D)``: a frame as numbers, with NaN where a cell is missing; tensors as they are.

        A category becomes the number that its likelihood takes. Columns of the frame that are not
        declared are left out.

        Raises:
            TypeError: If a column does not hold what its likelihood takes.
            ValueError: If the frame lacks a column, a value is none of the categories, or a cell is
                missing without ``missing=True``.
        """
        if frames.is_frame(data):
            data = torch.from_numpy(frames.read(data, self.names, self.categories))
        if isinstance(data, Tensor) and data.is_floating_point() and not self.missing:
            gaps = data.isnan()
            if gaps.any() and gaps.shape[-1:] == self.data_shape:
                column = int(gaps.reshape(-1, len(self.names)).any(0).nonzero()[0])
                raise ValueError(
                    f"Column {self.names[column]!r} has missing cells ({int(gaps.sum())} in all "
                    "columns). Declare Columns(..., missing=True) to integrate them out, or fill "
                    "them."
                )
        return data

    def show(self, x: Tensor, like: Any = None) -> Any:
        """A frame of ``(N, D)`` numbers, with the columns and types of the table.

        Args:
            x: Draws or reconstructions. NaN becomes a missing cell.
            like: A frame whose library, types and index the result takes; by default those of
                ``library`` and ``dtypes``. Without any of them, x itself is returned.
        """
        if not frames.is_frame(like):
            like = None
            if self.library is None:
                return x
        return frames.write(x, self.names, self.categories, self.dtypes, self.library, like)

    def fill(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x with a number of the support in place of each NaN, and a mask, true where there is
        none.
        """
        seen = ~x.isnan()
        numbers = [
            entry.loc + entry.scale * _inner_point(entry.part.support)
            for entry in self.entries
            for _ in entry.names
        ]
        return torch.where(seen, x, torch.tensor(numbers, dtype=x.dtype, device=x.device)), seen

    def reading(self, encoder: Recipe | nn.Module) -> Recipe | nn.Module:
        from pyrovae.likelihoods.features import Features, Reading

        features = Features(self)
        if isinstance(encoder, Recipe):
            return Reading(features, encoder)
        return nn.Sequential(features, encoder) if isinstance(encoder, nn.Module) else encoder

    def _standard(self, x: Tensor) -> list[Tensor]:
        """The columns of each entry, in the units of its likelihood."""
        blocks = x.split([len(entry.names) for entry in self.entries], -1)
        return [(b - e.loc) / e.scale for e, b in zip(self.entries, blocks, strict=True)]

    def _laws(self, outputs: Tensor) -> list[Any]:
        blocks = outputs.split(self.sizes, -1)
        return [
            entry.part.distribution(block.unflatten(-1, entry.part.output_shape()))
            for entry, block in zip(self.entries, blocks, strict=True)
        ]


def _inner_point(support: Any) -> float:
    candidates = torch.tensor([0.0, 1.0, 0.5])
    return float(candidates[support.check(candidates)][0])
