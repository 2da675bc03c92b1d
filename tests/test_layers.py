"""Imports go down the layout of ``docs/design.md``, wherever in a file they stand."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pyrovae

ROOT = Path(pyrovae.__file__).parent
DESIGN = Path(__file__).parents[1] / "docs" / "design.md"

# Imports that climb, each with its reason. Nothing else may.
ALLOWED = {
    ("models", "training"): "vae.fit(...) is short for pyrovae.fit, and a VAE is declared below it",
    ("models", "evidence"): "vae.log_marginal(...) is short for pyrovae.log_marginal, likewise",
}


def layers() -> list[list[str]]:
    """The rooms of each line of the layout in ``docs/design.md``, from the top down."""
    text = DESIGN.read_text()
    block = re.search(r"```text\npyrovae/\n(.*?)```", text, re.DOTALL)
    assert block, "docs/design.md has no layout"
    found = []
    for line in block.group(1).splitlines():
        names = re.match(r"  ((?:\w+(?:/|\.py) *)+)", line)
        if names:
            found.append(re.findall(r"(\w+)(?:/|\.py)", names.group(1)))
    return found


def named(path: Path) -> set[str]:
    """What a file imports of the package, inside functions and under ``TYPE_CHECKING`` too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("pyrovae.")}


def imports(path: Path) -> set[str]:
    """The rooms that a file imports."""
    return {name.split(".")[1] for name in named(path)}


def files() -> dict[str, Path]:
    """Every file by its dotted name, without the faces of folders, which only hand names on."""
    found = {path.relative_to(ROOT.parent).with_suffix(""): path for path in ROOT.rglob("*.py")}
    return {".".join(name.parts): path for name, path in found.items() if path.stem != "__init__"}


def test_every_room_has_its_place():
    rooms = {p.stem for p in ROOT.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    placed = [room for line in layers() for room in line]
    assert sorted(placed) == sorted(set(placed)), "a room stands twice"
    assert rooms - {"__init__", "__main__"} == set(placed)


def test_imports_only_go_down():
    depth = {room: i for i, line in enumerate(layers()) for room in line}
    wrong = []
    for path in ROOT.rglob("*.py"):
        here = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if here in ("__init__", "__main__"):
            continue
        for room in imports(path):
            climbs = room != here and depth.get(room, -1) <= depth[here]
            if climbs and (here, room) not in ALLOWED:
                wrong.append(f"{path.relative_to(ROOT)} imports {room}")
    assert not wrong


def test_files_do_not_import_each_other_in_a_circle():
    known = files()
    below = {
        here: {n if n in known else n.rpartition(".")[0] for n in named(path)} & known.keys()
        for here, path in known.items()
    }
    TopologicalSorter(below).prepare()  # raises CycleError, which shows a circle


def test_every_exception_is_needed():
    used = {
        (path.relative_to(ROOT).parts[0], room)
        for path in ROOT.rglob("*.py")
        for room in imports(path)
    }
    assert set(ALLOWED) <= used


def test_the_root_is_small():
    assert len([path for path in ROOT.glob("*.py") if path.stem != "__main__"]) <= 11
