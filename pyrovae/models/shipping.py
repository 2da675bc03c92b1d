"""Models out of Python: folders to load again, and exported programs."""

import copy
import json
import warnings
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor, nn

import pyrovae
from pyrovae import files
from pyrovae.declare import Declared, html_table
from pyrovae.models.declaration import as_plain, only_here
from pyrovae.models.forms import mean_of

__all__ = ["Shipping"]

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"


class Shipping(Declared):
    """Mixin of the models: ``save`` and ``export``."""

    state_dict: Any
    encode: Any
    decode: Any
    data_shape: tuple[int, ...]
    pair: Any
    _like: Tensor

    def _repr_html_(self) -> str:
        """Declaration and size, as a notebook shows them."""
        rows = [(name, repr(value)) for name, value in self.declaration.items()]
        trained = sum(p.numel() for p in self.parameters() if p.requires_grad)  # type: ignore
        place = f"{self._like.dtype}, {self._like.device}".removeprefix("torch.")
        rows.append(("parameters", f"{trained:,} ({place})"))
        return html_table(type(self).__name__, rows)

    def save(self, folder: str | PathLike, *, evidence: Any = None, description: str = "") -> None:
        """Write the model to a new folder, from which :func:`pyrovae.load` makes it again.

        The folder holds the declaration (``config.json``), the weights (``model.safetensors``) and
        a card to be read by people (``README.md``). This is the layout of the Hugging Face Hub:
        ``huggingface_hub.upload_folder(repo_id=..., folder_path=folder)`` publishes it.

        Args:
            folder: A folder that does not exist yet, or is empty.
            evidence: An :class:`~pyrovae.Evidence` of held-out data, for the card.
            description: A text for the card: which data, what for.

        Raises:
            FileExistsError: If there is something in the folder already.
            TypeError: If the declaration holds something that is neither declared nor plain, such
                as a module that was given as encoder.
            ValueError: If the noise of grey levels was learned with the model.
        """
        from safetensors.torch import save_file

        if self.pair is not None:
            raise ValueError(
                "The noise of grey levels is no part of the declaration. Keep the folder of the "
                "run, and load it by pyrovae.load_run."
            )
        config = {
            "library_name": "pyrovae",
            "pyrovae_version": pyrovae.__version__,
            "model": as_plain(self),
        }
        folder = Path(folder)
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            raise FileExistsError(f"{folder} is not empty. Give another folder.")
        for path in only_here(config["model"]):
            warnings.warn(
                f"The class {path.rpartition('.')[2]} can be loaded in this process alone: it "
                "stands in a script, a notebook, or a file that a run named. Put it into a module "
                "on the Python path.",
                stacklevel=2,
            )
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}
        with files.written_whole(folder / WEIGHTS) as part:
            save_file(tensors, part, metadata={"format": "pt"})
        files.write(folder / CARD, _card(self, evidence, description))
        files.write(folder / CONFIG, json.dumps(config, indent=2) + "\n")

    def export(self, path: str | PathLike) -> tuple[Path, Path]:
        """Write encoder and decoder as programs that run without pyrovae.

        The encoder maps x ``(B, *data_shape)`` to the means of q(z | x), and the decoder z to
        E[x | z]; a conditional model's take y ``(B, condition_dim)`` as well, as floating-point
        numbers. B is free.

        Args:
            path: ``"model.pt2"`` writes ``model.encoder.pt2`` and ``model.decoder.pt2``, for
                :func:`torch.export.load`; ``"model.onnx"`` the same as ONNX, which needs the
                package ``onnxscript``.

        Returns:
            The two files.

        Raises:
            FileNotFoundError: If there is no folder to write to.
            ValueError: If the ending is another, or the posterior has no mean in closed form.
        """
        path = Path(path)
        if path.suffix not in (".pt2", ".onnx"):
            raise ValueError(f"export writes .pt2 or .onnx, found {path.name!r}.")
        if not path.parent.is_dir():
            raise FileNotFoundError(f"There is no folder {path.parent} to export to.")
        made = tuple(path.with_suffix(f".{name}{path.suffix}") for name in ("encoder", "decoder"))
        like, (inputs, latents) = self._like, self._exported()
        # Pyro hangs weak references on parameters, which torch 2.6 cannot write; a copy has none.
        vae: Any = copy.deepcopy(self)
        vae.eval()
        for file, function, shapes in zip(
            made, (vae._encoder_mean, vae.decode), (inputs, latents), strict=True
        ):
            # Two data: a batch of one could be taken for a constant.
            example = tuple(
                torch.full((2, *shape), 0.5, dtype=like.dtype, device=like.device)
                for shape in shapes.values()
            )
            _write(_Function(vae, function), example, tuple(shapes), file)
        return made[0], made[1]

    def _exported(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Names and shapes of what the encoder takes, and of what the decoder takes."""
        raise NotImplementedError

    def _encoder_mean(self, *data: Tensor) -> Tensor:
        distribution = self.encode(*data)
        mean = mean_of(distribution)
        if mean is None:
            raise ValueError(
                f"{type(distribution).__name__} has no mean in closed form, so the encoder cannot "
                "be exported. Use posteriors.DiagonalNormal() or another normal."
            )
        return mean


class _Function(nn.Module):
    """A method of a model as a module of its own, with the parameters of the model."""

    def __init__(self, vae: Any, function: Any):
        super().__init__()
        self.vae, self.function = vae, function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def _write(module: nn.Module, example: tuple[Tensor, ...], names: tuple[str, ...], file: Path):
    # torch finds the largest batch that the kernels can index by itself.
    dynamic = (tuple({0: torch.export.Dim.AUTO} for _ in example),)
    with torch.no_grad(), pyro.validation_enabled(False):
        program = torch.export.export(module, example, dynamic_shapes=dynamic, strict=False)
        with files.written_whole(file) as part:
            if file.suffix == ".pt2":
                torch.export.save(program, part)
            else:
                torch.onnx.export(program, example, part, input_names=names, dynamo=True,
                                  external_data=False, verbose=False)  # fmt: skip


def _card(vae: Any, evidence: Any, description: str) -> str:
    head = "---\nlibrary_name: pyrovae\ntags:\n- variational-autoencoder\n- pyro\n---\n"
    parts = [
        head + f"# {type(vae).__name__}",
        description.strip(),
        f"Declared as\n\n```python\n{vae!r}\n```",
    ]
    if evidence is not None:
        parts.append(f"Held-out log-likelihood\n\n```text\n{evidence!r}\n```")
    parts.append(
        f"Load it with pyrovae {pyrovae.__version__} (`pip install pyrovae`):\n\n"
        "```python\nimport pyrovae as pv\n\n"
        'vae = pv.load("path/to/this/folder")\nvae.sample(10)\n```'
    )
    return "\n\n".join(part for part in parts if part) + "\n"
