"""A record derives its decision again, bit for bit, and a tampered one is found out."""

import json

import pytest

from controller.core.cells import Block, EpochCounts, EpochPlan, Losses, ScoreCell
from controller.core.evolve import evolve
from controller.core.fold import EMPTY, Fold, Statistics, fold
from controller.core.plans import query
from controller.core.record import Record, canonical
from controller.core.replay import derive, differs, inputs
from controller.status import RolloutStatus
from tests.decide.rollouts import fresh, rollout
from tests.evidence.drawn import once

MINUTE = 60_000_000
SPEC = rollout(
    metrics=[
        {
            "name": "ctr",
            "kind": "Proportion",
            "outcome": "click",
            "window": "1m",
            "margin": "5%",
            "baseline": {"mean": 0.05},
        },
        {"name": "errors", "kind": "ErrorRate", "margin": "0.5pp", "baseline": {"mean": 0.001}},
    ]
).spec


def harmed() -> tuple[RolloutStatus, Statistics, int]:
    status = evolve(SPEC, fresh(), EMPTY, MINUTE).status
    status = evolve(SPEC, status, EMPTY, 2 * MINUTE).status
    asked = query("late", SPEC, status)
    epoch: EpochPlan = asked.epochs[0]
    folds: dict[tuple[str, str], Fold] = {}
    for plan in asked.metrics:
        state: Fold | None = None
        for block in range(10):
            if plan.family == "failures":
                cells = Block(plan.name, "", 1, block, *once(epoch.pi_ppm, (900, 1), (100, 30)))
            else:
                some = ScoreCell(900, 900, 45_000_000, 45 * 10**12, 45_000_000, 900, 45, 10**25)
                cells = Block(plan.name, "", 1, block, some, some)
            state = fold(plan, epoch, state, cells)
        assert state is not None
        folds[(plan.name, "")] = state
    counts = {1: EpochCounts(1, 9000, 1000, 9000, 1000, 0, 9000, 1000)}
    return status, Statistics(folds, {}, {}, counts, Losses(10_000), 3 * MINUTE), 3 * MINUTE


def recorded() -> Record:
    record = evolve(SPEC, *harmed()).record
    assert record is not None
    return record


def test_the_inputs_of_a_record_are_what_evolve_was_called_with() -> None:
    status, statistics, now = harmed()
    assert inputs(recorded()) == (SPEC, status, statistics, now)


def test_a_record_derives_again_bit_for_bit() -> None:
    record = recorded()
    assert record.decision == "RollBack"
    assert differs(record) is None
    assert canonical(derive(record).status) == canonical(evolve(SPEC, *harmed()).status)


def test_a_record_that_was_changed_does_not_derive_again() -> None:
    record = recorded()
    tree = json.loads(record.inputs)
    tree["statistics"]["folds"]["errors|"]["ever_harm"] = 0.0
    found = differs(record._replace(inputs=json.dumps(tree)))
    assert found is not None
    assert found.key == record.key


def test_a_record_without_its_inputs_says_so() -> None:
    with pytest.raises(ValueError, match="its inputs are not what"):
        differs(recorded()._replace(inputs="{}"))
