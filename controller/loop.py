"""One pass over one rollout: observe → evolve → commit → act. Never sleeps, never decides.

The order is the safety of the whole system: status with its record is committed before anything is done in the
world, and what is done is read off the committed status, so the process may die between any two lines and the next
tick goes on. Acts are desired state, compared with what was observed and re-applied until they agree. A port that
fails costs its part of this tick and nothing else.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from controller.core import allocation, naming, plans, serving
from controller.core.allocation import servers_wanted, weight
from controller.core.cells import EpochCounts
from controller.core.endings import due_moves
from controller.core.evidence import Evidence
from controller.core.evolve import Transition, evolve
from controller.core.fold import EMPTY, Statistics
from controller.errors import EdgeError, NotFound
from controller.ports import (
    Notifier,
    Registry,
    RolloutStore,
    ServerObservation,
    StatisticsSource,
    Stored,
    TickEntry,
    TrafficProvider,
    Workloads,
)
from controller.spec import RolloutSpec
from controller.status import AliasMove, RolloutStatus

log = logging.getLogger("understudy.loop")
SILENT_TICKS = 4
SILENT_LEAST = 30_000_000  # µs


class Loop(NamedTuple):
    """The ports of one controller. ``tick`` may be called for any key, by one caller a key."""

    store: RolloutStore
    source: StatisticsSource
    traffic: TrafficProvider
    workloads: Workloads
    registry: Registry
    notifier: Notifier

    def tick(self, key: str, now: int) -> int:
        """One pass over rollout ``key`` at ``now`` (µs); returns when to come back. EdgeError: come back as usual."""
        declared = self.store.load(key)
        if declared.barred:
            return self._follow(key, declared, now)
        stored, spec = declared.pinned(), declared.rollout.spec
        status = observe(self, key, stored)
        statistics, blind = self._statistics(key, spec, status, now)
        transition = evolve(spec, status, statistics, now)
        version = self.store.commit(key, transition.status, stored.version, transition.record)
        act(self, naming.pinned(spec, transition.status), transition.status)
        run = self._report(stored, transition, statistics)
        self._deliver(key, transition.status, run, version)
        if blind:
            log.warning("%s: the source of statistics did not answer: %s", key, blind)
        return transition.wake_at

    def _follow(self, key: str, stored: Stored, now: int) -> int:
        """One pass that decides nothing: users of the version that serves are sent where that is by now."""
        status = stored.status
        served, seen = serving.in_force(status), _traffic(self, status)
        if served is not None:
            try:
                seen["served_upstreams"] = self.workloads.serving(served)
            except EdgeError as error:
                seen.update(served_upstreams=(), servers_message=str(error))
        observed = status.observed.model_copy(update=seen)
        status = status.model_copy(update={"rollout": key, "generation": stored.generation, "observed": observed})
        status = allocation.followed(status)
        version, table = self.store.commit(key, status, stored.version, None), status.table
        if table is not None:
            attempt_quietly("apply the route table", lambda: self.traffic.apply(table))
        self._deliver(key, status, status.run_id, version)
        return now + stored.rollout.spec.decision.tick

    def _statistics(self, key: str, spec: RolloutSpec, status: RolloutStatus, now: int) -> tuple[Statistics, str]:
        """What is known now; nothing at all where the source fails, or what it holds contradicts the status (then
        validity says Stale, never worse)."""
        if status.attempt is None or status.progress.terminal or not status.epochs:
            return EMPTY, ""
        try:
            return self.source.read(plans.query(key, spec, status), now), ""
        except (EdgeError, ValueError) as error:
            return EMPTY, str(error)

    def _report(self, stored: Stored, transition: Transition, statistics: Statistics) -> str | None:
        """Queue this tick for the run, and the run's id; a registry that is away loses no decision."""
        status = transition.status
        if status.attempt is None or (status.progress.terminal and transition.record is None):
            return status.run_id
        tick = (status.clock - status.attempt.started_at) // stored.rollout.spec.decision.tick
        entry = TickEntry(status, series(status, transition.evidence, statistics), tick, transition.record)
        try:
            return self.registry.log(stored.rollout, entry) or status.run_id
        except EdgeError as error:
            log.warning("could not log the tick: %s", error)
            return status.run_id

    def _deliver(self, key: str, status: RolloutStatus, run: str | None, version: str) -> None:
        """Send what waits; it leaves status only after delivery, so a crash can repeat a message but not lose it."""
        left = list(status.notices)
        for notice in status.notices:
            if not attempt_quietly("send a notice", lambda n=notice: self.notifier.send(n)):  # type: ignore[misc]
                continue  # whoever does not take this one is not in the way of the others
            left.remove(notice)
        if len(left) != len(status.notices) or run != status.run_id:
            self.store.commit(key, status.model_copy(update={"notices": tuple(left), "run_id": run}), version, None)


