"""The base class of the estimators."""

from abc import abstractmethod
from numbers import Integral
from typing import Any, NamedTuple, Self

import pyro.infer
import torch
from pyro import poutine
from pyro.infer.elbo import ELBOModule
from torch import Tensor, nn

from pyrovae.data.arguments import for_programs
from pyrovae.declare import Declared
from pyrovae.distributions.base import innermost
from pyrovae.particles import (
    WRAPPERS,
    Draws,
    NestedPlates,
    Particles,
    draw,
    is_point,
    nesting_of,
    settle,
)
from pyrovae.programs import Program, check_taken, modules_of


class Terms(NamedTuple):
    """The result of an estimator for a batch, in nats for each datum (higher is better).

    Example:
        See :class:`Estimator`, whose subclasses return it.
    """

    bound: Tensor
    """``(B,)``: the value that is reported."""
    objective: Tensor
    """``(B,)`` or a scalar: the value whose gradient training follows upwards. Only its gradient
    has a meaning.
    """


class Estimator(Declared, pyro.infer.ELBO):
    """Base class of the estimators. A subclass has to define :meth:`terms` only.

    ``loss``, ``loss_and_grads``, ``differentiable_loss``, ``bound`` and ``estimator(model, guide)``
    follow, so it works in :class:`pyro.infer.SVI`, in Lightning, and in a training loop that you
    write.

    Class attributes that a subclass may set:

    - ``importance_weighted``: the bound is not linear in the scores, so a scaled program (beta
      other than 1) is refused.
    - ``draws``: ``"attached"``; ``"detached"`` for estimators that build their own gradient with
      :meth:`~pyrovae.particles.Particles.pathwise`; ``"bridged"`` for those that do so with
      :meth:`~pyrovae.particles.Particles.doubly_reparameterized`.
    - ``needs_rsample``: every latent site must be reparameterised.
    - ``needs_density``: no latent site may be a point mass; ``importance_weighted`` implies it.
    - ``takes_auxiliary``: whether it is right for guides with auxiliary sites that hide the density
      of the latent sites (see :attr:`~pyrovae.particles.Particles.auxiliary`).
    - ``looks_at_batch``: the gradient of a batch is not the sum over its data.
    - ``least_particles``: fewer make no estimate, as where particles are compared with one another.

    Args:
        num_particles: Draws K for each datum.
        max_plate_nesting: Batch dimensions that the programs use themselves; 1 is the data plate
            alone.

    Raises:
        ValueError: If K or ``max_plate_nesting`` is too small.

    Example:
        >>> import pyrovae as pv
        >>> from pyrovae.weights import log_mean_exp
        >>> class Mine(Estimator):
        ...     importance_weighted = True
        ...
        ...     def terms(self, particles):
        ...         bound = log_mean_exp(particles.log_weights)  # (B,)
        ...         return Terms(bound, bound)  # reported, differentiated
        >>> oracle = pv.testing.LinearGaussian()  # its guide is exact, so that every bound is tight
        >>> x = oracle.sample(4)
        >>> bool(Mine(3).bound(oracle.model, oracle.guide, x).allclose(oracle.log_prob(x)))
        True
    """

    importance_weighted = False
    draws: Draws = "attached"
    needs_rsample = False
    needs_density = False
    takes_auxiliary = True
    looks_at_batch = False
    least_particles = 1

    def __init__(self, num_particles: int = 1, *, max_plate_nesting: int = 1):
        check_count(type(self).__name__, "num_particles", num_particles, self.least_particles)
        check_count(type(self).__name__, "max_plate_nesting", max_plate_nesting)
        super().__init__(num_particles=int(num_particles), max_plate_nesting=int(max_plate_nesting))

    @property
    def num_draws(self) -> int:
        """Number of draws from the guide for each datum. The cost of a gradient is proportional to
        it.
        """
        return self.num_particles

    def with_draws(self, num_draws: int) -> Self:
        """A copy of the estimator that makes ``num_draws`` draws for each datum."""
        made = self.redeclare(num_particles=num_draws)
        made.max_plate_nesting = self.max_plate_nesting  # which a run may have raised
        return made

    def advance(self, step: int) -> None:
        """Prepare for a training step. :func:`pyrovae.fit` calls this before each one.

        Keep what changes here in a tensor and change it in place, because a compiled step reads
        that tensor.

        Args:
            step: Number of the step, counted from zero.
        """

    def target(self) -> "Estimator":
        """The estimator that differentiates its bound directly and has the same expected gradient
        as this one.

        :func:`pyrovae.compare_estimators` measures bias against it. An estimator that has no such
        counterpart returns itself.
        """
        return self

    @abstractmethod
    def terms(self, particles: Particles) -> Terms:
        """Bound and objective of one set of particles.

        The method must not call ``.item()`` or branch on the values of tensors, because training
        compiles it.
        """

    def average(self, particles: Particles, values: Tensor) -> Tensor:
        """``(B,)``: the mean under the guide of values ``(K, B)`` at the particles."""
        return values.mean(0)

    def kl(self, particles: Particles) -> Tensor:
        """``(B,)``: KL(q(z | x) || p(z)) of each datum, or its estimate from the particles, without
        any beta.
        """
        return self.average(particles, particles.log_q - particles.log_prior)

    def settle(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> None:
        """Find out, by values, whether the programs broadcast over particles, if not yet known.

        :meth:`particles` does so itself, except while a graph is captured, which has no values.
        """
        if self.several:
            settle(model, guide, args, kwargs, max_plate_nesting=int(self.max_plate_nesting))

    def particles(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Particles:
        """Draw what :meth:`terms` works on, and check that the estimator fits it.

        One draw runs both programs as they are, with no dimension added. Several draws run them
        once with a dimension of particles in front, or once for each particle where a program fails
        with that dimension or means something else by it. Where plates nest deeper than
        ``max_plate_nesting``, the attribute is set to what the programs use.

        Raises:
            ValueError: If a site is not reparameterised but must be, or if a handler scales a
                program whose bound is importance-weighted.
        """
        self.settle(model, guide, *args, **kwargs)
        try:
            particles = self.drawn(model, guide, args, kwargs)
        except NestedPlates:
            self.max_plate_nesting = nesting_of(guide, model, args=args, kwargs=kwargs)
            particles = self.drawn(model, guide, args, kwargs)
        self.check(particles)
        return particles

    @property
    def several(self) -> bool:
        """Whether programs run with a dimension of particles in front."""
        return self.num_draws > 1

    def drawn(self, model: Program, guide: Program, args: tuple, kwargs: Any) -> Particles:
        """The draws of :meth:`particles`, by runs with ``max_plate_nesting``."""
        how: Any = {"draws": self.draws, "max_plate_nesting": int(self.max_plate_nesting)}
        return draw(model, guide, self.num_draws, args, kwargs, plate=self.several, **how)

    def check(self, particles: Particles) -> None:
        """Raise ValueError if the estimator does not fit these particles."""
        name = type(self).__name__
        for site in particles.sites.values():
            kind = type(innermost(site.posterior, WRAPPERS)).__name__
            if self.needs_rsample and not site.reparameterized:
                raise ValueError(
                    f"{name} differentiates through '{site.name}', but {kind} has no rsample. "
                    "Use estimators.ELBO, whose score-function term handles discrete sites, or "
                    "VIMCO or RWS."
                )
            weighs = self.importance_weighted or self.needs_density
            if weighs and not particles.mapped and is_point(site.posterior):
                raise ValueError(
                    f"{name} weighs draws by the guide's density, but '{site.name}' is a Delta: a "
                    "point has none. Use estimators.ELBO or AnalyticKL, or "
                    "posteriors.DiagonalNormal."
                )
        if not self.takes_auxiliary and particles.auxiliary and not particles.mapped:
            raise ValueError(
                f"{name} needs the guide's density of the latent sites alone, which the auxiliary "
                f"sites {list(particles.auxiliary)} hide. Use estimators.IWAE or DReG, or a guide "
                "without them."
            )
        masks = [site.masks for site in particles.latents.values()]
        if self.importance_weighted and any(len(left) != len(right) for left, right in masks):
            raise ValueError(
                f"{name} is importance-weighted: with a poutine.mask in one program alone it "
                "bounds nothing. Put the same mask into both."
            )
        if self.importance_weighted and particles.scaled:
            raise ValueError(
                f"{name} is importance-weighted: under a scaled program (KLScale or poutine.scale "
                "with a factor other than 1) it bounds nothing. Use estimators.ELBO with the "
                "scale, or take the scale off."
            )

    def bound(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """``(B,)`` estimates in nats for each datum, without gradients or subsampling scale.

        Data may be of any kind that :func:`pyrovae.fit` takes; arrays one by one or as a tuple.

        Raises:
            TypeError: If the programs do not take so many arrays.
        """
        args = for_programs(args, (model, guide))
        for program in (guide, model):
            check_taken(program, *args, **kwargs)
        with torch.no_grad():
            return self.terms(self.particles(model, guide, *args, **kwargs)).bound

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Negative bound summed over data, times the data plate's subsampling scale."""
        with torch.no_grad():
            return self.differentiable_loss(model, guide, *args, **kwargs).item()

    def differentiable_loss(
        self, model: Program, guide: Program, *args: Any, **kwargs: Any
    ) -> Tensor:
        """The loss as a tensor: the value of the negative bound, the gradient of the objective."""
        particles = self.particles(model, guide, *args, **kwargs)
        return self.loss_of(self.terms(particles), particles.scale)

    @staticmethod
    def loss_of(terms: Terms, scale: float = 1.0) -> Tensor:
        """Scalar whose value is the scaled negative bound and whose gradient is the objective's."""
        if terms.objective is terms.bound:
            return -scale * terms.bound.sum()
        objective = terms.objective.sum()
        return -scale * (terms.bound.sum().detach() + (objective - objective.detach()))

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """The loss, with gradients added to the ``grad`` of every parameter."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward(retain_graph=self.retain_graph)
        return loss.item()

    def __call__(self, model: Any, guide: Any) -> "EstimatorModule":
        """A module that maps arguments to the differentiable loss and owns the parameters of both
        programs.
        """
        return EstimatorModule(model, guide, self)

    def _get_trace(
        self, model: Program, guide: Program, args: tuple, kwargs: dict
    ) -> tuple[Any, Any]:
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        return poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(
            *args, **kwargs
        ), guide_trace


class EstimatorModule(ELBOModule):
    """An estimator fixed to a model and a guide; ``module(x)`` is the differentiable loss."""

    def __init__(self, model: Any, guide: Any, elbo: Estimator):
        nn.Module.__init__(self)
        self.owners = nn.ModuleList(modules_of(model, guide))
        # Programs that are modules stand in `owners`; held here without a second registration.
        object.__setattr__(self, "model", model)
        object.__setattr__(self, "guide", guide)
        self.elbo = elbo


def check_count(owner: str, label: str, value: Any, least: int = 1) -> None:
    """Raise unless ``value`` is an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{owner} needs an integer {label}, found {value!r}.")
    if value < least:
        raise ValueError(f"{owner} needs {label} >= {least}, found {value}.")
