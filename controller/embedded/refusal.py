"""Why the controller would not start: word that it leaves for its parent, who sits before a person."""

import json
from collections.abc import Sequence
from pathlib import Path

CODE = 3  # its exit code where the registry cannot do for a rollout


def write(path: Path, said: Sequence[str]) -> None:
    """Leave word for the parent."""
    path.write_text(json.dumps(list(said)), encoding="utf-8")


def read(path: Path) -> list[str]:
    """What the controller would not start for; empty where it left no word."""
    try:
        return [str(line) for line in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError):
        return []
