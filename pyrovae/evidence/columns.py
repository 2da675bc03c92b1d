"""The columns of an :class:`~pyrovae.Evidence`: what each means, and its units."""

MEANING = {
    "log_marginal": ("log p(x), estimated", "nats"),
    "standard_error": ("Monte Carlo standard error of log_marginal", "nats"),
    "ess": ("effective sample size of the weights", "particles"),
    "pareto_k": (
        "Pareto shape of the largest weights; above 0.7 the estimate is not to be trusted",
        "1",
    ),
    "num_particles": ("weights that the estimate averages", "particles"),
    "debiased": ("log_marginal by the jackknife of order 1", "nats"),
    "debiased_twice": ("log_marginal by the jackknife of order 2", "nats"),
    "acceptance": ("share of proposals that HMC accepted", "1"),
    "log_weight_variance": ("variance of the log weights", "nats squared"),
    "refinement_gain": ("rise of the ELBO by a guide fitted to the datum", "nats"),
    "unseen": ("what the tail of the weights may hide, with k two standard errors higher", "nats"),
    "degrees_of_freedom": ("of the standard error", "1"),
    "batch_log_mean": ("log mean of every eighth weight", "nats"),
    "resolution": ("rounding of the densities", "nats"),
    "rounding_error": ("what bfloat16 in the networks added, on a datum's first particles", "nats"),
}
