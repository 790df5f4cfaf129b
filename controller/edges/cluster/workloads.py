"""The model servers of one rollout on a cluster: both adopted, or Deployments of our own, one per version.

A Deployment is the version's, not the arm's: a promoted version stays where it serves. What no arm wants, no route
table names and no router can still be sending to sleeps after a while, so that a second rollback is instant; the
Deployments of versions that the last attempt did not have are then deleted.

While an attempt runs, what one tick listed counts for the next where nothing of it changed (``changes``). One that
begins, is promoted or rolled back lists at each tick: then pods are counted, and numbers of pods written.
"""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from controller.core import places, serving
from controller.core.allocation import servers_wanted
from controller.core.endings import confirmed
from controller.core.serving import Served
from controller.edges.cluster import deployments, pods
from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.adopted import AdoptedServers
from controller.edges.cluster.changes import BLIND, LIST_S, Stamp, Views
from controller.edges.cluster.deployments import Version
from controller.edges.cluster.owned import Owned, Owner
from controller.edges.cluster.questions import HEALTH, UPSTREAMS, Fault, Questions, Server, sent, usable
from controller.edges.cluster.resources import DEPLOYMENTS, PODS, selector
from controller.errors import EdgeError
from controller.ports import ServerObservation, Stored
from controller.spec import Probe, Servers
from controller.spec import Server as Declared
from controller.status import Attempt, Place, Progress, RolloutStatus
from router import table as wire
from router.assignment import Arm

SAME_TICK_S = 5.0  # no longer, whatever becomes of the tick
CLOCKS_S = 60.0  # by how much those of two controllers may differ
CALM = (Progress.RUNNING, Progress.HOLDBACK)  # nothing is made ready, and no traffic moves at once


class Found(NamedTuple):
    """What there was ``at`` that moment (s, monotonic): Deployments by version, and all their pods. ``stamps``: of
    those and these."""

    at: float
    stamps: tuple[Stamp | None, Stamp | None]
    deployments: dict[Version, Node]
    pods: list[Node]

    def of(self, version: Version) -> list[Node]:
        """The pods of ``version``."""
        mark = deployments.mark_of(self.deployments[version])
        return [pod for pod in self.pods if deployments.mark_of(pod) == mark]


