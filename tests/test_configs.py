"""Every declared class is readable from a configuration, as `class_path` and `init_args`, by
jsonargparse.
"""

import inspect

import pytest
from jsonargparse import ArgumentError, ArgumentParser

from pyrovae import likelihoods, models, nets, posteriors, priors

FAMILIES = {
    priors: priors.Prior,
    posteriors: posteriors.Posterior,
    likelihoods: likelihoods.Likelihood,
    nets: nets.Recipe,
    models: models.Model,
}
# Arguments without a default, and what they make.
REQUIRED = {
    "Conv": ("--part.channels=[3,4]", nets.Conv(3, 4)),
    "Residual": ("--part.channels=[3,4]", nets.Residual(3, 4)),
    "Log1p": ("--part.net=MLP --part.net.hidden=[3]", nets.Log1p(nets.MLP(3))),
    "OneHot": (
        "--part.num_levels=3 --part.net=MLP --part.net.hidden=[3]",
        nets.OneHot(3, nets.MLP(3)),
    ),
    "Columns": (
        '--part.columns={"a":{"class_path":"Gaussian"}}',
        likelihoods.Columns({"a": likelihoods.Gaussian()}),
    ),
    "VAE": ("--part.data_shape=[2,3] --part.latent_dim=2", models.VAE([2, 3], 2)),
    "HierarchicalVAE": ("--part.data_shape=4", models.HierarchicalVAE(4)),
    "ClusteringVAE": (
        "--part.data_shape=4 --part.latent_dim=2 --part.num_clusters=3",
        models.ClusteringVAE(4, 2, 3),
    ),
    "ConditionalVAE": (
        "--part.data_shape=4 --part.latent_dim=2 --part.condition_dim=3",
        models.ConditionalVAE(4, 2, 3),
    ),
}
VARIANTS = [
    (module, name)
    for module, base in FAMILIES.items()
    for name in module.__all__
    if inspect.isclass(cls := getattr(module, name)) and issubclass(cls, base) and cls is not base
]
OPTIONS = {
    "--part MLP --part.hidden [300,300]": nets.MLP(300, 300),
    "--part MLP --part.hidden 300 --part.activation tanh": nets.MLP(300, activation="tanh"),
    "--part Residual --part.channels [8,16] --part.blocks 1": nets.Residual(8, 16, blocks=1),
    "--part Vamp --part.num_components 50 --part.bounds [-1,1]": priors.Vamp(50, (-1.0, 1.0)),
    "--part Vamp --part.bounds null --part.start data": priors.Vamp(bounds=None, start="data"),
    "--part pyrovae.priors.Flow --part.hidden [8]": priors.Flow(hidden=[8]),
    "--part StudentT --part.df 4": priors.StudentT(4.0),
    "--part Categorical --part.num_categories 3": posteriors.Categorical(3),
    "--part DiagonalNormal --part.scale exp --part.log_variance_range [-6,2]": (
        posteriors.DiagonalNormal("exp", (-6.0, 2.0))
    ),
    "--part VAE --part.data_shape [2,3] --part.latent_dim 2 --part.prior Vamp "
    "--part.prior.num_components 5"
    " --part.encoder MLP --part.encoder.hidden [7]": (
        models.VAE([2, 3], 2, prior=priors.Vamp(num_components=5), encoder=nets.MLP(7))
    ),
}
REFUSED = {
    "--part MLP --part.hidden [a]": nets.Recipe,
    "--part MLP --part.activation swish": nets.Recipe,
    "--part MLP --part.width 3": nets.Recipe,
    "--part Vamp --part.start middle": priors.Prior,
    "--part Flow --part.transform cubic": posteriors.Posterior,
    "--part GaussianMixture --part.num_components 2.5": priors.Prior,
    "--part Bernoulli": priors.Prior,
}


def parser_of(base):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(base, "part")
    return parser


def read(base, argv):
    """The object that a command line declares, and again from the file that the parser writes of
    it.
    """
    parser = parser_of(base)
    config = parser.parse_args(argv.split())
    part = parser.instantiate(config).part
    # None is a value: Vamp(bounds=None) differs from Vamp().
    again = parser.instantiate(parser.parse_string(parser.dump(config, skip_unset=False))).part
    assert repr(again) == repr(part)
    return part


@pytest.mark.parametrize(("module", "name"), VARIANTS, ids=lambda v: getattr(v, "__name__", v))
def test_every_variant_with_its_defaults(module, name):
    argv, expected = REQUIRED.get(name, ("", None))
    found = read(FAMILIES[module], f"--part {name} {argv}")
    assert repr(found) == repr(getattr(module, name)() if expected is None else expected)


@pytest.mark.parametrize("argv", OPTIONS)
def test_arguments_have_the_types_of_their_annotations(argv):
    base = next(base for base in FAMILIES.values() if isinstance(OPTIONS[argv], base))
    assert repr(read(base, argv)) == repr(OPTIONS[argv])


@pytest.mark.parametrize("argv", REFUSED)
def test_wrong_names_and_values_are_refused_before_anything_is_made(argv):
    with pytest.raises(ArgumentError):
        parser_of(REFUSED[argv]).parse_args(argv.split())