def attempt_quietly(what: str, act: Callable[[], object]) -> bool:
    """Run ``act``; False and a log line where an edge failed."""
    try:
        act()
    except EdgeError as error:
        log.warning("could not %s: %s", what, error)
        return False
    return True


def observe(loop: Loop, key: str, stored: Stored) -> RolloutStatus:
    """The stored status with the world as it reads now; what cannot be read keeps its last value and says so."""
    status, spec = stored.status, stored.rollout.spec
    seen: dict[str, Any] = {"requests": stored.requests, "registry_error": None, "model_missing": False}
    seen["leaving"] = stored.leaving
    try:
        seen.update(_versions(loop, spec, status))
    except NotFound as error:
        seen.update(registry_error=str(error), model_missing=True)
    except EdgeError as error:
        seen["registry_error"] = str(error)
    seen.update(_traffic(loop, status))
    seen.update(_servers(loop, status))
    return status.model_copy(
        update={
            "rollout": key,
            "generation": stored.generation,
            "observed": status.observed.model_copy(update=seen),
        }
    )


def _traffic(loop: Loop, status: RolloutStatus) -> dict[str, Any]:
    """What the routers serve."""
    seen: dict[str, Any] = {"traffic_error": None, "overtaken": 0}
    try:
        traffic = loop.traffic.observe()
        workers = [w for r in traffic.routers for w in r.workers]
        seen.update(confirmed=traffic.confirmed, traffic_limits=traffic.limits, traffic_error=traffic.trouble or None)
        seen["sent_bp"] = traffic.sent_bp
        ours = status.table.generation if status.table else 0
        if any(r.generation > ours for r in traffic.routers):
            # Of a life that the store has forgotten.
            seen.update(confirmed=-1, overtaken=traffic.overtakes(ours))
            if not seen["overtaken"]:
                seen["traffic_error"] = "a router says that it holds a table of a number that is not believed"
        seen["breaker_open"] = any(w.breaker != "closed" for w in workers)
        seen["breaker_open_ms"] = max((w.breaker_open_ms for w in workers), default=0)
    except EdgeError as error:
        seen.update(confirmed=-1, traffic_error=str(error))
    return seen


def _versions(loop: Loop, spec: RolloutSpec, status: RolloutStatus) -> dict[str, Any]:
    model = spec.model
    champion = loop.registry.resolve(model.name, naming.champion(model, status))
    challenger = loop.registry.resolve(model.name, model.challenger)
    external = spec.servers is not None and spec.servers.champion is not None and spec.servers.champion.external
    return {
        "champion_alias": naming.EXTERNAL if external else champion and champion.version,
        "challenger_alias": challenger and challenger.version,
        "challenger_signed": challenger is None or challenger.signed,
    }


