"""What can be said on the command line: one dataclass a command, with the chosen parts' own options."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from pyrovae import catalog

__all__ = [
    "COMMANDS",
    "PARTS",
    "Chosen",
    "DataOptions",
    "chosen_parts",
    "chosen_shape",
    "command",
    "slots",
]

_OF_SHAPE = ("prior", "likelihood", "posterior", "encoder", "decoder")
PARTS = {"train": ("shape", *_OF_SHAPE, "estimator", "beta", "method"), "evaluate": ("method",)}
"""The parts that each command lets one choose, as far as the shape takes them."""

# What `*hidden` and `*channels` start from on the command line; in Python they start empty.
_VARIADIC = {"hidden": (300, 300), "channels": (32, 64)}
# Arguments about plates are for programs of one's own; those of a shape come from the data and the command itself.
_HIDDEN = {"max_plate_nesting"}
_HIDDEN_OF_SHAPE = {"data_shape", "latent_dim", "latent_dims", *_OF_SHAPE}

_DATA = (
    "digits, mnist, fashion-mnist, kmnist, emnist-letters, omniglot, ...; an .npy, .npz or .pt file; "
    "or a folder of images."
)
_ESTIMATORS = "Which, each with its own defaults: " + ", ".join(catalog.choices("estimator")) + "."
_BINARIZE = (
    "Grey to black and white. threshold: at one half. stochastic: drawn once. dynamic: training images drawn anew "
    "for each batch, the others once. auto: threshold if the likelihood is Bernoulli and the data are grey."
)


@dataclass(frozen=True)
class Chosen:
    """A part as it was chosen: its entry in the catalog, and its arguments."""

    entry: catalog.Entry
    values: dict[str, Any]

    def build(self) -> Any:
        """The part itself."""
        return self.entry.build(**self.arguments())

    def arguments(self) -> dict[str, Any]:
        """Its arguments, with parts among them built."""
        known = {a.name: a for a in self.entry.arguments}
        # None leaves a part to Python's own default.
        given = {n: v for n, v in self.values.items() if v is not None or not known[n].kinds}
        return {n: v.build() if isinstance(v, Chosen) else v for n, v in given.items()}


@dataclass(frozen=True)
class DataOptions:
    """How to find and cut the data."""

    root: Path | None = None
    """Folder of named data sets; default $PYROVAE_DATA, else ~/.cache/pyrovae."""
    download: bool = False
    """Fetch a named data set that is not there."""
    size: int | None = None
    """Shrink square images to this edge (Omniglot, folders)."""
    valid_size: float | int | None = None
    """Validation data: a share such as 0.1, or a number; default one in six."""
    test_size: float | int | None = None
    """Test data where the set has none of its own: likewise."""
    limit: int | None = None
    """Use at most this many data of each part."""
    seed: int = 0
    """Of the cut, of the binarisation, and of which data are taken."""


@dataclass(frozen=True)
class _Train:
    """Declare, fit and evaluate a VAE, or a model of another shape, and write it all to a run folder.

    Without options: a small VAE on the embedded digits.
    """

    config: Annotated[Path | None, arg(metavar="FILE")] = None
    """A TOML file such as RUN/config.toml; options given here win over it."""
    resume: Annotated[Path | None, arg(metavar="RUN")] = None
    """Go on with an interrupted run, in its folder."""
    out: Annotated[Path | None, arg(metavar="RUN")] = None
    """Folder to write to, new or empty; default runs/DATA-1, -2, ..."""
    data: Annotated[str, arg(metavar="NAME|PATH", help=_DATA)] = "digits"
    binarize: Annotated[
        Literal["auto", "none", "threshold", "stochastic", "dynamic"], arg(help=_BINARIZE)
    ] = "auto"
    latent_dim: int | tuple[int, int] = 16
    """Dimension D of z; for a hierarchical VAE one for both layers, or two, from the data upwards."""
    epochs: int = 300
    """Passes over the training data, at most."""
    batch_size: int = 128
    lr: float = 1e-3
    """Learning rate of Adam."""
    patience: int | None = 30
    """Stop after so many epochs without a better validation bound; None never stops."""
    clip_norm: float | None = None
    """Largest norm of the gradients."""
    bias_from_data: bool = False
    """Start the decoder's output bias where the likelihood's mean is the data mean."""
    seed: int = 0
    device: str | None = None
    """cpu, cuda, ...; default CUDA where there is any."""
    data_options: Annotated[DataOptions, arg(name="data")] = field(default_factory=DataOptions)


@dataclass(frozen=True)
class _Evaluate:
    """Estimate the held-out log-likelihood of a run, and save it there."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """A folder that `pyrovae train` wrote."""
    part: Literal["test", "valid", "train"] = "test"
    """Which data."""
    limit: int | None = None
    """At most this many of them, at random."""
    seed: int = 0
    device: str | None = None
    """cpu, cuda, ...; default CUDA where there is any."""
    out: Annotated[Path | None, arg(metavar="FILE.nc")] = None
    """Where to save the evidence; default the next free RUN/evidence-N.nc."""
    bdmc: int | None = None
    """Also bound the method's error, on so many data drawn from the model (bidirectional Monte Carlo; with AIS)."""
    nats: bool = False
    """Also say where the nats go: reconstruction, KL and its parts, active units, inference gap."""
    convergence: tuple[int, ...] = ()
    """Also show how the importance estimate rises over these numbers of particles, such as 1 10 100 1000."""


