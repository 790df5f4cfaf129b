"""Who decides: the holder of a Lease.

A leader writes only for a while after its last renewal *began*, by its own monotonic clock: shorter than the lease by
the time that a write may take, so the last one has ended before anybody else may begin. The others count the lease
from when they last saw it change, by theirs; no two clocks are ever compared. Where all of that fails (a process that
was stopped between asking and writing), the status's resource version still lets only one of them decide.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.resources import LEASES
from controller.errors import Conflict, EdgeError, NotFound

log = logging.getLogger("understudy.lease")


class NotLeading(EdgeError):
    """This process may not write now."""


class Leader:
    """Takes and keeps the Lease ``name`` for ``identity``; other processes of the same name wait for it.

    ``seconds``: how long a lease lasts without renewal; renewed every third of it. ``write_s``: the longest write,
    which has to end within the lease. ``changed`` is called on the thread of ``run`` when leading begins or ends.
    """

    def __init__(
        self,
        access: Access,
        namespace: str,
        name: str,
        identity: str,
        *,
        seconds: float = 15.0,
        write_s: float = 5.0,
        changed: Callable[[bool], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._access = access
        self._place = (namespace, name)
        self.identity = identity
        self._seconds, self._write_s = seconds, write_s
        self._changed, self._clock = changed, clock
        self._until = 0.0  # we may begin to write before this
        self._seen: Node | None = None  # the spec of another's lease, and when we first saw it
        self._seen_at = 0.0
        self._led = False
        self._back_at = 0.0  # not before this do we try to take it
        self._has_led = False
        self._newest = 0  # resource version of the lease that was seen last
        self.went_back = False  # the server has an older one now than it had: it was restored from a backup
        self.transitions = 0  # of the lease, when this process took or renewed it last
        self.heard = clock()

    def leads(self) -> bool:
        """Whether this process may begin a write now."""
        return self._clock() < self._until

    def check(self) -> None:
        """NotLeading unless ``leads``."""
        if not self.leads():
            raise NotLeading(f"{self.identity} does not hold the lease {'/'.join(self._place)}")

    def stand_back(self) -> None:
        """Leave the lease to others for half as long as it lasts, in which they look three times: this process cannot
        do what has to be done."""
        self._back_at = self._clock() + self._seconds / 2

    def run(self, end: threading.Event) -> None:
        """Take and renew until ``end``, then let go, so that another need not wait."""
        while not end.is_set():
            self.step()
            end.wait(self._seconds / 3 if self._led else self._seconds / 6)
        self._let_go()

    def step(self) -> None:
        """Try once to take or renew the lease. What fails is tried again at the next step."""
        began, term = self._clock(), self.transitions
        if began < self._back_at:
            self._let_go()
            return
        try:
            if self._taken(began):
                if self.transitions != term:
                    self._tell(False)  # another has led since, even if we slept through all of it
                self._until = began + self._seconds - self._write_s
            self.heard = self._clock()
        except EdgeError as error:
            log.warning("the lease is not renewed: %s", error)
        self._tell(self.leads())

    def _taken(self, now: float) -> bool:
        namespace, name = self._place
        try:
            found = self._access.get(LEASES, namespace, name)
        except NotFound:
            meta = {"namespace": namespace, "name": name}
            return self._wrote(lambda: self._access.create(LEASES, {"metadata": meta, "spec": self._spec(0)}), 0)
        self._note(found)
        spec = found.get("spec") or {}
        holder = spec.get("holderIdentity")
        if holder not in (self.identity, None, "") and not self._expired(spec, now):
            self._until = 0.0
            return False
        moves = int(spec.get("leaseTransitions", 0))
        if holder != self.identity and not (self._has_led and not holder and moves == self.transitions):
            moves += 1  # it was another's since; one that we left, and nobody took, is ours as before
        body = {"metadata": found["metadata"], "spec": self._spec(moves)}
        return self._wrote(lambda: self._access.replace(LEASES, body), moves)

    def _wrote(self, write: Callable[[], Node], transitions: int) -> bool:
        try:
            self._note(write())
        except Conflict:
            self._until = 0.0  # another was quicker
            return False
        self.transitions, self._has_led = transitions, True
        return True

    def _note(self, found: Node) -> None:
        """What is read and written here is never older than what was before, unless the server's store was put back.
        Everything that is known of the cluster then looks newer than what the server tells."""
        version = int(found["metadata"]["resourceVersion"])
        if version < self._newest and not self.went_back:
            self.went_back = True
            log.error("the API server has version %d of the lease, after %d: a backup?", version, self._newest)
        self._newest = version

    def _expired(self, spec: Node, now: float) -> bool:
        """Another's lease has not changed for as long as it says that it lasts."""
        if spec != self._seen:
            self._seen, self._seen_at = spec, now
        return now - self._seen_at >= float(spec.get("leaseDurationSeconds") or self._seconds)

    def _spec(self, transitions: int) -> Node:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": max(1, round(self._seconds)),
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": transitions,
        }

    def _let_go(self) -> None:
        if not self.leads():
            return
        self._until = 0.0
        self._tell(False)
        try:
            found = self._access.get(LEASES, *self._place)
            if found["spec"].get("holderIdentity") == self.identity:
                spec = {**found["spec"], "holderIdentity": ""}
                self._access.replace(LEASES, {"metadata": found["metadata"], "spec": spec})
        except EdgeError as error:
            log.warning("the lease is not given back: %s", error)

    def _tell(self, leads: bool) -> None:
        if leads != self._led:
            self._led = leads
            log.info("%s %s", self.identity, "leads" if leads else "does not lead any more")
            self._changed(leads)
