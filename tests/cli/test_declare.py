"""What the options declare: the objects of Python, each with its own defaults."""

import pytest
from helpers.runs import declared

import pyrovae as pv

DECLARED = {
    "--prior Vamp --prior.num_components 7": ("prior", "Vamp(num_components=7)"),
    "--likelihood ContinuousBernoulli": ("likelihood", "ContinuousBernoulli()"),
    "--likelihood Gaussian --likelihood.scale learned": ("likelihood", "Gaussian(scale='learned')"),
    "--likelihood Gaussian --likelihood.scale 0.5": ("likelihood", "Gaussian(scale=0.5)"),
    "--posterior FullRankNormal": ("posterior", "FullRankNormal()"),
    "--encoder Conv --encoder.channels [8,16] --encoder.hidden 32": (
        "encoder",
        "Conv(8, 16, hidden=32)",
    ),
    "--encoder.activation tanh": ("encoder", "MLP(300, 300, activation='tanh')"),
    "--encoder.hidden 40": ("encoder", "MLP(40)"),
    "--encoder.hidden []": ("encoder", "MLP()"),
    "--encoder GatedMLP": ("encoder", "GatedMLP(300, 300)"),
    "--estimator DReG --estimator.num_particles 50": ("estimator", "DReG(num_particles=50)"),
    "--beta 0.5": ("beta", "0.5"),
    "--beta=0.5": ("beta", "0.5"),
    "--beta Constant --beta.value 0.5": ("beta", "Constant(value=0.5)"),
    "--beta Linear --beta.steps 5000": ("beta", "Linear(steps=5000)"),
    "--method.num_particles 5000": ("method", "ImportanceSampling(num_particles=5000)"),
    "--encoder Log1p --encoder.net MLP": ("encoder", "Log1p(net=MLP(300, 300))"),
    "--encoder Log1p --encoder.net Conv --encoder.net.channels [4,8]": (
        "encoder",
        "Log1p(net=Conv(4, 8))",
    ),
    "--encoder Log1p --encoder.net Log1p --encoder.net.net MLP --encoder.net.net.hidden 5": (
        "encoder",
        "Log1p(net=Log1p(net=MLP(5)))",
    ),
    "--estimator FreeBits": (
        "estimator",
        "FreeBits()",
    ),
    "--estimator FreeBits --estimator.per 4 --estimator.nats 0.5 --estimator.estimator STL": (
        "estimator",
        "FreeBits(estimator=STL(), nats=0.5, per=4)",
    ),
    "--estimator FreeBits --estimator.estimator STL --estimator.estimator.num_particles 3": (
        "estimator",
        "FreeBits(estimator=STL(num_particles=3))",
    ),
    "--estimator Capacity --estimator.capacity 3": (
        "estimator",
        "Capacity(capacity=3.0)",
    ),
    "--estimator Capacity --estimator.capacity Linear --estimator.capacity.stop 25 "
    "--estimator.capacity.steps 9": (
        "estimator",
        "Capacity(capacity=Linear(stop=25.0, steps=9))",
    ),
    "--prior Vamp --prior.start data": ("prior", "Vamp(start='data')"),
    "--model ConditionalVAE --prior DiagonalNormal": ("prior", "DiagonalNormal()"),
    "--model ConditionalVAE --prior pyrovae.posteriors.Flow --prior.context 5": (
        "prior",
        "Flow(context=5)",
    ),
}
BUILT = ("prior", "likelihood", "posterior", "encoder", "decoder", "estimator", "beta", "method")


@pytest.mark.parametrize("text", DECLARED)
def test_options_declare_one_object_and_leave_the_others(text, tmp_path):
    field, expected = DECLARED[text]
    config = declared(text)
    assert repr(config.build(field)) == expected
    for other in set(BUILT) - {field}:
        assert repr(config.build(other)) == repr(pv.Config().build(other))
    config.save(tmp_path / "c.yaml")
    again = pv.Config.load(tmp_path / "c.yaml")
    assert again == config == declared(f"--config {tmp_path / 'c.yaml'}")
    assert repr(again.build(field)) == expected


@pytest.mark.parametrize("name", ["STL", "IWAE", "DReG", "VIMCO", "RWS"])
def test_a_class_has_its_own_defaults(name, tmp_path):
    """Not those of the class that was the default, or that the configuration declares."""
    from pyrovae import estimators

    expected = repr(getattr(estimators, name)())
    assert repr(declared(f"--estimator {name}").build("estimator")) == expected
    pv.Config().save(tmp_path / "c.yaml")
    config = declared(f"--config {tmp_path / 'c.yaml'} --estimator {name}")
    assert repr(config.build("estimator")) == expected
    assert repr(pv.Config(estimator=name).build("estimator")) == expected


@pytest.mark.parametrize(
    ("name", "expected"), [("GatedMLP", "he"), ("Residual", "he"), ("MLP", "default")]
)
def test_networks_start_as_in_python(name, expected):
    assert declared(f"--encoder {name}").build("encoder").init == expected


def test_options_win_over_the_configuration(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text(
        "epochs: 7\nlr: 0.5\nprior: Vamp\n"
        "beta: {class_path: Linear, init_args: {steps: 9, start: 0.5}}\n"
    )
    for text in (f"--config {path} --lr 0.25 --beta.steps 11", f"--lr 0.25 --config {path}"):
        config = declared(text)
        assert (config.epochs, config.lr) == (7, 0.25)
        assert repr(config.build("prior")) == "Vamp()"
        steps = 11 if "steps" in text else 9
        assert repr(config.build("beta")) == f"Linear(start=0.5, steps={steps})"
    # Arguments of the class in the file do not stick to another class.
    assert declared(f"--config {path} --beta 0.1").build("beta") == 0.1
    cyclical = declared(f"--config {path} --beta Cyclical --beta.period 3").build("beta")
    assert cyclical.start == 0.0


def test_options_of_an_inner_class_win_over_the_configuration(tmp_path):
    (tmp_path / "c.yaml").write_text(
        "encoder:\n  class_path: Log1p\n  init_args:\n    net:\n      class_path: MLP\n"
        "      init_args: {hidden: [7], activation: tanh}\n"
    )
    for more, expected in {
        "": "Log1p(net=MLP(7, activation='tanh'))",
        "--encoder.net.hidden 9": "Log1p(net=MLP(9, activation='tanh'))",
        "--encoder.net GatedMLP": "Log1p(net=GatedMLP(300, 300))",
        "--encoder MLP": "MLP(300, 300)",
    }.items():
        config = declared(f"--config {tmp_path / 'c.yaml'} {more}")
        assert repr(config.build("encoder")) == expected


def test_the_file_keeps_every_kind_of_value(tmp_path):
    options = "--patience null --clip_norm 2.5 --download --valid_size 0.25 --test_size 30 "
    options += "--posterior.scale exp --posterior.log_variance_range [-6,2] --bias_from_data "
    options += "--encoder.hidden []"
    config = declared(options)
    config.save(tmp_path / "c.yaml")
    again = declared(f"--config {tmp_path / 'c.yaml'}")
    assert again == config
    assert again.patience is None
    assert (again.valid_size, again.test_size) == (0.25, 30)
    assert isinstance(again.test_size, int)  # a number of data, not a share
    assert again.download
    assert again.posterior.init_args.log_variance_range == (-6.0, 2.0)
    assert repr(again.build("encoder")) == "MLP()"
