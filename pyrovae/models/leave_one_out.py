"""Programs that tell a prior which training datum it sees."""

from typing import Any

from torch import Tensor, nn

__all__ = ["LeaveOneOut"]


class LeaveOneOut(nn.Module):
    """The programs of a model whose prior leaves each datum out of its own p(z) in training.

    ``model`` and ``guide`` take ``(x, index)``: data and the number of each in the data that the
    prior was started from, -1 for others. Without ``index`` they are the model's own programs.
    :meth:`pyrovae.VAE.fit` makes both by itself.

    Args:
        vae: A model with a prior such as :class:`pyrovae.priors.Exemplar`.

    Raises:
        TypeError: If the prior leaves nothing out.

    Example:
        >>> import torch
        >>> import pyrovae as pv
        >>> x = torch.rand(20, 6).round()
        >>> vae = pv.VAE(6, 2, prior=pv.priors.Exemplar()).initialize_from(x)
        >>> programs = LeaveOneOut(vae)
        >>> data = (x, torch.arange(20))
        >>> len(pv.fit(programs.model, programs.guide, data, valid=x, epochs=2))
        2
    """

    def __init__(self, vae: Any):
        super().__init__()
        if not getattr(vae.prior, "leaves_one_out", False):
            raise TypeError(
                f"LeaveOneOut takes a model whose prior leaves data out, such as "
                f"priors.Exemplar(), found {vae.prior!r}."
            )
        self.vae = vae

    def model(self, x: Tensor, index: Tensor | None = None) -> Any:
        """The model's generative program, with each datum left out of its own prior."""
        with self.vae.prior.leaving_out(index):
            return self.vae.model(x)

    def guide(self, x: Tensor, index: Tensor | None = None) -> Any:
        """The model's variational program."""
        return self.vae.guide(x)

    def check(self, x: Any, index: Any = None) -> None:
        """Raise an error if x cannot be data of the model, or index no numbers of data.

        Raises:
            TypeError: If they are of another kind.
            ValueError: If their shapes do not fit, or values lie outside the support.
        """
        self.vae.check(x)
        if index is None:
            return
        if not isinstance(index, Tensor) or index.is_floating_point():
            raise TypeError("index must be a tensor of integers, such as torch.arange(len(x)).")
        if index.shape != x.shape[:1]:
            raise ValueError(
                f"index must have shape ({len(x)},), one number for each datum, found "
                f"{tuple(index.shape)}."
            )
