"""The tallies of a router's journals: each outlives the worker that writes, and what it took along is told afterwards.

The next worker that writes the same journal tells it. Where none will soon, it is told here.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

from router import tally
from router.journal import Writer

log = logging.getLogger("understudy.router.tallies")


class Tallies:
    """``open``: names of workers that were killed, and in whose journals nobody has told yet what was lost.

    ``told`` is called with a worker's name and all that was lost in its journal, where that is told here.
    """

    def __init__(self, directory: Path, router: str, told: Callable[[str, float], None]) -> None:
        self.open: set[str] = set()
        self._directory = directory
        self._router = router
        self._told = told
        self._descriptors: dict[str, int] = {}
        self._settling: dict[str, asyncio.Task[None]] = {}

    def of(self, worker: str) -> int:
        """The descriptor of a worker's tally. Raises OSError."""
        if worker not in self._descriptors:
            self._descriptors[worker] = tally.made()
        return self._descriptors[worker]

    @property
    def settling(self) -> set[str]:
        """Whose journals are being written here."""
        return set(self._settling)

    def settle(self, worker: str) -> None:
        """Tell in a worker's journal how many events are lost with it."""
        if worker not in self._settling:
            self._settling[worker] = asyncio.create_task(self._settle(worker))

    async def settled(self, seconds: float) -> None:
        """Wait until nothing is being told any more, or for so long."""
        if self._settling:
            await asyncio.wait(self._settling.values(), timeout=seconds)

    async def _settle(self, worker: str) -> None:
        try:
            lost = await asyncio.to_thread(self._write, worker, self.of(worker))
        except (OSError, ValueError) as error:
            # Who writes it next tells.
            log.error("what worker %s took along is not told yet: %s", worker, error)
            return
        finally:
            del self._settling[worker]
        self.open.discard(worker)
        self._told(worker, lost)

    def _write(self, worker: str, descriptor: int) -> float:
        writer = Writer(self._directory, f"{self._router}-{worker}", tally=tally.Tally(descriptor))
        writer.close()
        counted = writer.counters()
        if counted["journal_errors_total"]:
            raise OSError("the disk does not take it")
        return counted["journal_dropped_total"]

    def close(self) -> None:
        """Forget them all."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])
