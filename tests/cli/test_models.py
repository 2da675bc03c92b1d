"""Models of other kinds from the command line: what it writes is what Python gives."""

import re
import shutil

import numpy as np
import pytest
import torch
import yaml
from helpers.runs import SMALL, TINY, assert_same_weights, call, declaration_of, declared

import pyrovae as pv
from pyrovae import nets, posteriors
from pyrovae.runs import declare
from pyrovae.runs.pipeline import settle

OPTIONS = {
    "HierarchicalVAE": "--latent_dim [3,2] --model.between MLP --model.between.hidden 8 "
    "--model.features 12",
    "ConditionalVAE": "--prior DiagonalNormal --model.joint MLP --model.joint.hidden 8 "
    "--binarize dynamic",
    "ClusteringVAE": "--model.num_clusters 4 --model.spread 2.0",
}
DECLARED = {
    "HierarchicalVAE": lambda: pv.HierarchicalVAE(
        (8, 8), (3, 2), between=nets.MLP(8), features=12, **SMALL
    ),
    "ConditionalVAE": lambda: pv.ConditionalVAE(
        (8, 8), 3, 10, prior=posteriors.DiagonalNormal(), joint=nets.MLP(8), **SMALL
    ),
    "ClusteringVAE": lambda: pv.ClusteringVAE((8, 8), 3, 4, spread=2.0, **SMALL),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for model, options in OPTIONS.items():
        assert call("train", TINY, "--model", model, options, "--seed 5 --out", folder / model) == 0
    return {model: folder / model for model in OPTIONS}


def data_of(model):
    how = "dynamic" if model == "ConditionalVAE" else "threshold"
    digits = pv.data.load("digits").binarize(how).take(60)
    parts = (digits.train, digits.valid, digits.test)
    if model != "ConditionalVAE":
        return digits, parts
    return digits, tuple((x, y) for x, y in zip(parts, digits.labels, strict=True))


def opened(path):
    return pv.load_run(path, device="cpu")


@pytest.mark.parametrize("model", OPTIONS)
def test_a_run_is_what_python_gives(model, runs):
    digits, (train, valid, test) = data_of(model)
    torch.manual_seed(5)
    vae = DECLARED[model]()
    pv.fit(
        vae.model,
        vae.guide,
        train,
        valid=valid,
        epochs=2,
        patience=30,
        seed=5,
        transform=digits.transform,
    )
    assert_same_weights(vae, runs[model])
    expected = pv.log_marginal(vae.model, vae.guide, test, num_particles=50, seed=5)
    found = pv.Evidence.load(runs[model] / "evidence.nc")
    np.testing.assert_array_equal(found.log_marginal, expected.log_marginal)
    assert (runs[model] / "samples.png").exists()
    assert (runs[model] / "reconstructions.png").exists()
    assert f"{type(vae).__name__} on digits" in (runs[model] / "report.html").read_text()


@pytest.mark.parametrize("model", OPTIONS)
def test_a_configuration_gives_the_same_declaration_again(model, runs):
    path = runs[model] / "config.yaml"
    config = declared(f"--config {path}")
    assert str(config) == path.read_text()
    assert config == pv.Config.load(path)
    expected = declaration_of(DECLARED[model]())
    assert declaration_of(declare(config, (8, 8))) == expected
    assert declaration_of(opened(runs[model])) == expected


METHODS = {
    "--method.num_particles 40": {"num_particles": 40},
    "--method AIS --method.num_temperatures 2 --method.num_chains 2 --method.num_leapfrog 1 "
    "--bdmc 2": {"method": pv.AIS(2, 2, num_leapfrog=1)},
    "--method.num_particles 40 --method.refine_steps 3 --method.prior_share 0.1 --nats "
    "--convergence 1 4": {"method": pv.ImportanceSampling(40, refine_steps=3, prior_share=0.1)},
}
# tests/models/test_every_estimator.py has every model with every method.
PAIRS = [
    ("HierarchicalVAE", 0),
    ("ConditionalVAE", 1),
    ("ClusteringVAE", 2),
    ("ConditionalVAE", 2),
]


@pytest.mark.parametrize(("model", "method"), [(model, list(METHODS)[i]) for model, i in PAIRS])
def test_evaluate(model, method, runs, tmp_path, capsys):
    out = tmp_path / "evidence.nc"
    assert call("evaluate", runs[model], "--limit 3 --part valid", method, "--out", out) == 0
    digits, _ = data_of(model)
    few, vae = digits.take(3), opened(runs[model])
    conditional = model == "ConditionalVAE"
    data = few.labelled("valid") if conditional else few.valid
    expected = pv.log_marginal(vae.model, vae.guide, data, **METHODS[method])
    np.testing.assert_array_equal(pv.Evidence.load(out).log_marginal, expected.log_marginal)
    shown = capsys.readouterr().out
    assert f"held-out log-likelihood{' given y' * conditional}: {expected.mean():.3f}" in shown
    assert ("log p(x|y) " in repr(pv.Evidence.load(out))) == conditional
    assert ("Sandwich of 2 simulated data" in shown) == ("--bdmc" in method)
    assert ("Where the nats go" in shown) == ("--nats" in method)


def test_held_out_labels_matter(runs, tmp_path):
    """The evidence is that of x given its own y, not of x alone or given another's."""
    run = runs["ConditionalVAE"]
    vae, (x, y) = opened(run), data_of("ConditionalVAE")[0].labelled("test")
    out = tmp_path / "e.nc"
    assert call("evaluate", run, "--method.num_particles 50 --seed 5 --out", out) == 0
    found = pv.Evidence.load(out).log_marginal.values
    wrong = pv.log_marginal(vae.model, vae.guide, (x, (y + 1) % 10), num_particles=50, seed=5)
    assert (abs(found - wrong.log_marginal.values) > 1e-3).all()


def test_estimators(runs, tmp_path, capsys):
    few = "--num_particles 2 --num_replicates 4 --num_data 3 --reference_particles 20"
    names = "--names ELBO DReG VIMCO Capacity --no_gradient_bias --out"
    assert call("estimators", runs["ConditionalVAE"], few, names, tmp_path / "table.nc") == 0
    assert "Capacity" in capsys.readouterr().out


def test_compare(runs, tmp_path, capsys):
    assert call("compare", runs["HierarchicalVAE"], runs["ClusteringVAE"]) == 0
    assert "P(better)" in capsys.readouterr().out
    shutil.copytree(runs["ConditionalVAE"], tmp_path / "other")
    assert call("compare", runs["ConditionalVAE"], tmp_path / "other") == 0
    assert call("compare", runs["HierarchicalVAE"], runs["ConditionalVAE"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(
        r"ConditionalVAE gives log p\(x \| y\), but .*HierarchicalVAE log p\(x\)", line
    )


def drawn(run, tmp_path, *options):
    out = tmp_path / f"{len([*tmp_path.iterdir()])}.npy"
    assert call("sample", run, *options, "--seed 3 --out", out) == 0
    return np.load(out)


SAMPLES = [
    ("HierarchicalVAE", "--num 5", (5,), {}),
    ("ClusteringVAE", "--num 5", (5,), {}),
    ("ClusteringVAE", "--num 5 --cluster 2 --mean", (5,), {"cluster": 2, "mean": True}),
    ("ConditionalVAE", "--num 5 --label 3", (torch.full((5,), 3),), {}),
    ("ConditionalVAE", "--num 12", (torch.arange(12) % 10,), {}),
    ("ConditionalVAE", "--num 3 --label 7 1", (torch.tensor([7, 1, 7]),), {}),
]


@pytest.mark.parametrize(("model", "text", "arguments", "options"), SAMPLES)
def test_sample(model, text, arguments, options, runs, tmp_path):
    vae = opened(runs[model])
    torch.manual_seed(3)
    expected = vae.sample(*arguments, **options).numpy()
    np.testing.assert_array_equal(drawn(runs[model], tmp_path, text), expected)


def test_samples_of_every_model_make_a_picture(runs, tmp_path):
    for run in runs.values():
        assert call("sample", run, "--num 8 --out", tmp_path / f"{run.name}.png") == 0
        assert (tmp_path / f"{run.name}.png").read_bytes().startswith(b"\x89PNG")


def test_covariates_of_a_file(tmp_path, capsys):
    rng = np.random.default_rng(0)
    covariates = rng.normal(size=(90, 2)).astype(np.float32)
    x = rng.poisson(np.exp(1 + covariates @ np.array([[1.0, 0.0], [0.0, 0.5]]))).astype(np.float32)
    np.savez(tmp_path / "people.npz", x=x, labels=covariates)
    run = tmp_path / "run"
    options = "--model ConditionalVAE --likelihood Poisson --estimator DReG "
    options += "--estimator.num_particles 3 --data"
    assert call("train", TINY, options, tmp_path / "people.npz", "--out", run) == 0
    assert "condition_dim=2" in capsys.readouterr().out
    vae, people = opened(run), pv.data.load(tmp_path / "people.npz").take(60)
    torch.manual_seed(3)
    expected = vae.sample(torch.tensor([[0.5, -1.0]] * 4)).numpy()
    found = drawn(run, tmp_path, "--num 4 --covariates 0.5 -1")
    np.testing.assert_array_equal(found, expected)
    torch.manual_seed(3)
    expected = vae.sample(people.labelled("test")[1][:4]).numpy()
    np.testing.assert_array_equal(drawn(run, tmp_path, "--num 4"), expected)
    assert call("sample", run, "--covariates 0.5") == 1
    assert call("sample", run, "--label 1") == 1
    few, label = capsys.readouterr().err.splitlines()
    assert "must be 2 numbers, found 1" in few
    assert "--label does not go with this run's ConditionalVAE conditioned on covariates" in label


def test_a_run_goes_on_with_its_own_model(runs):
    """The size of the condition is settled once, from all labels, and kept in the file."""
    path = runs["ConditionalVAE"] / "config.yaml"
    assert yaml.safe_load(path.read_text())["condition_dim"] == 10
    few, _ = settle(declared("--limit 6 --model ConditionalVAE"))
    assert len(np.unique(pv.data.load("digits").take(6).labels[0])) < 10
    assert few.condition_dim == 10
    # Another model on the command line has its own defaults for the parts that it does not take.
    other = f"--config {path} --model ClusteringVAE --model.num_clusters 3 --prior StandardNormal"
    config = declared(other)
    assert config.prior is None
    assert type(declare(config, (8, 8))).__name__ == "ClusteringVAE"
    assert repr(config.build("encoder")) == "MLP(16)"


def test_kl_control_trains_as_in_python(tmp_path):
    control = "--estimator FreeBits --estimator.nats 5 --estimator.per site "
    control += "--estimator.estimator ELBO --seed 5 --out"
    assert call("train", TINY, control, tmp_path / "run") == 0
    from pyrovae import estimators

    digits = pv.data.load("digits").binarize("threshold").take(60)
    torch.manual_seed(5)
    vae = pv.VAE((8, 8), 3, **SMALL)
    wrapped = estimators.FreeBits(estimators.ELBO(), 5.0, per="site")
    pv.fit(
        vae.model, vae.guide, digits.train, valid=digits.valid, estimator=wrapped, epochs=2, seed=5
    )
    assert_same_weights(vae, tmp_path / "run")


@pytest.mark.parametrize(
    ("model", "bias"), [("", "--bias_from_data"), ("--model HierarchicalVAE", "")]
)
def test_a_vamp_starts_at_training_data(model, bias, tmp_path):
    """With a learning rate too small to move anything."""
    vamp = "--prior Vamp --prior.num_components 7 --prior.start data --lr 1e-12 --epochs 1"
    assert call("train", TINY, vamp, model, bias, "--out", tmp_path / "run") == 0
    vae = opened(tmp_path / "run")
    train = pv.data.load("digits").binarize("threshold").take(60).train
    distance = (vae.prior.pseudo_inputs().detach()[:, None] - train).abs().amax((2, 3))
    assert (distance.min(1).values < 1e-6).all()
    means = vae.likelihood.decoder.net[-1].bias.detach().sigmoid()
    started = torch.allclose(means, train.mean(0).flatten().clamp(1e-3, 1 - 1e-3), atol=1e-3)
    assert started == bool(bias)
    assert call("evaluate", tmp_path / "run", "--limit 3 --method.num_particles 5") == 0


def test_what_a_run_has_not_is_refused(runs, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.ones((40, 4), np.float32))
    data = tmp_path / "x.npy"
    assert call("train --model ConditionalVAE --data", data, "--out", tmp_path / "run") == 1
    assert call("sample", runs["HierarchicalVAE"], "--label 3") == 1
    assert call("sample", runs["ConditionalVAE"], "--cluster 3") == 1
    assert call("sample", runs["ConditionalVAE"], "--label 10") == 1
    assert call("sample", runs["ClusteringVAE"], "--cluster 4") == 1
    assert call("sample", runs["ClusteringVAE"], "--num 0") == 1
    lines = capsys.readouterr().err.splitlines()
    for line, message in zip(
        lines,
        [
            "x has no labels for each of its parts",
            "--label does not go with this run's HierarchicalVAE. Leave it out",
            "--cluster does not go with this run's ConditionalVAE conditioned on labels",
            "Labels must lie in 0 ... 9, found 10",
            "cluster must lie in 0 ... 3, found 4",
            "--num must be at least 1",
        ],
        strict=True,
    ):
        assert message in line
    assert not (tmp_path / "run").exists()
