"""Whole shapes, conditions, and parts of parts from the command line: what it writes is what Python gives."""

import re
import shutil
import tomllib

import numpy as np
import pytest
import torch
from pyrovae.cli.conditions import settle
from pyrovae.cli.options import chosen_parts
from safetensors.torch import load_file

import pyrovae as pv
from pyrovae import nets, posteriors
from pyrovae.cli import main
from pyrovae.cli.parse import parse, to_config
from pyrovae.runs.run import build

TINY = "--data.limit 60 --epochs 2 --latent-dim 3 --method.num-particles 50 --encoder.hidden 16 --decoder.hidden 16"
SHAPES = {
    "hierarchical": "--latent-dim 3 2 --shape.between mlp --shape.between.hidden 8 --shape.features 12",
    "conditional": "--prior posteriors.diagonal-normal --shape.joint mlp --shape.joint.hidden 8 --binarize dynamic",
    "clustering": "--shape.num-clusters 4 --shape.spread 2.0",
}
SMALL = {"encoder": nets.MLP(16), "decoder": nets.MLP(16)}
DECLARED = {
    "hierarchical": lambda: pv.HierarchicalVAE(
        (8, 8), (3, 2), between=nets.MLP(8), features=12, **SMALL
    ),
    "conditional": lambda: pv.ConditionalVAE(
        (8, 8), 3, 10, prior=posteriors.DiagonalNormal(), joint=nets.MLP(8), **SMALL
    ),
    "clustering": lambda: pv.ClusteringVAE((8, 8), 3, 4, spread=2.0, **SMALL),
}


def call(*words):
    return main([word for text in words for word in str(text).split()])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for shape, options in SHAPES.items():
        assert call("train", TINY, options, "--shape", shape, "--seed 5 --out", folder / shape) == 0
    return {shape: folder / shape for shape in SHAPES}


def data_of(shape):
    digits = (
        pv.data.load("digits")
        .binarize("dynamic" if shape == "conditional" else "threshold")
        .take(60)
    )
    parts = (digits.train, digits.valid, digits.test)
    if shape != "conditional":
        return digits, parts
    return digits, tuple((x, y) for x, y in zip(parts, digits.labels, strict=True))


def opened(path):
    return pv.load_run(path, device="cpu")


@pytest.mark.parametrize("shape", SHAPES)
def test_a_run_is_what_python_gives(shape, runs):
    digits, (train, valid, test) = data_of(shape)
    torch.manual_seed(5)
    vae = DECLARED[shape]()
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
    weights = load_file(runs[shape] / "weights.safetensors")
    assert weights.keys() == vae.state_dict().keys()
    for name, tensor in vae.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    expected = pv.log_marginal(vae.model, vae.guide, test, num_particles=50, seed=5)
    found = pv.Evidence.load(runs[shape] / "evidence.nc")
    np.testing.assert_array_equal(found.log_marginal, expected.log_marginal)
    assert (runs[shape] / "samples.png").exists()
    assert (runs[shape] / "reconstructions.png").exists()
    assert f"{type(vae).__name__} on digits" in (runs[shape] / "report.html").read_text()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_config_gives_the_same_declaration_again(shape, runs):
    config = runs[shape] / "config.toml"
    given = parse(["train", "--config", str(config)])
    assert to_config(given) == tomllib.loads(config.read_text())
    assert repr(build(given, (8, 8))) == repr(DECLARED[shape]()) == repr(opened(runs[shape]))


METHODS = {
    "--method.num-particles 40": {},
    "--method ais --method.num-temperatures 2 --method.num-chains 2 --method.num-leapfrog 1 --bdmc 2": {
        "method": pv.AIS(2, 2, num_leapfrog=1)
    },
    "--method.num-particles 40 --method.refine-steps 3 --method.prior-share 0.1 --nats --convergence 1 4": {
        "method": pv.ImportanceSampling(40, refine_steps=3, prior_share=0.1)
    },
}


# tests/shapes/test_every_estimator.py has every shape with every method.
PAIRS = [("hierarchical", 0), ("conditional", 1), ("clustering", 2), ("conditional", 2)]


@pytest.mark.parametrize(("shape", "method"), [(shape, list(METHODS)[i]) for shape, i in PAIRS])
def test_evaluate(shape, method, runs, tmp_path, capsys):
    out = tmp_path / "evidence.nc"
    assert call("evaluate", runs[shape], "--limit 3 --part valid", method, "--out", out) == 0
    digits, _ = data_of(shape)
    few, vae = digits.take(3), opened(runs[shape])
    data = few.labelled("valid") if shape == "conditional" else few.valid
    expected = pv.log_marginal(
        vae.model, vae.guide, data, **(METHODS[method] or {"num_particles": 40})
    )
    np.testing.assert_array_equal(pv.Evidence.load(out).log_marginal, expected.log_marginal)
    shown = capsys.readouterr().out
    given_y = " given y" * (shape == "conditional")
    assert f"held-out log-likelihood{given_y}: {expected.mean():.3f}" in shown
    assert ("log p(x|y) " in repr(pv.Evidence.load(out))) == (shape == "conditional")
    assert ("Sandwich of 2 simulated data" in shown) == ("--bdmc" in method)
    assert ("Where the nats go" in shown) == ("--nats" in method)


