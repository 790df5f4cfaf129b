"""What our volume still holds of rollouts that are gone. A uid never comes again, so nobody asks for it."""

import shutil
import time
from collections.abc import Set
from pathlib import Path

EVERY_S = 3_600.0
KEPT_S = 86_400.0  # statistics and copies of journals, after their last change
RECORDS_KEPT_S = 30 * 86_400.0  # what was decided, and why


class Leftovers:
    """The folders ``statistics`` (a folder for each uid) and ``records`` (a file for each); ``sweeps`` of them so far.

    ``of_all``: who is not among the living is gone. Who does not watch all namespaces knows that of those only that he
    has seen: what is kept of others may be of a rollout elsewhere.
    """

    def __init__(self, statistics: Path, records: Path, *, of_all: bool) -> None:
        self._statistics, self._records, self._of_all = statistics, records, of_all
        self._seen: set[str] = set()
        self._swept_at = -EVERY_S
        self.sweeps = 0

    def due(self) -> bool:
        """Whether the last sweep was begun an hour ago."""
        return time.monotonic() - self._swept_at >= EVERY_S

    def sweep(self, living: Set[str]) -> list[str]:
        """Delete what is kept of uids that are gone, and has not changed for long; the uids of which something was.
        OSError where that fails."""
        self._swept_at, now = time.monotonic(), time.time()
        self._seen |= living
        swept = set()
        for folder in self._of_gone(self._statistics, living):
            if now - max(path.stat().st_mtime for path in (folder, *folder.rglob("*"))) > KEPT_S:
                shutil.rmtree(folder)
                swept.add(folder.name)
        for file in self._of_gone(self._records, living):
            if now - file.stat().st_mtime > RECORDS_KEPT_S:
                file.unlink()
                swept.add(file.stem)
        self.sweeps += 1
        return sorted(swept)

    def _of_gone(self, folder: Path, living: Set[str]) -> list[Path]:
        found = list(folder.iterdir()) if folder.is_dir() else []
        return [path for path in found if path.stem not in living and (self._of_all or path.stem in self._seen)]
