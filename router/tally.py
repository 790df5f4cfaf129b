"""What was offered to a journal, kept in memory that outlives the process which writes it.

A worker that is killed takes along the events that waited for the disk. Its supervisor holds a page of memory for every
journal; the worker counts there what is offered, and what the batch at hand is made of. The next writer of the journal
compares that with the last line on disk, and counts what is missing among its own losses. No disk is involved: one that
hangs would make answers wait.
"""

import mmap
import os
from collections.abc import Mapping

ENVIRONMENT = "UNDERSTUDY_TALLY_FD"
_CELLS = 10
_SIZE = 8 * _CELLS
_OFFERED = 0
UNDER_WAY = 8
_TOLD_BEFORE = 9


def made() -> int:
    """A descriptor of memory for one tally. Raises OSError."""
    descriptor = os.memfd_create("understudy-tally", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, _SIZE)
    return descriptor


def said(descriptor: int) -> dict[str, str]:
    """What a worker's environment says of the tally it inherits."""
    return {ENVIRONMENT: str(descriptor)}


def inherited(environment: Mapping[str, str] = os.environ) -> "Tally":
    """The tally that this process inherited; one of its own where nothing says so."""
    text = environment.get(ENVIRONMENT, "")
    return Tally(int(text) if text else -1)


class Tally:
    """Counts of one writer's life; all cells but the first and the last but one belong to the journal's thread. Without
    a descriptor the memory is this process's own.
    """

    __slots__ = ("_memory", "cells")

    def __init__(self, descriptor: int = -1) -> None:
        self._memory = mmap.mmap(descriptor, _SIZE)
        # Offered; then of the last batch: its first seq, its lines that somebody waits for, those that were offered,
        # whether a mark ends it; what was written before it; losses told before it, and by its mark; and, of the loop's
        # again, the requests and mirrors under way, of which nothing is offered yet; at last the losses that were told
        # in lives before this one.
        self.cells = memoryview(self._memory).cast("Q")

    @property
    def told_before(self) -> int:
        """Losses that writers told which were killed afterwards."""
        return self.cells[_TOLD_BEFORE]

    def resume(self, seq: int) -> int:
        """Begin a new life of a journal whose last line on disk is ``seq``; how many events the last one has lost, and
        told nobody.
        """
        offered, first, waited, events, marked, written, told, telling, under_way, _ = self.cells
        lines = seq + 1 - first
        written += min(max(lines - waited, 0), events)
        if marked and lines > waited + events:
            told = telling
        lost = max(0, offered + under_way - written - told)
        self._set(seq + 1, 0, 0, 0, 0, 0, 0)
        self.cells[_OFFERED] = lost
        self.cells[_TOLD_BEFORE] += told
        self.cells[UNDER_WAY] = 0
        return lost

    def batch(
        self, first: int, waited: int, events: int, told_by_mark: int | None, written_before: int, told_before: int
    ) -> None:
        """Say what is about to be written: whatever part of it arrives, the last line on disk tells."""
        marked = told_by_mark is not None
        self._set(first, waited, events, marked, written_before, told_before, told_by_mark or 0)

    def _set(self, *cells: int) -> None:
        for at, cell in enumerate(cells, 1):
            self.cells[at] = cell
