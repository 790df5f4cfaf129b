"""Rollout after rollout in a world, with a kill of the leader in each; then what has to be true of them all."""

import itertools
import json
import random
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from controller.core.record import Record
from controller.edges.cluster.records import RecordLog
from controller.edges.cluster.resources import EVENTS
from controller.edges.run_page import parse_line
from controller.status import Progress, RolloutStatus
from tests.kubernetes.kill_leader import claims, fencing
from tests.kubernetes.kill_leader.history import History
from tests.kubernetes.kill_leader.moments import GOOD, HARMFUL, Moment, stands
from tests.kubernetes.kill_leader.replicas import LEASE_S, Kill, Life, Replicas
from tests.kubernetes.kill_leader.world import FIRST, NAME, NAMESPACE, World, built
from tests.kubernetes.operating.real import Clients
from tests.kubernetes.operating.theatre import until

END_WITHIN_S = 120.0
HARMFUL_SHARE = 0.4
PAUSE_S = 0.015  # of the users, between two rounds
BACK_AFTER_S = 2.0  # at most, until what was killed is started again
_NOTICE = re.compile(r"understudy\.notice notice (\{.*\})$", re.MULTILINE)


class Campaign:
    """Rollouts of one model, and the kills in them. ``expected``: how each version has to end; ``champions``: the
    versions that served everybody, one after the other; ``wrong``: what did not hold at the end of a rollout."""

    def __init__(self, world: World, history: History, replicas: Replicas, seed: int) -> None:
        self._world, self._history, self._replicas = world, history, replicas
        self._chance = random.Random(seed)
        self._decks: dict[tuple[Moment, ...], list[Moment]] = {}
        self.kills: list[Kill] = []
        self.expected: dict[str, Progress] = {}
        self.champions = [FIRST]
        self.wrong: list[str] = []

    def run(self, kills: int) -> None:
        """Until so many were killed, or twice as many rollouts are over."""
        while len(self.kills) < kills and len(self.expected) < 2 * kills:
            before = len(self.kills)
            self._rollout()
            hit = f"{self.kills[-1].aim}: {self.kills[-1].where}" if len(self.kills) > before else "no kill"
            print(f"{time.strftime('%H:%M:%S')} {len(self.kills)}/{kills} {hit}", file=sys.stderr, flush=True)

    def _rollout(self) -> None:
        harmful = self._chance.random() < HARMFUL_SHARE
        moment = self._drawn(HARMFUL if harmful else GOOD)
        delay, back = self._chance.uniform(0, moment.spread_s), self._chance.uniform(0, BACK_AFTER_S)
        version = self._world.registry.register()
        if harmful:
            self._world.versions.harmful.add(version)
        self.expected[version] = Progress.ROLLED_BACK if harmful else Progress.PROMOTED
        leader = self._replicas.both()
        self._world.registry.name("challenger", version)

        def of_this(status: RolloutStatus) -> bool:
            return status.attempt is not None and status.attempt.challenger == version

        if self._history.until(lambda s: of_this(s) and (moment.holds(s) or s.progress.terminal), END_WITHIN_S):
            time.sleep(delay)  # the random point itself
            if moment.recorded:
                self._replicas.until_recorded(leader)
            self._kill(leader, moment)
            time.sleep(back)
            self._replicas.start(leader.replica)
        end = self._history.until(lambda s: of_this(s) and s.progress.terminal, END_WITHIN_S)
        if end is None:
            self.wrong.append(f"version {version} has no end within {END_WITHIN_S:g} s: {self._history.latest()}")
            return
        if end.progress is Progress.PROMOTED:
            self.champions.append(version)
        self._settled()

    def _kill(self, leader: Life, moment: Moment) -> None:
        self.kills.append(self._replicas.kill(leader, moment.name, stands(self._history.latest())))

    def _drawn(self, of: tuple[Moment, ...]) -> Moment:
        """Each once, in a random order, before any comes again."""
        deck = self._decks.setdefault(of, [])
        if not deck:
            deck.extend(self._chance.sample(of, len(of)))
        return deck.pop()

    def _settled(self) -> None:
        """After an end, alias and routers and servers agree on one version, and it answers everybody."""
        champion = self.champions[-1]

        def agree() -> bool:
            status, tables = self._history.latest(), self._history.tables()
            there = len(tables) == len(self._world.node.containers)
            newest = status.table.generation if status and status.table else None
            return there and set(tables.values()) == {newest} and status is not None and not status.notices

        try:
            until(agree, "every router has the table, and all notices are sent", END_WITHIN_S)
        except AssertionError as error:
            self.wrong.append(f"after version {champion}: {error}")
        status = self._history.latest()
        assert status is not None
        assert status.table is not None
        found = {
            "alias": {self._world.registry.aliases().get("champion", "nothing")},
            "table": claims.served(status.table),
            "answers": self._world.answers(),
        }
        if any(each != {champion} for each in found.values()):
            self.wrong.append(f"version {champion} should be the champion: {found}")
        if champion not in self._world.versions.serving():
            self.wrong.append(f"version {champion} is the champion, and has no server")