@dataclass(frozen=True)
class Estimators:
    """Compare ELBO estimators at the weights of a run: bounds, gradients, cost."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """A folder that `pyrovae train` wrote."""
    names: Annotated[tuple[str, ...], arg(metavar="PART", help=_ESTIMATORS)] = (
        "elbo",
        "stl",
        "iwae",
        "dreg",
    )
    num_particles: tuple[int, ...] = (1, 4, 16)
    """Draws for each datum: one number, or several to sweep."""
    num_data: int = 20
    """Size of the batch, drawn at random."""
    num_replicates: int = 100
    """Runs of each estimator."""
    reference_particles: int = 5000
    """Of the reference for log p(x) and for the model's gradient."""
    gradient_bias: bool = True
    """Test gradients for bias, which takes most of the time."""
    part: Literal["test", "valid", "train"] = "test"
    """Which data."""
    seed: int = 0
    device: str | None = None
    """cpu, cuda, ...; default CUDA where there is any."""
    out: Annotated[Path | None, arg(metavar="FILE.nc")] = None
    """Where to save the comparison, with a figure beside it; default the next free RUN/estimators-N.nc."""


@dataclass(frozen=True)
class Compare:
    """Compare models by their evidence on the same data, in pairs."""

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN")]
    """Two or more run folders, whose newest evidence on the same data is taken, or evidence files."""
    prob: float = 0.95
    """How often an interval is to hold the true difference."""
    error: Literal["both", "monte_carlo", "test_set"] = "both"
    """What the error of a difference counts."""
    out: Annotated[Path | None, arg(metavar="FILE.nc")] = None
    """Where to save the table; default nowhere."""


@dataclass(frozen=True)
class Sample:
    """Draw from the model of a run."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """A folder that `pyrovae train` wrote."""
    num: int = 64
    """How many."""
    mean: bool = False
    """Show E[x | z] of each drawn z, not a draw of x."""
    label: tuple[int, ...] = ()
    """Of a conditional model: the labels to draw for, in turn; default all, or covariates of test data."""
    covariates: tuple[float, ...] = ()
    """Of a conditional model that was trained on covariates: those to draw for."""
    cluster: int | None = None
    """Of a clustering model: the cluster to draw from; default all."""
    seed: int = 0
    out: Annotated[Path | None, arg(metavar="FILE")] = None
    """A new .png (a grid) or .npy (an array); default the next free RUN/samples-N.png or .npy."""


_BASES = {
    "train": _Train,
    "evaluate": _Evaluate,
    "estimators": Estimators,
    "compare": Compare,
    "sample": Sample,
}

COMMANDS = tuple(_BASES)


_SHAPE = catalog.Argument("shape", None, catalog.KINDS["shape"].default, "", kinds=("shape",))


def slots(name: str, shape: str = "") -> dict[str, catalog.Argument]:
    """The parts that a command takes beside the shape, as arguments: with a shape, those that it takes."""
    found = {}
    kinds = PARTS.get(name, ())
    taken = {}
    if "shape" in kinds:
        taken = {
            a.name: a
            for a in catalog.find("shape", shape or catalog.KINDS["shape"].default).arguments
        }
    for kind in kinds:
        if kind == "shape" or (kind in _OF_SHAPE and kind not in taken):
            continue
        takes = taken[kind].kinds if kind in _OF_SHAPE else (kind,)
        found[kind] = catalog.Argument(kind, None, catalog.KINDS[kind].default, "", kinds=takes)
    return found


def command(name: str, chosen: Mapping[str, str]) -> type:
    """The dataclass of a command, with a field for each part and one for the options of the part chosen.

    Args:
        name: Of the command.
        chosen: What was said so far, by option: ``{"encoder": "log1p", "encoder.net": "conv"}``.

    Raises:
        ValueError: If a part is unknown.
    """
    base, fields = _BASES[name], []
    if "shape" in PARTS.get(name, ()):
        fields += _fields_of(_SHAPE, "shape", chosen)
    for kind, argument in slots(name, chosen.get("shape", "")).items():
        fields += _fields_of(argument, kind, chosen)
    made = dataclasses.make_dataclass(
        base.__name__.lstrip("_"), fields, bases=(base,), frozen=True, kw_only=True
    )
    made.__doc__ = base.__doc__
    return made


def _fields_of(
    argument: catalog.Argument, path: str, chosen: Mapping[str, str]
) -> list[tuple[str, Any, Any]]:
    """A field for an argument that is a part, and one for the options of the part that was chosen."""
    name, default = argument.name, _default(argument)
    names = ", ".join(catalog.alternatives(argument.kinds))
    number = "a number, or one of " if argument.type is float or path == "beta" else ""
    about = f"{argument.help} One of " if argument.help and not number else f"{argument.help} "
    help_ = f"{about}{number}{names}; or module:Class".strip()
    kind: Any = str if default is not None else str | None
    if argument.type is not None:
        kind = argument.type | kind
    part = (name, Annotated[kind, arg(metavar="PART", help=help_)], field(default=default))
    value = chosen.get(path, default)
    if not isinstance(value, str) or not is_part(value):
        return [part]
    made = _options_of(catalog.find(argument.kinds, value, path), path, chosen)
    needed = any(_is_required(f) for f in dataclasses.fields(made))
    options = field() if needed else field(default_factory=made)
    return [part, (f"{name}_options", Annotated[made, arg(name=name)], options)]


def _options_of(entry: catalog.Entry, path: str, chosen: Mapping[str, str]) -> type:
    """A dataclass of a part's arguments."""
    fields = []
    for a in entry.arguments:
        if a.name.replace("_", "-") not in names_of(entry, path):
            continue
        if a.kinds:
            fields += _fields_of(a, f"{path}.{a.name}".replace("_", "-"), chosen)
            continue
        kind, default, help_ = (
            a.type,
            _VARIADIC.get(a.name, ()) if a.default == () else a.default,
            a.help,
        )
        if path == "shape" and a.name == "condition_dim":
            kind, default, help_ = int | None, None, f"{help_} Default: what the data's labels are."
        given = field() if default is catalog.REQUIRED else field(default=default)
        fields.append((a.name, Annotated[kind, arg(help=help_)], given))
    made = dataclasses.make_dataclass(entry.qualname, fields, frozen=True, kw_only=True)
    made.__doc__ = entry.summary
    return made


