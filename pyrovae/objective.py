"""What a training step minimises: from a batch and a beta to a report, a loss and gradients.

This is the only place that evaluates a bound and differentiates it. Training, validation,
:class:`pyrovae.SVI` and the comparison of estimators all use it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pyro.infer
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyrovae.data.batches import transformed
from pyrovae.estimators import Estimator
from pyrovae.handlers import KLScale
from pyrovae.particles import check_right_most
from pyrovae.programs import Program, undisturbed

__all__ = ["Evaluation", "Objective", "Report", "StockObjective", "objective"]


class Report(NamedTuple):
    """What one evaluation saw, in nats summed over the batch: scalars on the device, detached.

    Example:
        See :class:`pyrovae.svi.Step`, whose calls return it.
    """

    bound: Tensor
    """The bound that the estimator reports, under the evaluation's beta."""
    reconstruction: Tensor
    """Mean over particles of log p(x | z). NaN where the estimator does not tell it."""
    kl: Tensor
    """The KL term, without beta. NaN where the estimator does not tell it."""


class Evaluation(NamedTuple):
    """A report, with the loss and its gradients."""

    report: Report
    loss: Tensor
    """Detached scalar."""
    gradients: list[Tensor | None]
    """One for each parameter; None where the loss does not depend on it."""


class Objective:
    r"""The loss of a model, a guide and an estimator, as a pure function of a batch and a beta.

    .. math:: L = -\frac1B \sum_{b=1}^B \text{bound}_\beta(x_b)

    Nothing is kept between calls, and nothing waits for the device.

    Args:
        model, guide: Pyro programs.
        estimator: One of :mod:`pyrovae.estimators`.
        parameters: What to differentiate with respect to; those without ``requires_grad`` are
            skipped.
        transform: From a batch to the programs' arguments, such as a new binarisation.
        clip_norm: Largest norm of all gradients together.
        clip_value: Largest absolute value of an element of a gradient; it comes first.
        summed: The loss is the sum over the data, times the subsampling scale of the data plate, as
            Pyro has it, in place of the mean.
    """

    def __init__(
        self,
        model: Program,
        guide: Program,
        estimator: Any,
        parameters: Sequence[Tensor] = (),
        *,
        transform: Callable[..., Any] | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        summed: bool = False,
    ):
        self.model, self.guide, self.estimator = model, guide, estimator
        self.parameters = list(parameters)
        self.transform, self.summed = transform, summed
        self.clip_norm, self.clip_value = clip_norm, clip_value

    @property
    def settings(self) -> tuple[Any, ...]:
        """What a captured graph of this function freezes."""
        transform = () if self.transform is None else (self.transform,)
        return self.model, self.guide, self.estimator, *transform, self.parameters

    def __call__(self, beta: Tensor | None, *batch: Any, **kwargs: Any) -> Evaluation:
        """Evaluate and differentiate.

        Args:
            beta: Factor on the KL term; None leaves the programs as they are.
            batch, kwargs: Arguments of both programs, before the transform.
        """
        report, loss = self._evaluate(beta, batch, kwargs)
        gradients = clipped(gradients_of(loss, self.parameters), self.clip_norm, self.clip_value)
        return Evaluation(report, loss.detach(), gradients)

    def settle(self, *batch: Any, **kwargs: Any) -> None:
        """Let the estimator find out on real data how it has to run the programs."""
        if isinstance(self.estimator, Estimator) and self.estimator.several:
            with undisturbed(self.model, self.guide):
                self.estimator.particles(self.model, self.guide, *self._arguments(batch), **kwargs)

    def report(self, beta: Tensor | None, *batch: Any, **kwargs: Any) -> tuple[Report, Tensor]:
        """Evaluate without gradients: the report and the loss."""
        with torch.no_grad():
            return self._evaluate(beta, batch, kwargs)

    def _evaluate(self, beta: Tensor | None, batch: tuple, kwargs: dict) -> tuple[Report, Tensor]:
        model, guide = self._programs(beta)
        estimator: Estimator = self.estimator
        arguments = self._arguments(batch)
        particles = estimator.particles(model, guide, *arguments, **kwargs)
        check_right_most(particles, arguments)
        terms = estimator.terms(particles)
        if self.summed:
            loss = estimator.loss_of(terms, particles.scale)
        else:
            loss = estimator.loss_of(terms) / particles.num_data
        with torch.no_grad():
            report = Report(
                terms.bound.detach().sum(),
                estimator.average(particles, particles.log_likelihood).detach().sum(),
                estimator.kl(particles).detach().sum(),
            )
        return report, loss

    def _programs(self, beta: Tensor | None) -> tuple[Program, Program]:
        if beta is None:
            return self.model, self.guide
        return KLScale(beta)(self.model), KLScale(beta)(self.guide)

    def _arguments(self, batch: tuple) -> tuple:
        return transformed(self.transform, batch)


