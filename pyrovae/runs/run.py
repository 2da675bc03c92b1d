"""The folder of a run."""

import itertools
import json
import re
import shlex
import shutil
import warnings
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as as_safetensors

from pyrovae import files
from pyrovae.data.splits import PARTS, Splits
from pyrovae.evidence import Evidence
from pyrovae.evidence.parts import remove_parts
from pyrovae.models.base import Model
from pyrovae.programs import find_device
from pyrovae.runs.building import declare
from pyrovae.runs.config import Config
from pyrovae.runs.lock import Lock
from pyrovae.runs.manifest import Manifest
from pyrovae.runs.trust import names_code
from pyrovae.training import checkpoint

__all__ = ["Run", "load_run"]


class Run:
    """The files of one run.

    Args:
        path: The folder.
        config: What the run declares.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = Run.create(Config(epochs=3), Path(folder) / "run")
        ...     run.release()
        ...     Run.open(run.path, unfinished=True).config.epochs
        3
    """

    def __init__(self, path: Path, config: Config):
        self.path, self.config = path, config
        self.manifest = Manifest(path)
        self._created: list[Path] = []
        self._lock: Lock | None = None

    config_file = property(lambda self: self.path / "config.yaml")
    metrics = property(lambda self: self.path / "metrics.jsonl")
    weights = property(lambda self: self.path / "weights.safetensors")
    checkpoint = property(lambda self: self.path / "checkpoint.pt")
    evidence = property(lambda self: self.path / "evidence.nc")
    parts = property(lambda self: self.path / "evidence.parts")
    page = property(lambda self: self.path / "report.html")

    @classmethod
    def create(cls, config: Config, path: str | PathLike | None = None) -> "Run":
        """A new folder with the configuration in it, and the files with classes that it names;
        default the first free ``runs/DATA-N``.

        Raises:
            FileExistsError: If there is something in the folder already.
        """
        if path is None:
            name = re.sub(r"\W+", "-", Path(config.data).stem) or "data"
            for folder in (Path("runs") / f"{name}-{i}" for i in itertools.count(1)):
                if not folder.exists():
                    with suppress(FileExistsError, BlockingIOError):  # another was quicker
                        return cls.create(config, folder)
        path = Path(path)  # type: ignore[arg-type]
        cls._check_empty(path)
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        run = cls(path, config)
        run._created = missing
        run.own()
        try:
            cls._check_empty(path)  # another process may have come between
        except FileExistsError:
            run.release()
            raise
        try:
            text, own = config.taken_along()
            for name, source in own.items():
                files.write(path / name, source)
            files.write(run.config_file, text)
            run.manifest.record(run.config_file, *(path / name for name in own))
        except BaseException:  # such as a full disk
            run.discard()
            raise
        return run

    @staticmethod
    def _check_empty(path: Path) -> None:
        """Raise an error if there is anything in the place of a new run but the lock of one."""
        names = [entry.name for entry in path.iterdir()] if path.is_dir() else []
        if path.is_file() or any(n != "lock" and not n.startswith(".lock.") for n in names):
            raise FileExistsError(
                f"{path} is not empty. Give another folder (--out), or move it away: nothing is "
                "overwritten."
            )

    def own(self) -> None:
        """Keep other processes from writing to the folder, until :meth:`release`.

        Raises:
            BlockingIOError: If another process owns it; the message names it.
        """
        self._lock = Lock(self.path)

    def release(self) -> None:
        """Let other processes write to the folder again."""
        if self._lock is not None:
            self._lock.release()

    @classmethod
    def open(cls, path: str | PathLike, *, unfinished: bool = False, trust: bool = False) -> "Run":
        """A run that was written before. Its files are checked against its manifest; a folder
        without one is used with a warning.

        Args:
            path: The folder.
            unfinished: Whether the run may lack its weights.
            trust: Whether its configuration may name classes that are not pyrovae's own, whose
                code then runs.

        Raises:
            FileNotFoundError: If there is no such folder.
            PermissionError: If a file of it may not be read.
            ValueError: If it is not the folder of a run, the run is not finished, was changed or
                damaged, is of a newer version, or names classes of others without ``trust``.
        """
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"There is no run folder {path}.")
        if not (path / "config.yaml").is_file():
            raise ValueError(
                f"{path} is no run folder: it has no config.yaml. Give a folder that "
                "`pyrovae train` wrote."
            )
        manifest = Manifest(path)
        manifest.check(path / "config.yaml")
        manifest.check(*path.glob("*.py"), strict=False)
        run = cls(path, Config.load(path / "config.yaml", trust=trust))
        if not unfinished and not run.weights.is_file():
            raise ValueError(
                f"The run {path} is not finished: it has no weights. See "
                f"`pyrovae train --resume {path}`."
            )
        if not unfinished:
            manifest.check(run.weights)
        if not manifest.exists:
            warnings.warn(
                f"{path} has no manifest.json, so its files could not be checked for damage.",
                stacklevel=2,
            )
        return run

    @property
    def resume_command(self) -> str:
        """How to go on with the run after an interruption."""
        trust = " --trust" * names_code(vars(self.config))
        return f"pyrovae train --resume {shlex.quote(str(self.path))}{trust}"

    def discard(self) -> None:
        """Remove the files of a run that gave nothing, and the folders that :meth:`create` made."""
        own = [self.path / name for name in self.config.taken_along()[1]]
        for file in (self.config_file, self.manifest.path, self.metrics, *own):
            file.unlink(missing_ok=True)
        checkpoint.remove(self.checkpoint)
        shutil.rmtree(self.path / "tensorboard", ignore_errors=True)
        self.release()
        for folder in self._created:
            if any(folder.iterdir()):
                break
            folder.rmdir()

    def save_weights(self, vae: Model, metadata: dict[str, str]) -> None:
        """Write all parameters and buffers, the shape of the data, and further :attr:`metadata`."""
        tensors = {n: t.detach().cpu().contiguous() for n, t in vae.state_dict().items()}
        facts = {"data_shape": json.dumps(vae.data_shape), **metadata}
        files.write(self.weights, as_safetensors(tensors, facts))
        self.manifest.record(self.weights, self.metrics)

    def save_evidence(self, evidence: Evidence) -> None:
        """Write the evidence of the run itself, and remove the parts that it was made of."""
        evidence.save(self.evidence)
        self.manifest.record(self.evidence)
        remove_parts(self.parts)

    @property
    def metadata(self) -> dict[str, str]:
        """What was saved with the weights."""
        with safe_open(self.weights, framework="pt") as file:
            return file.metadata() or {}

    def note_data(self, splits: Splits) -> None:
        """Keep the fingerprints of the data in the manifest."""
        self.manifest.record(self.config_file, data=_arrays(splits))

    def check_data(self, splits: Splits) -> None:
        """Raise a ValueError if the data are not those that the run was trained on."""
        self.manifest.check_data(_arrays(splits), self.config.data)

    def load_vae(self, device: str | None = None) -> Model:
        """The trained model and guide, in eval mode.

        Raises:
            ValueError: If the weights are damaged, or are those of another model.
        """
        try:
            with safe_open(self.weights, framework="pt") as file:
                shape = json.loads(file.metadata()["data_shape"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except PermissionError as error:
            raise PermissionError(f"{self.weights} may not be read by this user.") from error
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
        return vae.to(find_device(device)).eval()


def load_run(path: str | PathLike, *, device: str | None = None, trust: bool = False) -> Any:
    """The trained model of a folder that ``pyrovae train`` wrote, in eval mode.

    It is what the run's ``config.yaml`` declares: a :class:`~pyrovae.VAE` or another model, with
    classes of your own where it names some.

    Args:
        path: The run folder.
        device: The device to load to; default CUDA where there is any.
        trust: Whether the configuration may name classes that are not pyrovae's own. Their code
            runs then. Without it, a folder from a stranger runs nothing.

    Raises:
        FileNotFoundError: If there is no such folder.
        PermissionError: If a file of it may not be read.
        ValueError: If the run is not finished, was changed or damaged since it was written, is of
            a newer version of pyrovae, or names classes of others without ``trust``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = Run.create(Config(latent_dim=2), Path(folder) / "run")
        ...     run.metrics.touch()  # train writes a line for each epoch
        ...     run.save_weights(declare(run.config, (8, 8)), {})
        ...     run.release()
        ...     load_run(run.path, device="cpu").sample(10).shape
        torch.Size([10, 8, 8])
    """
    return Run.open(path, trust=trust).load_vae(device)


def _arrays(splits: Splits) -> dict[str, torch.Tensor]:
    """The arrays of the three parts, by name."""
    found = {part: getattr(splits, part) for part in PARTS}
    for part, labels in zip(PARTS, splits.labels or (), strict=False):
        found[f"{part} labels"] = labels
    return {name: x for name, x in found.items() if isinstance(x, torch.Tensor)}
