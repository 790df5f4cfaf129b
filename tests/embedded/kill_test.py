"""`python -m tests.embedded.kill_test --kills 20`: SIGKILL to every process of a run, and what must still be true.

Each round is one rollout, from mirror to promotion, in the same run under the same traffic; in each round every kind
of process is killed once (or ``--per-round`` times) at a random moment of it, one of controller, MLflow and the run
itself while it promotes. A challenger that is killed is a challenger that fails, and by the rules that may end the
rollout; so this rollout is decided by what users do (clicks), may fall back as often as it likes, and stays below the
breaker's limit of a minute. What it must not do is to end otherwise than without kills: promoted, every time.

Prints one line per round and a JSON object with all counts; the exit code is 1 if a claim does not hold.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from controller.edges.store import SqliteStore
from controller.ports import Stored
from controller.status import PersonRequest, Progress, Reason
from tests.embedded import registered, rollouts
from tests.embedded.killing import KINDS, Killer
from tests.embedded.ledger import (
    AliasWatch,
    Messages,
    journaled_outcomes,
    read_aliases,
    set_alias,
    unknown_to_the_engine,
)
from tests.embedded.machine import Machine, of_the_folder, wait_for
from tests.embedded.traffic import Traffic
from tests.ending import as_by_keyboard

CRITICAL = ("controller", "mlflow", "run")  # those that take part in a promotion
STEP_S = 300.0


def plan() -> dict[str, Any]:
    """Decided by clicks of units; a person approves the promotion, so that it can be timed."""
    return rollouts.plan(
        metrics=[
            {"name": "ctr", "kind": "Proportion", "outcome": "click", "window": "1s", "margin": "20pp"},
            {"name": "errors", "kind": "ErrorRate", "role": "Observe", "margin": "5pp"},
            {"name": "accuracy", "kind": "Accuracy", "outcome": "label", "window": "2s", "role": "Observe"},
        ],
        decision={
            "minUnits": 100, "tick": "500ms", "block": "1s", "grace": "500ms", "maxFallback": "100%",
            "approvePromotion": True, "onMismatch": "Hold",
        },
    )  # fmt: skip


class Trial:
    """The rounds of one run in ``folder``."""

    def __init__(self, folder: Path, versions: list[str], seed: int, per_round: int) -> None:
        self._versions, self._per_round = versions, per_round
        self._chance = random.Random(seed)
        self._seed = seed
        self.machine = Machine(folder, plan(), [])
        self.killer = Killer(self.machine, seed)
        self.ends: list[str] = []

    def run(self, rounds: int) -> dict[str, Any]:
        """All rounds; the counts."""
        traffic, control = self.machine.addresses()
        began = time.monotonic()
        self.machine.served(STEP_S)
        with AliasWatch(self.killer.tracking()) as aliases:
            with Traffic(traffic, control, self._seed, rate=100.0, units=50_000) as users:
                for number in range(rounds):
                    self._round(number)
                    print(f"round {number + 1}/{rounds}: {self.ends[-1]}, {len(self.killer.kills)} kills", flush=True)
            stored = self.machine.stored()
        code = self.machine.interrupt(60)
        return self._counts(users, aliases, stored, rounds) | {
            "seconds": round(time.monotonic() - began),
            "exit_code": code,
            "processes_left": len(of_the_folder(self.machine.state)),
        }

    def _round(self, number: int) -> None:
        champion, challenger = self._versions[number], self._versions[number + 1]
        if number:
            set_alias(self.killer.tracking(), "challenger", challenger)
        self._until(
            "the rollout runs",
            lambda s: (
                s.status.progress is Progress.RUNNING
                and s.status.attempt is not None
                and s.status.attempt.challenger == challenger
            ),
        )
        kinds = [kind for kind in KINDS for _ in range(self._per_round)]
        last = CRITICAL[number % len(CRITICAL)]
        kinds.remove(last)
        self._chance.shuffle(kinds)
        for kind in kinds:
            time.sleep(self._chance.uniform(0.0, 2.0))  # the random moment itself
            self.killer.kill(kind, champion, challenger)
        self._until("the promotion waits for approval", lambda s: s.status.reason is Reason.AWAITING_APPROVAL)
        self._approve(number)
        time.sleep(self._chance.uniform(0.0, 2.0))
        self.killer.kill(last, champion, challenger)
        self.ends.append(self._until("the end", lambda s: s.status.end is not None).status.end or "")

        def moved() -> bool:
            return (read_aliases(self.killer.tracking()) or {}).get("champion") == challenger

        wait_for("the alias of the champion", moved, 30)

    def _until(self, what: str, holds: Any) -> Stored:
        def or_over(stored: Stored) -> bool:
            ended = stored.status.end in ("RolledBack", "Held")
            assert not ended, f"{what}: {stored.status.end} {stored.status.reason} {stored.status.message}"
            return bool(holds(stored))

        return self.machine.until(what, or_over, STEP_S)

    def _approve(self, number: int) -> None:
        store = SqliteStore(self.machine.state / "rollouts.sqlite")
        try:
            store.submit(self.machine.name, PersonRequest(id=f"approve-{number}", verb="approve", who="the kill test"))
        finally:
            store.close()

    def _counts(self, users: Traffic, aliases: AliasWatch, stored: Stored, rounds: int) -> dict[str, Any]:
        state = self.machine.state
        journaled, messages = journaled_outcomes(state / "journal"), Messages(state, self.machine.name)
        kills = {kind: sum(kill.kind == kind for kill in self.killer.kills) for kind in KINDS}
        return {
            "rounds": rounds,
            "kills": kills,
            "ends": self.ends,
            "requests": users.sent,
            "errors_while_router_or_champion_were_down": len(users.troubles),
            "errors_otherwise": len(inexcusable := self.killer.inexcusable(users.troubles)),
            "examples": [{"error": t, "kills_around": self.killer.around(t)} for t in inexcusable[:5]],
            "outcomes_acknowledged": len(users.acknowledged),
            "outcomes_lost": len(users.acknowledged - set(journaled)),
            "outcomes_unknown_to_the_engine": len(unknown_to_the_engine(state, stored, users.acknowledged)),
            "champion_alias": aliases.seen["champion"],
            "challenger_alias": aliases.seen["challenger"],
            "records": messages.records,
            "promotions": messages.promotions,
            "messages_due": len(messages.due),
            "messages_missing": sorted(messages.missing),
            "messages_unexpected": sorted(messages.unexpected),
            "messages_repeated": messages.repeats,
            "slowest_recovery_s": round(max(kill.back - kill.at for kill in self.killer.kills), 1),
        }

    def faults(self, counts: dict[str, Any]) -> list[str]:
        """Claims that do not hold."""
        rounds, kills = counts["rounds"], sum(counts["kills"].values())
        expected = self._versions[: rounds + 1]
        counts["errors_while_router_or_champion_were_down"] -= counts["errors_otherwise"]
        claims = {
            "every rollout ends as without kills": counts["ends"] == ["Promoted"] * rounds,
            "one promotion per rollout": counts["promotions"] == rounds,
            "the champion's alias moves once per rollout": counts["champion_alias"] == expected,
            "no acknowledged outcome is lost": counts["outcomes_lost"] == 0,
            "the engine has every acknowledged outcome": counts["outcomes_unknown_to_the_engine"] == 0,
            "no message is missing": not counts["messages_missing"],
            "no message is made up": not counts["messages_unexpected"],
            "at most one repeat per kill": counts["messages_repeated"] <= kills,
            "no error while router and champion were there": counts["errors_otherwise"] == 0,
            "traffic went through": counts["requests"] > 0 and counts["outcomes_acknowledged"] > 0,
            "it ends on Ctrl-C and leaves nothing": counts["exit_code"] == 0 and counts["processes_left"] == 0,
        }
        return [claim for claim, holds in claims.items() if not holds]


def trial(folder: Path, store: Path | None, rounds: int, seed: int, per_round: int) -> tuple[dict[str, Any], list[str]]:
    """A whole trial in ``folder``; the counts, and the claims that do not hold."""
    mlflow = folder / "state" / "mlflow"
    if store is None:
        registered.make_store(mlflow)
    else:
        registered.copy_store(store, mlflow)
    versions = ["1", "2"]
    if rounds > 1:
        with registered.tracking_server(mlflow) as uri:
            versions += [registered.register(uri, registered.MODEL, shift=0.01) for _ in range(rounds - 1)]
    trials = Trial(folder, versions, seed, per_round)
    try:
        counts = trials.run(rounds)
    finally:
        trials.machine.kill()
    return counts, trials.faults(counts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of each kind of process")
    parser.add_argument("--per-round", type=int, default=1, help="kills of each kind in one rollout")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    as_by_keyboard()
    rounds = -(-given.kills // given.per_round)
    with tempfile.TemporaryDirectory(prefix="understudy-kills-") as folder:
        counts, faults = trial(Path(folder), None, rounds, given.seed, given.per_round)
    print(json.dumps(counts, indent=1))
    for fault in faults:
        print(f"does not hold: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
