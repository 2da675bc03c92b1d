"""Models in folders, loaded again without running code, and exported programs."""

import json
import subprocess
import sys
import warnings

import numpy as np
import pyro
import pytest
import torch
from torch import nn
from torch.testing import assert_close

import pyrovae as pv
from pyrovae import likelihoods, nets, posteriors, priors
from pyrovae.likelihoods import Bernoulli, Categorical, Columns, Gaussian
from pyrovae.models.base import Model

SMALL = {"encoder": nets.MLP(5), "decoder": nets.MLP(6, 7, activation="tanh")}
TABLE = Columns(
    {"a": Gaussian("learned"), "b": Bernoulli(), "c": Categorical(3)},
    categories={"c": ["x", "y", "z"]}, units={"a": (3.0, 2.0)}, missing=True,
)  # fmt: skip


def models():
    pyro.set_rng_seed(0)
    return {
        "VAE": pv.VAE((4, 3), 2, likelihood=likelihoods.DiscretizedLogistic(5), **SMALL),
        "Vamp": pv.VAE(
            6, 2, prior=priors.Vamp(3, bounds=(0.0, 1.0)), likelihood=Gaussian("optimal"),
            posterior=posteriors.Flow(1, hidden=(4,), context=3), **SMALL,
        ),
        "Columns": pv.VAE(3, 2, likelihood=TABLE, prior=priors.GaussianMixture(2), **SMALL),
        "Conv": pv.VAE((1, 6, 6), 2, encoder=nets.Conv(3, hidden=4), decoder=nets.MLP(4)),
        "Hierarchical": pv.HierarchicalVAE(6, (2, 3), features=4, between=nets.MLP(3), **SMALL),
        "Conditional": pv.ConditionalVAE(
            6, 2, 3, prior=posteriors.DiagonalNormal(), features=4, joint=nets.MLP(3), **SMALL
        ),
        "Clustering": pv.ClusteringVAE(6, 2, 3, **SMALL),
    }  # fmt: skip


@pytest.mark.parametrize("name", models())
def test_a_saved_model_comes_back(name, tmp_path):
    vae = models()[name].eval()
    vae = vae.double() if name == "VAE" else vae
    vae.save(tmp_path / "model")
    again = pv.load(tmp_path / "model", device="cpu")
    assert repr(again) == repr(vae)
    assert not again.training
    assert again.state_dict().keys() == vae.state_dict().keys()
    for key, value in vae.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
        assert again.state_dict()[key].dtype == value.dtype
    arguments = (torch.tensor([0, 2]),) if name == "Conditional" else (2,)
    draws = []
    for one in (vae, again):
        torch.manual_seed(1)
        draws.append(one.sample(*arguments))
    assert torch.equal(*draws)


