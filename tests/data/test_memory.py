"""Training and evidence from a file that is larger than the memory that the process may take."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "larger_than_memory.py"
GIBIBYTES, LIMIT = 1.0, 0.7  # of the file, and of what the process may allocate


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and sets RLIMIT_DATA")
@pytest.mark.parametrize(
    "what", ["fit, memory map", "data.load, fit", "fit, DataLoader", "log_marginal", "numpy.load"]
)
def test_a_file_larger_than_the_limit(tmp_path, what):
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        from larger_than_memory import write
    finally:
        sys.path.remove(str(SCRIPT.parent))
    write(tmp_path / "x.npy", int(GIBIBYTES * 2**30))
    command = [sys.executable, str(SCRIPT), "--limit", str(LIMIT)]
    done = subprocess.run(
        [*command, "--row", what, str(tmp_path / "x.npy")], capture_output=True, text=True
    )
    if what == "numpy.load":  # the limit is real
        assert "MemoryError" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert float(done.stdout.split()[-1]) < 1024 * LIMIT
