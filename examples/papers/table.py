"""Write the tables of docs/papers.md anew from the recorded runs: ``python
examples/papers/table.py``.

Each table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``. Nothing in it is typed by
hand but the published figures below.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "papers.md"
MOST_BAD = 0.1  # share of data with k above 0.7 up to which importance sampling counts
SMALL_GAP = 0.1  # nats between the bounds of AIS on simulated data
TEST = {"caltech": 2_307}  # test data of sets that have not 10,000


@dataclass(frozen=True)
class Row:
    """A published figure, and which runs are to be set beside it.

    Args:
        label: Cells of the row.
        runs: What the lines of its runs hold.
        published: Held-out NLL in nats; None where the paper has none.
        tolerance: How much higher ours may be.
    """

    label: tuple[str, ...]
    runs: dict[str, Any]
    published: float | None = None
    tolerance: float = 0.3


def _vampprior() -> list[Row]:
    names = {"vae": "VAE", "hvae": "HVAE", "normal": "standard normal", "vamp": "Vamp (500)"}
    published = {  # from the paper, in the order of the rows
        "static": (88.56, 85.57, 86.05, 83.19),
        "dynamic": (84.50, 82.38, 82.42, 81.24),
        "caltech": (123.43, 114.55, 112.08, 108.28),
    }
    order = [(model, prior) for model in ("vae", "hvae") for prior in ("normal", "vamp")]
    return [
        Row(
            (data, names[model], names[prior]),
            {"data": data, "model": model, "prior": prior},
            nll,
            1.5 if data == "caltech" else 0.3,
        )
        for data, figures in published.items()
        for (model, prior), nll in zip(order, figures, strict=True)
    ]


def _iwae() -> list[Row]:
    published = {
        ("ELBO", 1): (86.76, 86.47, 86.35),
        ("IWAE", 1): (86.76, 85.54, 84.78),
        ("DReG", 1): (86.08, 84.90, 84.32),
        ("ELBO", 2): (85.33, 85.01, 84.78),
        ("IWAE", 2): (85.33, 83.89, 82.90),
        ("DReG", 2): (None, None, None),
    }
    return [
        Row(
            (estimator, str(layers), str(k)),
            {"estimator": estimator, "layers": layers, "particles": k},
            nll,
            0.5,
        )
        for (estimator, layers), figures in published.items()
        for k, nll in zip((1, 5, 50), figures, strict=True)
    ]


TABLES: dict[str, tuple[tuple[str, ...], list[Row]]] = {
    "vampprior": (("data", "model", "prior"), _vampprior()),
    "iwae": (("estimator", "layers", "k"), _iwae()),
    "miwae": (
        ("estimator",),
        [
            Row((name,), {"estimator": name}, nll, 0.5)
            for name, nll in {
                "MIWAE(8, 8)": 85.09, "PIWAE(8, 8)": 84.58, "CIWAE(0.05)": 84.74,
                "IWAE(64)": None,
            }.items()
        ],
    ),
    "exemplar": (
        ("prior",),
        [
            Row(("Exemplar",), {"prior": "exemplar"}, 82.09),
            Row(("Vamp (500)",), {"prior": "vamp"}, 82.43),
            Row(("standard normal",), {"prior": "normal"}, 84.45),
        ],
    ),
    "deep": (
        ("data", "guide"),
        [
            Row((data, guide), {"data": data, "guide": guide}, nll, 0)
            for data, aim in (("static", 82.0), ("dynamic", 79.5))
            for guide, nll in (("ladder", aim), ("bottom-up", None))
        ],
    ),
}  # fmt: skip
"""Headings of the first columns, and the rows, of each table."""

FIGURES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "ais": (("seed", "method", "effort"), ("nll", "monte_carlo_error", "gap", "gap_error")),
    "beta_vae": (
        ("data", "seed", "codes", "beta"),
        ("rate", "distortion", "information", "active"),
    ),
    "snr": (
        ("trained_with", "seed", "estimator", "particles"),
        ("guide_snr", "model_snr", "slope_guide", "slope_model"),
    ),
}
"""Columns of the tables that have no published figures beside ours: those that tell rows apart, and
what was measured. Of rows that are told apart by nothing, the last one counts.
"""


def read(path: Path) -> list[dict[str, Any]]:
    """The recorded lines of a paper."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.strip()]


