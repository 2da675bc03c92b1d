"""A part swapped in the text of a saved config, and the run made again: a working model of the new kind."""

import re

import pytest
import torch

import pyrovae as pv
from pyrovae import likelihoods, nets, posteriors, priors
from pyrovae.cli import main
from pyrovae.cli.parse import parse
from pyrovae.estimators import IWAE
from pyrovae.runs.run import build

TINY = "--data.limit 40 --epochs 1 --latent-dim 3 --method.num-particles 20 --encoder.hidden 8 --decoder.hidden 8"
SWAPS = {
    ("prior", "vamp", "num_components = 5"): priors.Vamp,
    ("prior", "GaussianMixture", "num_components = 3"): priors.GaussianMixture,
    ("prior", "flow", "num_transforms = 2\nhidden = [8]"): priors.Flow,
    ("likelihood", "continuous-bernoulli", ""): likelihoods.ContinuousBernoulli,
    ("likelihood", "gaussian", 'scale = "decoder"'): likelihoods.Gaussian,
    ("likelihood", "discretized_logistic_mixture", "num_components = 2\nnum_levels = 2"):
        likelihoods.DiscretizedLogisticMixture,
    ("posterior", "full-rank-normal", ""): posteriors.FullRankNormal,
    ("posterior", "mixture", "num_components = 2"): posteriors.Mixture,
    ("posterior", "flow", "num_transforms = 1\nhidden = [8]\ncontext = 4"): posteriors.Flow,
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["train", *TINY.split(), "--out", str(path)]) == 0
    return (path / "config.toml").read_text()


def swap(config, kind, name, options):
    """The text with one table replaced, as by hand."""
    edited, count = re.subn(rf"^\[{kind}\]\n(?:(?!\[).*\n|\s*\n)*", f'[{kind}]\nname = "{name}"\n{options}\n\n', config,
                            flags=re.MULTILINE)  # fmt: skip
    assert count == 1
    return edited


@pytest.mark.parametrize("case", SWAPS, ids=" ".join)
def test_a_swapped_part_makes_a_working_model(case, saved, tmp_path):
    kind, kept = case[0], {"prior", "likelihood", "posterior"} - {case[0]}
    (tmp_path / "edited.toml").write_text(swap(saved, *case))
    vae = build(parse(["train", "--config", str(tmp_path / "edited.toml")]), (8, 8))
    assert type(getattr(vae, kind)) is SWAPS[case]
    default = pv.VAE((8, 8), 3, encoder=nets.MLP(8), decoder=nets.MLP(8))
    for other in kept:
        assert repr(getattr(vae, other)) == repr(getattr(default, other))
    for option in case[2].split("\n"):  # what was asked for is what it has
        name, _, value = option.partition(" = ")
        if name:
            wanted = eval(value)
            assert f"{name}={(tuple(wanted) if '[' in value else wanted)!r}" in repr(
                getattr(vae, kind)
            )
    data = pv.data.load("digits").binarize("threshold").test[:6]
    before = [p.detach().clone() for p in vae.parameters()]
    vae.fit(data, epochs=2, lr=1e-2, progress=False)
    assert all(not torch.equal(b, p) for b, p in zip(before, vae.parameters(), strict=True))
    assert IWAE(5).bound(vae.model, vae.guide, data).isfinite().all()
    vae.likelihood.check(vae.sample(5))


@pytest.mark.parametrize("case", [list(SWAPS)[i] for i in (0, 4, 7)], ids=" ".join)
def test_the_run_is_made_again_and_reloads(case, saved, tmp_path, capsys):
    (tmp_path / "edited.toml").write_text(swap(saved, *case))
    again = tmp_path / "again"
    assert main(["train", "--config", str(tmp_path / "edited.toml"), "--out", str(again)]) == 0
    assert main(["evaluate", str(again), "--method.num-particles", "20"]) == 0
    assert f"{case[0]}={SWAPS[case].__name__}(" in capsys.readouterr().out
    assert type(getattr(pv.load_run(again), case[0])) is SWAPS[case]
    first, second = (
        pv.Evidence.load(again / name).mean() for name in ("evidence.nc", "evidence-2.nc")
    )
    assert first == second


MISFITS = {
    ("prior", "hyperspherical-uniform", ""): (
        1,
        "lives on the space 'sphere'.*PowerSpherical.*StandardNormal",
    ),
    ("posterior", "categorical", ""): (1, "lives on the space.*take one of posteriors"),
    ("likelihood", "poisson", "link = 'log'"): (1, "link must be 'softplus' or 'exp', found 'log'"),
    ("likelihood", "beta", ""): (
        1,
        "Beta is a density on the open interval.*likelihoods.ContinuousBernoulli",
    ),
    ("prior", "vmap", ""): (2, "Unknown prior 'vmap'.*Did you mean vamp"),
    ("posterior", "full-rank-normal", "scale = 'exp'"): (
        2,
        r"\[posterior\] has scale, which full-rank-normal does not",
    ),
    ("prior", "vamp", "num_components = 'many'"): (2, "num-components"),
}


@pytest.mark.parametrize("case", MISFITS, ids=" ".join)
def test_a_part_that_does_not_fit_is_one_line(case, saved, tmp_path, capsys):
    code, message = MISFITS[case]
    (tmp_path / "edited.toml").write_text(swap(saved, *case))
    assert (
        main(["train", "--config", str(tmp_path / "edited.toml"), "--out", str(tmp_path / "run")])
        == code
    )
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(f"pyrovae: .*({message})", line), line
    assert not (tmp_path / "run").exists()


def test_weights_of_another_part_are_refused(saved, tmp_path, capsys):
    """Swapping the part of a finished run in place does not pass for that run."""
    run = tmp_path / "run"
    (tmp_path / "first.toml").write_text(saved)
    assert main(["train", "--config", str(tmp_path / "first.toml"), "--out", str(run)]) == 0
    (run / "config.toml").write_text(
        swap((run / "config.toml").read_text(), "posterior", "full-rank-normal", "")
    )
    assert main(["evaluate", str(run)]) == 1
    assert "does not fit" in capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(ValueError, match="does not fit"):
        pv.load_run(run)
    (run / "config.toml").write_text(swap(saved, "prior", "vmap", ""))
    with pytest.raises(ValueError, match="Unknown prior 'vmap'"):
        pv.load_run(run)
    with pytest.raises(FileNotFoundError, match="no run folder"):
        pv.load_run(tmp_path / "nowhere")
