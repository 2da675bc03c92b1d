"""A class swapped in the text of a saved configuration makes a working model of the new kind."""

import re

import pytest
import torch
from helpers.runs import call

import pyrovae as pv
from pyrovae import likelihoods, nets, posteriors, priors
from pyrovae.estimators import IWAE
from pyrovae.runs import declare

TINY = (
    "--limit 40 --epochs 1 --latent_dim 3 --method.num_particles 20 "
    "--encoder.hidden 8 --decoder.hidden 8"
)
SWAPS = {
    ("prior", "Vamp", "num_components: 5"): priors.Vamp,
    ("prior", "GaussianMixture", "num_components: 3"): priors.GaussianMixture,
    ("prior", "Flow", "num_transforms: 2\nhidden: [8]"): priors.Flow,
    ("likelihood", "ContinuousBernoulli", ""): likelihoods.ContinuousBernoulli,
    ("likelihood", "Gaussian", "scale: decoder"): likelihoods.Gaussian,
    (
        "likelihood",
        "DiscretizedLogisticMixture",
        "num_components: 2\nnum_levels: 2",
    ): likelihoods.DiscretizedLogisticMixture,
    ("posterior", "FullRankNormal", ""): posteriors.FullRankNormal,
    ("posterior", "Mixture", "num_components: 2"): posteriors.Mixture,
    ("posterior", "Flow", "num_transforms: 1\nhidden: [8]\ncontext: 4"): posteriors.Flow,
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "digits"
    assert call("train", TINY, "--out", path) == 0
    return (path / "config.yaml").read_text()


def swap(config, kind, name, options):
    """The text with one block replaced, as by hand."""
    inner = "".join(f"    {line}\n" for line in options.splitlines())
    block = f"{kind}:\n  class_path: {name}\n" + (f"  init_args:\n{inner}" if inner else "")
    edited, count = re.subn(rf"^{kind}:\n(?:  .*\n)+", block, config, flags=re.MULTILINE)
    assert count == 1
    return edited


@pytest.mark.parametrize("case", SWAPS, ids=" ".join)
def test_a_swapped_part_makes_a_working_model(case, saved, tmp_path):
    kind, kept = case[0], {"prior", "likelihood", "posterior"} - {case[0]}
    (tmp_path / "edited.yaml").write_text(swap(saved, *case))
    vae = declare(pv.Config.load(tmp_path / "edited.yaml"), (8, 8))
    assert type(getattr(vae, kind)) is SWAPS[case]
    default = pv.VAE((8, 8), 3, encoder=nets.MLP(8), decoder=nets.MLP(8))
    for other in kept:
        assert repr(getattr(vae, other)) == repr(getattr(default, other))
    for option in case[2].splitlines():  # what was asked for is what it has
        name, _, value = option.partition(": ")
        wanted = {"[8]": "(8,)", "decoder": "'decoder'"}.get(value, value)
        assert f"{name}={wanted}" in repr(getattr(vae, kind))
    data = pv.data.load("digits").binarize("threshold").test[:6]
    before = [p.detach().clone() for p in vae.parameters()]
    vae.fit(data, epochs=2, lr=1e-2, progress=False)
    assert all(not torch.equal(b, p) for b, p in zip(before, vae.parameters(), strict=True))
    assert IWAE(5).bound(vae.model, vae.guide, data).isfinite().all()
    vae.likelihood.check(vae.sample(5))


@pytest.mark.parametrize("case", [list(SWAPS)[i] for i in (0, 4, 7)], ids=" ".join)
def test_the_run_is_made_again_and_reloads(case, saved, tmp_path, capsys):
    (tmp_path / "edited.yaml").write_text(swap(saved, *case))
    again = tmp_path / "again"
    assert call("train --config", tmp_path / "edited.yaml", "--out", again) == 0
    assert call("evaluate", again, "--method.num_particles 20") == 0
    assert f"{case[0]}={SWAPS[case].__name__}(" in capsys.readouterr().out
    assert type(getattr(pv.load_run(again), case[0])) is SWAPS[case]
    first, second = (
        pv.Evidence.load(again / name).mean() for name in ("evidence.nc", "evidence-2.nc")
    )
    assert first == second


MISFITS = {
    ("prior", "HypersphericalUniform", ""): (
        1,
        "lives on the space 'sphere'.*PowerSpherical.*StandardNormal",
    ),
    ("posterior", "Categorical", ""): (1, "lives on the space.*take one of posteriors"),
    ("likelihood", "Poisson", "link: log"): ((1, 2), "link.*'?softplus'?.*'?exp'?"),
    ("likelihood", "Beta", ""): (
        1,
        "Beta is a density on the open interval.*likelihoods.ContinuousBernoulli",
    ),
    ("prior", "vmap", ""): (2, "There is no class 'vmap'.*Did you mean Vamp"),
    ("posterior", "FullRankNormal", "scale: exp"): (
        2,
        "posterior: FullRankNormal takes no 'scale'",
    ),
    ("prior", "Vamp", "num_components: many"): (2, "num_components"),
}


@pytest.mark.parametrize("case", MISFITS, ids=" ".join)
def test_a_part_that_does_not_fit_is_one_line(case, saved, tmp_path, capsys):
    code, message = MISFITS[case]
    (tmp_path / "edited.yaml").write_text(swap(saved, *case))
    found = call("train --config", tmp_path / "edited.yaml", "--out", tmp_path / "run")
    assert found in (code if isinstance(code, tuple) else (code,))
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(f"pyrovae: .*({message})", line), line
    assert not (tmp_path / "run").exists()


def test_weights_of_another_part_are_refused(saved, tmp_path, capsys):
    """Swapping the part of a finished run in place does not pass for that run."""
    run = tmp_path / "run"
    (tmp_path / "first.yaml").write_text(saved)
    assert call("train --config", tmp_path / "first.yaml", "--out", run) == 0
    config = run / "config.yaml"
    config.write_text(swap(config.read_text(), "posterior", "FullRankNormal", ""))
    assert call("evaluate", run) == 1
    assert "its checksum differs" in capsys.readouterr().err.splitlines()[-1]
    (run / "manifest.json").unlink()
    assert call("evaluate", run) == 1
    assert "does not fit" in capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(ValueError, match="does not fit"):
        pv.load_run(run)
    config.write_text(swap(saved, "prior", "vmap", ""))
    with pytest.raises(ValueError, match="There is no class 'vmap'"):
        pv.load_run(run)
    with pytest.raises(FileNotFoundError, match="no run folder"):
        pv.load_run(tmp_path / "nowhere")