class StockObjective(Objective):
    """The same for an ELBO of Pyro's own, which gives its loss alone.

    Pyro multiplies by the subsampling scale N / B of the data plate; the report is that of the
    batch. Such an ELBO is linear in beta. Under another beta than 1, the programs are therefore
    evaluated once more, at the same draws without beta: the difference tells the KL term.
    """

    def __call__(self, beta: Tensor | None, *batch: Any, **kwargs: Any) -> Evaluation:
        if hasattr(self.estimator, "differentiable_loss"):
            return super().__call__(beta, *batch, **kwargs)
        # Such an ELBO only adds to ``grad``: put back what was there.
        before = [parameter.grad for parameter in self.parameters]
        arguments = self._arguments(batch)
        plain = self._plain_loss(beta, arguments, kwargs)
        try:
            for parameter in self.parameters:
                parameter.grad = None
            with _DataPlate(len(arguments[0])) as plate:
                loss = self.estimator.loss_and_grads(*self._programs(beta), *arguments, **kwargs)
            gradients = [parameter.grad for parameter in self.parameters]
        finally:
            for parameter, gradient in zip(self.parameters, before, strict=True):
                parameter.grad = gradient
        report, loss, divisor = self._scaled(torch.as_tensor(loss), plate, beta, plain)
        gradients = [None if g is None else g / divisor for g in gradients]
        gradients = clipped(gradients, self.clip_norm, self.clip_value)
        return Evaluation(report, loss, gradients)

    def _evaluate(self, beta: Tensor | None, batch: tuple, kwargs: dict) -> tuple[Report, Tensor]:
        arguments = self._arguments(batch)
        plain = self._plain_loss(beta, arguments, kwargs)
        differentiate = torch.is_grad_enabled() and hasattr(self.estimator, "differentiable_loss")
        evaluate = self.estimator.differentiable_loss if differentiate else self.estimator.loss
        with _DataPlate(len(arguments[0])) as plate:
            loss = torch.as_tensor(evaluate(*self._programs(beta), *arguments, **kwargs))
        report, loss, _ = self._scaled(loss, plate, beta, plain)
        return report, loss

    def _plain_loss(self, beta: Tensor | None, arguments: tuple, kwargs: dict) -> float | None:
        """The loss without beta at the draws to come, where the programs run with beta.

        For a beta of 1, too: how many random tensors are drawn must not depend on its value.
        """
        if beta is None:
            return None
        nesting = self.estimator.max_plate_nesting
        with undisturbed(self.model, self.guide):
            loss = self.estimator.loss(self.model, self.guide, *arguments, **kwargs)
        if self.estimator.max_plate_nesting != nesting:  # found by a run that took draws, too
            return self._plain_loss(beta, arguments, kwargs)
        return float(loss)

    def _scaled(
        self, loss: Tensor, plate: "_DataPlate", beta: Tensor | None, plain: float | None
    ) -> tuple[Report, Tensor, float]:
        bound = -loss.detach() / plate.scale
        unknown = torch.full_like(bound, float("nan"))
        report = Report(bound, unknown, unknown)
        if plain is not None and beta is not None and beta.item() != 1.0:
            at_one = -plain / plate.scale
            kl = (bound - at_one) / (1.0 - beta)
            report = Report(bound, at_one + kl, kl)
        divisor = 1.0 if self.summed else plate.scale * plate.num_data
        return report, loss / divisor, divisor


class _DataPlate(Messenger):
    """Looks at the right-most plate of programs that run: its size, and its subsampling scale.

    For programs with a site outside of it, or with several such plates, these are the number of
    arguments and 1.
    """

    def __init__(self, num_arguments: int):
        super().__init__()
        self.num_arguments = num_arguments
        self.found: set[tuple[int, int] | None] = set()

    def _pyro_post_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            return
        frames = [frame for frame in msg["cond_indep_stack"] if frame.dim == -1]
        sizes = [(frame.size, frame.full_size or frame.size) for frame in frames]
        self.found.add(sizes[0] if sizes else None)

    @property
    def num_data(self) -> int:
        return self._sizes[0]

    @property
    def scale(self) -> float:
        size, full_size = self._sizes
        return full_size / size if size else 1.0

    @property
    def _sizes(self) -> tuple[int, int]:
        only = next(iter(self.found)) if len(self.found) == 1 else None
        return only or (self.num_arguments, self.num_arguments)


def objective(
    model: Program,
    guide: Program,
    estimator: pyro.infer.ELBO,
    parameters: Sequence[Tensor] = (),
    **options: Any,
) -> Objective:
    """The objective for one of our estimators, or for an ELBO of Pyro's own; options as
    :class:`Objective`.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.testing.LinearGaussian()  # its guide is the exact posterior
        >>> x = oracle.sample(4)
        >>> loss = objective(oracle.model, oracle.guide, pv.estimators.ELBO(), [oracle.bias])
        >>> found = loss(None, x)
        >>> bool(found.loss.allclose(-oracle.log_prob(x).mean())), found.gradients[0].shape
        (True, torch.Size([5]))
    """
    kind = Objective if isinstance(estimator, Estimator) else StockObjective
    return kind(model, guide, estimator, parameters, **options)


def gradients_of(loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor | None]:
    """Gradients of a scalar, each in its parameter's memory layout; None where there is none."""
    wanted = [p for p in parameters if p.requires_grad] if loss.requires_grad else []
    found = torch.autograd.grad(loss, wanted, allow_unused=True) if wanted else ()
    by_id = {id(p): laid_out(g, p) for p, g in zip(wanted, found, strict=True) if g is not None}
    return [by_id.get(id(p)) for p in parameters]


def laid_out(gradient: Tensor, parameter: Tensor) -> Tensor:
    """A gradient in its parameter's memory layout, which fused optimisers want."""
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def clipped(
    gradients: list[Tensor | None], norm: float | None = None, value: float | None = None
) -> list[Tensor | None]:
    """Gradients whose elements are at most ``value``, and then their norm at most ``norm``, without
    changing a tensor in place.
    """
    if value is not None:
        gradients = [None if g is None else g.clamp(-value, value) for g in gradients]
    return gradients if norm is None else _within(gradients, norm)


def _within(gradients: list[Tensor | None], norm: float) -> list[Tensor | None]:
    """As :func:`torch.nn.utils.clip_grad_norm_`, without changing a tensor in place."""
    norms = [torch.linalg.vector_norm(g) for g in gradients if g is not None]
    if not norms:
        return gradients
    factor = (norm / (torch.linalg.vector_norm(torch.stack(norms)) + 1e-6)).clamp(max=1.0)
    return [None if g is None else g * factor for g in gradients]
