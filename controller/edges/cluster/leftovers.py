"""What our volume still holds of rollouts that are gone. A uid never comes again, so nobody asks for it."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

KEPT_S = 86_400.0  # statistics and copies of journals, after their last change
RECORDS_KEPT_S = 30 * 86_400.0  # what was decided, and why


def sweep(statistics: Path, records: Path, is_gone: Callable[[str], bool]) -> list[str]:
    """Delete what is in the folders ``statistics`` (a folder for each uid) and ``records`` (a file for each) of uids
    that are gone, and has not changed for long; the uids of which something was. OSError where that fails."""
    now = time.time()
    gone = []
    for folder in _of_gone(statistics, is_gone):
        if now - max(path.stat().st_mtime for path in (folder, *folder.rglob("*"))) > KEPT_S:
            shutil.rmtree(folder)
            gone.append(folder.name)
    for file in _of_gone(records, is_gone):
        if now - file.stat().st_mtime > RECORDS_KEPT_S:
            file.unlink()
            gone.append(file.stem)
    return sorted(set(gone))


def _of_gone(folder: Path, is_gone: Callable[[str], bool]) -> list[Path]:
    return [path for path in folder.iterdir() if is_gone(path.stem)] if folder.is_dir() else []
