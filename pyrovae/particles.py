r"""Run guide and model once with K particles; hand back every site's two densities.

This is the only place where programs are traced. Estimators and evidence work on its result: log-densities of
shape ``(K, B)``, one for each particle and datum, never summed over data.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask, sum_rightmost
from pyro.infer.util import is_validation_enabled
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Independent, constraints, kl_divergence

Program = Callable[..., Any]
PARTICLE_PLATE = "_particles"


class _Cut(Messenger):
    """Hand the rest of the program a leaf in place of each drawn latent, and keep the pair."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: dict[str, Tensor] = {}

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["is_observed"] or site_is_subsample(msg):
            return
        self.drawn[msg["name"]] = msg["value"]
        leaf = msg["value"].detach()
        if leaf.is_floating_point():
            leaf.requires_grad_()
        msg["value"] = leaf


class _Bridge:
    """The drawn value as the model sees it: gradients that come back across it are multiplied by ``ratio``."""

    def __init__(self, drawn: Tensor, event_dim: int) -> None:
        self.value = drawn.view_as(drawn)
        self.inner = drawn.dim() - event_dim - 2  # plates between particles and data
        self.event_dim = event_dim
        self.ratio: Tensor | None = None
        self.value.register_hook(self._back)

    def _back(self, gradient: Tensor) -> Tensor:
        if self.ratio is None:
            return torch.zeros_like(gradient)
        num_particles, num_data = self.ratio.shape
        shape = (num_particles, *[1] * self.inner, num_data, *[1] * self.event_dim)
        return gradient * self.ratio.reshape(shape)


@dataclass(frozen=True)
class LatentSite:
    """One latent site: its value, its two distributions, and their scores, each ``(K, B)``.

    Attributes:
        name: Name of the site.
        value: ``(K, B, *event)``; a leaf tensor where the particles were drawn with ``cut=True``.
        drawn: The same numbers, still attached to the guide's parameters.
        prior: Its distribution in the model, given the sites before it.
        posterior: Its distribution in the guide, given the sites before it.
        kl_weight: Product of the scales put on the site, beside the data plate's own; 1.0 without any.
        in_order: Whether every site before it in the model is before it in the guide too. If not, its prior may
            depend on sites drawn *given* it, and KL(posterior || prior) is no term of the bound.
    """

    name: str
    value: Tensor
    drawn: Tensor
    prior: Any
    posterior: Any
    kl_weight: float | Tensor
    in_order: bool
    _reduce: Callable[[Tensor], Tensor] = field(repr=False)
    _masks: tuple[Any, Any] = field(repr=False)
    _whole: "LatentSite | None" = field(default=None, repr=False)
    _seen: Tensor | None = field(default=None, repr=False)

    @cached_property
    def log_p(self) -> Tensor:
        """``(K, B)``: log-density under the model."""
        return self._reduce(
            scale_and_mask(
                self.prior.log_prob(self.value if self._seen is None else self._seen), mask=self._masks[0]
            )
        )

    @cached_property
    def log_q(self) -> Tensor:
        """``(K, B)``: log-density under the guide."""
        return self._reduce(scale_and_mask(self.posterior.log_prob(self.value), mask=self._masks[1]))

    @property
    def score(self) -> Tensor:
        """``(K, B)``: log q whose derivative is the score of the draw, without the weights of :meth:`by_element`."""
        return self.log_q if self._whole is None else self._whole.log_q

    @property
    def reparameterized(self) -> bool:
        """Whether gradients flow from the value to the guide."""
        return bool(getattr(self.posterior, "has_rsample", False))

    def by_element(self, weight: Tensor | float = 1.0) -> "LatentSite":
        """The site with each element of its event scored by itself, times ``weight``, before they are summed.

        Args:
            weight: Broadcasts to ``(*batch, *event)``.

        Raises:
            ValueError: If either distribution is not independent across elements, as a full-rank normal, a
                mixture or a flow.
        """
        dims = len(self.prior.event_shape)

        def reduce(scores: Tensor) -> Tensor:
            summed: Any = sum_rightmost(scores * weight, dims)
            return self._reduce(summed)

        return replace(
            self,
            prior=_elements(self.prior, self.name, "prior"),
            posterior=_elements(self.posterior, self.name, "posterior"),
            _reduce=reduce,
            _whole=self,
            _masks=tuple(m[(...,) + (None,) * dims] if isinstance(m, Tensor) else m for m in self._masks),
        )

    @property
    def closed_form(self) -> Tensor | None:
        """``(K, B)``: KL(posterior || prior) where it is a term of the bound and has a closed form, else None."""
        if not self.in_order:
            return None
        try:
            return self.reduce(kl_divergence(self.posterior, self.prior))
        except NotImplementedError:
            return None

    def reduce(self, per_site: Tensor) -> Tensor:
        """Sum a tensor of this site's batch shape over inner plates, to ``(K, B)``, under the model's mask."""
        return self._reduce(scale_and_mask(per_site, mask=self._masks[0]))


