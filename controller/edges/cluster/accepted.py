"""A live attempt outlasts an edit that cannot be understood: nobody stays at a weight that is not watched. Where none
is under way nothing begins, but the version that serves is followed.

It goes on under the spec that was accepted last, which is what this process read last or, after a start, what its last
decision was made under. Another replica knows neither, nor does one that leads again after another: under what is left
of the declared spec it ends the attempt as a changed plan does, and in the holdback, where the promoted version is the
champion, the holdback.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from controller.core import naming, replay, serving
from controller.core.conditions import hampered, refused
from controller.core.record import Record
from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.store import ClusterStore, read, status_of, timeless
from controller.edges.cluster.watch import Entry, Watched
from controller.errors import EdgeError, SpecError
from controller.ports import Stored
from controller.spec import RolloutSpec
from controller.status import OWN, SPLIT, PersonRequest, Progress, Reason, RolloutStatus

log = logging.getLogger("understudy.accepted")
MOVING = (Progress.PROMOTING, Progress.ROLLING_BACK)  # when aliases are moved
LEFT = ("model", "unit", "servers", "traffic")  # what the end of an attempt needs of a spec
PLAN: Node = {
    "model": {"name": "unknown"},
    "unit": {"header": "x-unit"},
    "steps": [{"weight": 1}],
    "metrics": [{"name": "errors", "kind": "ErrorRate", "margin": "1pp", "baseline": {"mean": 0.01}}],
}


class AcceptedStore(ClusterStore):
    """``ClusterStore`` whose live attempts keep the spec that was accepted last while the declared one is refused.

    ``faults``: what else is wrong with a spec for this controller, by the rollout's name.
    ``forbids``: why the namespace of a key may not release a model; empty: it may.
    """

    def __init__(self, access: Access, watched: Watched, folder: Path) -> None:
        super().__init__(access, watched, folder)
        self.faults: Callable[[str, RolloutSpec], list[str]] = lambda _name, _spec: []
        self.forbids: Callable[[str, str], str] = lambda _key, _model: ""
        self._term = 0  # how often another replica has led since this process did
        # By key, of live attempts and of refused edits: the object's uid, the spec, and the term in which it was read.
        self._accepted: dict[str, tuple[str, RolloutSpec, int]] = {}
        self._refusals: dict[str, tuple[Reason, str]] = {}
        self._barred: dict[str, tuple[Reason, str]] = {}
        self._hampered: dict[str, str] = {}

    def load(self, key: str) -> Stored:
        """As the port says. SpecError where the declared spec is refused, and there is neither a live attempt that has
        another to go by, nor a version that serves."""
        term = self._term
        try:
            stored = super().load(key)
            said = self._wrong(key, stored.rollout.spec)
            if said:
                raise SpecError(*said)
        except SpecError as error:
            entry = self._watched.get(key)
            serves = _serves(entry)
            if status_of(entry).progress not in SPLIT and not serves:
                self.forget(key)
                raise
            outlasting = self._outlasting(key, entry)._replace(barred=serves)
            self._refusals[key] = (Reason.INVALID_SPEC, str(error))
            return outlasting
        if key in self._barred and stored.status.progress not in SPLIT:
            self._refusals[key] = self._barred[key]
            return stored._replace(barred=True)
        forbidden = self._forbidden(key, stored)
        if forbidden:
            self._refusals[key] = (Reason.MODEL_NOT_ALLOWED, forbidden)
            return self._with_its_own(key, stored)
        self.forget(key)
        if stored.status.progress in SPLIT:
            self._accepted[key] = (stored.status.uid, stored.rollout.spec, term)
        return stored

    def handed_over(self) -> None:
        """Another replica has led since this one did: it may have accepted others than those that are known here."""
        self._term += 1

    def commit(self, key: str, status: RolloutStatus, version: str, record: Record | None) -> str:
        """As the port says; the conditions tell of a refused spec, or of an alias that is not moved."""
        refusal, hampered_by = self._refusals.get(key), self._hampered.get(key)
        if hampered_by and status.progress in MOVING:
            status = hampered(status, hampered_by, status_of(self._watched.get(key)))
        if refusal is not None:
            held = status_of(self._watched.get(key))
            status = refused(status, *refusal, since=held)
            if status.progress not in SPLIT and timeless(status) == timeless(held):
                return version
        return super().commit(key, status, version, record)

    def bar(self, key: str, refusal: tuple[Reason, str] | None) -> bool:
        """Let nothing be decided on ``key`` for this reason; None: no longer. Whether there is something to be done all
        the same: a version that serves is followed."""
        self._barred.pop(key, None)
        if refusal is None or not _serves(self._watched.get(key)):
            return False
        self._barred[key] = refusal
        return True

    def hamper(self, key: str, text: str) -> bool:
        """Let the conditions of ``key`` tell from the next commit on why an alias is not moved; empty: it is. Whether
        that begins now."""
        before = self._hampered.pop(key, "")
        if text:
            self._hampered[key] = text
        return bool(text and not before)

    def refusal(self, key: str) -> tuple[Reason, str] | None:
        """Why the declared spec is not the one that ``key`` was last loaded with; None: it is."""
        return self._refusals.get(key)

    def forget(self, key: str) -> None:
        """Nothing has to be known of ``key`` beyond what is declared."""
        self._accepted.pop(key, None)
        self._refusals.pop(key, None)
        self._barred.pop(key, None)

    def _wrong(self, key: str, spec: RolloutSpec) -> list[str]:
        """What ``faults`` says. What it cannot look at is refused: a live attempt outlasts that, and not a pass that
        fails."""
        try:
            return self.faults(key.rpartition("/")[2], spec)
        except EdgeError:
            raise
        except Exception as error:
            log.exception("%s: its spec cannot be looked at", key)
            return [f"spec: cannot be looked at: {type(error).__name__}: {error}"]

    def _outlasting(self, key: str, entry: Entry) -> Stored:
        """The rollout under the spec that was accepted last, or under what is left of the declared one."""
        spec = self._known(key, status_of(entry))
        return self._ending(entry) if spec is None else _under(self._declared(entry, PLAN), spec)

    def _known(self, key: str, status: RolloutStatus) -> RolloutSpec | None:
        """The spec that was accepted last, where that is known here."""
        term = self._term
        uid, spec, read = self._accepted.get(key) or ("", None, term)
        if spec is not None and (uid, read) == (status.uid, term):
            return spec
        # An accepted edit need not lead to a decision, so records of an earlier term say nothing of what came after.
        spec = self._decided_under(key, status) if term == 0 else None
        if spec is not None:
            self._accepted[key] = (status.uid, spec, term)
        return spec

    def _forbidden(self, key: str, stored: Stored) -> str:
        """Why a live attempt may not be followed by one of the model that is declared by now; empty: it may."""
        attempt, name = stored.status.attempt, stored.rollout.spec.model.name
        pinned = attempt.model if attempt is not None and stored.status.progress in SPLIT else None
        return "" if pinned is None or pinned.name == name else self.forbids(key, name)

    def _with_its_own(self, key: str, stored: Stored) -> Stored:
        """``stored`` under the spec that was accepted last, or with the model of its attempt in what is declared."""
        spec = self._known(key, stored.status)
        if spec is None:
            spec = naming.pinned(stored.rollout.spec, stored.status)
        return _under(stored, spec)

    def _decided_under(self, key: str, status: RolloutStatus) -> RolloutSpec | None:
        """The spec of the decision in force, where this replica made it."""
        try:
            records = self.records(key)
            return replay.inputs(records[-1]).spec if records and records[-1].sequence == status.sequence else None
        except (EdgeError, ValueError):
            return None

    def _ending(self, entry: Entry) -> Stored:
        """Under a spec of another plan, which ends an attempt that runs; a promotion under way is aborted."""
        declared: dict[str, Any] = entry.object.get("spec") or {}
        stored = self._declared(entry, {**PLAN, **{name: declared[name] for name in LEFT if name in declared}})
        if stored.status.progress is not Progress.PROMOTING:
            return stored
        why = "because the declared spec is refused and the one before is not known here"
        abort = PersonRequest(id=f"{OWN}refused-{stored.generation}", verb="abort", why=why)
        return stored._replace(requests=(*stored.requests, abort))

    def _declared(self, entry: Entry, spec: Node) -> Stored:
        """The rollout of ``entry``, had people declared ``spec``."""
        return read(entry, {**entry.object, "spec": spec})


def _serves(entry: Entry) -> bool:
    """Whether a version serves without an attempt under way, and is to be followed. The Services of an HTTPRoute follow
    their pods by themselves, and its weights stay as they were written; of what is not kept it is not known if it has
    one."""
    if entry.going or entry.fault:
        return False
    status, traffic = status_of(entry), (entry.object.get("spec") or {}).get("traffic") or {}
    return status.progress not in SPLIT and serving.in_force(status) is not None and not traffic.get("gatewayAPI")


def _under(stored: Stored, spec: RolloutSpec) -> Stored:
    return stored._replace(rollout=stored.rollout.model_copy(update={"spec": spec}))
