"""Run whatever the tables of docs/papers.md lack: ``python examples/papers/run.py --list``.

Every script is started once for each row and seed that no recorded line belongs to, the first seed
of all rows before the second. Options that this script does not know go to each of them:

    python examples/papers/run.py --papers vampprior iwae --seeds 0 1 2 --workers 8 --tf32

Runs that were stopped go on when the command is given again. With several workers, give each
``--threads``. Afterwards ``python examples/papers/table.py`` writes the tables anew.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from table import FIGURES, HERE, TABLES, latest, read

LOGS = Path("runs/papers/logs")
ONCE = sorted(set(FIGURES) - {"snr"})  # scripts that make all rows of a table; miwae makes snr


def missing(papers: Sequence[str], seeds: Sequence[int], results: Path) -> Iterator[list[str]]:
    """The script and its options, for each row and seed without a line."""
    for seed in seeds:
        for paper in papers:
            lines = read(results / f"{paper}.jsonl")
            wanted = [row.runs for row in TABLES[paper][1]] if paper in TABLES else [{}]
            for keys in wanted:
                if not latest(lines, {**keys, "seed": seed}):
                    options = {**keys, "seed": seed}
                    # What a line calls "MIWAE(8, 8)", the option calls MIWAE.
                    words = [str(value).partition("(")[0] for value in options.values()]
                    pairs = zip(options, words, strict=True)
                    yield [f"{paper}.py", *(w for k, v in pairs for w in (f"--{k}", v))]


def run(command: Sequence[str]) -> int:
    """Run a script, what it says going to a file; returns its exit status."""
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / ("_".join(word.strip("-") for word in command).replace("/", "_")[:200] + ".txt")
    with log.open("w") as file:
        words = [sys.executable, str(HERE / command[0]), *command[1:]]
        status = subprocess.run(words, stdout=file, stderr=subprocess.STDOUT, check=False)
    said = "done" if status.returncode == 0 else f"failed; see {log}"
    print(f"{' '.join(command)}: {said}", flush=True)
    return status.returncode


def main(words: Sequence[str] | None = None) -> int:
    papers = [*TABLES, *ONCE]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--papers", nargs="+", choices=papers, default=papers)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--workers", type=int, default=1, help="scripts at a time")
    parser.add_argument("--list", action="store_true", help="show what would be run")
    arguments, more = parser.parse_known_args(words)
    results = HERE / "results"
    commands = [[*c, *more] for c in missing(arguments.papers, arguments.seeds, results)]
    if arguments.list:
        print(*(" ".join(command) for command in commands), sep="\n")
        return 0
    with ThreadPoolExecutor(arguments.workers) as pool:
        return int(any(pool.map(run, commands)))


if __name__ == "__main__":
    sys.exit(main())
