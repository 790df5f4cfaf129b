"""What goes wrong, when, and how often it did."""

import random
from collections import Counter
from enum import StrEnum


class Fault(StrEnum):
    """A closed set; each is drawn for some runs and then happens now and then, until the world is healed."""

    DROP = "drop"  # a line of a journal never arrives
    DELAY = "delay"  # a journal arrives seconds late
    DUPLICATE = "duplicate"  # a line arrives twice
    REORDER = "reorder"  # a line arrives after later ones
    SILENT = "silent"  # a journal says nothing for more than a minute
    STALE_TRAFFIC = "stale-traffic"  # the routers' state is an old one
    STALE_REGISTRY = "stale-registry"
    STALE_STORE = "stale-store"
    STALE_SERVERS = "stale-servers"
    FAIL_BEFORE = "fail-before"  # an edge fails without having done anything
    FAIL_AFTER = "fail-after"  # an edge does it, and then fails
    CRASH = "crash"  # the controller dies between two calls
    CLOCK_FORWARD = "clock-forward"
    CLOCK_BACKWARD = "clock-backward"
    EDIT = "edit"  # a person changes the spec in the middle of a step
    RESTART = "restart"  # a router's worker dies and comes back
    SLOW = "slow"  # tables take long to reach the workers
    UNREACHABLE = "unreachable"  # a router cannot be reached
    REGISTRY_AWAY = "registry-away"  # the registry answers nobody for a while
    SERVER_DOWN = "server-down"  # the challenger's server does not answer its health check


SHARE = 0.3  # of the runs that a fault kind is drawn for
QUIET = 0.08  # of the runs that have no faults at all


class CrashNow(BaseException):
    """The controller is gone. Not an Exception: nothing in the loop may survive it."""


class Faults:
    """The faults of one run: some of all kinds, or every one of those that were chosen.

    ``fired`` counts what really happened; after ``heal`` nothing happens any more.
    """

    def __init__(self, rng: random.Random, allowed: frozenset[Fault]) -> None:
        quiet = rng.random() < QUIET
        drawn = frozenset(fault for fault in Fault if rng.random() < SHARE)
        self.kinds = allowed if allowed != frozenset(Fault) else frozenset() if quiet else drawn
        self.fired: Counter[Fault] = Counter()
        self._rng = rng
        self._healed = False

    def fires(self, fault: Fault, chance: float) -> bool:
        """Whether ``fault`` happens here; it then counts as having fired."""
        if self._healed or fault not in self.kinds or self._rng.random() >= chance:
            return False
        self.fired[fault] += 1
        return True

    def heal(self) -> None:
        """From now on everything works."""
        self._healed = True

    @property
    def healed(self) -> bool:
        return self._healed