def _default(argument: catalog.Argument) -> Any:
    """What an argument that takes parts is on the command line unless said otherwise."""
    needed = argument.default is catalog.REQUIRED
    return catalog.KINDS[argument.kinds[0]].default if needed else argument.default


def names_of(entry: catalog.Entry, path: str) -> set[str]:
    """What options a part has, by their names with hyphens."""
    hidden = _HIDDEN | (_HIDDEN_OF_SHAPE if path == "shape" else set())
    return {a.name.replace("_", "-") for a in entry.arguments if a.name not in hidden}


def entry_at(name: str, path: str, chosen: Mapping[str, str]) -> catalog.Entry | None:
    """The part that was chosen at a path such as ``"encoder.net"``, if there is a part at it."""
    top, *inner = path.split(".")
    if top == "shape":
        argument: catalog.Argument | None = _SHAPE
    else:
        argument = slots(name, chosen.get("shape", "")).get(top)
    for i in range(len(inner) + 1):
        at = ".".join([top, *inner[:i]])
        if argument is None or not argument.kinds:
            return None
        value = chosen.get(at, str(_default(argument)))
        if not is_part(value):
            return None
        entry = catalog.find(argument.kinds, value, at)
        if i == len(inner):
            return entry
        argument = next((a for a in entry.arguments if a.name.replace("_", "-") == inner[i]), None)
    return None


def is_part(value: str) -> bool:
    """Whether a value of an argument names a part, and is neither a number nor None."""
    if value == "None":
        return False
    try:
        float(value)
    except ValueError:
        return True
    return False


def chosen_parts(given: Any, name: str) -> dict[str, Chosen]:
    """The parts of a parsed command beside the shape, ready to be built."""
    return {kind: _chosen(given, a) for kind, a in slots(name, getattr(given, "shape", "")).items()}


def chosen_shape(given: Any) -> Chosen:
    """The shape of a parsed ``train`` command, with those of its arguments that are options of its own."""
    return _chosen(given, _SHAPE)


def _chosen(holder: Any, argument: catalog.Argument) -> Any:
    """What was chosen for an argument: a part, or a plain value."""
    value = getattr(holder, argument.name)
    options = getattr(holder, f"{argument.name}_options", None)
    if not argument.kinds or options is None or not isinstance(value, str):
        return value
    entry = catalog.find(argument.kinds, value)
    return Chosen(
        entry, {a.name: _chosen(options, a) for a in entry.arguments if hasattr(options, a.name)}
    )


def _is_required(item: Any) -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
