"""A run folder: what ``pyrovae train`` writes and the other commands read."""

import json
import re
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from pyrovae.cli import parse
from pyrovae.cli.options import chosen_parts, chosen_shape
from pyrovae.data import Splits, load

if TYPE_CHECKING:
    from pyrovae.models.base import Model

__all__ = ["Run", "build", "load_data", "load_run", "new_file"]


class Run:
    """The files of one run.

    Args:
        path: The folder.
        given: The ``train`` command that made it.
    """

    def __init__(self, path: Path, given: Any):
        self.path, self.given = path, given

    config = property(lambda self: self.path / "config.toml")
    metrics = property(lambda self: self.path / "metrics.jsonl")
    weights = property(lambda self: self.path / "weights.safetensors")
    checkpoint = property(lambda self: self.path / "checkpoint.pt")
    evidence = property(lambda self: self.path / "evidence.nc")

    @classmethod
    def create(cls, given: Any) -> "Run":
        """A new folder with its config.

        Raises:
            FileExistsError: If there is something in it already.
        """
        path = given.out
        if path is None:
            name = re.sub(r"\W+", "-", Path(given.data).stem) or "data"
            used = [p.name for p in Path("runs").glob(f"{name}-*")]
            path = Path("runs") / next(
                n for i in range(1, 10**9) if (n := f"{name}-{i}") not in used
            )
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            raise FileExistsError(
                f"{path} is not empty. Give another --out, or move it away: nothing is overwritten."
            )
        path.mkdir(parents=True, exist_ok=True)
        run = cls(path, given)
        run.config.write_text(tomli_w.dumps(parse.to_config(given)), encoding="utf-8")
        return run

    @classmethod
    def open(cls, path: Path) -> "Run":
        """A finished run.

        Raises:
            FileNotFoundError: If there is no such folder.
            ValueError: If it is no finished run.
        """
        if not path.exists():
            raise FileNotFoundError(f"There is no run folder {path}.")
        run = cls(path, None)
        if not run.config.is_file():
            raise ValueError(
                f"{path} is no run folder: it has no config.toml. Give one that `pyrovae train` wrote."
            )
        if not run.weights.is_file():
            raise ValueError(
                f"The run {path} is not finished: it has no weights. See `pyrovae train --resume {path}`."
            )
        run.given = parse.parse(["train", "--config", str(run.config)])
        return run

    @property
    def rows(self) -> list[dict[str, float]]:
        """What training logged, a row an epoch."""
        if not self.metrics.is_file():
            return []
        return [json.loads(line) for line in self.metrics.read_text().splitlines()]

    def discard(self) -> None:
        """Take back what :meth:`create` made, and nothing else."""
        self.config.unlink(missing_ok=True)
        self.checkpoint.unlink(missing_ok=True)
        for folder in (self.path, self.path.parent):
            if not any(folder.iterdir()):
                folder.rmdir()

    def save_weights(self, vae: "Model", metadata: dict[str, str] | None = None) -> None:
        """Every parameter and buffer, with the shape of the data and further :attr:`metadata`."""
        tensors = {
            name: tensor.detach().cpu().contiguous() for name, tensor in vae.state_dict().items()
        }
        # One file name appears when the file is whole.
        part = self.weights.with_suffix(".part")
        save_file(
            tensors, part, metadata={"data_shape": json.dumps(vae.data_shape), **(metadata or {})}
        )
        part.replace(self.weights)

    @property
    def metadata(self) -> dict[str, str]:
        """What was saved with the weights."""
        with safe_open(self.weights, framework="pt") as file:
            return file.metadata() or {}

    def load_vae(self, device: str | None = None) -> "Model":
        """The trained model and guide.

        Raises:
            ValueError: If the weights are damaged, or are those of another model.
        """
        try:
            with safe_open(self.weights, framework="pt") as file:
                shape = json.loads(file.metadata()["data_shape"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"Cannot read {self.weights}: {reason}. It is damaged; train again."
            ) from error
        vae = build(self.given, tuple(shape))
        try:
            vae.load_state_dict(tensors)
        except RuntimeError as error:
            raise ValueError(
                f"{self.weights} does not fit {self.config}: was one of them changed?"
            ) from error
        return vae.to(device or default_device()).eval()


def load_run(path: str | PathLike, *, device: str | None = None) -> Any:
    """The trained model of a folder that ``pyrovae train`` wrote, in eval mode.

    It is what the run's ``config.toml`` declares: a :class:`~pyrovae.VAE` or another shape, with parts of one's own
    where there are any.

    Args:
        path: The run folder.
        device: Where to; default CUDA where there is any.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it is no finished run, its configuration makes no model, or its weights are damaged or those
            of another model.
    """
    return Run.open(Path(path)).load_vae(device)


def default_device() -> str:
    """CUDA where there is any."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_data(given: Any) -> Splits:
    """The data of a ``train`` command, binarised and limited as it says."""
    options = given.data_options
    splits = load(
        given.data,
        root=options.root,
        download=options.download,
        size=options.size,
        valid_size=options.valid_size,
        test_size=options.test_size,
        seed=options.seed,
    )
    if given.binarize not in ("none", "auto"):
        splits = splits.binarize(given.binarize, seed=options.seed)
    # After binarisation: a few test images have the bits that they have among all.
    return splits if options.limit is None else splits.take(options.limit, seed=options.seed)


def build(given: Any, data_shape: tuple[int, ...]) -> "Model":
    """The VAE, or other shape, that a ``train`` command declares."""
    shape, parts = chosen_shape(given), chosen_parts(given, "train")
    sizes = {
        "data_shape": data_shape,
        "latent_dim": given.latent_dim,
        "latent_dims": given.latent_dim,
    }
    taken = {a.name for a in shape.entry.arguments}
    arguments = {name: size for name, size in sizes.items() if name in taken}
    arguments |= {name: part.build() for name, part in parts.items() if name in taken}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(given.seed)
        return shape.entry.build(**arguments, **shape.arguments())


def new_file(folder: Path, stem: str, suffix: str) -> Path:
    """The first of ``stem.suffix``, ``stem-2.suffix``, ... that does not exist."""
    names = (f"{stem}{'' if i == 1 else f'-{i}'}{suffix}" for i in range(1, 10**9))
    return next(folder / name for name in names if not (folder / name).exists())
