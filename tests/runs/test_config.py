"""The configuration of a run: checked, written, read again, and declared."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.runs import declaration_of

import pyrovae as pv
from pyrovae import likelihoods, nets, priors
from pyrovae.runs import declare, load_data
from pyrovae.runs.pipeline import settle

OWN = '''
import torch
import pyro.distributions as dist
from pyrovae.priors import Prior
from pyrovae import priors


class Wide(Prior):
    """A wide prior.

    Args:
        scale: How wide.
        names: Some words.
    """

    def __init__(self, scale: float = 3.0, unused: "int | None" = None, *,
                 names: tuple[str, ...] = ("a",)):
        super().__init__()
        self.scale, self.names = scale, names

    def build(self):
        self.register_buffer("zeros", torch.zeros(self.latent_dim))

    def forward(self):
        return dist.Normal(self.zeros, self.scale).to_event(1)


class Same(priors.StandardNormal):
    """Inherits."""


NUMBER = 3
'''


def test_default_is_the_model_of_the_readme():
    config = pv.Config()
    vae = declare(config, (8, 8))
    assert declaration_of(vae) == declaration_of(pv.VAE((8, 8), 16))
    assert config.data == "digits"
    assert config.build("beta") == 1.0


@pytest.mark.parametrize(
    "value",
    ["Vamp", "pyrovae.priors.Vamp", {"class_path": "Vamp", "init_args": {"num_components": 500}}],
)
def test_a_class_can_be_declared_in_three_ways(value):
    config = pv.Config(prior=value)
    assert config.prior.class_path == "pyrovae.priors.Vamp"
    built = config.build("prior")
    assert type(built) is priors.Vamp
    assert built is not config.build("prior")


def test_written_and_read_again(tmp_path):
    config = pv.Config(
        prior={"class_path": "GaussianMixture", "init_args": {"num_components": 3}},
        likelihood="ContinuousBernoulli",
        encoder={"class_path": "Log1p", "init_args": {"net": {"class_path": "Conv"}}},
        beta={"class_path": "Linear", "init_args": {"steps": 9}},
        data_root=tmp_path,
        latent_dim=(3, 2),
        patience=None,
        lr=1e-3,
    )
    config.save(tmp_path / "c.yaml")
    again = pv.Config.load(tmp_path / "c.yaml")
    assert again == config
    assert str(again) == str(config) == (tmp_path / "c.yaml").read_text()
    assert again.data_root == Path(tmp_path)
    assert repr(again.build("encoder")) == repr(nets.Log1p(nets.Conv(32, 64)))
    assert replace(again, seed=3).build("beta").steps == 9


def test_objects_are_written_as_they_are_declared(tmp_path):
    config = pv.Config(
        prior=priors.Vamp(5),
        encoder=nets.Log1p(nets.MLP(8, 4)),
        decoder=nets.MLP(8),
        estimator=pv.estimators.IWAE(3),
        beta=pv.schedules.Linear(steps=9),
        method=pv.ImportanceSampling(20),
    )
    config.save(tmp_path / "c.yaml")
    again = pv.Config.load(tmp_path / "c.yaml")
    assert again == config
    assert repr(again.build("prior")) == "Vamp(num_components=5)"
    assert repr(again.build("encoder")) == repr(nets.Log1p(nets.MLP(8, 4)))
    assert repr(again.build("method")) == repr(pv.ImportanceSampling(20))
    assert again.build("beta").steps == 9


def test_an_object_that_no_file_can_hold_is_refused():
    with pytest.raises(TypeError, match="value of Constant cannot be written"):
        pv.Config(beta=pv.schedules.Constant(torch.tensor(0.5)))


def test_a_file_may_hold_few_lines(tmp_path):
    (tmp_path / "c.yaml").write_text("prior: Vamp\nepochs: 3\n")
    assert pv.Config.load(tmp_path / "c.yaml") == pv.Config(prior="Vamp", epochs=3)
    (tmp_path / "c.yaml").write_text("# nothing yet\n")
    assert pv.Config.load(tmp_path / "c.yaml") == pv.Config()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior": "vmap"}, "prior: There is no class 'vmap'. Did you mean Vamp"),
        ({"epochs": "many"}, "epochs: Expected int, found many"),
        ({"model": "ClusteringVAE"}, "model: give --model.num_clusters"),
        (
            {
                "model": {"class_path": "ClusteringVAE", "init_args": {"num_clusters": 3}},
                "prior": "Vamp",
            },
            "ClusteringVAE takes no prior",
        ),
        ({"prior": {"class_path": "Vamp", "init_args": {"nums": 3}}}, "takes no 'nums'"),
        (
            {"prior": {"class_path": "Vamp", "init_args": {"num_components": "many"}}},
            "prior.num_components: Expected int, found many",
        ),
        ({"prior": "nowhere/mine.py:Wide"}, "Cannot find the class 'nowhere/mine.py:Wide'"),
    ],
)
def test_mistakes_are_refused_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        pv.Config(**options)
    with pytest.raises(FileNotFoundError, match="no configuration at"):
        pv.Config.load("nowhere.yaml")


def test_data_are_those_that_the_configuration_says():
    digits = pv.data.load("digits", valid_size=100, seed=4)
    expected = digits.binarize("stochastic", seed=4).take(30, seed=4)
    config = pv.Config(valid_size=100, data_seed=4, binarize="stochastic", limit=30)
    found = load_data(config)
    assert len(found.valid) == len(expected.valid) == 30
    for part in ("train", "valid", "test"):
        assert (getattr(found, part) == getattr(expected, part)).all()


def test_what_is_left_to_the_data_is_settled_once(tmp_path):
    config, splits = settle(pv.Config(limit=20))
    assert config.binarize == "threshold"
    assert not splits.is_grey
    grey, _ = settle(pv.Config(limit=20, likelihood="ContinuousBernoulli"))
    assert grey.binarize == "none"
    assert settle(config)[0] == config
    given, _ = settle(pv.Config(limit=6, model="ConditionalVAE"))
    assert given.condition_dim == 10


def test_classes_of_a_file(tmp_path, monkeypatch):
    (tmp_path / "own_parts.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("own_parts.Wide", f"{tmp_path / 'own_parts.py'}:Wide"):
        config = pv.Config(prior={"class_path": name, "init_args": {"scale": 1.5}})
        built = config.build("prior")
        assert (built.scale, built.names) == (1.5, ("a",))
    # The file is named by its whole path, so that it is found from every folder.
    config.save(tmp_path / "c.yaml")
    assert f"class_path: {tmp_path / 'own_parts.py'}:Wide" in (tmp_path / "c.yaml").read_text()
    assert pv.Config.load(tmp_path / "c.yaml") == config
    same = pv.Config(prior=f"{tmp_path / 'own_parts.py'}:Same")
    assert repr(same.build("prior")) == "Same()"


def test_a_file_is_found_beside_the_configuration(tmp_path, monkeypatch):
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    (tmp_path / "there" / "own_beside.py").write_text(OWN)
    (tmp_path / "there" / "c.yaml").write_text("prior: own_beside.py:Wide\n")
    monkeypatch.chdir(tmp_path / "here")
    config = pv.Config.load("../there/c.yaml", trust=True)
    assert type(config.build("prior")).__name__ == "Wide"
    monkeypatch.chdir(tmp_path / "there")
    assert pv.Config(prior="own_beside.py:Wide") == config


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module.Wide", "No module named 'no_such_module'"),
        ("nowhere/own.py:Wide", "there is no such file"),
        ("json.JSONDecoder", "subclass of Prior"),
        ("{folder}/own_parts.py:Narrow", "defines no class 'Narrow'"),
        ("{folder}/own_parts.py:NUMBER", "defines no class 'NUMBER'"),
        ("{folder}/broken.py:Wide", "broken.py is not valid Python: .*, line 1"),
    ],
)
def test_a_class_of_ones_own_that_is_not_there(name, message, tmp_path):
    (tmp_path / "own_parts.py").write_text(OWN)
    (tmp_path / "broken.py").write_text("class Wide(:\n")
    with pytest.raises(ValueError, match=message):
        pv.Config(prior=name.format(folder=tmp_path))


def test_lists_of_a_file_are_the_tuples_of_python():
    config = pv.Config(prior={"class_path": "Flow", "init_args": {"hidden": [8]}})
    assert repr(config.build("prior")) == repr(priors.Flow(hidden=(8,)))
    bernoulli = pv.Config().build("likelihood")
    assert type(bernoulli) is likelihoods.Bernoulli
