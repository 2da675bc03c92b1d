"""What a run declares: its data, its model, its training, and its evidence."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, get_loader

from pyrovae import files
from pyrovae.runs.declared import (
    CLASSES,
    PARTS,
    add_arguments,
    class_of,
    instantiate,
    with_widths,
    without_object,
)
from pyrovae.runs.messages import one_line
from pyrovae.runs.own_classes import MODE, resolved, taken_along
from pyrovae.runs.trust import check_trusted

__all__ = ["Config", "check_options"]

Declared = Any
"""A class with its arguments: ``"Vamp"``, ``{"class_path": "Vamp", "init_args": {...}}``, or an
object."""


def _declared(class_path: str) -> Callable[[], dict[str, Any]]:
    return lambda: {"class_path": f"pyrovae.{class_path}"}


@dataclass(frozen=True)
class Config:
    """Everything that a run declares; :func:`pyrovae.train` takes it from there.

    The fields are the options of ``pyrovae train``. Those that declare a class take its name, a
    mapping with ``class_path`` and ``init_args``, as in the file, or an object, such as
    ``priors.Vamp(50)``. A class of your own is
    ``"mymodule.Mine"`` or ``"path/to/mine.py:Mine"``. Each field is checked when the object is
    made.

    Args:
        data: digits, mnist, fashion-mnist, kmnist, emnist-letters, omniglot, ...; an .npy, .npz,
            .pt, .csv, .tsv, .parquet or .h5ad file; or a folder of images.
        data_root: Folder of named data sets; default $PYROVAE_DATA, else ~/.cache/pyrovae.
        data_size: Shrink square images to this edge (Omniglot, folders of images).
        data_columns: Of a table: the columns that are the data; default all but the next two.
        data_labels: Of a table or an .h5ad file: the column of the classes.
        data_covariates: Likewise, the columns that a ConditionalVAE is given.
        data_layer: Of an .h5ad file: the layer that is the data; default X.
        data_seed: Seed of the split, of the binarisation, and of the choice of data under limit.
        download: Fetch a named data set that is missing.
        valid_size: Validation data, as a share such as 0.1 or as a number; default one in six.
        test_size: Test data, likewise, where the data set has no test data of its own.
        limit: Use at most this many training, validation and test data each.
        binarize: Grey to black and white. threshold: at one half. stochastic: drawn once. dynamic:
            training images drawn anew for each batch, the others once. auto: threshold if the
            likelihood is Bernoulli and the data are grey.
        dequantize: Make grey levels real numbers, for likelihoods that are densities, by noise of
            one level's width. true or uniform: drawn, for training data anew for each batch.
            variational: drawn by a guide that is trained; evidence is then that of the levels.
        model: The kind of model: VAE, HierarchicalVAE, ConditionalVAE or ClusteringVAE.
        latent_dim: Dimension D of z; a HierarchicalVAE takes one number for two layers or
            [D1, ..., DL], from the data upwards.
        condition_dim: Size of the condition of a ConditionalVAE; default as the labels of the data.
        prior: p(z). A ConditionalVAE also takes one of the posteriors, as p(z | y).
        likelihood: p(x | z).
        posterior: q(z | x).
        encoder: The network from x to the posterior.
        decoder: The network from z to the likelihood.
        bias_from_data: Start the decoder's output bias where the likelihood's mean is the data
            mean.
        estimator: The ELBO estimator that is trained with.
        beta: Factor on the KL term: a number or a schedule.
        epochs: Passes over the training data, at most.
        batch_size: Data in a batch.
        lr: Learning rate of Adam.
        patience: Stop after so many epochs without a better validation bound; null never stops.
        clip_norm: Largest norm of the gradients; null does not clip.
        clip_value: Largest absolute value of an element of a gradient; null does not clip.
        nonfinite: At a step that is not finite: stop the run, or skip the step and count it.
        method: How the evidence of the test data is estimated after training.
        seed: Seed of the initial weights, of training, and of the evidence.
        device: cpu, cuda, ...; default CUDA where there is any.

    Raises:
        TypeError: If an object has an argument that cannot be written to a file, such as a tensor.
        ValueError: If a name is unknown, a value has the wrong type, or the model does not take one
            of the parts.

    Example:
        >>> config = Config(prior="Vamp", epochs=20)
        >>> config.prior.class_path
        'pyrovae.priors.Vamp'
    """

    data: str = "digits"
    data_root: Path | None = None
    data_size: int | None = None
    data_columns: list[str] | None = None
    data_labels: str | None = None
    data_covariates: list[str] | None = None
    data_layer: str | None = None
    data_seed: int = 0
    download: bool = False
    valid_size: int | float | None = None
    test_size: int | float | None = None
    limit: int | None = None
    binarize: Literal["auto", "none", "threshold", "stochastic", "dynamic"] = "auto"
    dequantize: bool | Literal["uniform", "variational"] = False
    model: Declared = field(default_factory=_declared("VAE"))
    latent_dim: int | tuple[int, ...] = 16
    condition_dim: int | None = None
    prior: Declared = field(default_factory=_declared("priors.StandardNormal"))
    likelihood: Declared = field(default_factory=_declared("likelihoods.Bernoulli"))
    posterior: Declared = field(default_factory=_declared("posteriors.DiagonalNormal"))
    encoder: Declared = field(default_factory=_declared("nets.MLP"))
    decoder: Declared = field(default_factory=_declared("nets.MLP"))
    bias_from_data: bool = False
    estimator: Declared = field(default_factory=_declared("estimators.ELBO"))
    beta: Declared = 1.0
    epochs: int = 300
    batch_size: int = 128
    lr: float = 1e-3
    patience: int | None = 30
    clip_norm: float | None = None
    clip_value: float | None = None
    nonfinite: Literal["stop", "skip"] = "stop"
    method: Declared = field(default_factory=_declared("ImportanceSampling"))
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        given |= {name: resolved(without_object(given[name], name)) for name in CLASSES}
        try:
            known = _parser().parse_object(given, defaults=False)
            filled = {name: with_widths(value) for name, value in vars(known).items()}
            checked = _parser().parse_object(filled)
        except ArgumentError as error:
            raise ValueError(one_line(error, CLASSES, given)) from error
        for name, kind in CLASSES.items():
            value = checked[name]
            if isinstance(value, Namespace) and class_of(value) in (kind, *get_args(kind)):
                raise ValueError(f"{name}: {value.class_path} is only a base class.")
        taken = inspect.signature(class_of(checked.model)).parameters
        for part in set(PARTS) - set(taken):
            default = {part: with_widths(self.__dataclass_fields__[part].default_factory())}
            if checked[part] not in (None, _parser().parse_object(default)[part]):
                raise ValueError(
                    f"{class_of(checked.model).__name__} takes no {part}. Leave out --{part}, or "
                    "give another --model."
                )
            checked[part] = None
        for name in ("epochs", "batch_size", "patience"):
            if checked[name] is not None and checked[name] < 1:
                raise ValueError(f"{name} must be a positive integer, found {checked[name]}.")
        for name in given:
            object.__setattr__(self, name, checked[name])

    @classmethod
    def load(cls, path: str | PathLike, *, trust: bool = False) -> "Config":
        """The configuration in a YAML file.

        Paths of files with classes are relative to the folder of the YAML file.

        Args:
            path: The file.
            trust: Whether the file may name classes that are not pyrovae's own. To use them runs
                their code. Without it nothing is imported for the sake of the file.

        Raises:
            FileNotFoundError: If there is no such file.
            PermissionError: If it may not be read.
            ValueError: If it is damaged, does not declare a run, or names classes that are not
                pyrovae's own without ``trust``.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"There is no configuration at {path}.")
        content = _content_of(Path(path))
        if content is None:  # an empty file leaves everything at its default
            return cls()
        if not isinstance(content, dict):
            raise ValueError(
                f"{path} holds no options: expected lines such as 'epochs: 100', found {content!r}."
            )
        if not trust:
            check_options(content, Path(path))
        try:
            return cls(**vars(_parser().parse_path(str(path), defaults=False)))
        except Exception as error:  # of many kinds: the file may hold anything
            names = [f.name for f in fields(cls)]
            raise ValueError(f"{path}: {one_line(error, CLASSES, names)}") from error

    def __str__(self) -> str:
        """The YAML text."""
        return self._dump(MODE)

    def save(self, path: str | PathLike) -> None:
        """Write the YAML text that :meth:`load` reads."""
        files.write(Path(path), str(self))

    def taken_along(self) -> tuple[str, dict[str, bytes]]:
        """The YAML text for a folder of its own, and the files with classes of yours that belong
        beside it, by name.
        """
        return taken_along(yaml.safe_load(self._dump("yaml")))

    def _dump(self, form: str) -> str:
        given = Namespace({f.name: getattr(self, f.name) for f in fields(self)})
        return _parser().dump(given, format=form, skip_unset=False)

    def build(self, name: str) -> Any:
        """A new object of the class that a field declares; None or a number as it is.

        Raises:
            Exception: What the class raises for its arguments.
        """
        return instantiate(getattr(self, name))

    @property
    def model_class(self) -> type:
        """The class of the model."""
        return class_of(self.model)


def check_options(content: Any, path: Path) -> None:
    """Raise a ValueError if options of a run, as a file holds them, name code that is not
    pyrovae's own. Options may have dots in them, as in ``prior.num_components``.
    """
    bases = [base for kind in CLASSES.values() for base in (get_args(kind) or (kind,))]
    parts = [base for base in bases if base not in (type(None), float)]
    options: dict[str, list[Any]] = {}
    for name, value in content.items() if isinstance(content, dict) else ():
        options.setdefault(str(name).partition(".")[0], []).append(value)
    check_trusted(options, path, parts, [*CLASSES])


def _content_of(path: Path) -> Any:
    """What a YAML file holds, without a look at the classes that it names."""
    try:
        return get_loader("yaml")(path.read_text(encoding="utf-8-sig"))
    except PermissionError as error:
        raise PermissionError(f"{path} may not be read by this user: permission denied.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{path} is not a YAML file that can be read: {said}") from error


def _parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False, parser_mode=MODE)
    # No default classes: their arguments would be handed on to the ones that are given.
    plain = {f.name: f.default for f in fields(Config) if f.name not in CLASSES}
    add_arguments(parser, Config, CLASSES, plain)
    return parser
