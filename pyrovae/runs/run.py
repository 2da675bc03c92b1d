"""The folder of a run."""

import itertools
import json
import re
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from pyrovae.models.base import Model
from pyrovae.runs.config import Config, declare
from pyrovae.training import checkpoint

__all__ = ["Run", "load_run", "new_file"]


class Run:
    """The files of one run.

    Args:
        path: The folder.
        config: What the run declares.
    """

    def __init__(self, path: Path, config: Config):
        self.path, self.config = path, config
        self._created: list[Path] = []

    config_file = property(lambda self: self.path / "config.yaml")
    metrics = property(lambda self: self.path / "metrics.jsonl")
    weights = property(lambda self: self.path / "weights.safetensors")
    checkpoint = property(lambda self: self.path / "checkpoint.pt")
    evidence = property(lambda self: self.path / "evidence.nc")
    page = property(lambda self: self.path / "report.html")

    @classmethod
    def create(cls, config: Config, path: str | PathLike | None = None) -> "Run":
        """A new folder with the configuration in it; default the first free ``runs/DATA-N``.

        Raises:
            FileExistsError: If there is something in the folder already.
        """
        if path is None:
            name = re.sub(r"\W+", "-", Path(config.data).stem) or "data"
            folders = (Path("runs") / f"{name}-{i}" for i in itertools.count(1))
            path = next(folder for folder in folders if not folder.exists())
        path = Path(path)
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            raise FileExistsError(
                f"{path} is not empty. Give another folder (--out), or move it away: nothing is "
                "overwritten."
            )
        run = cls(path, config)
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            run._created.insert(0, folder)
        config.save(run.config_file)
        return run

    @classmethod
    def open(cls, path: str | PathLike, *, unfinished: bool = False) -> "Run":
        """A run that was written before.

        Args:
            path: The folder.
            unfinished: Whether the run may lack its weights.

        Raises:
            FileNotFoundError: If there is no such folder.
            ValueError: If it is not the folder of a run, or the run is not finished.
        """
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"There is no run folder {path}.")
        if not (path / "config.yaml").is_file():
            raise ValueError(
                f"{path} is no run folder: it has no config.yaml. Give a folder that "
                "`pyrovae train` wrote."
            )
        run = cls(path, Config.load(path / "config.yaml"))
        if not unfinished and not run.weights.is_file():
            raise ValueError(
                f"The run {path} is not finished: it has no weights. See "
                f"`pyrovae train --resume {path}`."
            )
        return run

    @property
    def has_epochs(self) -> bool:
        """Whether training finished an epoch."""
        return self.metrics.is_file() and self.metrics.stat().st_size > 0

    def discard(self) -> None:
        """Remove the files of a run that gave nothing, and the folders that :meth:`create` made."""
        self.config_file.unlink(missing_ok=True)
        checkpoint.remove(self.checkpoint)
        for folder in self._created:
            if any(folder.iterdir()):
                break
            folder.rmdir()

    def save_weights(self, vae: Model, metadata: dict[str, str]) -> None:
        """Write all parameters and buffers, the shape of the data, and further :attr:`metadata`."""
        tensors = {n: t.detach().cpu().contiguous() for n, t in vae.state_dict().items()}
        # The final name appears only when the file is complete.
        part = self.weights.with_suffix(".part")
        save_file(tensors, part, metadata={"data_shape": json.dumps(vae.data_shape), **metadata})
        part.replace(self.weights)

    @property
    def metadata(self) -> dict[str, str]:
        """What was saved with the weights."""
        with safe_open(self.weights, framework="pt") as file:
            return file.metadata() or {}

    def load_vae(self, device: str | None = None) -> Model:
        """The trained model and guide, in eval mode.

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
        vae = declare(self.config, tuple(shape))
        try:
            vae.load_state_dict(tensors)
        except RuntimeError as error:
            raise ValueError(
                f"{self.weights} does not fit {self.config_file}: was one of them changed?"
            ) from error
        default = "cuda" if torch.cuda.is_available() else "cpu"
        return vae.to(device or default).eval()


def load_run(path: str | PathLike, *, device: str | None = None) -> Any:
    """The trained model of a folder that ``pyrovae train`` wrote, in eval mode.

    It is what the run's ``config.yaml`` declares: a :class:`~pyrovae.VAE` or another model, with
    classes of your own where it names some.

    Args:
        path: The run folder.
        device: The device to load to; default CUDA where there is any.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If the run is not finished, its configuration declares no model, or its weights
            are damaged or those of another model.
    """
    return Run.open(path).load_vae(device)


def new_file(folder: Path, stem: str, suffix: str) -> Path:
    """The first of ``stem.suffix``, ``stem-2.suffix``, ... that does not exist."""
    names = (f"{stem}{'' if i == 1 else f'-{i}'}{suffix}" for i in itertools.count(1))
    return next(folder / name for name in names if not (folder / name).exists())