def trial(assets: Path, folder: Path, kills: int, seed: int) -> dict[str, Any]:
    """A whole campaign in ``folder``; its summary, in which ``violations`` is empty where all claims hold."""
    began = time.monotonic()
    with built(assets, folder) as world, History(world) as history:
        replicas = Replicas(world)
        campaign = Campaign(world, history, replicas, seed)
        try:
            replicas.both()
            _begun(world, campaign, history)
            with Clients(world.node, PAUSE_S) as users:
                campaign.run(kills)
            replicas.both()
        finally:
            replicas.stop()
        summary = _judged(world, history, replicas, campaign)
    refused = [f"a user saw {each}" for each in users.failed]
    summary["violations"] += refused[:20]
    return summary | {
        "asked": kills,
        "seed": seed,
        "seconds": round(time.monotonic() - began),
        "requests": sum(users.answered.values()),
        "requests_failed": len(users.failed),
    }


def _begun(world: World, campaign: Campaign, history: History) -> None:
    """The first rollout brings the routers; nobody is killed in it, and users come from then on."""
    version = world.registry.register()
    world.registry.name("challenger", version)
    until(world.node.ready, "the routers are there", END_WITHIN_S)
    with Clients(world.node, PAUSE_S):
        over = history.until(lambda s: s.progress.terminal, END_WITHIN_S)
        assert over is not None, f"the first rollout does not end: {history.latest()}"
    campaign.expected[version] = Progress.PROMOTED
    campaign.champions.append(version)


def _judged(world: World, history: History, replicas: Replicas, campaign: Campaign) -> dict[str, Any]:
    seen, kills = history.seen, campaign.kills
    statuses, uid = seen.statuses, seen.statuses[-1].uid
    calls = fencing.calls(world.plane.audit_log.read_bytes().splitlines())
    terms = fencing.terms(calls)
    folders = {f"replica-{number}": replicas.disk(number) / "records" for number in (1, 2)}
    written = {name: _parsed((folder / f"{uid}.jsonl").read_text().splitlines()) for name, folder in folders.items()}
    counted = {name: RecordLog(folder).read(uid, statuses[-1]) for name, folder in folders.items()}
    lines = [json.loads(line)["key"] for line in _NOTICE.findall(replicas.logs())]
    events = [
        each["metadata"]["name"]
        for each in world.access.list(EVENTS, NAMESPACE).items
        if each["metadata"]["name"].startswith(f"{NAME}.") and each["note"].startswith(f"{NAMESPACE}/{NAME}: ")
    ]
    misread, unlogged = claims.logged(statuses, _parsed(world.registry.decision_logs()))
    missed = [kill for kill in kills if fencing.led(terms, kill.at) != kill.credential]
    violations = [
        *campaign.wrong,
        *claims.in_order(statuses),
        *claims.ended_once(statuses, campaign.expected),
        *claims.recorded(statuses, written, counted),
        *misread,
        *claims.aliases(seen.moves, statuses, campaign.champions),
        *(f"the champion was version {each}, which nobody served" for each in seen.unserved[:5]),
        *claims.forward(seen.tables, statuses),
        *claims.told(statuses, events, lines, len(kills)),
        *fencing.fenced(calls, LEASE_S),
        *(f"the watch began anew after {each} statuses" for each in seen.lists[1:]),
    ]
    gaps = [fencing.interregnum(terms, kill.at, kill.credential) for kill in kills]
    known = sorted(gap for gap in gaps if gap is not None)
    ends = Counter(s.progress.value for a, s in itertools.pairwise(statuses) if _ends(a, s))
    return {
        "kills": len(kills) - len(missed),
        "kills_of_who_did_not_lead": len(missed),
        "kills_by_aim": dict(sorted(Counter(kill.aim for kill in kills).items())),
        "kills_by_where": dict(sorted(Counter(kill.where for kill in kills).items())),
        "rollouts": dict(ends),
        "decisions": statuses[-1].sequence,
        "decisions_not_in_mlflow": unlogged,
        "records_without_a_decision": sum(map(len, written.values())) - statuses[-1].sequence,
        "tables": statuses[-1].table.generation if statuses[-1].table else 0,
        "statuses": len(statuses),
        "writes": sum(call.what not in fencing.UNGUARDED for call in calls),
        "notices": len({notice.key for status in statuses for notice in status.notices}),
        "notices_repeated_in_the_log": len(lines) - len(set(lines)),
        "without_a_leader_s": {"p50": round(statistics.median(known), 2), "max": round(known[-1], 2)} if known else {},
        "leaders": len({term.credential for term in terms}),
        "violations": violations,
    }


def _parsed(lines: Iterable[str]) -> list[Record]:
    return [record for line in lines if (record := parse_line(line)) is not None]


def _ends(before: RolloutStatus, after: RolloutStatus) -> bool:
    return after.progress.terminal and not before.progress.terminal
