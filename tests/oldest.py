"""Print the oldest versions that pyproject.toml allows, as constraints for pip.

python tests/oldest.py > oldest.txt
pip install --constraint oldest.txt '.[test]'
"""

import re
import tomllib
from pathlib import Path


def oldest(text: str) -> dict[str, str]:
    """Package and its lowest version, of the dependencies and of the extras that tests need."""
    project = tomllib.loads(text)["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for name in extras for line in extras[name])]
    found = (re.match(r"([\w.-]+)(?:\[[^\]]*\])?\s*>=\s*([\w.]+)", line) for line in lines)
    return {match[1]: match[2] for match in found if match}


if __name__ == "__main__":
    pyproject = Path(__file__).parents[1] / "pyproject.toml"
    for name, version in oldest(pyproject.read_text(encoding="utf-8")).items():
        print(f"{name}=={version}")
