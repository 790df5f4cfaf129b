"""What a rollout declares about captured bodies is what the routers are told."""

import pytest
from pydantic import ValidationError

from controller.core.evolve import evolve
from controller.core.fold import EMPTY
from router.table import Capture
from tests.decide.rollouts import fresh, rollout


def told(capture: dict[str, object]) -> Capture:
    status = evolve(rollout(traffic={"router": {"capture": capture}}).spec, fresh(), EMPTY, 60_000_000).status
    assert status.table is not None
    return status.table.capture


def test_the_declared_rules_reach_the_routers_and_silence_means_the_usual_names() -> None:
    declared = {
        "inputs": 12.5, "answers": 0.01, "failed": False, "redact": ["tail number", "pnr"], "redactDefaults": False,
    }  # fmt: skip
    assert told(declared) == Capture(
        redact=("tail number", "pnr"), redact_defaults=False, inputs_bp=1_250, answers_bp=1, failed=False
    )
    status = evolve(rollout().spec, fresh(), EMPTY, 60_000_000).status
    assert status.table is not None
    assert status.table.capture == told({}) == Capture()
    assert Capture().redact_defaults


def test_answers_are_all_kept_where_a_metric_reads_scores_from_them() -> None:
    label = {"name": "acc", "kind": "Accuracy", "outcome": "late", "window": "1m", "margin": "0.5pp"}
    router = {"router": {"capture": {"answers": 50}}}
    with pytest.raises(ValidationError, match=r"capture\.answers: acc reads the score from every answer"):
        rollout(metrics=[label], traffic=router)
    rollout(traffic=router)
