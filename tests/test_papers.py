"""The papers' scripts run and go on where they stopped; the page of tables is what the recorded
runs make it.
"""

import importlib
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAPERS = ROOT / "examples" / "papers"
SMALL = ["--quick", "--limit", "60", "--epochs", "1", "--tested", "3", "--threads", "1"]
COMMANDS = {
    "vampprior": ["--prior", "vamp", "--data", "caltech", "--annealed", "0"],
    "vampprior hvae": ["--model", "hvae", "--annealed", "2"],
    "exemplar": ["--prior", "exemplar"],
    "iwae": ["--layers", "2", "--particles", "2", "--estimator", "DReG"],
    "miwae": ["--estimator", "MIWAE"],
    "ais": [],
    "beta_vae": [],
    "deep": ["--annealed", "0"],
    "deep conv": ["--annealed", "0", "--conv", "--guide", "bottom-up"],
}


@pytest.fixture
def script(monkeypatch):
    """A script as a module; the folder of scripts is on the path for the test alone."""
    monkeypatch.syspath_prepend(str(PAPERS))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(PAPERS) in str(getattr(sys.modules[name], "__file__", None)):
            del sys.modules[name]


def written(**values):
    line = {"seed": 0, "nll": 88.0, "share_k_above_0.7": 0.0, "command": "python x", "threads": 2}
    line |= {"data": "static", "model": "vae", "prior": "normal", "epochs": 9, "best_epoch": 8}
    line |= {"num_data": 10_000, "seconds": 10.0, "hardware": "a machine"}
    line |= {"versions": {"torch": "2"}}
    return json.dumps(line | values)


def test_the_page_is_what_the_recorded_runs_make_it(script):
    page = ROOT / "docs" / "papers.md"
    text = page.read_text(encoding="utf-8")
    assert script("table").page(text) == text
    assert text.count("<!-- table: ") == text.count("<!-- end -->") == 8


def test_every_script_has_a_table(script):
    table = script("table")
    papers = {path.stem for path in PAPERS.glob("*.py")} - {"table", "protocol", "run"}
    assert papers <= set(table.TABLES) | set(table.FIGURES)


def test_a_row_is_the_mean_over_seeds_of_their_last_runs(script, tmp_path):
    lines = [written(nll=99.0), written(nll=88.0), written(seed=1, nll=88.4)]
    lines += [written(seed=2, nll=70.0, quick=True), written(seed=3, nll=60.0, prior="vamp")]
    lines += [written(seed=4, nll=70.0, command="python x --epochs 1"), written(seed=5, conv=True)]
    lines += [written(seed=6, nll=70.0, data="dynamic", num_data=1_000)]
    (tmp_path / "vampprior.jsonl").write_text("\n".join(lines))
    rows = script("table").table("vampprior", tmp_path).splitlines()
    assert rows[2] == (
        "| static | VAE | standard normal | 88.56 | 88.20 ± 0.20 (2 seeds) | -0.36 | 0% |  | "
        "reached |"
    )
    assert "60.00 (1 seed)" in rows[3]
    assert "not run" in rows[4]
    assert "70.00 (1 seed, 1,000 test data)" in rows[6]
    assert rows[-1] == "- `python x`: a machine, 2 threads, torch 2, 9 epochs, best 8, 10 s"


def test_rows_that_were_written_twice_stand_once(script, tmp_path):
    lines = [written(beta=beta, rate=rate) for beta, rate in ((0.5, 1.0), (1.0, 2.0), (0.5, 3.0))]
    (tmp_path / "beta_vae.jsonl").write_text("\n".join(lines))
    rows = script("table").table("beta_vae", tmp_path).splitlines()[2:4]
    assert [row.split("|")[4:6] for row in rows] == [[" 0.5 ", " 3 "], [" 1 ", " 2 "]]


