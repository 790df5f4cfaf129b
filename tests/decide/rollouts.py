"""Declared rollouts, statuses and evidence that the tests of the decision start from."""

import math
from typing import Any

from controller.core.evidence import Evidence, Verdict
from controller.metric import Role
from controller.spec import ModelRollout
from controller.specfile import parse
from controller.status import Observed, RolloutStatus

TEXT = """
apiVersion: understudy.dev/v1alpha1
kind: ModelRollout
metadata: {name: late}
spec:
  model: {name: flight-delay}
  unit: {header: x-unit-id}
  steps: [{weight: 10, hold: 10m}, {weight: 50, hold: 10m}]
  metrics:
    - {name: ctr, kind: Proportion, outcome: click, window: 1m, margin: 5%, role: Success}
    - {name: errors, kind: ErrorRate, margin: 0.5pp}
  decision: {tick: 60s, block: 60s, minUnits: 100, maxDuration: 2h, grace: 0s}
"""


def rollout(**spec: Any) -> ModelRollout:
    """The rollout of ``TEXT`` with parts of its spec replaced (YAML names)."""
    tree = parse(TEXT).model_dump(mode="json", by_alias=True, exclude_none=True)
    for field, value in spec.items():
        old = tree["spec"].get(field)
        tree["spec"][field] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    return ModelRollout.model_validate(tree)


def ready(**observed: Any) -> Observed:
    """A world in which everything is there."""
    return Observed(
        champion_alias="1",
        challenger_alias="2",
        champion_upstreams=("127.0.0.1:1",),
        challenger_upstreams=("127.0.0.1:2",),
        champion_ready=True,
        challenger_ready=True,
        confirmed=1_000_000,
    ).model_copy(update=observed)


def fresh(**fields: Any) -> RolloutStatus:
    """A rollout nobody has looked at yet, in a world in which everything is there."""
    return RolloutStatus(uid="u", rollout="late", observed=ready()).model_copy(update=fields)


def seen(metric: str = "ctr", **fields: Any) -> Evidence:
    """Evidence that proves the challenger not worse; parts replaced."""
    errors = metric == "errors"
    base = Evidence(
        metric=metric,
        segment="",
        role=Role.GUARDRAIL if errors else Role.SUCCESS,
        service=errors,
        paired=False,
        estimate=0.0,
        se=0.001,
        lower=-0.002,
        upper=0.002,
        margin=0.0025,
        champion=0.05,
        log_e_harm=0.0,
        log_e_non_inferior=math.log(20),
        log_e_superior=0.0,
        units=(10_000, 10_000),
        gate=True,
        last=True,
        due=True,
        verdict=Verdict.NOT_WORSE,
    )
    return base._replace(**fields)
