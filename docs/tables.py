"""Write the tables of parts in README.md anew, from the docstrings: ``python docs/tables.py``."""

import re
from pathlib import Path

from pyrovae import catalog

README = Path(__file__).parents[1] / "README.md"
HEADINGS = {
    "shape": "Whole shapes",
    "prior": "Priors p(z)",
    "likelihood": "Likelihoods p(x | z)",
    "posterior": "Posteriors q(z | x)",
    "encoder": "Networks",
    "estimator": "ELBO estimators",
    "beta": "Schedules and controllers of beta",
    "method": "Evidence methods",
}


def table(kind: str) -> str:
    """One family, a row a part."""
    rows = []
    for entry in sorted(
        catalog.everything(kind).values(), key=lambda entry: entry.qualname.lower()
    ):
        what = entry.summary.rstrip(".").replace(", in nats per datum", "").replace("|", r"\|")
        what = re.sub(r"(?<!\s)\*|\*(?!\s)", r"\*", what)
        paper = re.match(r"(.*?) \(([^()]*?), (\d{4})\)", entry.references)
        source = f"{paper[2]} {paper[3]}, *{paper[1]}*" if paper else ""
        rows.append(f"| `{entry.qualname}` | {what} | {source} |")
    modules = (catalog.KINDS[kind].module, *catalog.KINDS[kind].more)
    heading = f"**{HEADINGS[kind]}** ({', '.join(f'`{module}`' for module in modules)})"
    return "\n".join([heading, "", "| | | |", "|---|---|---|", *rows])


def main() -> None:
    tables = "\n\n".join(table(kind) for kind in HEADINGS)
    text = README.read_text(encoding="utf-8")
    head, _, rest = text.partition("<!-- variants -->\n")
    tail = rest.partition("<!-- end of variants -->")[2]
    new = f"{head}<!-- variants -->\n\n{tables}\n\n<!-- end of variants -->{tail}"
    README.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