class ClusterWorkloads:
    """``Workloads`` of the rollout ``owner``, which ``read`` reads."""

    def __init__(
        self,
        access: Access,
        owner: Owner,
        read: Callable[[], Stored],
        linger_s: float,
        clock: Callable[[], float] = time.time,
        feed: Callable[[], None] = lambda: None,
        views: Views = BLIND,
    ) -> None:
        """``linger_s``: how long pods stay that nobody wants; ``clock``: seconds since 1970; ``feed``: asks for another
        look, when a server has answered; ``views``: what is watched."""
        self._access, self._read, self._linger_s, self._clock = access, read, linger_s, clock
        self._owner, self._owned = owner, Owned(access, owner)
        self._questions = Questions(feed=feed)
        self._adopted = AdoptedServers(access, owner.namespace, self._questions)
        # Of who serves between two attempts: its version may have the number of one that the next attempt asks for.
        self._asking = Questions(feed=feed)
        self._following = AdoptedServers(access, owner.namespace, self._asking)
        self._refused: dict[Arm, str] = {}
        self._views, self._key = views, f"{owner.namespace}/{owner.name}"
        self._found: Found | None = None
        self._began = 0.0  # the tick; s, monotonic

    def ensure(self, arm: Arm, version: str | None) -> None:
        """As the port says; adopted servers are left alone. Puts to sleep what is not wanted any more."""
        stored = self._read()
        self._refused.pop(arm, None)
        if (stored.rollout.spec.servers or Servers()).template is None:
            return
        try:
            found = self._look(stored.status).deployments
            if version is not None:
                self._run(stored, arm, version, found)
            self._retire(stored, version, found)
        except EdgeError as error:
            self._refused[arm] = str(error)
            raise

    def observe(self, arm: Arm) -> ServerObservation:
        """As the port says. Ready: every pod that is to be there is ready and has answered the model's own example;
        before an attempt begins, no pod is of another template than the declared one."""
        stored = self._read()
        version = servers_wanted(stored.status).get(arm)
        if version is None:
            return ServerObservation(None, (), False)
        declared = declared_for(stored, arm, version)
        if declared is not None:
            return self._adopted.observe(declared, version, kept_for(stored.status, version))
        if arm == "champion":  # a tick begins with it
            self._began = time.monotonic()
        return self._own(stored, arm, version, self._look(stored.status))

    def serving(self, served: Served) -> tuple[str, ...]:
        """As the port says: where it got to serve, whatever is declared by now."""
        version, place, probe = served.version, served.place, served.probe
        if place is not None:
            return self._following.observe(_declared(place), version, _any).upstreams
        stored, self._began = self._read(), time.monotonic()
        look = self._look(stored.status)
        whose = Version(served.model or stored.rollout.spec.model.name, version)
        if whose not in look.deployments:
            return ()
        listed = look.of(whose)
        ready = _ready(listed)
        faults = self._asking.faults(version, ready, _written(probe) or HEALTH)
        return sent(ready, faults, _any) or _staying(listed, faults)

    def close(self) -> None:
        self._questions.close()
        self._asking.close()

    def _look(self, status: RolloutStatus) -> Found:
        """Ours, as they were when the tick began or after we last changed one: both arms are told by one look."""
        if self._found is None or not self._holds(self._found, status):
            at, stamps, ours = time.monotonic(), self._stamps(), selector({deployments.ROLLOUT: self._owner.name})
            listed = {deployments.mark_of(each): each for each in self._owned.all(DEPLOYMENTS, ours)}
            labelled = self._access.list(PODS, self._owner.namespace, ours).items
            made = [(listed.get(deployments.mark_of(pod)), pod) for pod in labelled]
            own = [pod for each, pod in made if each and deployments.owns(each, pod)]
            self._found = Found(at, stamps, {deployments.version_of(each): each for each in listed.values()}, own)
        return self._found

    def _holds(self, found: Found, status: RolloutStatus) -> bool:
        """Whether what was ``found`` may be gone by: it is of this tick, or nothing changed."""
        since = time.monotonic() - found.at
        if found.at >= self._began and since <= SAME_TICK_S:
            return True
        unchanged = None not in found.stamps and found.stamps == self._stamps()
        return unchanged and status.progress in CALM and since < LIST_S

    def _stamps(self) -> tuple[Stamp | None, Stamp | None]:
        return self._views.deployments.stamp(self._key), self._views.servers.stamp(self._key)

    def _own(self, stored: Stored, arm: Arm, version: str, look: Found) -> ServerObservation:
        whose = Version(_model(stored), version)
        servers, found = stored.rollout.spec.servers or Servers(), look.deployments.get(whose)
        if found is None:
            made = "is being made" if servers.template is not None else "is gone, and so is servers.template"
            text = self._refused.get(arm) or f"the Deployment of version {version} {made}"
            return ServerObservation(version, (), False, text)
        listed = look.of(whose)
        probe = _asked(stored)
        ready = _ready(listed)
        faults = self._questions.faults(version, ready, probe)
        upstreams = sent(ready, faults, kept_for(stored.status, version))
        size = deployments.size(found)
        sized = _cause(stored.status, arm) in (None, deployments.annotation(found, deployments.SIZED))
        # An attempt begins with pods of one template; in its middle others scale and mend as they like.
        begins = stored.status.progress is Progress.PENDING
        one = not begins or (arm not in self._refused and deployments.settled(found))
        count = sum(server.upstream not in faults for server in ready) if begins else len(upstreams)
        if sized and one and upstreams and count >= min(size, UPSTREAMS):
            return ServerObservation(version, upstreams, True, self._refused.get(arm, ""))
        said = [
            f"{count} of {size} pods of version {version} are ready{'' if sized else '; more come'}",
            "" if one else "pods of another template are still there",
            next((f"{upstream}: {fault.text}" for upstream, fault in faults.items()), ""),
            pods.fault(listed) or deployments.refusal(found),
            self._refused.get(arm, ""),
        ]
        # Pods that are there and not ready: with a version that serves, the routers judge them.
        return ServerObservation(version, upstreams or _staying(listed, faults), False, "; ".join(filter(None, said)))

    def _run(self, stored: Stored, arm: Arm, version: str, found: dict[Version, Node]) -> None:
        """Apply the Deployment of ``version`` where it differs, and see to its size."""
        spec = stored.rollout.spec
        servers = spec.servers or Servers()
        wrong = deployments.faults(servers.template)
        if wrong:
            raise EdgeError("; ".join(wrong))
        assert servers.template is not None
        whose = Version(_model(stored), version)
        now, marks = found.get(whose), map(deployments.mark_of, found.values())
        mark = deployments.mark_of(now) if now is not None else deployments.new_mark(whose, marks)
        body = deployments.body(self._owner.name, whose, mark, servers.template, servers.probe or HEALTH)
        kept = self._owned.keep(DEPLOYMENTS, body) if now is None else self._owned.keep_found(DEPLOYMENTS, body, now)
        if kept is not now:
            found[whose] = kept
            self._found = None
        others = {"champion": _attempt(stored).challenger, "challenger": _attempt(stored).champion}
        other = found.get(Version(whose.model, others[arm]))
        self._size(stored.status, arm, kept, other, servers.replicas or 1)

    def _size(self, status: RolloutStatus, arm: Arm, now: Node, other: Node | None, least: int) -> None:
        """Write the number of pods where that is ours to do: when it was made, when it is woken, and once when all
        traffic is about to come to it or has come back: then it needs as many as the other has."""
        as_many = max(least, deployments.size(other)) if other is not None else least
        cause = _cause(status, arm)
        sized = deployments.annotation(now, deployments.SIZED)
        changed: Node = {}
        if sized is None:
            changed = {deployments.SIZED: cause or f"{status.attempts}/start"}
        elif cause not in (None, sized):
            changed, as_many = {deployments.SIZED: cause}, max(as_many, deployments.size(now))
        if deployments.annotation(now, deployments.UNWANTED) is not None:
            changed[deployments.UNWANTED] = None
        if changed:
            self._patch(now, changed, {"replicas": as_many} if deployments.SIZED in changed else {})

    def _retire(self, stored: Stored, version: str | None, found: dict[Version, Node]) -> None:
        """Send to sleep what has not been wanted for so long; delete what the attempt does not know."""
        status = stored.status
        attempt, table = status.attempt, status.table
        if attempt is None or table is None or not confirmed(status):
            return
        model, served = _model(stored), serving.in_force(status)
        wanted = {Version(model, each) for each in (version, *servers_wanted(status).values()) if each is not None}
        # Where it is not known whose versions they are, they may be anybody's.
        models = {each.model for each in found} if served is None else {served.model or model}
        targets = {t.version for t in (table.champion, table.challenger) if t is not None}
        kept = wanted | {Version(m, each) for m in models for each in targets}
        for each, now in found.items():
            if each in kept:
                continue
            since = deployments.unwanted_since(now)
            if since is None or since > self._clock() + CLOCKS_S:
                at = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="seconds")
                self._patch(now, {deployments.UNWANTED: at}, {})
            elif self._clock() - since >= self._linger_s:
                self._end(now, asleep=each in [Version(model, v) for v in (attempt.champion, attempt.challenger)])

    def _end(self, now: Node, *, asleep: bool) -> None:
        if not asleep:
            meta = now["metadata"]
            self._found = None
            self._access.delete(DEPLOYMENTS, self._owner.namespace, meta["name"], meta["uid"])
        elif deployments.size(now):
            self._patch(now, {deployments.SIZED: None}, {"replicas": 0})

    def _patch(self, now: Node, annotations: Node, spec: Node) -> None:
        meta = {"namespace": self._owner.namespace, "name": now["metadata"]["name"], "annotations": annotations}
        self._found = None
        self._access.patch(DEPLOYMENTS, {"metadata": meta, "spec": spec})


