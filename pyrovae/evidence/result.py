"""Evidence: a number for each datum, its error, and what to think of it."""

import math
from os import PathLike
from typing import TYPE_CHECKING, Any

from pyrovae import plots
from pyrovae.declare import html_table
from pyrovae.evidence import files
from pyrovae.evidence.columns import dataset_of
from pyrovae.evidence.combine import combine
from pyrovae.evidence.numbers import Numbers
from pyrovae.evidence.summary import summarize

if TYPE_CHECKING:
    import xarray

    from pyrovae.evidence.inspection import Inspection
    from pyrovae.evidence.methods.base import Estimate, Method

__all__ = ["Evidence"]


class Evidence(Numbers):
    """log p(x) of held-out data, in nats per datum, with errors and a diagnosis.

    Made by :func:`pyrovae.log_marginal`. ``dataset`` is an :class:`xarray.Dataset` over the
    dimension ``"datum"``; its variables are attributes here:

    - ``log_marginal``: the estimate of log p(x). In expectation it lies on the side of the truth
      that ``bound`` names.
    - ``standard_error``: its Monte Carlo error.
    - ``ess``: effective sample size of the weights.
    - ``pareto_k``: shape of the weights' tail: below 0.5 good, above 0.7 not to be trusted.
      ``-inf`` where the largest weights are equal, ``inf`` where fewer than 25 weights allow no
      diagnosis or none is positive.
    - ``num_particles``: how many weights each datum got.
    - ``debiased``, ``debiased_twice``: the estimate by the jackknife of order 1 and 2; closer to
      the truth for moderate weights, but no bound.
    - ``rounding_error``: with networks in bfloat16, what the rounding did to the estimate by the
      first particles.
    - ``unseen``: nats by which the estimate would rise if the tail of the weights, with k two
      standard errors above the fitted value, were followed as far as a hundred times as many
      particles would follow it.
    - ``degrees_of_freedom`` of the standard error; ``log_weight_variance``, in nats squared;
      ``batch_log_mean``, ``(B, 8)``, the log mean of every eighth weight: what :meth:`interval`
      needs besides.

    Example:
        >>> import pyrovae as pv
        >>> oracle = pv.testing.LinearGaussian(shift=0.3)
        >>> x = oracle.sample(50)
        >>> evidence = pv.log_marginal(oracle.model, oracle.guide, x, num_particles=500)
        >>> low, high = evidence.interval(0.999)
        >>> bool(low < oracle.log_prob(x).mean() < high)
        True
    """

    @classmethod
    def of(
        cls,
        estimate: "Estimate",
        method: "Method",
        inspection: "Inspection",
        *,
        data_scale: float = 1.0,
        bound: str | None = None,
    ) -> "Evidence":
        """From what a method found."""
        if not (math.isfinite(data_scale) and data_scale > 0):
            raise ValueError(f"data_scale must be finite and positive, found {data_scale}.")
        if inspection.discrete and data_scale != 1.0:
            raise ValueError(
                f"data_scale={data_scale} was given, but p(x) is discrete: a probability does not "
                "change with the units of x. Leave it out."
            )
        return cls.from_columns(
            estimate.columns,
            method=type(method).__name__,
            settings=method.settings(),
            bound=bound or method.bound,
            seed=inspection.seed,
            num_dims=inspection.num_dims,
            data_scale=data_scale,
            data=inspection.fingerprint,
            measure="probability" if inspection.discrete else "density",
            notes=estimate.notes,
        )

    @classmethod
    def from_columns(cls, columns: dict[str, Any], **attributes: Any) -> "Evidence":
        """From ``(B,)`` columns; ``log_marginal`` and ``standard_error`` must be among them."""
        return cls(dataset_of(columns, attributes))

    @classmethod
    def combine(cls, *evidence: "Evidence") -> "Evidence":
        r"""Join runs of one method on one model and the same data, with different seeds, to one
        result.

        .. math:: \log \hat p(x) = \log \sum_r \frac{K_r}{K} \hat p_r(x), \qquad K = \sum_r K_r

        which is what one run with all the K weights would have given. That all runs are of one
        model is for the caller to see to: results do not hold the model.

        Raises:
            TypeError: If an argument is no evidence.
            ValueError: If data, method or settings differ (the number of particles may), if two
                seeds are equal, or if log p(x) is exact already.

        >>> import pyrovae as pv
        >>> oracle = pv.testing.LinearGaussian(shift=0.5)
        >>> x = oracle.sample(3)
        >>> runs = [
        ...     pv.log_marginal(oracle.model, oracle.guide, x, num_particles=50, seed=seed)
        ...     for seed in range(4)
        ... ]
        >>> int(pv.Evidence.combine(*runs).num_particles[0])
        200
        """
        for one in evidence:
            if not isinstance(one, Evidence):
                raise TypeError(
                    f"combine takes results of log_marginal, found {type(one).__name__}."
                )
        columns, attributes = combine(evidence)
        return cls.from_columns(columns, **attributes)

    def plot(self, axes: Any = None) -> Any:
        """log p(x) of each datum, in order: :func:`pyrovae.plots.evidence`."""
        return plots.evidence(self, axes)

    def __repr__(self) -> str:
        return summarize(self)

    def _repr_html_(self) -> str:
        title, *lines = summarize(self).splitlines()
        return html_table(title, [(line[:13].strip(), line[13:]) for line in lines])

    def to_datatree(self) -> "xarray.DataTree":
        """ArviZ's schema: ``log_likelihood`` with one chain and draw, and a group ``evidence`` with
        everything.
        """
        return files.to_datatree(self.dataset)

    def save(self, path: "str | PathLike[str]") -> None:
        """Write :meth:`to_datatree` to a netCDF file, whole or not at all, with a checksum."""
        files.write(self.dataset, path)

    @classmethod
    def load(cls, path: "str | PathLike[str]") -> "Evidence":
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is damaged, or holds no evidence.
        """
        return cls(files.read(path))
