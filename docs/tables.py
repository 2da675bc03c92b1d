"""Write the tables of docs/catalogue.md anew, from the docstrings: ``python docs/tables.py``."""

import importlib
import inspect
import re
from pathlib import Path

CATALOGUE = Path(__file__).parent / "catalogue.md"
FAMILIES = {
    "Models": ("pyrovae.models", "Model"),
    "Priors p(z)": ("pyrovae.priors", "Prior"),
    "Likelihoods p(x | z)": ("pyrovae.likelihoods", "Likelihood"),
    "Posteriors q(z | x)": ("pyrovae.posteriors", "Posterior"),
    "Networks": ("pyrovae.nets", "Recipe"),
    "ELBO estimators": ("pyrovae.estimators", "Estimator"),
    "Schedules and controllers of beta": ("pyrovae.schedules", "Schedule"),
    "Evidence methods": ("pyrovae.evidence", "Method"),
}
"""Heading, the module that exports the classes, and the base class that they have."""

HEAD = """\
# Catalogue

Every class with which a model, its training or its evaluation can be declared, and the paper that
it is from. The names are the same in Python and on the command line:
`priors.Vamp(num_components=500)` is `--prior Vamp --prior.num_components 500`.
"""


def variants(module: str, base: str) -> list[type]:
    """The classes of a family that can be used, in the order of the alphabet."""
    family = importlib.import_module(module)
    found = [getattr(family, name) for name in family.__all__]
    found = [
        cls
        for cls in found
        if inspect.isclass(cls)
        and not inspect.isabstract(cls)
        and base in [parent.__name__ for parent in cls.__mro__[1:]]
    ]
    return sorted(found, key=lambda cls: cls.__name__.lower())


def row(cls: type) -> str:
    """Name, first sentence and paper of one class."""
    text = inspect.getdoc(cls) or ""
    summary = plain(" ".join(text.split("\n\n")[0].split()))
    references = re.search(r"^References:\n((?:[ ]{4}.*\n|\n)+)", text + "\n", re.MULTILINE)
    cited = " ".join(references[1].split()) if references else ""
    paper = re.match(r"[- ]*(.*?) \(([^()]*?), (\d{4})\b", cited)
    others = re.compile(r"\([^()]*?, \d{4}\b").search(cited, paper.end() if paper else 0)
    link = re.search(
        r"https://arxiv\.org/abs/[\w./-]+", cited[: others.start() if others else None]
    )
    source = ""
    if paper:
        title = f"[*{paper[1]}*]({link[0]})" if link else f"*{paper[1]}*"
        source = f"{paper[2]} {paper[3]}, {title}"
    return f"| `{cls.__name__}` | {summary.rstrip('.')} | {source} |"


def plain(text: str) -> str:
    """Markdown for the cell of a table, from reStructuredText."""
    text = re.sub(r":(?!math)\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text.replace("``", "`"))
    text = text.replace(", in nats per datum", "").rstrip(":").replace("|", r"\|")
    return re.sub(r":math:`([^`]*)`", r"$\1$", text)


def catalogue() -> str:
    """The whole page."""
    tables = [HEAD]
    for heading, (module, base) in FAMILIES.items():
        rows = [row(cls) for cls in variants(module, base)]
        table = "\n".join(["| | | |", "|---|---|---|", *rows])
        tables.append(f"## {heading}\n\n`{module}`\n\n{table}\n")
    return "\n".join(tables)


if __name__ == "__main__":
    CATALOGUE.write_text(catalogue(), encoding="utf-8")
