"""Data in the form that a user has, into a model and out of it."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae.data import arrays
from pyrovae.data.arguments import as_arguments, is_several
from pyrovae.data.rows import Rows
from pyrovae.likelihoods import Likelihood
from pyrovae.likelihoods.frames import frame_of
from pyrovae.programs import evaluation_mode

__all__ = ["Forms", "as_tensor"]


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
        if self.likelihood.missing and isinstance(x, np.ndarray | Tensor) and len(rest) < 2:
            x, mask = self.likelihood.fill(torch.as_tensor(x))
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
            if self.pair is not None:
                raise ValueError(
                    f"{self.prior!r} leaves data out, which does not go with variational "
                    "dequantisation. Take uniform dequantisation, or another prior."
                )
            from pyrovae.models.leave_one_out import LeaveOneOut

            x = as_tensor(train, self._like)
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
            data: x, with finite numbers in place of what is missing; or, where the likelihood is
                :class:`~pyrovae.likelihoods.Columns` with ``missing=True``, a frame or an array
                with null or NaN there. The draws of a frame are a list of frames.
            mask: Truth values, true where x is observed; not needed for the latter.
            kwargs: ``num_draws``, ``num_particles`` and other settings of
                :func:`pyrovae.impute`.
        """
        from pyrovae.evidence import impute

        x, fill = data, kwargs.pop("fill", 0.0)
        if self.likelihood.missing:
            (x, seen), fill = self.read(data), math.nan
            mask = seen if mask is None else seen & torch.as_tensor(mask)
        elif mask is None:
            raise ValueError(
                "impute needs a mask, true where x is observed. A table whose likelihood is "
                "Columns(..., missing=True) has it in its NaN and null cells."
            )
        found = impute(self.model, self.guide, x, mask, fill=fill, **kwargs)
        # Observed cells as they were in the frame, not as the model's precision rounded them.
        whole = torch.where(mask, x, found.draws) if self.likelihood.missing else found.draws
        shown = [self.likelihood.show(draw, data) for draw in whole]
        return found if isinstance(shown[0], Tensor) else found._replace(draws=shown)

    @torch.no_grad()
    def embed(self, data: Any, *, batch_size: int = 1024) -> Any:
        """``(N, D)``: the mean of q(z | x) of each datum, in the form in which x came.

        An array gives an array, a tensor a tensor, and a frame a frame with the columns ``z0``,
        ``z1``, ... A posterior whose mean has no closed form gives the mean over 64 draws, the same
        ones at each call.

        Args:
            data: x, or a tuple ``(x, y)`` for a model that is given y.
            batch_size: How many data are encoded at once.
        """
        parts = data if is_several(data) else (data,)
        read = [self.likelihood.read(parts[0]), *parts[1:]]
        args = as_arguments(tuple(read), dtype=self._like.dtype, missing=self.likelihood.missing)
        codes = []
        with evaluation_mode(self.model, self.guide), torch.random.fork_rng():
            torch.manual_seed(0)
            for first in range(0, len(args[0]), batch_size):
                rows = [arg[first : first + batch_size].to(self._like.device) for arg in args]
                codes.append(_mean_of(self.encode(*rows)))
        return _in_form_of(parts[0], torch.cat(codes))


def _mean_of(distribution: Any, num_draws: int = 64) -> Tensor:
    """The mean, ``(B, D)``, by draws where it has no closed form."""
    try:
        return distribution.mean
    except NotImplementedError:
        return distribution.sample((num_draws,)).mean(0)


def _in_form_of(data: Any, codes: Tensor) -> Any:
    """``(N, D)`` codes as an array, a tensor or a frame, as the data are."""
    if isinstance(data, Tensor):
        return codes
    if isinstance(data, np.ndarray):
        return codes.cpu().numpy()
    return frame_of(codes, [f"z{i}" for i in range(codes.shape[1])], data)


def as_tensor(data: Any, like: Tensor, what: str = "The data") -> Tensor:
    """Data of any kind as a tensor on the device of ``like``, floating-point ones in its dtype.

    Raises:
        TypeError, ValueError: As :func:`pyrovae.data.arrays.as_tensor`.
    """
    tensor = arrays.as_tensor(data[:] if isinstance(data, Rows) else data, what)
    return tensor.to(like if tensor.is_floating_point() else like.device)