def _attempt(stored: Stored) -> Attempt:
    attempt = stored.status.attempt
    assert attempt is not None  # else no server is wanted
    return attempt


def _model(stored: Stored) -> str:
    """Whose versions the attempt is about; of one that an earlier release began, what is declared."""
    return serving.model_of(stored.status.attempt) or stored.rollout.spec.model.name


def _upstream(pod: Node) -> str:
    return pods.address(pod, deployments.port_of_pod(pod))


def _ready(listed: list[Node]) -> tuple[Server, ...]:
    return tuple(sorted(Server(_upstream(pod), pod["metadata"]["uid"]) for pod in listed if pods.ready(pod)))


def _staying(listed: list[Node], faults: Mapping[str, Fault]) -> tuple[str, ...]:
    """Upstreams that may be sent requests though they are not ready."""
    return usable(sorted(_upstream(pod) for pod in listed if pods.stays(pod)), faults)


def _any(_: str) -> bool:
    return True


def _cause(status: RolloutStatus, arm: Arm) -> str | None:
    """What brings all traffic to ``arm``, by a name of its own; None: nothing."""
    comes = {"champion": Progress.ROLLING_BACK, "challenger": Progress.PROMOTING}[arm]
    return f"{status.attempts}/{status.progress}" if status.progress is comes else None


def _asked(stored: Stored) -> Probe:
    """How a server of our own is asked; of a template that was replaced, as in the attempt that it was declared for."""
    spec, attempt = stored.rollout.spec, stored.status.attempt
    if spec.servers is not None and spec.servers.template is not None:
        return spec.servers.probe or HEALTH
    return _written(places.of(spec, attempt).probe) or HEALTH


def kept_for(status: RolloutStatus, version: str) -> Callable[[str], bool]:
    """Which upstreams of ``version`` need not have been asked: before an attempt begins, those of the table in force,
    and later all that are ready. A controller that has just begun has asked nobody, and a dozen at a look is not what
    should be left of a champion with thirty pods."""
    if status.progress is not Progress.PENDING:
        return _any
    table, served = status.table, serving.in_force(status)
    if served is not None and served.model != serving.model_of(status.attempt):
        return lambda _: False
    targets = (table.champion, table.challenger) if table is not None else ()
    named = [target.upstreams for target in targets if target is not None and target.version == version]
    return {upstream for upstreams in named for upstream in upstreams}.__contains__


def declared_for(stored: Stored, arm: Arm, version: str) -> Declared | None:
    """The server that was adopted for ``version``. None: it is ours to run, as the other is."""
    place = places.of_version(stored.rollout.spec, stored.status.attempt, arm, version)
    return None if place is None else _declared(place)


def _declared(place: Place) -> Declared:
    return Declared(service=place.service, port=place.port, probe=_written(place.probe))


def _written(probe: wire.Probe | None) -> Probe | None:
    """A probe of a status as people write it in a spec."""
    return Probe(path=probe.path, body=probe.body) if probe is not None else None
