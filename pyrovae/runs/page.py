"""The report of a finished run: one HTML page that holds everything."""

import base64
from pathlib import Path
from typing import Any

from pyrovae import files
from pyrovae.data import Splits
from pyrovae.evidence import Evidence
from pyrovae.models.base import Model
from pyrovae.runs.baseline import without_latents
from pyrovae.runs.manifest import versions
from pyrovae.runs.pictures import Picture, pictures_of
from pyrovae.runs.run import Run
from pyrovae.runs.terminal import attempt, binarized, say, seeded
from pyrovae.runs.trust import names_code
from pyrovae.runs.verdict import diagnosis, result
from pyrovae.training.history import History

__all__ = ["made_by", "report", "write_page"]


def report(
    run: Run, vae: Model, splits: Splits, evidence: Evidence | str, history: History
) -> None:
    """Write the figures and the page of a run; each one that cannot be made is a warning.

    In place of the evidence that a model does not have stands the reason.
    """
    if attempt(run.page.name, lambda: _page(run, vae, splits, evidence, history)):
        say("report", str(run.page))


def _page(run: Run, vae: Model, splits: Splits, evidence: Evidence | str, history: History) -> None:
    known = None if isinstance(evidence, str) else evidence
    figures = pictures_of(run, vae, splits, known, history)
    seconds = float(history["seconds"].sum())
    trust = " --trust" * names_code(vars(run.config))
    stopped = ", when patience ran out" if history.stopped_early else ""
    found: dict[str, Any] = {"result": None, "diagnosis": None, "reason": evidence}
    tables = [("Epochs", repr(history))]
    if known is not None:
        found["result"] = result(known, splits.name, _baseline(run, vae, splits))
        found["diagnosis"] = diagnosis(known, str(run.path), trust)
        tables.append(("Evidence in full", repr(known)))
    write_page(
        run.page,
        title=f"{type(vae).__name__} on {splits.name}",
        name=run.path.name,
        **found,
        declaration=repr(vae),
        data=repr(splits).removeprefix("Splits(").removesuffix(")")
        + binarized(run.config.binarize),
        training=f"{len(history)} epochs in {seconds:.1f} s{stopped}; the weights of epoch "
        f"{history.best_epoch} were kept.",
        figures=figures,
        tables=tables,
        commands=[
            f"pyrovae train --config {run.config_file}{trust}",
            f"pyrovae evaluate {run.path}{trust}",
            f"pyrovae sample {run.path}{trust}",
        ],
        # What was not given says nothing; config.yaml has it all.
        config="\n".join(
            line for line in run.config.taken_along()[0].splitlines() if not line.endswith(": null")
        ),
        versions=made_by(next(vae.parameters()).device),
    )


def _baseline(run: Run, vae: Model, splits: Splits) -> Any:
    """What a model without latent variables gives, or why that is not known."""
    found: Any = "its fit failed, and a warning in the output says how"

    def fit() -> None:
        nonlocal found
        found = seeded(run.config.seed, lambda: without_latents(vae, splits))

    attempt("comparison with a model without latent variables", fit)
    return found


def made_by(where: object) -> str:
    """The versions that made a page, and where."""
    known = versions()
    return f"pyrovae {known['pyrovae']}, torch {known['torch']}, Python {known['python']}, {where}"


def write_page(path: Path, template: str = "page.html.jinja", **content: Any) -> None:
    """Fill a template and write a page that needs no other file.

    Args:
        path: The file to write.
        template: The template, in this folder.
        content: What the template shows. ``figures`` are :class:`Picture` objects by name; they are
            put into the page.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("pyrovae.runs", "."), autoescape=True, undefined=StrictUndefined
    )
    shown = {name: _embedded(picture) for name, picture in content.pop("figures").items()}
    text = environment.get_template(template).render(figures=shown, **content)
    files.write(path, text)


def _embedded(picture: Picture) -> dict[str, str]:
    kind = "svg+xml" if picture.content.lstrip().startswith(b"<") else "png"
    source = f"data:image/{kind};base64,{base64.b64encode(picture.content).decode()}"
    return {"source": source, "caption": picture.caption, "kind": kind}
