"""Scales, concentrations and dispersions: where a positive quantity comes from."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

__all__ = ["Positive"]

SOURCES = ("learned", "per-element", "decoder")


class Positive(nn.Module):
    r"""A positive quantity of a likelihood: fixed, learned, or decoded.

    An unconstrained r becomes :math:`\text{floor} + \text{softplus}(r + c)`, or with ``link="exp"``
    :math:`\text{floor} + e^{r + c}`, where c puts r = 0 at ``start``.

    Args:
        name: What to call it in errors, such as "Gaussian scale".
        source: A positive number (fixed); ``"learned"`` (one for all elements); ``"per-element"``
            (one each); ``"decoder"`` (one more output of the decoder for each x).
        start: Where a learned or decoded quantity starts.
        floor: Its lower limit.
        link: ``"softplus"``, or ``"exp"`` for what ranges over orders of magnitude.

    Raises:
        ValueError: If the source is neither positive and finite nor one of the names, or not 0 <=
            floor < start.
    """

    fixed: Tensor

    def __init__(
        self,
        name: str,
        source: float | str,
        start: float = 1.0,
        floor: float = 0.0,
        link: str = "softplus",
    ):
        super().__init__()
        if isinstance(source, str):
            if source not in SOURCES:
                raise ValueError(
                    f"{name} must be a positive number or one of {SOURCES}, found {source!r}."
                )
        elif isinstance(source, bool) or not (math.isfinite(source) and source > 0):
            raise ValueError(
                f"{name} must be finite and positive or one of {SOURCES}, found {source}."
            )
        if not 0 <= floor < start < math.inf:
            raise ValueError(
                f"{name} needs 0 <= minimum < initial value, found {floor} and {start}."
            )
        self.source, self.floor, self.link = source, floor, link
        above = start - floor
        self.offset = math.log(above) if link == "exp" else above + math.log(-math.expm1(-above))
        self.raw: nn.Parameter | None = None

    @property
    def num_outputs(self) -> int:
        """Decoder outputs that it takes for each element."""
        return int(self.source == "decoder")

    def build(self, data_shape: tuple[int, ...]) -> None:
        """Make the parameter or buffer."""
        if self.source in ("learned", "per-element"):
            self.raw = nn.Parameter(torch.zeros(data_shape if self.source == "per-element" else ()))
        elif not isinstance(self.source, str):
            self.register_buffer("fixed", torch.tensor(float(self.source)), persistent=False)

    def _apply(self, fn: Any, recurse: bool = True) -> "Positive":
        super()._apply(fn, recurse)
        if not isinstance(self.source, str) and "fixed" in self._buffers:
            # A cast of the single-precision buffer would keep its rounding: 0.1 is not 0.1 in
            # float64.
            self.fixed = torch.full_like(self.fixed, float(self.source))
        return self

    def forward(self, outputs: Tensor | None = None) -> Tensor:
        """The quantity, of a shape that broadcasts over the data; from ``outputs`` if it is
        decoded.
        """
        raw = self.raw if outputs is None else outputs
        if raw is None:
            return self.fixed
        return self.floor + (
            (raw + self.offset).exp() if self.link == "exp" else softplus(raw + self.offset)
        )
