"""A VAE by scikit-learn's conventions. Importing this module imports scikit-learn."""

import copy
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from pyrovae.estimators import Estimator
from pyrovae.likelihoods import Columns, Gaussian, Likelihood
from pyrovae.likelihoods.frames import is_frame
from pyrovae.models import VAE
from pyrovae.nets import MLP, Recipe
from pyrovae.posteriors import Posterior
from pyrovae.priors import Prior
from pyrovae.schedules import Schedule

__all__ = ["VAETransformer"]


class VAETransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Codes of data by a variational autoencoder, as a transformer of scikit-learn.

    ``transform`` gives the means of q(z | x), and ``score_samples`` an importance-sampling estimate
    of log p(x) in nats per datum. The trained model is ``vae_``, for everything else that the
    package does.

    Training runs in single precision. Afterwards the model is in double precision, so that the
    codes of a datum do not depend on the data beside it.

    Args:
        latent_dim: Dimension D of z.
        likelihood: p(x | z). None is ``Gaussian("learned")``: put a ``StandardScaler`` before it.
            ``"infer"`` is ``Columns.infer`` of the frame that is fitted.
        prior: p(z); default standard normal.
        posterior: q(z | x); default diagonal normal.
        encoder: A recipe or module; default ``nets.MLP(100, 100)``.
        decoder: The same.
        estimator: The ELBO estimator that is trained with; default ``estimators.ELBO()``.
        beta: Factor on the KL term in training, a number or a schedule.
        epochs: Passes over the data.
        batch_size: Data in a batch.
        lr: Learning rate of Adam.
        validation_fraction: Share of the data that is held out for the bounds of
            ``history_["valid_bound"]``, and for early stopping by ``fit_options={"patience": 20}``.
        fit_options: Further arguments of :func:`pyrovae.fit`.
        num_particles: Particles K of ``score_samples``.
        random_state: Seed of the initial weights, of training and of ``score_samples``.

    Attributes:
        vae_: The trained :class:`~pyrovae.VAE`.
        history_: The :class:`~pyrovae.History` of its training.
        n_features_in_: Number of columns that were fitted.
        feature_names_in_: Their names, if they are texts.

    Raises:
        ValueError: If data are not finite, or have another number of columns than those fitted; as
            :class:`~pyrovae.VAE` and :func:`pyrovae.fit`.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014),
        `arXiv:1312.6114 <https://arxiv.org/abs/1312.6114>`_.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.pipeline import make_pipeline
        >>> from sklearn.preprocessing import StandardScaler
        >>> from pyrovae.sklearn import VAETransformer
        >>> x = load_iris().data
        >>> steps = make_pipeline(StandardScaler(), VAETransformer(2, epochs=5, random_state=0))
        >>> steps.fit(x).transform(x).shape, steps.score_samples(x).shape
        ((150, 2), (150,))
    """

    n_features_in_: int

    def __init__(
        self,
        latent_dim: int = 2,
        *,
        likelihood: Likelihood | str | None = None,
        prior: Prior | None = None,
        posterior: Posterior | None = None,
        encoder: Recipe | torch.nn.Module | None = None,
        decoder: Recipe | torch.nn.Module | None = None,
        estimator: Estimator | None = None,
        beta: float | Schedule = 1.0,
        epochs: int = 100,
        batch_size: int = 128,
        lr: float | Schedule = 1e-3,
        validation_fraction: float | None = None,
        fit_options: dict[str, Any] | None = None,
        num_particles: int = 100,
        random_state: int | np.random.RandomState | None = None,
    ):
        self.latent_dim = latent_dim
        self.likelihood = likelihood
        self.prior = prior
        self.posterior = posterior
        self.encoder = encoder
        self.decoder = decoder
        self.estimator = estimator
        self.beta = beta
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.validation_fraction = validation_fraction
        self.fit_options = fit_options
        self.num_particles = num_particles
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> "VAETransformer":
        """Train a new model on the data ``(N, columns)``; y is not used."""
        X = self._validated(X, reset=True)
        random = check_random_state(self.random_state)
        seed = int(random.randint(2**31 - 1))
        likelihood = self._declared(X)
        # The model uses modules and estimators as they are; the declaration here stays untrained.
        parts = {name: copy.deepcopy(getattr(self, name)) for name in ("prior", "posterior")}
        for name in ("encoder", "decoder"):
            given = copy.deepcopy(getattr(self, name))
            parts[name] = MLP(100, 100) if given is None else given
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            vae = VAE(self.n_features_in_, self.latent_dim, likelihood=likelihood, **parts)
        train, valid = self._split(X, random)
        self.history_ = vae.fit(
            train, valid=valid, estimator=copy.deepcopy(self.estimator),
            beta=copy.deepcopy(self.beta), epochs=self.epochs, batch_size=self.batch_size,
            lr=copy.deepcopy(self.lr), seed=seed, **{"progress": False, **(self.fit_options or {})},
        )  # fmt: skip
        self.vae_, self._n_features_out = vae.eval().double(), self.latent_dim
        self._seed = seed
        return self

    def transform(self, X: Any) -> np.ndarray:
        """``(N, latent_dim)``: the means of q(z | x)."""
        check_is_fitted(self)
        X = self._validated(X, reset=False)
        codes = np.asarray(self.vae_.embed(X), dtype=np.float64)
        return codes.astype(np.float32) if getattr(X, "dtype", None) == np.float32 else codes

    def inverse_transform(self, X: Any) -> Any:
        """``(N, columns)``: E[x | z] of codes z, an array, or a frame where the likelihood is
        :class:`~pyrovae.likelihoods.Columns` of frames.
        """
        check_is_fitted(self)
        codes = torch.as_tensor(np.asarray(X, dtype=np.float64)).to(self.vae_._like)
        with torch.no_grad():
            x = self.vae_.likelihood.show(self.vae_.decode(codes))
        return x.cpu().numpy() if isinstance(x, torch.Tensor) else x

    def score_samples(self, X: Any) -> np.ndarray:
        """``(N,)``: estimates of log p(x), in nats per datum, on average below the truth."""
        check_is_fitted(self)
        X = self._validated(X, reset=False)
        evidence = self.vae_.log_marginal(X, num_particles=self.num_particles, seed=self._seed)
        return evidence.log_marginal.values

    def score(self, X: Any, y: Any = None) -> float:
        """The mean of :meth:`score_samples`: nats per datum, higher is better."""
        return float(self.score_samples(X).mean())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = getattr(self.likelihood, "missing", self.likelihood == "infer")
        tags.input_tags.string = tags.input_tags.categorical = self._takes_frames
        return tags

    @property
    def _takes_frames(self) -> bool:
        return self.likelihood == "infer" or isinstance(self.likelihood, Columns)

    def _validated(self, X: Any, reset: bool) -> Any:
        """The data as an array, or as the frame that they are where columns may be of any kind."""
        if self._takes_frames and is_frame(X):
            validate_data(self, X, reset=reset, skip_check_array=True)
            return X
        tags = self.__sklearn_tags__()
        finite = "allow-nan" if tags.input_tags.allow_nan else True
        return validate_data(
            self, X, reset=reset, dtype=(np.float64, np.float32), ensure_all_finite=finite
        )

    def _declared(self, X: Any) -> Likelihood:
        if isinstance(self.likelihood, str):
            if self.likelihood != "infer":
                raise ValueError(
                    f"likelihood must be a likelihood, None or 'infer', found {self.likelihood!r}."
                )
            return Columns.infer(X)
        return Gaussian("learned") if self.likelihood is None else copy.deepcopy(self.likelihood)

    def _split(self, X: Any, random: Any) -> tuple[Any, Any]:
        """Training and validation data, for the model's own precision."""
        if not self.validation_fraction:
            return self._single(X), None
        from sklearn.model_selection import train_test_split

        parts = train_test_split(X, test_size=self.validation_fraction, random_state=random)
        train, valid = map(self._single, parts)
        return train, valid

    @staticmethod
    def _single(X: Any) -> Any:
        return X if is_frame(X) else np.asarray(X, dtype=np.float32)