def latest(lines: Sequence[dict[str, Any]], keys: dict[str, Any]) -> list[dict[str, Any]]:
    """The last line of each seed among those that hold the keys and follow the protocol: quick and
    shortened runs, parts of the data and other networks do not count.
    """
    found = {
        line["seed"]: line
        for line in lines
        if all(line.get(k) == v for k, v in keys.items())
        and not any(line.get(other) for other in ("quick", "limit", "conv"))
        and "--epochs" not in line["command"]
    }
    return list(found.values())


def counts(runs: Sequence[dict[str, Any]]) -> bool:
    """Whether the estimates are trusted as log p(x), or AIS beside one of them says how far they
    are off; otherwise they are lower bounds alone.
    """
    gaps = [run["ais"]["gap"] for run in runs if "ais" in run]
    trusted = all(run["share_k_above_0.7"] <= MOST_BAD for run in runs)
    return trusted or any(gap < SMALL_GAP for gap in gaps)


def verdict(row: Row, runs: Sequence[dict[str, Any]]) -> str:
    """Whether the mean over seeds is within the tolerance, and what the estimate is worth."""
    ours = mean(run["nll"] for run in runs)
    if row.published is None:
        said = "none published"
    elif ours <= row.published:
        said = "reached"
    else:
        within = ours <= row.published + row.tolerance
        said = f"{'within' if within else 'not within'} {row.tolerance:g}"
    return said if counts(runs) else f"{said}; lower bound only"


def cells(row: Row, lines: Sequence[dict[str, Any]]) -> list[str]:
    """One row of a table, as text."""
    published = "" if row.published is None else f"{row.published:.2f}"
    runs = latest(lines, row.runs)
    if not runs:
        return [*row.label, published, "not run", "", "", "", ""]
    nll = [run["nll"] for run in runs]
    spread = f" ± {stdev(nll) / len(nll) ** 0.5:.2f}" if len(nll) > 1 else ""
    seeds = f"{len(nll)} seed{'s' * (len(nll) > 1)}"
    tested = min(run["num_data"] for run in runs)
    if tested < TEST.get(row.runs.get("data", ""), 10_000):
        seeds += f", {tested:,} test data"
    annealed = [run["ais"] for run in runs if "ais" in run]
    ais = ""
    if annealed:
        gain = mean(a["importance_nll"] - a["nll"] for a in annealed)
        ais = f"{-gain:+.2f} (gap {mean(a['gap'] for a in annealed):.2f})"
    return [
        *row.label,
        published,
        f"{mean(nll):.2f}{spread} ({seeds})",
        "" if row.published is None else f"{mean(nll) - row.published:+.2f}",
        f"{mean(run['share_k_above_0.7'] for run in runs):.0%}",
        ais,
        verdict(row, runs),
    ]


def table(name: str, results: Path = HERE / "results") -> str:
    """The Markdown of one table."""
    lines = read(results / f"{name}.jsonl")
    if name in FIGURES:
        keys, measured = FIGURES[name]
        head: tuple[str, ...] = keys + measured
        last = {tuple(line.get(key) for key in keys): line for line in lines}
        body = [[_text(line.get(column, "")) for column in head] for line in last.values()]
        body = body or [["not run", *[""] * (len(head) - 1)]]
    else:
        first, rows = TABLES[name]
        known = "aim" if name == "deep" else "published"
        head = (*first, known, "ours", "difference", "k > 0.7", "AIS beside", "verdict")
        body = [cells(row, lines) for row in rows]
    made = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body)]
    commands = sorted({f"- `{line['command']}`: {origin(line)}" for line in lines})
    return "\n".join([*made, *(["", *commands] if commands else [])])


def origin(line: dict[str, Any]) -> str:
    """Where a line comes from: machine, versions, length of the run."""
    parts = [line["hardware"], f"torch {line['versions']['torch']}"]
    if "threads" in line:
        parts.insert(1, f"{line['threads']} thread{'s' * (line['threads'] > 1)}")
    if "best_epoch" in line:
        parts.append(f"{line['epochs']} epochs, best {line['best_epoch']}, {line['seconds']:.0f} s")
    return ", ".join(parts)


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def page(text: str) -> str:
    """The page with each of its tables made anew."""
    pattern = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
    return pattern.sub(lambda match: f"{match[1]}\n{table(match[2])}\n\n{match[3]}", text)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
