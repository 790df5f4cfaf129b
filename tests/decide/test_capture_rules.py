"""What a rollout declares about captured bodies is what the routers are told."""

import json

import pytest
from pydantic import ValidationError

from controller.core.evolve import evolve
from controller.core.fold import EMPTY
from router.redaction import Redactor
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


@pytest.mark.parametrize("name", ["%%%", "***", "_", " ", "\U0001f511", "\u200b", "\ufdfa", "\u0308"])
def test_a_name_that_would_hide_nothing_is_refused_where_it_is_declared_and_by_the_routers(name: str) -> None:
    with pytest.raises(ValidationError, match=r"redact\.1\n.*has no letter or digit"):
        rollout(traffic={"router": {"capture": {"redact": ["pnr", name]}}})
    with pytest.raises(ValidationError, match=r"redact\.1\n.*has no letter or digit"):
        Capture(redact=("pnr", name))


@pytest.mark.parametrize("name", ["x", "-1-", "\u5bc6\u7801", "\u2460", "\ufb01", "\U0001f130", "\u2122", "\u0345"])
def test_a_name_with_whatever_stands_for_a_letter_is_taken_and_hides(name: str) -> None:
    assert told({"redact": [name]}).redact == (name,)
    assert Redactor((name,)).redact(json.dumps({name: "s3cret"}), "application/json", True).fields == 1
