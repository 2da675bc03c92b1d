"""Parts of one's own, as the documentation writes them, from a file on the command line and from a
saved config.
"""

import re
from pathlib import Path

import numpy as np
import pytest

import pyrovae as pv
from pyrovae.cli import main
from pyrovae.runs.run import Run

DOCS = Path(__file__).parents[2] / "docs"
TINY = "--epochs 1 --latent_dim 3 --method.num_particles 20 --encoder.hidden 8 --decoder.hidden 8"
OWN = {
    "prior": ("priors_and_posteriors.md", "AutoregressivePrior", {}),
    "posterior": ("priors_and_posteriors.md", "StudentTPosterior", {"df": 4.0}),
    "likelihood": ("likelihoods.md", "Exponential", {}),
}


def documented(kind):
    page, name, _ = OWN[kind]
    blocks = re.findall(
        r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL
    )
    (block,) = [block for block in blocks if f"class {name}(" in block]
    return block


@pytest.mark.parametrize("kind", OWN)
def test_documented_parts_are_short_and_whole(kind):
    assert len(documented(kind).splitlines()) < 25


@pytest.mark.parametrize("kind", OWN)
def test_from_the_command_line_and_from_its_config(kind, tmp_path, monkeypatch, capsys):
    _, name, options = OWN[kind]
    np.save(
        tmp_path / "x.npy", np.random.default_rng(0).exponential(size=(60, 4)).astype(np.float32)
    )
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    (here / f"my_{kind}.py").write_text(documented(kind))
    monkeypatch.chdir(here)
    command = [
        f"--{kind}",
        f"my_{kind}.py:{name}",
        *(w for n, v in options.items() for w in (f"--{kind}.{n}", str(v))),
    ]
    command += [] if kind == "likelihood" else ["--likelihood", "Gaussian"]
    run = tmp_path / "run"
    assert (
        main(
            ["train", *TINY.split(), "--data", str(tmp_path / "x.npy"), *command, "--out", str(run)]
        )
        == 0
    )
    assert (
        f"{kind}={name}({', '.join(f'{n}={v}' for n, v in options.items())})"
        in capsys.readouterr().out
    )
    # The file was named from one folder; the run is used from another.
    monkeypatch.chdir(elsewhere)
    assert main(["evaluate", str(run), "--method.num_particles", "20"]) == 0
    first, again = (
        pv.Evidence.load(run / file).mean() for file in ("evidence.nc", "evidence-2.nc")
    )
    assert first == again
    vae = Run.open(run).load_vae("cpu")
    assert type(getattr(vae, kind)).__name__ == name
    assert vae.sample(3).shape == (3, 4)
    assert (
        main(["train", "--config", str(run / "config.yaml"), "--out", str(tmp_path / "again")]) == 0
    )
    assert pv.Evidence.load(tmp_path / "again" / "evidence.nc").mean() == first


SHAPE = """
import pyro
import torch
import pyrovae as pv


class Denoising(pv.VAE):
    \"\"\"A VAE whose guide sees x with noise on it.

    Args:
        noise: Standard deviation of the noise.
    \"\"\"

    def __init__(self, data_shape: int, latent_dim: int, *, noise: float = 0.1,
                 prior: pv.priors.Prior | None = None,
                 likelihood: pv.likelihoods.Likelihood | None = None):
        super().__init__(data_shape, latent_dim, prior=prior, likelihood=likelihood)
        self.noise = noise

    def encode(self, x):
        return super().encode(x + self.noise * torch.randn_like(x))
"""


def test_a_shape_of_ones_own(tmp_path, monkeypatch, capsys):
    """It takes what its arguments say, and no part beside; what it inherits is found through
    `import pyrovae as pv`.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(SHAPE)
    words = "--model mine.py:Denoising --model.noise 0.2 --prior StudentT --limit 40 --epochs 1 "
    words += "--latent_dim 3"
    assert main(["train", *words.split(), "--method.num_particles", "5", "--out", "run"]) == 0
    assert main(["sample", "run", "--num", "2", "--out", "x.npy"]) == 0
    assert pv.load_run("run").noise == 0.2
    assert "prior=StudentT()" in capsys.readouterr().out
    assert main(["train", *words.split(), "--encoder", "Conv"]) == 2
    assert "Denoising takes no encoder" in capsys.readouterr().err
    (tmp_path / "same.py").write_text("import pyrovae as pv\n\n\nclass Same(pv.VAE):\n    pass\n")
    assert main(["train", "--model", "same.py:Same", "--encoder.hidden", "7", "--limit", "40",
                 "--epochs", "1", "--method.num_particles", "5", "--out", "same"]) == 0  # fmt: skip
    assert "encoder=MLP(7)" in capsys.readouterr().out
