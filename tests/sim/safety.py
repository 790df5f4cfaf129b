"""What must never be, whatever goes wrong: judged by the state of the world, at every act and after every tick."""

import math
from typing import NoReturn

from controller.core import validity
from controller.core.fold import Fold, Statistics
from controller.core.record import Record, digest
from controller.edges.memory.registry import CONTROLLER
from controller.kinds import KINDS
from controller.metric import Role
from controller.ports import ResolvedVersion, Stored
from controller.spec import RolloutSpec
from controller.status import Notice, Progress, Reason, RolloutStatus, Verb
from router.assignment import POINTS
from router.table import RouteTable
from tests.sim.people import PERSON, People
from tests.sim.plan import KEY, MODEL
from tests.sim.world import World

LIVE = (Progress.RUNNING, Progress.PROMOTING, Progress.HOLDBACK)
DOWN = (Progress.ROLLING_BACK, Progress.ROLLED_BACK, Progress.HELD)
STRANGE_LIMIT = 4  # ticks with good reads in a row


class Violation(Exception):
    """A rule was broken. ``rule`` is its name."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule}: {text}")
        self.rule = rule


def broken(rule: str, text: str) -> NoReturn:
    """Raise the violation."""
    raise Violation(rule, text)


def harm_proven(spec: RolloutSpec, status: RolloutStatus, statistics: Statistics | None) -> str | None:
    """The metric whose harm on all traffic is proven in what was read in this tick."""
    epoch = status.current_epoch
    if statistics is None or epoch is None:
        return None
    judging = [m for m in spec.metrics if m.role in (Role.GUARDRAIL, Role.SUCCESS)]
    share = 0.75 if any(s.protected for s in spec.segments) else 1.0
    mirrors = any(s.mirror is not None for s in spec.steps)
    paired = [m for m in judging if KINDS[m.kind].family in ("label", "failures")] if mirrors else []
    needed = -math.log(spec.decision.rollback_alpha * share / (len(judging) + len(paired)))
    folds: dict[tuple[str, str], Fold] = dict(statistics.pairs if epoch.kind == "mirror" else statistics.folds)
    for metric in judging:
        state = folds.get((metric.name, ""))
        if state is not None and state.ever_harm >= needed:
            return metric.name
    return None


def share_of(version: str, table: RouteTable | None) -> int:
    """Basis points of the units that ``table`` sends to ``version``."""
    if table is None:
        return 0
    up = table.weight_bp if table.challenger is not None and table.challenger.version == version else 0
    return up + (POINTS - table.weight_bp if table.champion.version == version else 0)


class Safety:
    """The checkers of one run."""

    def __init__(self, world: World, people: People) -> None:
        self.world, self.people = world, people
        self.tables: dict[int, RouteTable] = {}
        self.used: dict[str, int] = {}  # newest generation that each worker slot has used
        self.keys: set[str] = set()  # notices that were ever committed
        self.repeats_allowed = 0
        self.gated = 0  # approvals that were needed and got
        self.served = 0  # µs of this step in which every worker served its allocation
        self.looked_at = world.true
        self.moved_before = 0  # moves of aliases before this attempt
        self.last_commit = world.true
        self.longest_gap = 0
        self.resolved_now: dict[str, str | None] = {}
        self.strange = 0
        self.touched = (0, 0)  # people's moves and replans when the attempt began
        self.fired = 0

    # -- acts of the controller ---------------------------------------------------------------

    def applies(self, table: RouteTable) -> None:
        """A table goes out: it must be the one that is committed."""
        if self.world.status.table != table:
            broken("commit-before-act", f"table {table.generation} is applied without being committed")

    def sends(self, notice: Notice) -> None:
        """A message goes out: its transition must be committed."""
        if notice.key not in {n.key for n in self.world.status.notices}:
            broken("commit-before-act", f"notice {notice.key} is sent without being committed")

    def failed(self, name: str, done: bool) -> None:
        """An edge said that it failed. A message whose delivery could not be noted may be repeated."""
        self.repeats_allowed += name == "store.commit" or (name == "notifier.send" and done)

    def resolved(self, reference: str, found: ResolvedVersion | None) -> None:
        self.resolved_now[reference] = found.version if found is not None else None

    def moves(self, alias: str, version: str | None) -> None:
        """An alias is about to be moved."""
        world, status = self.world, self.world.status
        announced = next((m for m in status.alias_moves if m.alias == alias and m.version == version), None)
        if announced is None:
            broken("announced-move", f"alias {alias} is moved to {version} without having been announced")
        decisions = {r.decision for r in world.store.records(KEY)}
        if not decisions & {Verb.PROMOTE.value, Verb.ROLL_BACK.value}:
            broken("decided-move", f"alias {alias} is moved to {version} without a decision on record")
        if status.progress not in (Progress.PROMOTING, Progress.HOLDBACK, Progress.ROLLING_BACK):
            broken("decided-move", f"alias {alias} is moved to {version} in {status.progress}")
        if status.progress is Progress.ROLLING_BACK and version is not None and version == self._challenger():
            broken("decided-move", f"alias {alias} is moved to the version that is being rolled back")
        if status.progress is Progress.PROMOTING:
            self._serves_promotion(status, alias)
        truth = world.registry.alias(MODEL, alias)
        read = self.resolved_now.get(alias)
        if truth not in (announced.was, version) and read == truth:
            broken("nobody-overwritten", f"alias {alias} names {truth}, which a person wanted, not {announced.was}")

    def _serves_promotion(self, status: RolloutStatus, alias: str) -> None:
        after = self.world.rollout.spec.after_promotion
        share = POINTS - round((after.holdback if after else 0) * 100)
        if status.table is None or status.table.weight_bp < share or not self._everybody_used(status):
            broken("confirmed-before-alias", f"alias {alias} is moved before every worker serves the promotion")

    def moved(self) -> None:
        """At most once in an attempt does the champion's alias go to the challenger, and never in the holdback.

        Once more after somebody took it back before we could see that it had gone: the two cannot be told apart.
        """
        status = self.world.status
        attempt = status.attempt
        since = [m for m in self.world.registry.moves[self.moved_before :] if m.alias == "champion"]
        theirs = max((i for i, m in enumerate(since) if m.who != CONTROLLER), default=-1)
        ours = since[theirs + 1 :]
        if ours and status.progress is Progress.HOLDBACK:
            broken("one-promotion", f"alias champion was moved to {ours[-1].version} in the holdback")
        for version in {m.version for m in ours}:
            ups = sum(m.version == version for m in ours)
            if attempt is not None and version == attempt.challenger and ups > 1:
                broken("one-promotion", f"alias champion was moved to {version} {ups} times")
        self._served()

    # -- commits ------------------------------------------------------------------------------

    def committed(self, stored: Stored, after: RolloutStatus, record: Record | None) -> None:
        """A new status stands."""
        before, spec = stored.status, stored.rollout.spec
        self._ordered(before, after, record)
        self._terminal(before, after)
        self._tables(before, after)
        same_attempt = before.attempt is not None and before.attempt == after.attempt
        if not same_attempt:
            self.moved_before = len(self.world.registry.moves)
            self.touched = (self.people.moves, self.people.replanned)
        if same_attempt and after.step > before.step >= 0:
            self._widened(spec, before, after)
        if after.step != before.step or not same_attempt:
            self.served = self.longest_gap = 0
        if before.progress is Progress.RUNNING and after.progress is Progress.PROMOTING:
            self._promoted(spec, before, after)
        if before.progress is Progress.PROMOTING and after.progress in (Progress.HOLDBACK, Progress.PROMOTED):
            self._read_back(after)
        if record is not None or after.progress is before.progress:
            harmed = harm_proven(spec, after, self.world.statistics)
            if harmed is not None and before.progress in LIVE and after.progress in LIVE:
                broken("harm-first", f"{harmed} is proven harmful and the rollout is {after.progress} ({after.reason})")
        self._told(before, after)
        self.longest_gap = max(self.longest_gap, self.world.true - self.last_commit)
        self.last_commit = self.world.true

    def _ordered(self, before: RolloutStatus, after: RolloutStatus, record: Record | None) -> None:
        if after.sequence != before.sequence + (record is not None):
            broken("sequence", f"from {before.sequence} to {after.sequence}, record: {record is not None}")
        if after.clock < before.clock or after.decided_at < before.decided_at:
            broken("monotone-clock", f"from {before.clock} to {after.clock}")
        decided = ("progress", "step", "decision", "reason", "attempt", "alias_moves", "paused")
        if record is None and any(getattr(before, f) != getattr(after, f) for f in decided):
            broken("recorded", f"{before.progress} → {after.progress} without a record")
        if record is not None and (record.sequence != after.sequence or record.digest != digest(after)):
            broken("recorded", f"the record of {record.key} is not of the status it came with")
        if record is not None and RolloutStatus.model_validate_json(after.model_dump_json(by_alias=True)) != after:
            broken("recorded", "the status does not read back as it was written")

    def _terminal(self, before: RolloutStatus, after: RolloutStatus) -> None:
        if not before.progress.terminal:
            return
        if before.attempt == after.attempt:
            if (before.progress, before.end, before.step) != (after.progress, after.end, after.step):
                broken("terminal", f"{before.progress} became {after.progress}")
        elif (self.people.moves, self.people.replanned) == self.touched:
            broken("terminal", f"{before.progress} became a new attempt, and nobody asked for one")

    def _told(self, before: RolloutStatus, after: RolloutStatus) -> None:
        """A transition that concerns people leaves a notice of its own; one that was left goes only when it is sent."""
        if (before.progress, before.step, before.paused) != (after.progress, after.step, after.paused):
            new = [n for n in after.notices if n.key not in self.keys]
            if len(new) != 1:
                broken("messages", f"{before.progress} → {after.progress} has {len(new)} notices")
        gone = {n.key for n in before.notices} - {n.key for n in after.notices}
        if gone - self.world.notifier.sent.keys():
            broken("messages", f"notices {sorted(gone)} were given up before they were sent")
        self.keys |= {n.key for n in after.notices}

    def _tables(self, before: RolloutStatus, after: RolloutStatus) -> None:
        old, new = before.table, after.table
        if new is None:
            return
        if old is not None and (new.generation < old.generation or (new.generation == old.generation and new != old)):
            broken("generation", f"table {new.generation} follows {old.generation}")
        self.tables[new.generation] = new
        if after.progress in DOWN and (new.weight_bp or new.mirror_bp):
            broken("weight-0", f"weight {new.weight_bp} bp in {after.progress}")
        if old is None or new.attempt != old.attempt or after.progress in DOWN:
            return
        # A challenger without a server gets nothing, paused or not, and its share again when it has one.
        meets = old.challenger is not None and bool(after.observed.challenger_upstreams)
        if before.paused and after.paused and after.attempt is not None and meets:
            shares = [(share_of(after.attempt.challenger, t), t.mirror_bp) for t in (old, new)]
            if shares[0] != shares[1]:
                broken("paused", f"(weight, mirror) went from {shares[0]} to {shares[1]} bp during a pause")

    def _widened(self, spec: RolloutSpec, before: RolloutStatus, after: RolloutStatus) -> None:
        where = f"step {before.step + 1} → {after.step + 1}"
        if before.table is None or after.decision is not Verb.ADVANCE or after.step != before.step + 1:
            broken("widening", f"{where} without a decision to advance")
        if not self._everybody_used(before):
            broken("confirmed-before-widening", f"{where} before every worker served table {before.table.generation}")
        self._waited(spec, before, where)
        if spec.steps[after.step].approve:
            self.gated += 1
            self._approved(where)

    def _waited(self, spec: RolloutSpec, before: RolloutStatus, where: str) -> None:
        allowed = 2 * spec.decision.tick + max(self.longest_gap, self.world.true - self.last_commit)
        if not self.world.jumped and self.served + allowed < spec.steps[before.step].hold:
            broken("hold", f"{where} after {self.served / 1e6:.1f} s of {spec.steps[before.step].hold / 1e6:.0f}")
        number = before.attempt.number if before.attempt else 0
        met = len(self.world.crowd.challenger_units.get((number, before.epoch), ()))
        if met < spec.decision.min_units:
            broken("min-units", f"{where} with {met} challenger units of {spec.decision.min_units}")

    def _approved(self, where: str) -> None:
        if self.gated > self.people.approvals:
            broken("approved", f"{where}: {self.gated} approvals were needed and {self.people.approvals} given")

    def _promoted(self, spec: RolloutSpec, before: RolloutStatus, after: RolloutStatus) -> None:
        if after.decision is not Verb.PROMOTE:
            broken("promotion", f"without a decision to promote: {after.decision}")
        statistics = self.world.statistics
        if harm_proven(spec, after, statistics) is not None:
            broken("promotion", "with proven harm")
        if after.mismatch_since is not None or (
            statistics is not None and validity.sample_ratio(after, statistics) >= -math.log(validity.MISMATCH_ALPHA)
        ):
            broken("promotion", "with a sample-ratio mismatch")
        if self.world.same_version and spec.allow_same_version:
            broken("promotion", "of an A/A run")
        if after.reason is Reason.BY_HAND:
            if not self.people.promotions:
                broken("promotion", "by hand, and nobody asked")
            return
        if statistics is None:
            broken("promotion", "without statistics")
        if self.world.truth.dead:
            broken("dead", "a challenger that never answered is promoted")
        if after.step != len(spec.steps) - 1 or after.paused:
            broken("promotion", f"in step {after.step + 1} of {len(spec.steps)}, paused: {after.paused}")
        if not self._everybody_used(before):
            broken("confirmed-before-widening", "promotion before every worker served the last step")
        self._waited(spec, before, "promotion")
        if spec.decision.approve_promotion:
            self.gated += 1
            self._approved("promotion")

    def _read_back(self, after: RolloutStatus) -> None:
        attempt = after.attempt
        assert attempt is not None
        named = self.world.registry.alias(MODEL, "champion")
        ever = any(m.alias == "champion" and m.version == attempt.challenger for m in self.world.registry.moves)
        if named != attempt.challenger and not ever:
            broken("read-back", f"{after.progress} while the champion's alias names {named}")

    # -- the state of the world ---------------------------------------------------------------

    def look(self) -> None:
        """After everything that happened between two ticks, and after each tick."""
        for router in self.world.traffic.routers:
            held = router.table.generation if router.table else -1
            if held < self.used.get(router.name, -1):
                broken("generation", f"router {router.name} went back to {held}")
            self.used[router.name] = held
            for worker in router.workers:
                table = worker.table
                if table is None:
                    continue
                if self.tables.get(table.generation) != table:
                    broken("commit-before-act", f"{worker.name} serves table {table.generation}, never committed")
                self.used[worker.name] = max(self.used.get(worker.name, -1), table.generation)
        status = self.world.status
        number = status.attempt.number if status.attempt is not None else 0
        tables = [w.table for r in self.world.traffic.routers for w in r.workers]
        if all(t is not None and (t.attempt, t.epoch) == (number, status.epoch) for t in tables):
            self.served += self.world.true - self.looked_at
        self.looked_at = self.world.true
        self._served()

    def begin_tick(self) -> None:
        """Nothing was read in this tick yet."""
        self.world.statistics = None
        self.world.misled.clear()
        self.resolved_now.clear()
        self.fired = self.world.faults.fired.total()

    def end_tick(self, wake_at: int) -> None:
        """A tick came to its end without a crash or an error."""
        status, spec = self.world.status, self.world.rollout.spec
        if wake_at - self.world.now > 2 * spec.decision.tick:
            broken("awake", f"the next tick is in {(wake_at - self.world.now) / 1e6:.0f} s")
        if self.world.faults.fired.total() == self.fired and status.table is not None:
            for router in self.world.traffic.routers:
                if router.reachable and router.table != status.table:
                    broken("applied", f"router {router.name} does not hold table {status.table.generation}")
        self._strangers(status)

    def _strangers(self, status: RolloutStatus) -> None:
        """An alias that a person moved stops the rollout, once it was read a few times in a row."""
        attempt, registry = status.attempt, self.world.registry
        if attempt is None or status.progress not in LIVE:
            self.strange = 0
            return
        up = status.progress is Progress.HOLDBACK
        ours = {m.alias: m.version for m in status.alias_moves}
        foreign = False
        for alias, pinned, promoted in (
            ("champion", attempt.champion, attempt.challenger),
            ("challenger", attempt.challenger, None),
        ):
            named = registry.alias(MODEL, alias)
            last = next((m for m in reversed(registry.moves) if m.alias == alias), None)
            wanted = {promoted} if up else {pinned, ours.get(alias, pinned)}
            theirs = last is not None and last.who == PERSON and named not in wanted
            foreign |= theirs and self.resolved_now.get(alias, "unread") == named
        self.strange = self.strange + 1 if foreign else 0
        if self.strange > STRANGE_LIMIT:
            broken("alias-moved", f"a person moved an alias and the rollout is {status.progress}")

    def _everybody_used(self, status: RolloutStatus) -> bool:
        self.look_quickly()
        slots = [w.name for r in self.world.traffic.routers for w in r.workers]
        return status.table is not None and all(self.used.get(name, -1) >= status.table.generation for name in slots)

    def look_quickly(self) -> None:
        """Note what the workers use now."""
        for router in self.world.traffic.routers:
            for worker in router.workers:
                if worker.table is not None:
                    self.used[worker.name] = max(self.used.get(worker.name, -1), worker.table.generation)

    def _served(self) -> None:
        """Every table's champion has a server that answers, and what our move made the champion has the traffic."""
        world, status = self.world, self.world.status
        named = world.registry.alias(MODEL, "champion")
        last = next((m for m in reversed(world.registry.moves) if m.alias == "champion"), None)
        ours = last is not None and last.who == CONTROLLER and status.progress in (Progress.HOLDBACK, Progress.PROMOTED)
        after = world.rollout.spec.after_promotion
        least = POINTS - round((after.holdback if after else 0) * 100)
        for router in world.traffic.routers:
            for worker in router.workers:
                table = worker.table
                if table is None:
                    continue
                if all(world.workloads.behind(u) is None for u in table.champion.upstreams):
                    broken("champion-serves", f"{worker.name} sends to {table.champion}, where nothing answers")
                if ours and named is not None and self._share(named, table) < least:
                    text = f"{worker.name} gives version {named} {self._share(named, table)} bp of the traffic"
                    broken("alias-serves", f"alias champion names it, and {text}")

    def _share(self, version: str, table: RouteTable) -> int:
        """Basis points of the units that really get ``version`` by ``table``."""
        behind = self.world.workloads.behind
        share = 0
        if table.challenger is not None and behind(table.challenger.upstreams[0]) == version:
            share += table.weight_bp
        if behind(table.champion.upstreams[0]) == version:
            share += POINTS - (table.weight_bp if table.challenger is not None else 0)
        return share

    def _challenger(self) -> str | None:
        attempt = self.world.status.attempt
        return attempt.challenger if attempt is not None and attempt.champion != attempt.challenger else None
