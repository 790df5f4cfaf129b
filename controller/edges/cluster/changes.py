"""Whether what was listed is still so: what one tick listed counts for the next where a watch tells of no change since.

A tick is never told of objects by a watch. It is told that they are those of its last list, or it lists. That rests on
three things.

- A list without a resource version shows all that was written before it was asked for, and the stamp is taken before
  the list. So what the list lacks is told of later and changes the stamp. (One of ``resourceVersion=0`` may be older
  than what the watch has told of: then nothing would.)
- A watch goes on from the version at which it ended, and one that cannot lists anew, which changes every stamp. So
  nothing is left out, only late: by milliseconds, as a list is old by then too.
- A watch that is silent may be cut off. It is believed while a bookmark, or its end by the server's clock, is at most
  ``SURE_S`` old, and not from the moment that it breaks until it is heard again. So what happens just after it was cut
  off in silence is seen at the first tick after ``SURE_S``, which would have been the first tick.

A kept list ends after ``LIST_S`` in any case. What may not be late by ``SURE_S`` is listed by those who ask: that a
table is confirmed (``routers``), and servers of an attempt that begins or ends (``workloads``).
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from controller.edges.cluster.access import Node
from controller.errors import EdgeError

WATCH_S = 20  # until the server ends a watch, two seconds after a bookmark
SURE_S = 30.0
LIST_S = 300.0
PLACES = 1 << 16


class Stamp(NamedTuple):
    """Another one after each change."""

    lists: int
    told: int


class Changes:
    """Counts what one watch tells, by rollout. The watch's thread writes, any other may ask."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` gives seconds."""
        self._clock = clock
        self._lists = 0
        self._sure: float | None = None  # when all that had happened was known; None: the watch is broken
        # By hash, for keys are what anybody writes into a label; where two have one place, one lists too often.
        self._counts = [0] * PLACES

    def listed(self) -> None:
        """The watch begins anew: what changed before is not told."""
        self._lists += 1
        self._sure = self._clock()

    def tell(self, key: str) -> None:
        """Something of the rollout ``key`` changed."""
        self._counts[hash(key) % PLACES] += 1

    def through(self, events: Iterable[tuple[str, Node]]) -> Iterator[tuple[str, Node]]:
        """The ``events`` of one watch, each of which is told by whoever takes it before the next."""
        try:
            for kind, found in events:
                yield kind, found
                if kind == "BOOKMARK":
                    self._sure = self._clock()
        except EdgeError:
            self._sure = None
            raise
        self._sure = self._clock()

    def stamp(self, key: str) -> Stamp | None:
        """The stamp of the rollout ``key``; None: it may have changed unheard."""
        sure = self._sure
        if sure is None or self._clock() - sure > SURE_S:
            return None
        return Stamp(self._lists, self._counts[hash(key) % PLACES])


class Views(NamedTuple):
    """What is watched of rollouts: pods of routers, pods of our own Deployments, and those Deployments."""

    routers: Changes
    servers: Changes
    deployments: Changes


UNHEARD = Changes()  # of no watch: nothing is ever sure
BLIND = Views(UNHEARD, UNHEARD, UNHEARD)
