"""Data in the form that a user has, into a model and out of it."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pyrovae.data import arrays, as_given
from pyrovae.data.arguments import as_arguments, as_tensors, is_several
from pyrovae.data.rows import Rows
from pyrovae.likelihoods import Likelihood
from pyrovae.programs import check_taken, evaluation_mode

__all__ = ["Forms", "as_tensor", "mean_of"]

_DRAWS = 64  # for a mean that has no closed form


class Forms:
    """Mixin of the models: short forms of the package's functions, for data of any form."""

    prior: Any
    likelihood: Likelihood
    model: Any
    guide: Any
    encode: Any
    num_levels: Tensor
    _like: Tensor
    pair: Any = None
    """Programs in place of the model's own, such as those of
    :class:`~pyrovae.models.VariationalDequantization`, whose number of levels is ``num_levels``."""

    @property
    def programs(self) -> tuple[Any, Any]:
        """Model and guide of the data that :meth:`read` gives.

        They are ``model`` and ``guide``; where the likelihood takes missing cells, those of
        :func:`pyrovae.observe_part`, whose guide sees NaN in a missing cell; where the noise of
        grey levels is learned, those of :attr:`pair`.
        """
        if self.pair is not None:
            self.pair.set_levels(int(self.num_levels))
            return self.pair.model, self.pair.guide
        if not self.likelihood.missing:
            return self.model, self.guide
        from pyrovae.evidence import observe_part

        return observe_part(self.model, self.guide, fill=math.nan)

    def read(self, data: Any) -> Any:
        """Data in the form that a user has, as what :attr:`programs` take.

        Frames become tensors, as :class:`~pyrovae.likelihoods.Columns` declares. Where it takes
        missing cells, their mask comes last: ``(x, mask)``. Other data are left as they are.

        Args:
            data: x, or a tuple that begins with x.
        """
        x, *rest = data if is_several(data) else (data,)
        x = self.likelihood.read(x)
        read_later = isinstance(x, Rows | Dataset | DataLoader)
        if self.likelihood.missing and not read_later and not _has_mask(x, rest):
            x, mask = self.likelihood.fill(arrays.as_tensor(x, "The data", missing=True))
            rest = [*rest, mask]
        return (x, *rest) if rest else x

    def fit(self, train: Any, *, valid: Any = None, **kwargs: Any) -> Any:
        """Short for :func:`pyrovae.fit` with the :attr:`programs` and data of this model.

        With a prior that leaves each datum out of its own p(z), such as
        :class:`pyrovae.priors.Exemplar`, data are counted here, and a prior that has seen no data
        starts at these.

        Raises:
            ValueError: If such a prior was started from other data.
        """
        from pyrovae.training.fit import fit

        model, guide = self.programs
        train, valid = self.read(train), None if valid is None else self.read(valid)
        if getattr(getattr(self, "prior", None), "leaves_one_out", False):
            if self.pair is not None or self.likelihood.missing:
                raise ValueError(
                    f"{self.prior!r} leaves data out, which goes neither with missing cells nor "
                    "with variational dequantisation. Take another prior."
                )
            from pyrovae.models.leave_one_out import LeaveOneOut

            like = self._like
            kind: Any = {"device": like.device, "dtype": like.dtype, "program": self.model}
            (x,) = as_tensors(train, name="train", **kind)
            self.prior.start_at(x)
            programs, train = LeaveOneOut(self), (x, torch.arange(len(x)))
            model, guide = programs.model, programs.guide
        return fit(model, guide, train, valid=valid, **kwargs)

    def log_marginal(self, data: Any, **kwargs: Any) -> Any:
        """Short for :func:`pyrovae.log_marginal` with the :attr:`programs` and data of this
        model.
        """
        from pyrovae.evidence import log_marginal

        return log_marginal(*self.programs, self.read(data), **kwargs)

    def impute(self, data: Any, mask: Any = None, **kwargs: Any) -> Any:
        """Draws of what is missing of x, from p(x_m | x_o): :func:`pyrovae.impute` with this model.

        Args:
            data: x, or a tuple ``(x, y)`` for a model that is given y; with finite numbers in place
                of what is missing, or, where the likelihood is
                :class:`~pyrovae.likelihoods.Columns` with ``missing=True``, a frame or an array
                with null or NaN there. The draws of a frame are a list of frames.
            mask: Truth values, true where x is observed; not needed for the latter.
            kwargs: ``num_draws``, ``num_particles`` and other settings of
                :func:`pyrovae.impute`.
        """
        from pyrovae.evidence import impute

        first, *given = data if is_several(data) else (data,)
        fill = kwargs.pop("fill", 0.0)
        if self.likelihood.missing:
            (x, *given, seen), fill = self.read(data), math.nan
            mask = seen if mask is None else seen & torch.as_tensor(mask)
        elif mask is None:
            raise ValueError(
                "impute needs a mask, true where x is observed. A table whose likelihood is "
                "Columns(..., missing=True) has it in its NaN and null cells."
            )
        else:
            x = self.likelihood.read(first)
        found = impute(self.model, self.guide, x, mask, given=tuple(given), fill=fill, **kwargs)
        # Observed cells as they were in the frame, not as the model's precision rounded them.
        whole = torch.where(mask, x, found.draws) if self.likelihood.missing else found.draws
        shown = [self.likelihood.show(draw, first) for draw in whole]
        return found if isinstance(shown[0], Tensor) else found._replace(draws=shown)

    @torch.no_grad()
    def embed(self, data: Any, *, batch_size: int = 1024) -> Any:
        """``(N, D)``: the mean of q(z | x) of each datum, in the form in which x came.

        The form is that of :func:`pyrovae.data.as_given`: a frame gives a frame with the columns
        ``z0``, ``z1``, ..., and an AnnData object gets ``.obsm["X_z"]``. A posterior whose mean has
        no closed form gives the mean over 64 draws, the same ones at each call.

        Args:
            data: x, or a tuple ``(x, y)`` for a model that is given y.
            batch_size: How many data are encoded at once.
        """
        parts = data if is_several(data) else (data,)
        read = [self.likelihood.read(parts[0]), *parts[1:]]
        args = as_arguments(
            read[0] if len(read) == 1 else tuple(read),
            dtype=self._like.dtype,
            missing=self.likelihood.missing,
            program=self.model,
        )
        codes = []
        with evaluation_mode(self.model, self.guide), torch.random.fork_rng():
            torch.manual_seed(0)
            for first in range(0, len(args[0]), batch_size):
                rows = [arg[first : first + batch_size].to(self._like.device) for arg in args]
                check_taken(self.encode, *rows)
                q = self.encode(*rows)
                mean = mean_of(q)
                codes.append(q.sample((_DRAWS,)).mean(0) if mean is None else mean)
        return as_given(torch.cat(codes), parts[0])


def mean_of(distribution: Any) -> Tensor | None:
    """The mean, or None where it has no closed form."""
    try:
        return distribution.mean
    except NotImplementedError:
        return None


def _has_mask(x: Any, rest: list[Any]) -> bool:
    """Whether the last of the arguments after x is a mask of its cells."""
    last = rest[-1] if rest else None
    truth = getattr(last, "dtype", None) in (torch.bool, np.dtype(bool))
    return truth and tuple(last.shape) == tuple(np.shape(x))  # type: ignore[union-attr]


def as_tensor(data: Any, like: Tensor, what: str = "The data") -> Tensor:
    """Data of any kind as a tensor on the device of ``like``, floating-point ones in its dtype.

    Raises:
        TypeError, ValueError: As :func:`pyrovae.data.arrays.as_tensor`.
    """
    tensor = arrays.as_tensor(data[:] if isinstance(data, Rows) else data, what)
    return tensor.to(like if tensor.is_floating_point() else like.device)