@dataclass(frozen=True)
class Particles:
    """K draws from the guide for each of B data, scored under both programs.

    Attributes:
        latents: The latent sites by name, in the guide's order.
        log_likelihood: ``(K, B)``, log p(x | z) summed over observed sites.
        num_particles: K.
        num_data: B.
        scale: Subsampling scale of the data plate (full size over batch size); belongs outside any logsumexp.
        likelihood_scaled: Whether a handler scales the observed sites.
        num_dims: Observed elements of one datum, over all observed sites.
        discrete: Whether every observed site is discrete, so that log p(x) is a log-probability.
    """

    latents: dict[str, LatentSite]
    log_likelihood: Tensor
    num_particles: int
    num_data: int
    scale: float
    likelihood_scaled: bool
    num_dims: int = 0
    discrete: bool = False
    _bridge: _Bridge | None = field(default=None, repr=False)

    @cached_property
    def log_prior(self) -> Tensor:
        """``(K, B)``: log p(z), without KL scale."""
        return self._sum(site.log_p for site in self.latents.values())

    @cached_property
    def log_q(self) -> Tensor:
        """``(K, B)``: log q(z | x), without KL scale."""
        return self._sum(site.log_q for site in self.latents.values())

    @property
    def log_p(self) -> Tensor:
        """``(K, B)``: log p(x, z), without KL scale."""
        return self.log_likelihood + self.log_prior

    @property
    def log_weights(self) -> Tensor:
        """``(K, B)``: log p(x, z) - log q(z | x)."""
        return self.log_p - self.log_q

    @property
    def scaled(self) -> bool:
        """Whether a handler scales any site, so that the weights are not those of the programs as declared."""
        weights = (site.kl_weight for site in self.latents.values())
        return self.likelihood_scaled or any(isinstance(w, Tensor) or w != 1.0 for w in weights)

    def doubly(self, log_p: Tensor, log_q: Tensor, shares: Tensor, ratio: Tensor | float = 1.0) -> Tensor:
        r"""Surrogate for a gradient without the guide's score, from particles drawn with ``cut="bridge"``.

        .. math:: \sum_k a_k\, \partial_{\text{direct}} \log p_k
                  + \sum_k a_k r_k\, \frac{\partial (\log p_k - \log q_k)}{\partial z_k}
                    \frac{\partial z_k}{\partial\phi}

        With one latent site the model is differentiated once for both parts, which share everything but a factor
        at z; with several, the second part is that of :meth:`pathwise`.

        Args:
            log_p, log_q: ``(K, B)``, made of these particles' scores.
            shares: The weights a, ``(K, B)``.
            ratio: The factor r, ``(K, B)`` or a number.
        """
        shares = shares.detach()
        ratio = (ratio * torch.ones_like(shares)).detach()
        direct = (shares * log_p).sum()
        if self._bridge is None:
            return direct + self.pathwise((shares * ratio * (log_p - log_q)).sum())
        self._bridge.ratio = ratio
        return direct - self.pathwise((shares * ratio * log_q).sum())

    def pathwise(self, objective: Tensor) -> Tensor:
        r"""Surrogate for the gradient of ``objective`` that flows through the draws alone.

        For particles drawn with ``cut=True`` and an objective f made of their scores, the result is a scalar
        whose gradient is :math:`\sum_k (\partial f / \partial z_k)\, \partial z_k / \partial\phi`, all layers
        included; the direct dependence of the scores on any parameter is left out. Its value has no meaning.
        Without gradients enabled it is zero.
        """
        if not objective.requires_grad:  # without gradients, or of scores that are constant
            return torch.zeros_like(objective)
        sites = [s for s in self.latents.values() if s.drawn.requires_grad and s.value.is_floating_point()]
        leaves = [site.value for site in sites]
        if not leaves:
            return torch.zeros_like(objective)
        found = torch.autograd.grad(objective, leaves, retain_graph=True, allow_unused=True)
        slopes = [torch.zeros_like(z) if g is None else g for z, g in zip(leaves, found, strict=True)]
        surrogate = torch.zeros_like(objective)
        # A later layer was drawn from a distribution that the leaves of earlier layers shape: walk back.
        for i in reversed(range(len(sites))):
            drawn, slope = sites[i].drawn, slopes[i].detach()
            if i and drawn.requires_grad:
                upstream = torch.autograd.grad(drawn, leaves[:i], slope, retain_graph=True, allow_unused=True)
                for j, g in enumerate(upstream):
                    if g is not None:
                        slopes[j] = slopes[j] + g
            surrogate = surrogate + (slope * drawn).sum()
        return surrogate

    def _sum(self, terms: Any) -> Tensor:
        total = torch.zeros_like(self.log_likelihood)
        for term in terms:
            total = total + term
        return total