def _servers(loop: Loop, status: RolloutStatus) -> dict[str, Any]:
    """Where the pinned versions are served. A server of another version is none of this attempt's."""
    served, seen = serving.between(status), dict[str, Any](served_upstreams=())
    try:
        if served is not None:
            seen["served_upstreams"] = loop.workloads.serving(served)
        if status.attempt is None:
            return {**seen, "champion_ready": False, "challenger_ready": False}
        champion, challenger = loop.workloads.observe("champion"), loop.workloads.observe("challenger")
    except EdgeError as error:
        return {**seen, "servers_message": str(error)}
    wanted = servers_wanted(status)
    a, b = _of(champion, wanted["champion"]), _of(challenger, wanted["challenger"])
    said = "; ".join(x.message for x in (champion, challenger) if x.message and not x.ready)
    return {
        **seen,
        "champion_upstreams": a.upstreams,
        "challenger_upstreams": b.upstreams,
        "champion_ready": a.ready,
        "challenger_ready": b.ready,
        "servers_message": said,
    }


def _of(server: ServerObservation, version: str | None) -> ServerObservation:
    return (
        server
        if version is not None and server.version == version
        else ServerObservation(None, (), False, server.message)
    )


def act(loop: Loop, spec: RolloutSpec, status: RolloutStatus) -> None:
    """Make the world what ``status`` asks for. Traffic first: on the way down nothing may come before weight 0."""
    table = status.table
    if table is not None:
        # Applied at every tick, not only when it is new: it is the routers' sign of life from the controller.
        attempt_quietly("apply the route table", lambda: loop.traffic.apply(table))
    for arm, version in servers_wanted(status).items():
        attempt_quietly(f"run the {arm}", lambda a=arm, v=version: loop.workloads.ensure(a, v))  # type: ignore[misc]
    for move in due_moves(status):
        attempt_quietly("move an alias", lambda m=move: _move(loop, spec, status, m))  # type: ignore[misc]


def _move(loop: Loop, spec: RolloutSpec, status: RolloutStatus, move: AliasMove) -> None:
    """One announced alias move, unless it reads back already."""
    o = status.observed
    now = o.champion_alias if move.alias == spec.model.champion else o.challenger_alias
    if now == move.version or o.registry_error is not None or now != move.was:
        return
    if move.version is None:
        loop.registry.delete_alias(spec.model.name, move.alias, move.was or "")
    else:
        loop.registry.set_alias(spec.model.name, move.alias, move.version)


def silence(spec: RolloutSpec, status: RolloutStatus, now: int) -> str:
    """For people, where a status is older than it should be at ``now`` (µs of the wall clock): ticks have failed, or
    nobody makes any. A rollout that is over has nothing to tick for."""
    limit = max(SILENT_LEAST, SILENT_TICKS * spec.decision.tick)
    if status.progress.terminal or not status.clock or now - status.clock <= limit:
        return ""
    return f"no tick since {datetime.fromtimestamp(status.clock // 1_000_000, UTC).isoformat()}: this is old"


def series(status: RolloutStatus, evidence: tuple[Evidence, ...], statistics: Statistics) -> dict[str, float]:
    """The numbers of one tick, by name; only finite ones."""
    epoch = status.current_epoch
    counts = statistics.counts.get(epoch.number, EpochCounts(0)) if epoch else EpochCounts(0)
    said = {
        "weight": weight(status),
        "step": float(status.step + 1),
        "units/champion": float(counts.champion_units),
        "units/challenger": float(counts.challenger_units),
        "fallbacks": float(counts.fallbacks),
        "events_lost": float(statistics.losses.lost + statistics.losses.late),
        "covariates_misread": float(statistics.losses.misread),
    }
    for e in evidence:
        name = f"{e.metric}.{e.segment}" if e.segment else e.metric
        values = {
            "estimate": e.estimate, "lower": e.lower, "upper": e.upper, "champion": e.champion,
            "log_e_harm": e.log_e_harm, "log_e_non_inferior": e.log_e_non_inferior, "log_e_superior": e.log_e_superior,
            "units.champion": float(e.units[0]), "units.challenger": float(e.units[1]),
        }  # fmt: skip
        if e.compared:
            said.update({f"{name}/{k}": v for k, v in values.items()})
        if e.limit is not None and e.limit.windows:
            said.update({f"{name}/value": e.limit.value, f"{name}/breaches": float(e.limit.breaches)})
    return {k: float(v) for k, v in said.items() if abs(v) < 1e300}
