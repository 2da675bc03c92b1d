"""A VAE of x given labels or covariates."""

import math
from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.util import is_validation_enabled
from torch import Tensor, nn

from pyrovae.distributions.tempered import tempered
from pyrovae.likelihoods import Likelihood
from pyrovae.models.base import Model, check_size, check_spaces, join, unbound
from pyrovae.models.forms import as_tensor
from pyrovae.models.joint import JointPosterior, as_recipe, conditional_prior
from pyrovae.models.labels import UNKNOWN, as_labels, given_label, observe_label
from pyrovae.nets import Recipe
from pyrovae.nets.sized import Sized
from pyrovae.posteriors import Posterior
from pyrovae.priors import Prior, StandardNormal, Vamp

__all__ = ["ConditionalVAE"]


class ConditionalVAE(Model):
    r"""A VAE of x given y, where y is a label or a vector of covariates.

    .. math:: p(x, z \mid y) = p(z \mid y)\, p(x \mid z, y), \qquad q(z \mid x, y)

    ``model`` and ``guide`` are plain Pyro programs of (x, y), so data is a tuple:
    ``cvae.fit((images, labels))``. Covariates are floating point, ``(B, condition_dim)``. Labels
    are integers below ``condition_dim``, ``(B,)``, which the networks see one-hot. Evidence is
    that of x given y, log p(x | y).

    Where only some labels are known, give a ``classifier``. ``joint_model`` and ``joint_guide`` are
    programs of (x, y), too, in which y is -1 where it is unknown. The label is a site ``"y"``,

    .. math:: p(x, y, z) = p(y)\, p(z \mid y)\, p(x \mid z, y), \qquad
              q(y, z \mid x) = q(y \mid x)\, q(z \mid x, y),

    with equal p(y), marked for parallel enumeration: ``estimators.EnumELBO`` and
    ``pyro.infer.TraceEnum_ELBO`` sum unknown labels exactly, and known ones are observed. The bound
    is one on log p(x, y) where y is known, and on log p(x) elsewhere. Evidence sums the labels as
    well.

    Args:
        data_shape: Shape of one datum x.
        latent_dim: Dimension D of z.
        condition_dim: Dimension of y, or the number of labels.
        prior: A prior makes p(z), the same for all y; a *posterior* makes a learned p(z | y).
            Default standard normal.
        likelihood: p(x | z, y); default Bernoulli.
        posterior: q(z | x, y); default diagonal normal.
        encoder: Recipe of the network that sees x; default ``MLP(300, 300)``.
        decoder: Recipe or module from (z, y), concatenated, to x; default ``MLP(300, 300)``.
        joint: Recipe of the networks that see y, that of q(z | x, y), which sees features of x
            beside y, and that of p(z | y); default ``MLP(300)``.
        features: Number of features of x in q(z | x, y).
        classifier: Recipe of the network from x to the logits of q(y | x), for labels of which some
            are unknown; None for none.
        classification_weight: The factor alpha on log q(y | x) of known labels. It is added to the
            log-density of ``joint_model`` in training alone, so that the classifier learns from
            them.

    Raises:
        TypeError: If an argument is of another kind, or encoder or ``joint`` is not a recipe.
        ValueError: If sizes do not fit, distributions live on different spaces, p(z | y) is a point
            mass, or the prior is ``priors.Vamp``.

    References:
        Learning Structured Output Representation using Deep Conditional Generative Models (Sohn et
        al., 2015), equation 4; Semi-supervised Learning with Deep Generative Models (Kingma et al.,
        2014), equation 2, with p(z) in place of p(z | y), and equations 6 to 9 for unknown labels,
        `arXiv:1406.5298 <https://arxiv.org/abs/1406.5298>`_.

    Example:
        >>> vae = ConditionalVAE((6,), latent_dim=2, condition_dim=3)
        >>> y = torch.tensor([0, 0, 2])
        >>> x = vae.sample(y)
        >>> x.shape, vae.encode(x, y).sample().shape
        (torch.Size([3, 6]), torch.Size([3, 2]))
    """

    def __init__(
        self,
        data_shape: Sequence[int] | int,
        latent_dim: int,
        condition_dim: int,
        *,
        prior: Prior | Posterior | None = None,
        likelihood: Likelihood | None = None,
        posterior: Posterior | None = None,
        encoder: Recipe | None = None,
        decoder: Recipe | nn.Module | None = None,
        joint: Recipe | None = None,
        features: int = 300,
        classifier: Recipe | None = None,
        classification_weight: float = 0.0,
    ):
        super().__init__(data_shape)
        self.latent_dim = check_size("latent_dim", latent_dim)
        self.condition_dim = check_size("condition_dim", condition_dim)
        encoder, joint = as_recipe("encoder", encoder, 300, 300), as_recipe("joint", joint, 300)
        encoder = as_recipe("encoder", self._reading(likelihood, encoder))
        self.posterior = JointPosterior(
            posterior, encoder, joint, latent_dim=latent_dim, data_shape=self.data_shape,
            given_dim=condition_dim, features=features, role="q(z | x, y)",
        )  # fmt: skip
        self._bind_likelihood(likelihood, decoder, latent_dim + condition_dim)
        self.prior = self._bound_prior(prior, joint)
        check_spaces(self.prior, self.posterior.posterior)
        if not (math.isfinite(classification_weight) and classification_weight >= 0):
            raise ValueError(
                "classification_weight must be a finite number of 0 or more, found "
                f"{classification_weight}."
            )
        self.classification_weight = classification_weight
        self.classifier = None
        if classifier is not None:
            seen = self._reading(likelihood, as_recipe("classifier", classifier))
            self.classifier = Sized(seen, self.data_shape, (condition_dim,), "The classifier")
        self._take_precision_of(decoder)

    def model(self, x: Tensor, y: Tensor) -> Tensor:
        """Generative program of x given y: z from the prior, and x given z and y, observed."""
        y = self._checked(x, y)
        self.register_parameters("likelihood", "prior")
        with pyro.plate("data", x.shape[0], dim=-1):
            z = pyro.sample("z", self._prior_given(y))  # (*K, B, D)
            return pyro.sample("x", self.likelihood(join(z, y)), obs=x)

    def guide(self, x: Tensor, y: Tensor) -> Tensor:
        """Variational program: z given x and y."""
        y = self._checked(x, y, support=False)
        self.register_parameters("posterior")
        with pyro.plate("data", x.shape[0], dim=-1):
            return pyro.sample("z", self.posterior(x, y))

    def joint_model(self, x: Tensor, y: Tensor) -> Tensor:
        """Generative program with the label as a site: y, z given y, and x given both, observed.

        Args:
            x: Data.
            y: Integer labels ``(B,)``, -1 where unknown.
        """
        Model.check(self, x)
        y, num = as_labels(y, self.condition_dim, self._like, x.shape[0]), self.condition_dim
        self.register_parameters("likelihood", "prior")
        with pyro.plate("data", x.shape[0], dim=-1):
            equal = dist.Categorical(logits=torch.zeros(num, device=x.device, dtype=x.dtype))
            label = pyro.sample("y", equal, infer={"enumerate": "parallel"})
            observe_label(label, y, num, x)
            if self.training and torch.is_grad_enabled() and self.classification_weight:
                log_q = self._log_classes(x).gather(-1, y.clamp(min=0).unsqueeze(-1)).squeeze(-1)
                loss = torch.where(y == UNKNOWN, 0.0, self.classification_weight * log_q)
                pyro.factor("classification", loss)
            given = nn.functional.one_hot(label, num).to(x)
            z = pyro.sample("z", self._prior_given(given))
            return pyro.sample("x", self.likelihood(join(z, given)), obs=x)

    def joint_guide(self, x: Tensor, y: Tensor) -> Tensor:
        """Variational program with the label as a site: y given x, and z given x and y."""
        Model.check(self, x, support=False)
        y = as_labels(y, self.condition_dim, self._like, x.shape[0])
        logits = self._log_classes(x)
        self.register_parameters("posterior", "classifier")
        with pyro.plate("data", x.shape[0], dim=-1):
            label = pyro.sample("y", given_label(logits, y), infer={"enumerate": "parallel"})
            given = nn.functional.one_hot(label, self.condition_dim).to(x)
            return pyro.sample("z", self.posterior(x, given))

    @torch.no_grad()
    def classify(self, x: Any) -> Tensor:
        """``(B, condition_dim)``: q(y | x), the probability of each label.

        Raises:
            ValueError: If the model has no classifier.
        """
        return self._log_classes(self._as_data(x)).exp()

    def _log_classes(self, x: Tensor) -> Tensor:
        if self.classifier is None:
            raise ValueError(
                "This model has no classifier q(y | x), which unknown labels take. Give one, such "
                "as ConditionalVAE(..., classifier=nets.MLP(300))."
            )
        return self.classifier(x).log_softmax(-1)

    def encode(self, x: Any, y: Any) -> Any:
        """The distribution q(z | x, y), batch shape ``(B,)``.

        Args:
            x: Data ``(B, *data_shape)``, an array or a tensor of floating-point numbers.
            y: Covariates or labels, as :meth:`condition` takes them.
        """
        x = self._as_data(x)
        return self.posterior(x, self._checked(x, y, support=False))

    def decode(self, z: Tensor, y: Any, *, mean: bool = True) -> Tensor:
        """``(*batch, *data_shape)``: E[x | z, y], or with ``mean=False`` a draw of x."""
        return self._decode(z, self.condition(y), mean=mean)

    @torch.no_grad()
    def sample(self, y: Any, *, mean: bool = False, temperature: float = 1.0) -> Any:
        """``(B, *data_shape)``: a draw of x for each row of y; with ``mean=True``, E[x | z, y].

        Args:
            y: Covariates or labels, as :meth:`condition` takes them.
            mean: Return means in place of draws.
            temperature: Factor on the noise of the prior, as in :meth:`VAE.sample
                <pyrovae.VAE.sample>`.
        """
        y = self.condition(y)
        prior = self._prior_given(y)
        prior = prior if temperature == 1 else tempered(prior, temperature)
        z = prior.sample() if prior.batch_shape else prior.sample((len(y),))
        return self.likelihood.show(self.decode(z, y, mean=mean))

    @torch.no_grad()
    def reconstruct(self, x: Any, y: Any, *, mean: bool = True) -> Any:
        """``(B, *data_shape)``: E[x | z, y], or a draw of x, at one draw of z from q(z | x, y)."""
        return self.likelihood.show(self.decode(self.encode(x, y).sample(), y, mean=mean), x)

    def _exported(self) -> Any:
        y = (self.condition_dim,)
        return {"x": self.data_shape, "y": y}, {"z": (self.latent_dim,), "y": y}

    def condition(self, y: Any) -> Tensor:
        """``(B, condition_dim)``: y as the networks see it, in the parameters' dtype.

        Args:
            y: Covariates ``(B, condition_dim)``, which stay as they are, or integer labels
                ``(B,)``, which become one-hot; an array or a tensor.

        Raises:
            TypeError: If y is neither an array nor a tensor.
            ValueError: If its shape does not fit, or a label lies outside
                ``0 ... condition_dim - 1``.
        """
        y, size = as_tensor(y, self._like, "y"), self.condition_dim
        if not y.is_floating_point() and y.dim() == 1:
            y = y.long()
            if is_validation_enabled() and ((y < 0) | (y >= size)).any():
                raise ValueError(
                    f"Labels must lie in 0 ... {size - 1}, found {int(y.min())} to {int(y.max())}."
                )
            y = nn.functional.one_hot(y, size)
        elif y.dim() != 2 or y.shape[1] != size:
            raise ValueError(
                f"y must be floating with shape (B, {size}), or integer labels with shape (B,), "
                f"found {y.dtype} with shape {tuple(y.shape)}."
            )
        return y.to(self._like)

    def check(self, x: Any, y: Any, *, support: bool = True) -> None:  # type: ignore[override]
        """Raise an error if (x, y) cannot be data of this model.

        A model with a classifier takes unknown labels, in ``joint_model`` and ``joint_guide``.
        """
        whole = isinstance(y, Tensor) and y.dim() == 1 and not y.is_floating_point()
        if self.classifier is not None and whole:
            Model.check(self, x, support=support)
            as_labels(y, self.condition_dim, self._like, x.shape[0])
        else:
            self._checked(x, y, support=support)

    def _checked(self, x: Any, y: Any, *, support: bool = True) -> Tensor:
        """y as the networks see it, where (x, y) can be data of the model."""
        Model.check(self, x, support=support)
        y = self.condition(y)
        if x.shape[0] != y.shape[0]:  # len() would fix the batch size of an exported program
            raise ValueError(f"x and y must have as many rows, found {len(x)} and {len(y)}.")
        return y

    def _bound_prior(self, prior: Prior | Posterior | None, joint: Recipe) -> Prior | Posterior:
        if isinstance(prior, Posterior):
            return conditional_prior(
                prior, "p(z | y)", latent_dim=self.latent_dim, given_dim=self.condition_dim,
                encoder=joint,
            )  # fmt: skip
        if isinstance(prior, Vamp):
            raise ValueError(
                "Vamp mixes q(z | u) over pseudo-inputs u, but this posterior takes y as well. Use "
                "another prior, or a posterior such as posteriors.DiagonalNormal() for a learned "
                "p(z | y)."
            )
        part = unbound(prior, Prior, StandardNormal)
        return part.bind(latent_dim=self.latent_dim, data_shape=self.data_shape)

    def _prior_given(self, y: Tensor) -> Any:
        return self.prior(y) if isinstance(self.prior, Posterior) else self.prior()
