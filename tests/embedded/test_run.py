"""One rollout on one machine, from mirror to promotion, looked at from all sides."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from controller.core.replay import derive, differs
from controller.edges.store import SqliteStore
from controller.embedded.folder import Folder
from tests.embedded import registered, rollouts
from tests.embedded.killing import Killer
from tests.embedded.ledger import AliasWatch, Messages, journaled_outcomes
from tests.embedded.machine import Machine, of_the_folder
from tests.embedded.traffic import Traffic

# Four programs start on what may be a busy machine with two cores.
pytestmark = pytest.mark.timeout(500)


LABEL = {"outcome": "label", "window": "2s", "role": "Observe"}
LIMIT = {"name": "memory", "kind": "Resource", "query": "memory", "limit": "64Gi", "window": "1s"}
# What only reports, of every kind that answers, labels and outcomes can feed.
REPORTED = [
    *({"name": k.lower(), "kind": k, **LABEL} for k in ("Precision", "Recall", "F1", "Auc", "LogLoss", "Brier")),
    {"name": "size", "kind": "AbsoluteError", "cap": "1", **LABEL},
    {"name": "square", "kind": "SquaredError", "cap": "1", **LABEL},
    {"name": "clicks", "kind": "Ratio", "numerator": "click", "denominator": "requests", "window": "2s",
     "role": "Observe"},
    {"name": "back", "kind": "ActiveUnits", "window": "2s", "role": "Observe"},
    {"name": "same", "kind": "Disagreement", "role": "Observe"},
    {"name": "visits", "kind": "Throughput", "role": "Observe"},
    {"name": "cores", "kind": "Resource", "query": "cpu", "limit": 100, "window": "1s", "role": "Observe"},
]  # fmt: skip


class Seen(NamedTuple):
    """What was seen of the run."""

    machine: Machine
    code: int
    said: dict[str, Any]
    users: Traffic
    aliases: dict[str, list[str | None]]
    second: tuple[int, str]


@pytest.fixture(scope="module")
def seen(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("run")
    registered.copy_store(store, folder / "state" / "mlflow")
    plan = rollouts.plan()
    plan["spec"]["metrics"] += [LIMIT, *REPORTED]
    machine = Machine(folder, plan, ["--until-end", "--output", "json"])
    try:
        traffic, control = machine.addresses(240)
        machine.served(200)
        with AliasWatch(Killer(machine, 1).tracking()) as aliases:
            # Traffic ends first, so that nobody meets the router's end.
            with Traffic(traffic, control, 1, units=50_000) as users:
                machine.until("the first weight", lambda s: s.status.step > 0, 200)
                second = Machine(folder, plan, [])
                refused = second.ended(60), second.said()
                machine.until("the promotion", lambda s: bool(s.status.alias_moves) or s.status.progress.terminal, 200)
            code = machine.ended(120)
        said = json.loads(machine.out.read_text().splitlines()[-1])
        yield Seen(machine, code, said, users, aliases.seen, refused)
    finally:
        machine.kill()


def test_an_equal_challenger_is_promoted_and_the_exit_code_says_so(seen: Seen) -> None:
    assert seen.code == 0, seen.machine.said()
    (rollout,) = seen.said["rollouts"]
    assert (rollout["result"], rollout["champion"], rollout["challenger"]) == ("Promoted", "1", "2")
    assert rollout["mlflow_run"]
    assert min(rollout["units"].values()) > 100
    assert rollout["lower"] < rollout["estimate"] < rollout["upper"]


def test_no_user_sees_an_error(seen: Seen) -> None:
    assert seen.users.sent > 500
    assert seen.users.troubles == []


def test_the_champions_alias_moves_once_and_the_challengers_goes(seen: Seen) -> None:
    assert seen.aliases["champion"] == ["1", "2"]
    assert seen.aliases["challenger"] == ["2", None]


def test_every_acknowledged_outcome_is_in_the_journal_once(seen: Seen) -> None:
    journaled = journaled_outcomes(seen.machine.state / "journal")
    assert seen.users.acknowledged
    assert {outcome: journaled[outcome] for outcome in seen.users.acknowledged if journaled[outcome] != 1} == {}


def test_each_transition_is_told_once(seen: Seen) -> None:
    messages = Messages(seen.machine.state, seen.machine.name)
    assert (messages.missing, messages.unexpected, messages.repeats) == (set(), set(), 0)
    assert messages.promotions == 1


def test_every_decision_derives_again_from_its_record(seen: Seen) -> None:
    store = SqliteStore(seen.machine.state / "rollouts.sqlite")
    records = store.records(seen.machine.name)
    store.close()
    assert len(records) >= 6
    assert [found for record in records if (found := differs(record))] == []


def test_every_kind_has_data_of_both_arms_where_it_can(seen: Seen) -> None:
    store = SqliteStore(seen.machine.state / "rollouts.sqlite")
    derived = [derive(record).evidence for record in store.records(seen.machine.name)]
    store.close()
    units: dict[tuple[str, bool], int] = {}
    for e in (e for evidence in derived for e in evidence):
        units[e.metric, e.paired] = max(units.get((e.metric, e.paired), 0), min(e.units))
    names = {m["name"] for m in REPORTED}
    # A mirror's kind, and a limit without a margin: of that only the challenger's windows count.
    assert {name for name in names if units.get((name, False), 0) == 0} == {"same", "cores"}
    mirrored = {"same", "precision", "recall", "f1", "auc", "logloss", "brier", "size", "square"}
    assert {name for name in names if units.get((name, True), 0) > 0} <= mirrored
    assert units["same", True] > 0


def test_a_second_run_in_the_same_folder_is_refused_with_the_first_ones_process_id(seen: Seen) -> None:
    code, said = seen.second
    assert code == 1
    assert f"is in use: `understudy run` with process id {seen.machine.process.pid}" in said
    assert "Traceback" not in said


def test_nothing_is_left_running_or_locked(seen: Seen) -> None:
    assert of_the_folder(seen.machine.state) == []
    folder = Folder(seen.machine.state)
    folder.close()
