"""One pass over one rollout of the cluster: whether it may be ticked at all, the tick, and when to come back.

A rollout that is being deleted is ended as a person would abort it, and let go as soon as the champion serves
everybody: weight 0 is confirmed by every router, or the routers are gone. MLflow is not waited for, nor, for long, a
pass that breaks.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from controller.core.conditions import ALIAS_PENDING
from controller.core.endings import CONFIRM_LIMIT, confirmed
from controller.edges.cluster import requests
from controller.edges.cluster.accepted import MOVING, AcceptedStore
from controller.edges.cluster.access import Invalid
from controller.edges.cluster.records import Unrecorded
from controller.edges.cluster.store import status_of, wrong_requests
from controller.edges.cluster.watch import Entry, Watched
from controller.edges.showing import ShowingRegistry
from controller.errors import EdgeError, NotFound, SpecError
from controller.loop import Loop
from controller.operator.aliases import Known, registry_for
from controller.operator.claims import Claims
from controller.status import SPLIT, Progress, Reason, RolloutStatus

log = logging.getLogger("understudy.operator")
Tell = Callable[[str, str, str, str], None]
REFUSALS = 3  # in a row, for the conditions to tell of them
LONGEST_TEXT = 500  # characters of what they tell
ASK_AGAIN_S = 10.0  # of what is over, where MLflow did not answer


class Held(NamedTuple):
    """The loop of one object, and what its last tick was logged with."""

    uid: str
    loop: Loop
    registry: ShowingRegistry

    def metrics(self, status: RolloutStatus) -> Mapping[str, float]:
        """The numbers of the tick that led to ``status``."""
        shown = self.registry.shown.get(status.rollout)
        return shown.entry.metrics if shown is not None and shown.entry.status.clock == status.clock else {}


class Loops:
    """The loops of the rollouts that are ticked, each made when it is first needed."""

    def __init__(self, make: Callable[[str], Loop], close: Callable[[Loop], None]) -> None:
        self._make, self._close = make, close
        self._held: dict[str, Held] = {}

    def of(self, key: str, uid: str) -> Held:
        """The loop of ``key``, another one for another object. SpecError, EdgeError where there is none."""
        held = self._held.get(key)
        if held is not None and held.uid == uid:
            return held
        self.drop(key)
        loop = self._make(key)
        registry = ShowingRegistry(loop.registry)
        self._held[key] = held = Held(uid, loop._replace(registry=registry), registry)
        return held

    def drop(self, key: str) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            self._close(held.loop)

    def close(self) -> None:
        for key in list(self._held):
            self.drop(key)


class Passed(NamedTuple):
    """``pause``: seconds until the next pass, None: not before something changes. ``status``: where the rollout
    stands, None: it is not ticked; ``metrics``: the numbers of the tick. ``gone``: it is none of ours any more.
    ``rests``: it is over, and nothing is left to do."""

    pause: float | None
    status: RolloutStatus | None = None
    metrics: Mapping[str, float] = {}
    gone: bool = False
    rests: bool = False


class Passes:
    """Passes over the rollouts of ``store``, which several threads may make, one a key at a time."""

    def __init__(
        self, store: AcceptedStore, watched: Watched, loops: Loops, claims: Claims, tell: Tell, idle_s: float
    ) -> None:
        self._store, self._watched, self._loops, self._claims = store, watched, loops, claims
        self._tell, self._idle_s = tell, idle_s
        self._told: dict[str, str] = {}  # by key: the refusal of a spec that people have been told of
        self._wrong: dict[str, int] = {}  # by key: a digest of the annotations that the log has told to be no requests
        self._failing: dict[str, float] = {}  # by key: since when the passes over a deleted one break
        self.known: Known | None = None  # what every alias named a moment ago; None: that is not known

    def over(self, key: str, now: int) -> Passed:
        """One pass at ``now`` (µs). EdgeError: come back soon."""
        try:
            passed = self._over(key, now)
        except Exception as error:
            if not self._gives_up(key, error):
                raise
            log.exception("%s: it is let go, though nobody knows that all are sent to the champion", key)
            return self._released(key, None)
        self._failing.pop(key, None)
        return passed

    def _over(self, key: str, now: int) -> Passed:
        try:
            if not self._store.hold(key):
                return self._gone(key)
            entry = self._watched.get(key)
        except NotFound:
            return self._gone(key)
        refusal = self._claims.refusal(key, entry.model, self._watched.of_model(entry.model))
        taken = self._claims.taken_route(key, self._watched.sharing(key))
        # Who follows the version that serves writes its weights: on a route of others that would be to fight.
        followed = self._store.bar(key, refusal if taken is None else None)
        refusal = refusal or taken
        if refusal is not None and not followed:
            return self._refused(key, entry, *refusal, now)
        self._tell_wrong(key, wrong_requests(entry))
        try:
            held = self._loops.of(key, entry.uid)
            tick = self._store.load(key).rollout.spec.decision.tick
            loop = held.loop._replace(registry=registry_for(entry, held.registry, self.known, tick))
            wake_at = loop.tick(key, now)
        except SpecError as error:
            return self._refused(key, entry, Reason.INVALID_SPEC, str(error), now)
        self._tell_outlasted(key, entry)
        after = self._watched.get(key)
        status = status_of(after)
        self._tell_hampered(key, entry, status, held.registry)
        if after.going and parted(status, refused=bool(held.registry.refusal)):
            return self._released(key, status)
        pause = max(wake_at / 1e6 - time.time(), 0.01)
        barred = status.progress not in SPLIT and self._store.refusal(key) is not None
        if (status.progress.terminal or barred) and after.state == entry.state and _served(status):
            if not status.notices:  # else it knows who has which of them
                self._loops.drop(key)
            return Passed(max(pause, self._rest(status)), status, rests=True)
        return Passed(pause, status, held.metrics(status))

    def _gives_up(self, key: str, error: Exception) -> bool:
        """Whether ``key``, which is being deleted, may go although its passes fail: for so long as a router is waited
        for, and by what no later pass mends."""
        entry = self._watched.heard_of(key)
        fleeting = isinstance(error, EdgeError) and not isinstance(error, Invalid | Unrecorded)
        if entry is None or not entry.going or (fleeting and _readable(entry)):
            self._failing.pop(key, None)
            return False
        began = self._failing.setdefault(key, time.monotonic())
        return time.monotonic() - began >= CONFIRM_LIMIT / 1e6

    def _refused(self, key: str, entry: Entry, reason: Reason, text: str, now: int) -> Passed:
        """It is not ticked. Nothing of ours keeps it from being deleted."""
        if entry.going:
            return self._released(key, None)
        if self._store.refuse(key, reason, text, now):
            log.warning("%s: %s: %s", key, reason, text)
            self._tell(key, entry.uid, reason, text)
        return Passed(self._idle_s)

    def _released(self, key: str, status: RolloutStatus | None) -> Passed:
        self._store.release(key)
        return self._gone(key, status)

    def _gone(self, key: str, status: RolloutStatus | None = None) -> Passed:
        self._loops.drop(key)
        self._store.forget(key)
        self._store.hamper(key, "")
        self._told.pop(key, None)
        self._wrong.pop(key, None)
        self._failing.pop(key, None)
        return Passed(None, status, gone=True)

    def _tell_wrong(self, key: str, wrong: dict[str, str]) -> None:
        """Once of each set of annotations that are no requests: they stay until somebody removes them."""
        if not wrong:
            self._wrong.pop(key, None)
            return
        digest = hash(frozenset(wrong.items()))
        if self._wrong.get(key) != digest:
            self._wrong[key] = digest
            log.warning("%s: %s", key, requests.told(wrong))

    def _tell_outlasted(self, key: str, entry: Entry) -> None:
        """Once of each refusal that a live attempt, or who serves, goes on in spite of."""
        refusal = self._store.refusal(key)
        if refusal is None:
            self._told.pop(key, None)
            return
        reason, text = refusal
        if self._told.get(key) != text:
            self._told[key] = text
            log.warning("%s: the declared spec does not count: %s", key, text)
            self._tell(key, entry.uid, reason, text)

    def _tell_hampered(self, key: str, entry: Entry, status: RolloutStatus, registry: ShowingRegistry) -> None:
        """Of an alias that is not moved although the registry answers: by the conditions, and once by an Event."""
        refused = status.progress in MOVING and registry.refusals >= REFUSALS
        text = f"an alias cannot be moved: {registry.refusal}"[:LONGEST_TEXT] if refused else ""
        if self._store.hamper(key, text):
            log.warning("%s: %s", key, text)
            self._tell(key, entry.uid, ALIAS_PENDING, text)

    def _rest(self, status: RolloutStatus) -> float:
        """Nothing changes by itself any more; but routers want to hear from us, and of an alias that was moved while
        MLflow did not answer nobody tells again."""
        rest = self._idle_s if status.table is None else min(self._idle_s, status.table.ttl_s / 3)
        unasked = status.observed.registry_error is not None and not status.observed.model_missing
        return min(rest, ASK_AGAIN_S) if unasked else rest


def _readable(entry: Entry) -> bool:
    try:
        status_of(entry)
    except EdgeError:
        return False
    return True


def _served(status: RolloutStatus) -> bool:
    return status.table is None or confirmed(status)


def parted(status: RolloutStatus, *, refused: bool = False) -> bool:
    """Whether a rollout that is being deleted may go: nobody is sent to a version on trial any more.

    ``refused``: the registry answers and moves no alias, which may be over at the next try, and is waited for as long
    as a router.
    In the holdback the promoted version is the champion, by name and by traffic, and stays it.
    """
    if status.progress is Progress.ROLLING_BACK:
        back = status.table is None or (status.table.challenger is None and confirmed(status))
        late = status.clock - status.rolled_at >= CONFIRM_LIMIT
        return ((back or late) and status.observed.registry_error is not None) or (late and refused)
    return status.progress.terminal or status.progress is Progress.HOLDBACK