def test_the_folder_has_the_layout_of_the_hugging_face_hub(tmp_path):
    vae = models()["Columns"]
    evidence = vae.log_marginal(vae.sample(5), num_particles=10)
    vae.save(tmp_path / "model", evidence=evidence, description="Trained on three columns.")
    files = {path.name for path in (tmp_path / "model").iterdir()}
    assert files == {"README.md", "config.json", "model.safetensors"}
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["library_name"] == "pyrovae"
    likelihood = config["model"]["init_args"]["likelihood"]
    assert likelihood["class_path"] == "pyrovae.likelihoods.Columns"
    assert likelihood["init_args"]["columns"]["b"] == {
        "class_path": "pyrovae.likelihoods.Bernoulli",
        "init_args": {},
    }
    card = (tmp_path / "model" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: pyrovae\n")
    for text in ("Trained on three columns.", repr(vae), repr(evidence), "pv.load("):
        assert text in card


def test_nothing_is_overwritten(tmp_path):
    vae = models()["VAE"]
    vae.save(tmp_path / "model")
    with pytest.raises(FileExistsError, match="not empty"):
        vae.save(tmp_path / "model")


OWN = """
import pathlib
from pyrovae import likelihoods

pathlib.Path("imported").touch()


class Mine(likelihoods.Likelihood):
    '''A likelihood of a user.'''

    def distribution(self, outputs):
        return likelihoods.Bernoulli.distribution(self, outputs)
"""


def test_classes_of_others_are_code_that_needs_trust(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine_to_ship.py").write_text(OWN)
    import mine_to_ship  # type: ignore[import-not-found]

    vae = pv.VAE(3, 2, likelihood=mine_to_ship.Mine(), **SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vae.save("model")
    assert repr(pv.load("model", trust=True)) == repr(vae)
    assert repr(pv.load("model")) == repr(vae)  # its code has run: as for load_run
    (tmp_path / "imported").unlink()
    # In a process that has not imported it, nothing of it runs.
    code = "import pyrovae as pv; pv.load('model')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "not pyrovae's own: 'mine_to_ship.Mine'" in done.stderr
    assert not (tmp_path / "imported").exists()


def test_classes_that_only_this_process_knows_are_warned_of(tmp_path, monkeypatch):
    class Mine(Bernoulli):
        pass

    for module in ("__main__", "pyrovae_file_0"):  # a script, and a file that a run names
        monkeypatch.setattr(Mine, "__module__", module)
        vae = pv.VAE(3, 2, likelihood=Mine(), **SMALL)
        with pytest.warns(UserWarning, match=r"The class Mine can be loaded in this process alone"):
            vae.save(tmp_path / module)


@pytest.mark.parametrize(
    "path", ["os.system", "pyrovae.models.saving.load", "pyrovae.nets.Nothing", "pyrovae.nets", ""]
)
def test_only_parts_are_made(path, tmp_path):
    models()["VAE"].save(tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    config = json.loads(file.read_text())
    config["model"]["init_args"]["encoder"]["class_path"] = path
    file.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"not pyrovae's own|no part of a model|cannot be found"):
        pv.load(tmp_path / "model")


def test_damaged_and_foreign_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        pv.load(tmp_path)
    torch.save(models()["VAE"], tmp_path / "vae.pt")
    with pytest.raises(ValueError, match=r"is a file\. .* vae\.save\(folder\)"):
        pv.load(tmp_path / "vae.pt")
    models()["VAE"].save(tmp_path / "a")
    models()["Clustering"].save(tmp_path / "b")
    weights = tmp_path / "a" / "model.safetensors"
    weights.write_bytes((tmp_path / "b" / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match="does not fit"):
        pv.load(tmp_path / "a")
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged"):
        pv.load(tmp_path / "a")
    for text in ("{", "[]", '{"model": 3}', '{"model": {"class_path": "pyrovae.nets.MLP"}}'):
        (tmp_path / "a" / "config.json").write_text(text)
        with pytest.raises(ValueError, match=r"declares (no|a MLP|a int)"):
            pv.load(tmp_path / "a")


def test_what_is_no_declaration_is_not_saved(tmp_path):
    vae = pv.VAE(3, 2, encoder=nn.Linear(3, 4), decoder=nets.MLP(4))
    with pytest.raises(TypeError, match=r"encoder of VAE .* Linear.*a recipe"):
        vae.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.gpu
def test_from_the_gpu_to_the_processor(tmp_path):
    vae = models()["VAE"].cuda()
    vae.save(tmp_path / "model")
    again = pv.load(tmp_path / "model", device="cpu")
    x = vae.sample(3)
    assert_close(again.encode(x.cpu()).mean, vae.encode(x).mean.cpu(), rtol=1e-4, atol=1e-5)
    assert next(pv.load(tmp_path / "model").parameters()).is_cuda


def run_exported(file, *inputs):
    if file.suffix == ".pt2":
        return torch.export.load(file).module()(*inputs)
    reference = pytest.importorskip("onnx.reference")
    program = reference.ReferenceEvaluator(str(file))
    feed = {n: value.numpy() for n, value in zip(program.input_names, inputs, strict=True)}
    return torch.from_numpy(np.asarray(program.run(None, feed)[0]))


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("VAE", ".pt2"), ("Conditional", ".pt2"), slow("Columns", ".pt2"),
        slow("Hierarchical", ".pt2"), slow("VAE", ".onnx"), slow("Conditional", ".onnx"),
    ],
)  # fmt: skip
def test_exported_programs_give_the_same_numbers(name, suffix, tmp_path):
    if suffix == ".onnx":
        pytest.importorskip("onnxscript")
    vae = models()[name]
    files = vae.export(tmp_path / f"model{suffix}")
    assert [file.name for file in files] == [f"model.encoder{suffix}", f"model.decoder{suffix}"]
    assert vae.training
    vae.eval()
    for number in (1, 5):  # neither is the batch that was traced
        y = torch.eye(3)[torch.arange(number) % 3]
        given = (y,) if name == "Conditional" else ()
        x = vae.sample(y) if given else vae.sample(number)
        x[0] = torch.nan if name == "Columns" else x[0]
        z = [torch.randn(number, size) for size in (vae.latent_dims if name == "Hierarchical"
                                                    else [vae.latent_dim])]  # fmt: skip
        with torch.no_grad():
            found = run_exported(files[0], x, *given)
            # Two programs may add the same numbers in another order.
            assert_close(found, vae.encode(x, *given).mean, rtol=1e-4, atol=1e-5)
            found = run_exported(files[1], *z, *given)
            assert_close(found, vae.decode(*z, *given), rtol=1e-4, atol=1e-5)


def test_exports_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        models()["VAE"].export(tmp_path / "missing" / "model.pt2")
    with pytest.raises(ValueError, match=r"\.pt2 or \.onnx"):
        models()["VAE"].export(tmp_path / "model.h5")
    with pytest.raises(ValueError, match="no mean in closed form"):
        models()["Vamp"].export(tmp_path / "model.pt2")


def test_every_model_is_here():
    made = {type(vae).__name__ for vae in models().values()}
    classes = [getattr(pv.models, name) for name in pv.models.__all__ if name[0].isupper()]
    assert made == {c.__name__ for c in classes if issubclass(c, Model) and c is not Model}


# --- temperature


TEMPERED = {
    "StandardNormal": priors.StandardNormal(),
    "Laplace": priors.Laplace(),
    "StudentT": priors.StudentT(5.0),
    "GaussianMixture": priors.GaussianMixture(3, spread=0.0),
    "Vamp": priors.Vamp(2),
    "Flow": priors.Flow(2, hidden=(4,)),
}


@pytest.mark.parametrize("name", TEMPERED)
def test_a_temperature_scales_the_noise_of_the_prior(name):
    """A temperature near zero leaves the centres: those of a mixture's components, and of a
    flow the image of zero.
    """
    pyro.set_rng_seed(0)
    vae = pv.VAE(4, 2, prior=TEMPERED[name], likelihood=Gaussian(1e-9), **SMALL).double()
    prior = vae.prior()
    if name in ("GaussianMixture", "Vamp"):
        centres = prior.locs
    elif name == "Flow":
        centres = prior.steps.inverse(torch.zeros(1, 2, dtype=torch.float64))[0]
    else:
        centres = torch.zeros(1, 2, dtype=torch.float64)
    drawn, expected = vae.sample(50, temperature=1e-9), vae.decode(centres)
    assert_close((drawn[:, None] - expected).abs().amax(-1).amin(1).max().item(), 0.0,
                 atol=1e-6, rtol=0)  # fmt: skip
    torch.manual_seed(1)
    plain = vae.sample(5)
    torch.manual_seed(1)
    assert_close(vae.sample(5, temperature=1.0), plain, rtol=0, atol=0)


def test_a_half_halves_the_standard_deviation():
    vae = pv.VAE(2, 2, likelihood=Gaussian(1e-9), decoder=nets.MLP())
    with torch.no_grad():
        layer = vae.likelihood.decoder.net[-1]
        layer.weight.copy_(torch.eye(2))
    torch.manual_seed(0)
    # The standard error of a standard deviation of 20,000 draws is 0.5 %.
    deviation = vae.sample(20_000, temperature=0.5).std(0)
    assert_close(deviation, torch.full((2,), 0.5), rtol=0.025, atol=0)


@pytest.mark.parametrize(
    ("prior", "posterior", "temperature", "message"),
    [
        (priors.StandardNormal(), None, 0.0, "positive number, found 0"),
        (priors.Categorical(), posteriors.Categorical(), 0.5, "has no scale"),
    ],
)
def test_other_temperatures_are_refused(prior, posterior, temperature, message):
    vae = pv.VAE(2, 4, prior=prior, posterior=posterior, **SMALL)
    with pytest.raises(ValueError, match=message):
        vae.sample(1, temperature=temperature)