def test_what_the_tables_lack_is_listed_and_every_script_takes_it(script, tmp_path):
    run, table = script("run"), script("table")
    (tmp_path / "vampprior.jsonl").write_text(written(data="dynamic", prior="vamp"))
    papers = [*table.TABLES, *run.ONCE]
    commands = list(run.missing(papers, [0, 1], tmp_path))
    rows = sum(len(rows) for _, rows in table.TABLES.values()) + len(run.ONCE)
    assert len(commands) == 2 * rows - 1
    assert commands[0] == [
        "vampprior.py",
        "--data",
        "static",
        "--model",
        "vae",
        "--prior",
        "normal",
        "--seed",
        "0",
    ]
    given = ["vampprior.py", "--data", "dynamic", "--model", "vae", "--prior", "vamp", "--seed"]
    assert [*given, "0"] not in commands
    assert [*given, "1"] in commands
    for name, *options in commands:
        script(Path(name).stem).parser().parse_args(options)


def test_a_failed_script_is_named_with_its_log(script, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = script("run")
    assert run.main(["--papers", "exemplar", "--seeds", "0", "--workers", "2", "--no-such"]) == 1
    said = capsys.readouterr().out
    assert said.count("failed; see runs/papers/logs/exemplar.py_prior_") == 3
    assert "unrecognized arguments: --no-such" in next(run.LOGS.iterdir()).read_text()


def test_another_run_in_the_folder_is_refused(script, tmp_path):
    protocol, vampprior = script("protocol"), script("vampprior")

    def prepared(*words):
        arguments = vampprior.parser().parse_args(["--out", str(tmp_path), *words])
        return protocol.prepare(arguments, "name")

    assert prepared("--seed", "1") == tmp_path
    assert prepared("--seed", "1", "--tested", "5", "--threads", "1") == tmp_path
    with pytest.raises(SystemExit, match="Give another folder: --out"):
        prepared("--seed", "1", "--limit", "60")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"nll": 88.56}, "reached"),
        ({"nll": 88.80}, "within 0.3"),
        ({"nll": 88.90}, "not within 0.3"),
        ({"nll": 88.0, "share_k_above_0.7": 0.5}, "reached; lower bound only"),
        (
            {"share_k_above_0.7": 0.5, "ais": {"gap": 0.05, "nll": 87.9, "importance_nll": 88.0}},
            "reached",
        ),
        (
            {"share_k_above_0.7": 0.5, "ais": {"gap": 0.5, "nll": 87.9, "importance_nll": 88.0}},
            "reached; lower bound only",
        ),
    ],
)
def test_verdicts(script, values, said):
    table = script("table")
    row = table.TABLES["vampprior"][1][0]
    assert table.cells(row, [json.loads(written(**values))])[-1] == said


def test_iwae_has_the_papers_stages(script):
    stages = script("iwae").Stages(steps_per_epoch=10)
    assert sum(stages.epochs) == 3280
    rates = [stages(10 * epoch) for epoch in (0, 1, 3, 4, 12, 13, 3279, 5000)]
    assert rates == pytest.approx([1e-3, 7.2e-4, 7.2e-4, 5.2e-4, 5.2e-4, 3.7e-4, 1e-4, 1e-4])
    assert script("iwae").Stages(10, shorten=20).epochs == [1, 1, 1, 1, 4, 12, 36, 109]


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_script_runs_and_goes_on(script, command, real_path, tmp_path, monkeypatch):
    """A second call trains and evaluates nothing anew, and gives the same line."""
    for name in ("mnist.npz", "mnist_static_binarized.npz", "caltech101_silhouettes_28.npz"):
        monkeypatch.setenv("PYROVAE_DATA", str(real_path(name).parent))
    module = script(command.split()[0])
    results = tmp_path / "results.jsonl"
    words = [*SMALL, *COMMANDS[command], "--out", str(tmp_path), "--results", str(results)]
    found = []
    for _ in range(2):
        found.append(module.main(module.parser().parse_args(words)))
    assert found[0] == found[1]
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    last = found[0][-1] if isinstance(found[0], list) else found[0]
    assert lines[-1] == last
    assert last["epochs"] == 1
    assert "NaN" not in json.dumps(last)