def _elements(distribution: Any, name: str, role: str) -> Any:
    """The distribution with its event's elements in the batch shape."""
    inner = distribution
    while isinstance(inner, Independent):
        inner = inner.base_dist
    if inner.event_shape:
        raise ValueError(
            f"The {role} of site '{name}' is a {type(inner).__name__}, which is not independent across elements. "
            "Treat the site as a whole, or use an elementwise distribution such as a diagonal normal."
        )
    return inner


def draw(
    model: Program,
    guide: Program,
    num_particles: int,
    args: tuple = (),
    kwargs: dict[str, Any] | None = None,
    *,
    max_plate_nesting: int = 1,
    cut: bool | Literal["bridge"] = False,
) -> Particles:
    """Draw ``num_particles`` from the guide for every datum and score them under model and guide.

    Args:
        model, guide: Pyro programs whose data plate is the right-most batch dimension.
        num_particles: K; an outermost plate of that size vectorises both programs.
        args, kwargs: Arguments of both programs.
        max_plate_nesting: Number of batch dimensions that the programs use themselves.
        cut: Detach each draw from the guide's parameters before it is scored (see :meth:`Particles.pathwise`);
            ``"bridge"`` for use with :meth:`Particles.doubly`.

    Raises:
        ValueError: If a site lies outside the data plate, is latent in one program only, is scaled in one
            program only, or if the programs nest more plates than ``max_plate_nesting``.
    """
    kwargs = kwargs or {}
    guide_trace, drawn = _trace_guide(guide, num_particles, args, kwargs, max_plate_nesting, bool(cut))
    given = {"max_plate_nesting": max_plate_nesting, "drawn": drawn}
    if cut != "bridge" or len(drawn) != 1 or not all(value.requires_grad for value in drawn.values()):
        return score(model, guide_trace, num_particles, args, kwargs, **given)
    ((name, value),) = drawn.items()
    bridge = _Bridge(value, guide_trace.nodes[name]["fn"].event_dim)
    bridged = guide_trace.copy()
    bridged.nodes[name] = {**guide_trace.nodes[name], "value": bridge.value}
    replayed = _replay(model, bridged, num_particles, args, kwargs, max_plate_nesting)
    particles = score(model, guide_trace, num_particles, args, kwargs, model_trace=replayed, **given)
    return replace(particles, _bridge=bridge)


