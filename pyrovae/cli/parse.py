"""From arguments to a command: first which parts, then their options, by one typed parser."""

import contextlib
import dataclasses
import io
import itertools
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Union

import tyro

from pyrovae import catalog
from pyrovae.cli import options

__all__ = ["UsageError", "parse", "to_config"]


class UsageError(ValueError):
    """The arguments make no command; the message is one line."""


def parse(arguments: Sequence[str]) -> Any:
    """The command that the arguments spell: a dataclass of :mod:`pyrovae.cli.options`.

    Raises:
        UsageError: If they spell none.
        SystemExit: After ``--help``.
    """
    arguments = list(arguments) or ["--help"]
    name = arguments[0]
    try:
        if name in options.COMMANDS:
            arguments = [name, *_with_config(name, arguments[1:])]
        chosen = _values(arguments)
        if "beta" in chosen and not options.is_part(
            chosen["beta"]
        ):  # --beta 0.5 is short for a constant
            at = max(i for i, a in enumerate(arguments) if a == "--beta" or a.startswith("--beta="))
            value = chosen.pop("beta")
            arguments[at : at + (1 if "=" in arguments[at] else 2)] = ["--beta.value", value]
        _refuse_parts(name, chosen)
        commands = {n: options.command(n, chosen if n == name else {}) for n in options.COMMANDS}
    except ValueError as error:
        raise UsageError(str(error)) from error
    return _tyro(commands, arguments)


def _refuse_parts(name: str, chosen: dict[str, str]) -> None:
    """Say why a part can not be chosen: the shape has none, or what it belongs to was not chosen itself."""
    shape = chosen.get("shape", catalog.KINDS["shape"].default)
    taken = options.slots(name, shape)
    for path in chosen:
        kind = path.partition(".")[0]
        if kind in options.PARTS.get(name, ()) and kind not in taken and kind != "shape":
            entry = catalog.find("shape", shape)
            fitting = ", ".join(
                n for n in catalog.choices("shape") if kind in options.slots(name, n)
            )
            what = f": it is {_lower(entry.summary)}" if entry.summary else "."
            raise UsageError(
                f"{entry.qualname} takes no --{path}{what} Leave it out, or give another --shape: {fitting}."
            )


