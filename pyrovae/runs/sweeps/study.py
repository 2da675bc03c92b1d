"""The study of a sweep, in Optuna's storage."""

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyrovae.runs.sweeps.declaration import Declaration

__all__ = ["open_study", "optuna", "quiet"]


def optuna() -> Any:
    """The package.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ImportError("A sweep needs Optuna: pip install 'pyrovae[sweep]'.") from error
    return optuna


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna's own lines about each trial are left out."""
    logging = optuna().logging
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def open_study(
    folder: Path, storage: str | None, declaration: Declaration | None = None, worker: int = 0
) -> Any:
    """The study of a sweep's folder, made where there is none yet if a declaration is given.

    Raises:
        FileNotFoundError: If there is none, and no declaration is given.
        ValueError: If the folder holds another sweep, or the sampler or pruner cannot be made.
    """
    package, name, where = optuna(), "sweep", storage
    if declaration is not None:
        _searching(declaration, 0)  # an error of theirs comes before anything is written
    if storage is None:
        journal, path = package.storages.journal, folder / "study.journal"
        if declaration is not None:
            _mend(path, journal)
        elif not path.is_file():
            raise FileNotFoundError(
                f"{folder} has no study.journal. If its study is in a database, give storage=..."
            )
        where = package.storages.JournalStorage(journal.JournalFileBackend(str(path)))
    else:
        name = folder.resolve().name
    if declaration is None:
        return package.load_study(study_name=name, storage=where)
    options: dict[str, Any] = {"study_name": name, "storage": where, "load_if_exists": True}
    study = package.create_study(direction="maximize", **options)
    _check_fixed(study, declaration, folder)
    # Samplers of all workers draw other numbers, and so does one that goes on.
    seed = 1000 * len(study.get_trials(deepcopy=False)) + worker
    study.sampler, study.pruner = _searching(declaration, seed)
    return study


def _searching(declaration: Declaration, seed: int) -> tuple[Any, Any]:
    """Sampler and pruner; those of a grid do nothing."""
    package = optuna()
    sampler = _made(declaration.sampler or "RandomSampler", package.samplers, seed)
    return sampler, _made(declaration.pruner or "NopPruner", package.pruners, None)


def _check_fixed(study: Any, declaration: Declaration, folder: Path) -> None:
    options = [axis.option for axis in declaration.axes]
    found = {"options": options, "fixed": declaration.fixed, "sampler": declaration.sampler}
    before = study.user_attrs.get("declared")
    if before is None:
        study.set_user_attr("declared", found)
    elif (changed := _difference(before, json.loads(json.dumps(found)))) is not None:
        raise ValueError(
            f"The sweep in {folder} was declared with another {changed}. Its values may be added "
            "to; for other runs give another folder (--out)."
        )


def _difference(before: Any, now: Any) -> str | None:
    """The option in which two sweeps differ beside the values of their axes."""
    for option in sorted({*before["options"]} ^ {*now["options"]}):
        return option
    for option in sorted({*before["fixed"], *now["fixed"]}):
        if before["fixed"].get(option) != now["fixed"].get(option):
            return option
    return None if before["sampler"] == now["sampler"] else "sampler"


def _made(declared: Any, family: Any, seed: int | None) -> Any:
    """A sampler or pruner of Optuna's."""
    name, given = declared, {}
    if isinstance(declared, dict):
        name, given = declared.get("class_path"), dict(declared.get("init_args") or {})
    cls = getattr(family, str(name).rpartition(".")[2], None)
    if not isinstance(cls, type) or name == "GridSampler":
        known = [n for n in family.__all__ if not n.startswith("Base") and n != "GridSampler"]
        grid = " Without a sampler a sweep is a grid." if seed is not None else ""
        raise ValueError(f"Optuna has no {name!r} here. Choose one of {', '.join(known)}.{grid}")
    for key, value in given.items():
        if isinstance(value, dict) and "class_path" in value:
            given[key] = _made(value, family, seed)
    if seed is not None and "seed" in inspect.signature(cls).parameters:
        given = {"seed": seed} | given
    try:
        return cls(**given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error


def _mend(path: Path, journal: Any) -> None:
    """Cut off half a line at the end, as a full disk leaves it: Optuna could not read past it."""
    path.touch()
    lock = journal.JournalFileSymlinkLock(str(path))
    lock.acquire()
    try:
        text = path.read_bytes()
        whole = text.rfind(b"\n") + 1
        if whole < len(text):
            with path.open("r+b") as file:
                file.truncate(whole)
    finally:
        lock.release()