def test_held_out_labels_matter(runs, tmp_path):
    """The evidence is that of x given its own y, not of x alone or given another's."""
    vae, (x, y) = opened(runs["conditional"]), data_of("conditional")[0].labelled("test")
    assert (
        call(
            "evaluate",
            runs["conditional"],
            "--method.num-particles 50 --seed 5 --out",
            tmp_path / "e.nc",
        )
        == 0
    )
    found = pv.Evidence.load(tmp_path / "e.nc").log_marginal.values
    wrong = pv.log_marginal(vae.model, vae.guide, (x, (y + 1) % 10), num_particles=50, seed=5)
    assert (abs(found - wrong.log_marginal.values) > 1e-3).all()


def test_estimators(runs, tmp_path, capsys):
    few = "--num-particles 2 --num-replicates 4 --num-data 3 --reference-particles 20 --no-gradient-bias"
    out = tmp_path / "table.nc"
    assert (
        call(
            "estimators", runs["conditional"], "--names elbo dreg vimco capacity", few, "--out", out
        )
        == 0
    )
    assert "capacity" in capsys.readouterr().out


def test_compare(runs, tmp_path, capsys):
    assert call("compare", runs["hierarchical"], runs["clustering"]) == 0
    assert "P(better)" in capsys.readouterr().out
    shutil.copytree(runs["conditional"], tmp_path / "other")
    assert call("compare", runs["conditional"], tmp_path / "other") == 0
    assert call("compare", runs["hierarchical"], runs["conditional"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(r"conditional gives log p\(x \| y\), but .*hierarchical log p\(x\)", line)


def drawn(run, tmp_path, *options):
    out = tmp_path / f"{len([*tmp_path.iterdir()])}.npy"
    assert call("sample", run, *options, "--seed 3 --out", out) == 0
    return np.load(out)


def test_sample(runs, tmp_path):
    def expected(shape, *arguments, **options):
        vae = opened(runs[shape])
        torch.manual_seed(3)
        return vae.sample(*arguments, **options).numpy()

    hierarchical, conditional, clustering = (runs[shape] for shape in SHAPES)
    np.testing.assert_array_equal(
        drawn(hierarchical, tmp_path, "--num 5"), expected("hierarchical", 5)
    )
    np.testing.assert_array_equal(drawn(clustering, tmp_path, "--num 5"), expected("clustering", 5))
    np.testing.assert_array_equal(
        drawn(clustering, tmp_path, "--num 5 --cluster 2 --mean"),
        expected("clustering", 5, cluster=2, mean=True),
    )
    threes = torch.full((5,), 3)
    np.testing.assert_array_equal(
        drawn(conditional, tmp_path, "--num 5 --label 3"), expected("conditional", threes)
    )
    np.testing.assert_array_equal(
        drawn(conditional, tmp_path, "--num 12"), expected("conditional", torch.arange(12) % 10)
    )
    np.testing.assert_array_equal(
        drawn(conditional, tmp_path, "--num 3 --label 7 1"),
        expected("conditional", torch.tensor([7, 1, 7])),
    )
    for run in runs.values():
        assert call("sample", run, "--num 8 --out", tmp_path / f"{run.name}.png") == 0
        assert (tmp_path / f"{run.name}.png").read_bytes().startswith(b"\x89PNG")


def test_covariates_of_a_file(tmp_path, capsys):
    rng = np.random.default_rng(0)
    covariates = rng.normal(size=(90, 2)).astype(np.float32)
    x = rng.poisson(np.exp(1 + covariates @ np.array([[1.0, 0.0], [0.0, 0.5]]))).astype(np.float32)
    np.savez(tmp_path / "people.npz", x=x, labels=covariates)
    run = tmp_path / "run"
    options = (
        "--shape conditional --likelihood poisson --estimator dreg --estimator.num-particles 3"
    )
    assert call("train", TINY, options, "--data", tmp_path / "people.npz", "--out", run) == 0
    assert "condition_dim=2" in capsys.readouterr().out
    vae, people = opened(run), pv.data.load(tmp_path / "people.npz").take(60)
    torch.manual_seed(3)
    np.testing.assert_array_equal(
        drawn(run, tmp_path, "--num 4 --covariates 0.5 -1"),
        vae.sample(torch.tensor([[0.5, -1.0]] * 4)).numpy(),
    )
    torch.manual_seed(3)
    np.testing.assert_array_equal(
        drawn(run, tmp_path, "--num 4"), vae.sample(people.labelled("test")[1][:4]).numpy()
    )
    assert call("sample", run, "--covariates 0.5") == 1
    assert call("sample", run, "--label 1") == 1
    few, label = capsys.readouterr().err.splitlines()
    assert "must be 2 numbers, found 1" in few
    assert "--label does not go with this run's ConditionalVAE conditioned on covariates" in label


def test_a_run_goes_on_with_its_own_shape(runs):
    """The size of the condition is settled once, from all labels there are, and kept in the config."""
    config = tomllib.loads((runs["conditional"] / "config.toml").read_text())
    assert config["shape"]["condition_dim"] == 10
    few = settle(parse(["train", "--data.limit", "6", "--shape", "conditional"]))
    assert len(np.unique(pv.data.load("digits").take(6).labels[0])) < 10
    assert few.shape_options.condition_dim == 10
    # Another shape on the command line leaves behind what it does not take.
    given = parse(["train", "--config", str(runs["conditional"] / "config.toml"), "--shape", "clustering",
                   "--shape.num-clusters", "3"])  # fmt: skip
    assert not hasattr(given, "prior")
    assert type(build(given, (8, 8))).__name__ == "ClusteringVAE"
    assert given.encoder_options.hidden == (16,)


PARTS_OF_PARTS = {
    "--encoder log1p": ("encoder", "Log1p(net=MLP(300, 300))"),
    "--encoder log1p --encoder.net conv --encoder.net.channels 4 8": (
        "encoder",
        "Log1p(net=Conv(4, 8))",
    ),
    "--encoder log1p --encoder.net log1p --encoder.net.net.hidden 5": (
        "encoder",
        "Log1p(net=Log1p(net=MLP(5)))",
    ),
    "--estimator free-bits": (
        "estimator",
        "FreeBits(AnalyticKL(num_particles=1), nats=0.25, per='dimension')",
    ),
    "--estimator free-bits --estimator.per 4 --estimator.nats 0.5 --estimator.estimator stl": (
        "estimator",
        "FreeBits(STL(num_particles=1), nats=0.5, per=4)",
    ),
    "--estimator capacity --estimator.capacity 3": (
        "estimator",
        "Capacity(AnalyticKL(num_particles=1), Constant(3.0), gamma=100.0)",
    ),
    "--estimator capacity --estimator.capacity linear --estimator.capacity.stop 25 --estimator.capacity.steps 9": (
        "estimator",
        "Capacity(AnalyticKL(num_particles=1), Linear(0.0, 25.0, steps=9), gamma=100.0)",
    ),
    "--prior vamp --prior.start data": ("prior", "Vamp(start='data')"),
    "--shape conditional --prior diagonal-normal": ("prior", "DiagonalNormal()"),
    "--shape conditional --prior posteriors.flow --prior.context 5": ("prior", "Flow(context=5)"),
}


@pytest.mark.parametrize("text", PARTS_OF_PARTS)
def test_parts_of_parts(text, tmp_path):
    import tomli_w

    kind, expected = PARTS_OF_PARTS[text]
    given = parse(["train", *text.split()])
    assert repr(chosen_parts(given, "train")[kind].build()) == expected
    (tmp_path / "c.toml").write_text(tomli_w.dumps(to_config(given)))
    again = parse(["train", "--config", str(tmp_path / "c.toml")])
    assert to_config(again) == to_config(given)
    assert repr(chosen_parts(again, "train")[kind].build()) == expected


def test_options_of_an_inner_part_win_over_the_config(tmp_path):
    (tmp_path / "c.toml").write_text(
        '[encoder]\nname = "log1p"\n[encoder.net]\nname = "mlp"\nhidden = [7]\nactivation = "tanh"\n'
    )
    for more, expected in {
        "": "Log1p(net=MLP(7, activation='tanh'))",
        "--encoder.net.hidden 9": "Log1p(net=MLP(9, activation='tanh'))",
        "--encoder.net gated-mlp": "Log1p(net=GatedMLP(300, 300))",
        "--encoder mlp": "MLP(300, 300)",
    }.items():
        given = parse(["train", "--config", str(tmp_path / "c.toml"), *more.split()])
        assert repr(chosen_parts(given, "train")["encoder"].build()) == expected


def test_kl_control_trains_as_in_python(tmp_path):
    control = (
        "--estimator free-bits --estimator.nats 5 --estimator.per site --estimator.estimator elbo"
    )
    assert call("train", TINY, control, "--seed 5 --out", tmp_path / "run") == 0
    from pyrovae import estimators

    digits = pv.data.load("digits").binarize("threshold").take(60)
    torch.manual_seed(5)
    vae = pv.VAE((8, 8), 3, **SMALL)
    wrapped = estimators.FreeBits(estimators.ELBO(), 5.0, per="site")
    pv.fit(
        vae.model, vae.guide, digits.train, valid=digits.valid, estimator=wrapped, epochs=2, seed=5
    )
    weights = load_file(tmp_path / "run" / "weights.safetensors")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in vae.state_dict().items())


@pytest.mark.parametrize(
    ("shape", "bias"), [("", "--bias-from-data"), ("--shape hierarchical", "")]
)
def test_a_vamp_starts_at_training_data(shape, bias, tmp_path):
    """With a learning rate too small to move anything."""
    vamp = "--prior vamp --prior.num-components 7 --prior.start data --lr 1e-12 --epochs 1"
    assert call("train", TINY, vamp, shape, bias, "--out", tmp_path / "run") == 0
    vae, train = (
        opened(tmp_path / "run"),
        pv.data.load("digits").binarize("threshold").take(60).train,
    )
    distance = (vae.prior.pseudo_inputs().detach()[:, None] - train).abs().amax((2, 3))
    assert (distance.min(1).values < 1e-6).all()
    means = vae.likelihood.decoder.net[-1].bias.detach().sigmoid()
    started = torch.allclose(means, train.mean(0).flatten().clamp(1e-3, 1 - 1e-3), atol=1e-3)
    assert started == bool(bias)
    assert call("evaluate", tmp_path / "run", "--limit 3 --method.num-particles 5") == 0


BAD = {
    "--shape cluster": (2, "Unknown shape 'cluster'.*Did you mean clustering"),
    "--shape clustering": (2, "--shape.num-clusters"),
    "--shape clustering --shape.num-clusters 0": (1, "num_clusters must be a positive integer"),
    "--shape clustering --shape.num-clusters 3 --prior vamp": (
        2,
        "ClusteringVAE takes no --prior: it is a mixture of Gaussians.*--shape: conditional, hierarchical, vae",
    ),
    "--shape hierarchical --shape.conditional delta": (
        1,
        "p.z1 . z2. must have a density, found Delta",
    ),
    "--shape hierarchical --posterior power-spherical": (1, "lives on the space"),
    "--shape hierarchical --latent-dim 3 2 1": (2, "latent-dim"),
    "--latent-dim 3 2": (1, r"latent_dim must be a positive integer, found \(3, 2\)"),
    "--shape conditional --prior vamp": (1, "Vamp mixes.*posteriors.DiagonalNormal"),
    "--shape conditional --prior posteriors.delta": (1, "must have a density"),
    "--prior posteriors.flow": (2, "Unknown prior 'posteriors.flow'"),
    "--shape conditional --shape.condition-dim 4": (1, "Labels must lie in 0 ... 3"),
    "--shape hierarchical --estimator beta-tc": (
        1,
        "BetaTC takes one latent site.*Use estimators.ELBO",
    ),
    "--shape clustering --shape.num-clusters 3 --estimator free-bits": (1, "per='site'"),
    "--estimator free-bits --estimator.estimator iwae": (1, "FreeBits controls a KL term"),
    "--estimator capacity --estimator.capacity linear": (2, "--estimator.capacity.steps"),
    "--encoder log1p --encoder.net mpl": (2, "Unknown encoder.net 'mpl'.*Did you mean mlp"),
    "--prior vamp --prior.start mean": (2, "--prior.start"),
    "--prior vamp --prior.start data": (1, "Vamp has 500 pseudo-inputs, found 60 data"),
}


@pytest.mark.parametrize("text", BAD)
def test_bad_input_is_one_line(text, tmp_path, monkeypatch, capsys):
    code, message = BAD[text]
    monkeypatch.chdir(tmp_path)
    assert call("train --data.limit 60", text) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert re.match(f"pyrovae: .*({message})", lines[0]), lines[0]
    assert not [*tmp_path.rglob("config.toml")]


def test_what_a_run_has_not_is_refused(runs, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.ones((40, 4), np.float32))
    assert (
        call("train --shape conditional --data", tmp_path / "x.npy", "--out", tmp_path / "run") == 1
    )
    assert call("sample", runs["hierarchical"], "--label 3") == 1
    assert call("sample", runs["conditional"], "--cluster 3") == 1
    assert call("sample", runs["conditional"], "--label 10") == 1
    assert call("sample", runs["clustering"], "--cluster 4") == 1
    assert call("sample", runs["clustering"], "--num 0") == 1
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