def _tyro(commands: dict[str, type], arguments: list[str]) -> Any:
    union = Union[  # noqa: UP007
        tuple(
            Annotated[cls, tyro.conf.subcommand(n, description=_about(cls))]
            for n, cls in commands.items()
        )
    ]
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(
                union,  # type: ignore[arg-type]
                prog="pyrovae",
                description="Variational autoencoders as Pyro programs: train, evaluate, compare, sample.",
                args=arguments,
                config=(tyro.conf.OmitSubcommandPrefixes,),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UsageError(_one_line(errors.getvalue())) from stop


def _about(cls: type) -> str:
    return " ".join((cls.__doc__ or "").split())


def _one_line(box: str) -> str:
    """The message inside the frame that tyro draws, with its first suggestion, on one line."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [
        line.strip(" │|") for line in text.splitlines() if not line.startswith(("╭", "╰", "+"))
    ]
    blocks = [b.strip() for b in re.split(r"[─-]{10,}", " ".join(lines)) if b.strip()]
    blocks = [b.rstrip(".") for b in blocks if not b.startswith("For full helptext")]
    message = re.sub(r"\s+", " ", ". ".join(blocks[:2]))
    return f"{message}. See --help."


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def _values(arguments: Sequence[str]) -> dict[str, str]:
    """What follows each option, the last time it is given, by its name with hyphens."""
    found = {}
    for argument, following in itertools.pairwise([*arguments, "--"]):
        if not argument.startswith("--"):
            continue
        flag, equals, value = argument[2:].partition("=")
        found[flag.replace("_", "-")] = (
            value if equals else "" if following.startswith("--") else following
        )
    return found


# Config files are arguments too: one parser reads both.


def _with_config(name: str, arguments: list[str]) -> list[str]:
    given = _values(arguments)
    path = given.get("config") if name == "train" else None
    resumed = given.get("resume") if name == "train" else None
    if path is None and resumed is None:
        return arguments
    if path is not None and resumed is not None:
        raise UsageError(
            "Give --config or --resume, not both: a run goes on with its own config.toml."
        )
    file = Path(path) if path is not None else Path(resumed or "") / "config.toml"
    content = {key.replace("_", "-"): value for key, value in _flatten(_read(file)).items()}
    chosen = {**{flag: value for flag, value in content.items() if isinstance(value, str)}, **given}
    before: list[str] = []
    strange: dict[str, list[str]] = {}
    for flag, value in content.items():
        head, dot, last = flag.rpartition(".")
        if flag in given or f"{head}{dot}no-{last}" in given:
            continue
        # Another part was chosen: the options of the one in the file do not belong to it.
        owners = [flag[:i] for i, letter in enumerate(flag) if letter == "."]
        if any(owner in given for owner in owners if owner != "data"):
            continue
        # Another shape was chosen, which may not take all parts of the one in the file.
        kind = flag.partition(".")[0]
        if (
            "shape" in given
            and kind in options.PARTS[name]
            and kind not in options.slots(name, given["shape"])
        ):
            continue
        entry = options.entry_at(name, head, chosen)
        if entry is not None and last not in options.names_of(entry, head):
            strange.setdefault(head, []).append(last.replace("-", "_"))
        before += _as_arguments(flag, value, file)
    for head, keys in strange.items():
        above = [head[:i] for i, letter in enumerate(f"{head}.") if letter == "."]
        help_ = " ".join(
            ["pyrovae train", *(f"--{at} {chosen[at]}" for at in above if at in chosen), "--help"]
        )
        raise UsageError(
            f"{file}: [{head}] has {', '.join(keys)}, which {chosen[head]} does not take. Take out what belonged to "
            f"another {head.rpartition('.')[2]}; `{help_}` lists what it takes."
        )
    return [*before, *arguments]


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"No config file at {file}.") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"Cannot read the config {file}: {error}.") from error


def _flatten(content: dict[str, Any]) -> dict[str, Any]:
    """``{"prior": {"name": "vamp", "bins": 3}}`` to ``{"prior": "vamp", "prior.bins": 3}``, at any depth."""
    flat = {}
    for key, value in content.items():
        if isinstance(value, dict):
            inner = _flatten(value)
            flat.update({key if k == "name" else f"{key}.{k}": v for k, v in inner.items()})
        else:
            flat[key] = value
    return flat


def _as_arguments(flag: str, value: Any, file: Path) -> list[str]:
    if isinstance(value, bool):
        head, dot, last = flag.rpartition(".")
        return [f"--{flag}" if value else f"--{head}{dot}no-{last}"]
    if isinstance(value, list):
        return [f"--{flag}", *map(str, value)]
    if isinstance(value, str | int | float):
        return [f"--{flag}", str(value)]
    raise UsageError(
        f"{file}: {flag} must be text, a number, true or false, or a list, found {value!r}."
    )


def to_config(given: Any) -> dict[str, Any]:
    """The content of a config file that gives this command again."""
    content: dict[str, Any] = {}
    for item in dataclasses.fields(given):
        value = getattr(given, item.name)
        if item.name in ("config", "resume", "out"):
            continue
        if dataclasses.is_dataclass(value):
            part = item.name.removesuffix("_options")
            content[part] = {"name": _located(getattr(given, part)), **to_config(value)}
        elif not isinstance(content.get(item.name), dict):
            content[item.name] = _plain(value)
    # TOML wants plain keys before tables.
    return dict(sorted(content.items(), key=lambda pair: isinstance(pair[1], dict)))


def _located(name: str) -> str:
    """A part in a file by the whole path of the file, so that later commands find it from any folder."""
    file, colon, qualname = name.rpartition(":")
    return (
        f"{Path(file).expanduser().resolve()}:{qualname}"
        if colon and file.endswith(".py")
        else name
    )


def _plain(value: Any) -> Any:
    if value is None:
        return "None"  # as on the command line: TOML has no word for it
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return value if isinstance(value, str | bool | int | float) else str(value)