def encode(guide: Program, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
    """Trace of the guide, run once on a batch without particles, for :func:`draw_encoded`.

    ``None`` if the guide has not exactly one latent site: its later distributions depend on earlier draws, so each
    particle needs a run of its own, as :func:`draw` does it.
    """
    trace = poutine.trace(guide).get_trace(*args, **(kwargs or {}))
    return trace if len(_sites(trace, observed=False)) == 1 else None


def draw_encoded(
    model: Program,
    encoded: Any,
    num_particles: int,
    args: tuple = (),
    kwargs: dict[str, Any] | None = None,
    *,
    max_plate_nesting: int = 1,
) -> Particles:
    """As :func:`draw`, from the distribution that one run of the guide gave (:func:`encode`)."""
    site = _draw_site(encoded, num_particles, max_plate_nesting)
    trace = encoded.copy()
    trace.nodes[site["name"]] = site
    return score(model, trace, num_particles, args, kwargs or {}, max_plate_nesting=max_plate_nesting)


def draw_latent(
    encoded: Any, num_particles: int, *, max_plate_nesting: int = 1
) -> tuple[str, Tensor, Tensor]:
    """The draw of :func:`draw_encoded` without the model: name, value ``(K, ..., B, *event)``, log q ``(K, B)``."""
    site = _draw_site(encoded, num_particles, max_plate_nesting)
    log_q = scale_and_mask(site["fn"].log_prob(site["value"]), mask=site["mask"])
    if log_q.dim() > 2:
        log_q = log_q.sum(tuple(range(1, log_q.dim() - 1)))
    return site["name"], site["value"], log_q


def _draw_site(encoded: Any, num_particles: int, max_plate_nesting: int) -> dict[str, Any]:
    ((_, site),) = _sites(encoded, observed=False).items()
    fn = site["fn"]
    # A fresh copy: some flows remember each draw in their distribution for as long as it lives.
    fn = fn.expand(fn.batch_shape)
    singleton = (1,) * (max_plate_nesting - len(fn.batch_shape))
    return {**site, "fn": fn, "value": fn(torch.Size((num_particles, *singleton)))}


def draw_prior(
    model: Program,
    num_particles: int,
    args: tuple = (),
    kwargs: dict[str, Any] | None = None,
    *,
    max_plate_nesting: int = 1,
) -> Particles:
    """Draw from the model's own latent sites: ``log_q`` is ``log_prior``, and the weights are the likelihoods."""
    trace, _ = _trace_guide(model, num_particles, args, kwargs or {}, max_plate_nesting, False)
    return score(
        model,
        trace,
        num_particles,
        args,
        kwargs or {},
        max_plate_nesting=max_plate_nesting,
        model_trace=trace,
    )


def at(
    model: Program,
    guide: Program | None,
    values: dict[str, Tensor],
    args: tuple = (),
    kwargs: dict[str, Any] | None = None,
    *,
    encoded: Any = None,
    max_plate_nesting: int = 1,
) -> Particles:
    """Score given latent values, ``(K, B, *event)`` each, instead of drawing them; gradients flow to the values.

    Args:
        model, guide: The two programs; without a guide, ``log_q`` is ``log_prior``.
        encoded: What :func:`encode` gave for these arguments, to save a run of the guide.
    """
    kwargs = kwargs or {}
    num_particles = next(iter(values.values())).shape[0]
    given = poutine.Trace()
    for name, value in values.items():
        given.add_node(name, name=name, type="sample", value=value, is_observed=False, infer={})
    plate = _particle_plate(num_particles, max_plate_nesting)
    with _plate_errors(max_plate_nesting):
        if encoded is not None:
            trace = encoded.copy()
            for name, value in values.items():
                trace.nodes[name] = {**trace.nodes[name], "value": value}
        else:
            program = model if guide is None else guide
            trace = poutine.trace(poutine.replay(plate(program), trace=given)).get_trace(*args, **kwargs)
    return score(
        model,
        trace,
        num_particles,
        args,
        kwargs,
        max_plate_nesting=max_plate_nesting,
        model_trace=trace if guide is None and encoded is None else None,
    )


def predict(
    model: Program,
    values: dict[str, Tensor],
    args: tuple = (),
    kwargs: dict[str, Any] | None = None,
    *,
    max_plate_nesting: int = 1,
) -> dict[str, Tensor]:
    """Draw every observed site anew, ``(K, B, *event)``, given latent values of K particles."""
    given = poutine.Trace()
    for name, value in values.items():
        given.add_node(name, name=name, type="sample", value=value, is_observed=False, infer={})
    plate = _particle_plate(next(iter(values.values())).shape[0], max_plate_nesting)
    with torch.no_grad():
        program = poutine.replay(poutine.uncondition(plate(model)), trace=given)
        trace = poutine.trace(program).get_trace(*args, **(kwargs or {}))
    return {
        name: site["value"]
        for name, site in _sites(trace, observed=False).items()
        if site["infer"].get("was_observed")
    }


def simulate(
    model: Program, args: tuple, kwargs: dict[str, Any] | None = None
) -> tuple[tuple, dict[str, Tensor]]:
    """Draw a batch of data from the model, and the latent values, ``(B, *event)`` each, that they came from.

    Args:
        args: Arguments of the model. The observed ones only give shape, and come back replaced.

    Raises:
        ValueError: If an observed site's value is not one of the arguments.
    """
    with torch.no_grad():
        trace = poutine.trace(poutine.uncondition(model)).get_trace(*args, **(kwargs or {}))
    fresh, latents = list(args), {}
    for name, site in _sites(trace, observed=False).items():
        if not site["infer"].get("was_observed"):
            latents[name] = site["value"]
            continue
        places = [i for i, arg in enumerate(args) if arg is site["infer"]["obs"]]
        if not places:
            raise ValueError(
                f"Site '{name}' observes none of the model's positional arguments as given, so no simulated data "
                "can take its place. Let the model observe the argument itself."
            )
        fresh[places[0]] = site["value"]
    return tuple(fresh), latents


def _trace_guide(guide, num_particles, args, kwargs, max_plate_nesting, cut):
    plated = _particle_plate(num_particles, max_plate_nesting)(guide)
    tracer = poutine.trace(plated)
    cutter = _Cut()
    with _plate_errors(max_plate_nesting):
        guide_trace = (_cutting(cutter, tracer) if cut else tracer.get_trace)(*args, **kwargs)
    return guide_trace, cutter.drawn


def _cutting(cutter: _Cut, tracer: Any) -> Callable[..., Any]:
    """The tracer's ``get_trace`` inside ``cutter``, so that the trace holds the leaves."""

    def get_trace(*args: Any, **kwargs: Any) -> Any:
        with cutter:
            return tracer.get_trace(*args, **kwargs)

    return get_trace


def _replay(model, guide_trace, num_particles, args, kwargs, max_plate_nesting):
    replayed = poutine.replay(_particle_plate(num_particles, max_plate_nesting)(model), trace=guide_trace)
    with _plate_errors(max_plate_nesting):
        return poutine.trace(replayed).get_trace(*args, **kwargs)


def score(
    model: Program,
    guide_trace: Any,
    num_particles: int,
    args: tuple,
    kwargs: dict[str, Any],
    *,
    max_plate_nesting: int = 1,
    drawn: dict[str, Tensor] | None = None,
    model_trace: Any = None,
) -> Particles:
    """Replay the model against a guide trace made under the particle plate (if not done yet), and score both."""
    if model_trace is None:
        model_trace = _replay(model, guide_trace, num_particles, args, kwargs, max_plate_nesting)
    guide_sites = _sites(guide_trace, observed=False)
    model_sites = _sites(model_trace, observed=False)
    observed = _sites(model_trace, observed=True)
    _check_names(guide_sites, model_sites, observed)
    frames = {
        _data_frame(site) for site in (*guide_sites.values(), *model_sites.values(), *observed.values())
    }
    sizes = {(frame.size, frame.full_size or frame.size) for frame in frames}
    if len(sizes) > 1:
        raise ValueError(
            f"The data plates disagree: (batch, full) sizes are {sorted(sizes)}. "
            "Use one plate size in model and guide."
        )
    ((num_data, full_size),) = sizes
    plate_scale = full_size / num_data if num_data else 1.0

    def reduce(log_prob: Tensor) -> Tensor:
        if log_prob.dim() > 2:
            log_prob = log_prob.sum(tuple(range(1, log_prob.dim() - 1)))
        return log_prob.expand(num_particles, num_data)

    latents: dict[str, LatentSite] = {}
    order = list(model_sites)
    for name, site in guide_sites.items():
        if name not in model_sites:
            continue
        weight = _handler_scale(model_sites[name], plate_scale)
        value: Any = site["value"]
        _check_scale(name, model_sites[name], site, plate_scale)
        latents[name] = LatentSite(
            name=name,
            value=value,
            drawn=drawn[name] if drawn else value,
            prior=model_sites[name]["fn"],
            posterior=site["fn"],
            kl_weight=weight,
            in_order=set(order[: order.index(name)]) <= set(latents),
            _reduce=reduce,
            _masks=(model_sites[name]["mask"], site["mask"]),
            _seen=model_sites[name]["value"],
        )
    if is_validation_enabled():
        for site in latents.values():
            _check_event(site)
    log_likelihood: Any = 0.0
    likelihood_scaled = False
    for site in observed.values():
        scale: Any = _handler_scale(site, plate_scale)
        unscaled = isinstance(scale, float) and scale == 1.0
        likelihood_scaled |= not unscaled
        log_prob = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
        log_likelihood = log_likelihood + reduce(
            scale_and_mask(log_prob, scale=1.0 if unscaled else scale, mask=site["mask"])
        )
    return Particles(
        latents=latents,
        log_likelihood=log_likelihood,
        num_particles=num_particles,
        num_data=num_data,
        scale=plate_scale,
        likelihood_scaled=likelihood_scaled,
        num_dims=sum(_numel(site) for site in observed.values()) // max(num_data, 1),
        discrete=all(_discrete(site["fn"]) for site in observed.values()),
    )


def dream(model: Program, guide: Program, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Tensor:
    """``(B,)``: log q(z' | x') of a pair that the model itself draws, one for each datum of a batch.

    The guide sees x' in place of the positional arguments that the model observes.

    Raises:
        ValueError: If an observed site's value is not one of the arguments.
    """
    kwargs = kwargs or {}
    with torch.no_grad():
        dreamt = poutine.trace(poutine.uncondition(model)).get_trace(*args, **kwargs)
    sites = _sites(dreamt, observed=False)
    fresh = list(args)
    for name, site in sites.items():
        if not site["infer"].get("was_observed"):
            continue
        places = [i for i, arg in enumerate(args) if arg is site["infer"]["obs"]]
        if not places:
            raise ValueError(
                f"Site '{name}' observes none of the programs' positional arguments as given, so no dream can "
                "take its place. Pass the observed tensor itself, or use a wake update."
            )
        fresh[places[0]] = site["value"]
    replayed = poutine.trace(poutine.replay(guide, trace=dreamt)).get_trace(*fresh, **kwargs)
    log_q: Any = 0.0
    for site in _sites(replayed, observed=False).values():
        size = _data_frame(site).size
        log_prob = scale_and_mask(site["fn"].log_prob(site["value"]), mask=site["mask"])
        log_q = log_q + log_prob.expand(*log_prob.shape[:-1], size).reshape(-1, size).sum(0)
    return log_q


def _particle_plate(num_particles: int, max_plate_nesting: int) -> Any:
    return pyro.plate(PARTICLE_PLATE, num_particles, dim=-1 - max_plate_nesting)


class _plate_errors:
    """Turn Pyro's words on colliding plates into what to do about them."""

    def __init__(self, max_plate_nesting: int):
        self.max_plate_nesting = max_plate_nesting

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if isinstance(error, ValueError) and "collide at dim" in str(error):
            raise ValueError(
                f"The programs nest more than max_plate_nesting={self.max_plate_nesting} plates ({error}). "
                f"Pass max_plate_nesting={self.max_plate_nesting + 1} or more."
            ) from error


def _sites(trace: Any, *, observed: bool) -> dict[str, Any]:
    return {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and site["is_observed"] == observed and not site_is_subsample(site)
    }


def _check_names(guide_sites: dict, model_sites: dict, observed: dict) -> None:
    missing = [name for name in model_sites if name not in guide_sites]
    if missing:
        raise ValueError(
            f"Latent sites {missing} are in the model but not in the guide, which has {list(guide_sites)}. "
            "Sample them in the guide, or observe them in the model."
        )
    surplus = [
        name
        for name, site in guide_sites.items()
        if name not in model_sites and not site["infer"].get("is_auxiliary")
    ]
    if surplus:
        raise ValueError(
            f"Sites {surplus} are in the guide but not latent in the model, which has {list(model_sites)}. "
            "Give both programs the same latent sites, or mark one infer={'is_auxiliary': True}."
        )
    if not observed:
        raise ValueError("The model observes nothing. Give one site obs=..., inside the data plate.")


def real_support(site: LatentSite) -> bool:
    """Whether a site's values may be any real numbers, as far as its two distributions say."""
    supports = [_real(fn) for fn in (site.prior, site.posterior)]
    return any(supports) and False not in supports


def _real(distribution: Any) -> bool | None:
    """Whether a distribution lives on all real numbers; None if it does not say."""
    try:
        support = distribution.support
    except (AttributeError, NotImplementedError):
        return None
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return None if support is None else support is constraints.real


def _numel(site: Any) -> int:
    """Elements of an observed site for all data, one particle."""
    frames = [
        frame.size for frame in site["cond_indep_stack"] if frame.vectorized and frame.name != PARTICLE_PLATE
    ]
    return math.prod([*site["fn"].event_shape, *frames])


def _discrete(distribution: Any) -> bool:
    try:
        return bool(distribution.support.is_discrete)
    except (AttributeError, NotImplementedError):
        return False


def _data_frame(site: Any) -> Any:
    for frame in site["cond_indep_stack"]:
        if frame.dim == -1:
            return frame
    raise ValueError(
        f"Site '{site['name']}' lies outside the data plate, so it has no density for each datum. "
        "Put it inside pyro.plate('data', len(x)), the right-most batch dimension."
    )


def _handler_scale(site: Any, plate_scale: float) -> float | Tensor:
    """What handlers multiply the site's score by, beside the data plate's subsampling."""
    scale = site["scale"]
    if plate_scale != 1.0:
        scale = scale / plate_scale
    if isinstance(scale, Tensor):
        return scale
    return 1.0 if abs(scale - 1.0) < 1e-12 else float(scale)


def _check_scale(name: str, model_site: Any, guide_site: Any, plate_scale: float) -> None:
    in_model, in_guide = (_handler_scale(site, plate_scale) for site in (model_site, guide_site))
    if in_model is in_guide:
        return
    if isinstance(in_model, Tensor) and isinstance(in_guide, Tensor):
        if len(model_site.get("kl_scale", ())) == len(guide_site.get("kl_scale", ())):
            return
    elif (
        not isinstance(in_model, Tensor)
        and not isinstance(in_guide, Tensor)
        and abs(in_model - in_guide) < 1e-9
    ):
        return
    raise ValueError(
        f"Site '{name}' is scaled by {in_model} in the model but by {in_guide} in the guide. "
        "Wrap both with the same factor: KLScale(beta)(model) and KLScale(beta)(guide)."
    )


def _check_event(site: LatentSite) -> None:
    left, right = tuple(site.prior.event_shape), tuple(site.posterior.event_shape)
    if left != right:
        raise ValueError(
            f"Site '{site.name}' has event shape {left} in the model but {right} in the guide. "
            "Give both distributions the same event dimensions (to_event)."
        )
