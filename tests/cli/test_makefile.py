"""`make help` is a table."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_columns_of_make_help_are_aligned() -> None:
    said = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    starts = {found.end() for line in said.splitlines() if (found := re.match(r"  make [a-z-]+ +", line))}
    assert len(said.splitlines()) > 5
    assert len(starts) == 1
