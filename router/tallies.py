"""The tallies of a router's journals: each outlives the worker that writes, and what it took along is told afterwards.

The next worker that writes the same journal tells it. Where none will soon, ``settle`` does.
"""

import asyncio
import logging
import os
from pathlib import Path

from router import tally
from router.journal import Writer

log = logging.getLogger("understudy.router.tallies")


class Tallies:
    """``open``: names of workers that were killed, and in whose journals nobody has told yet what was lost."""

    def __init__(self, directory: Path, router: str) -> None:
        self.open: set[str] = set()
        self.settling: set[str] = set()
        self._directory = directory
        self._router = router
        self._descriptors: dict[str, int] = {}

    def of(self, worker: str) -> int:
        """The descriptor of a worker's tally. Raises OSError."""
        if worker not in self._descriptors:
            self._descriptors[worker] = tally.made()
        return self._descriptors[worker]

    async def settle(self, worker: str) -> int:
        """Tell in a worker's journal how many events are lost with it; how many those are."""
        self.settling.add(worker)
        try:
            return await asyncio.to_thread(self._told, worker)
        except (OSError, ValueError) as error:
            # Who writes it next tells.
            log.error("what worker %s took along is not told yet: %s", worker, error)
            return 0
        finally:
            self.settling.discard(worker)

    def _told(self, worker: str) -> int:
        writer = Writer(self._directory, f"{self._router}-{worker}", tally=tally.Tally(self.of(worker)))
        writer.close()
        if writer.counters()["journal_errors_total"]:
            return 0
        self.open.discard(worker)
        return writer.dropped

    def close(self) -> None:
        """Forget them all."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])
