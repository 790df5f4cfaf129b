"""Rollouts as text, and what is said against them."""

import copy
import json
from typing import Any

from controller.errors import SpecError
from controller.specfile import parse

TEXT = """\
apiVersion: understudy.dev/v1alpha1
kind: ModelRollout
metadata: {name: ranking}
spec:
  model: {name: ranking}
  unit: {header: x-unit-id}
  steps: [{mirror: 100, hold: 10m}, {weight: 5, hold: 1h}, {weight: 50, hold: 1d}]
  metrics:
    - {name: errors, kind: ErrorRate, margin: 0.05pp}
    - {name: ctr, kind: Proportion, outcome: click, window: 30m, margin: 2%, role: Success}
  decision: {minUnits: 2000, maxDuration: 14d}
"""
TREE = json.loads(parse(TEXT).model_dump_json(by_alias=True, exclude_none=True, exclude_unset=True))


def refusals(text: str | bytes) -> list[str]:
    """The lines said against a document; none where it is accepted. Anything but a SpecError is a failure."""
    try:
        parse(text, "a.yaml")
    except SpecError as error:
        said = list(error.problems) or [""]
    else:
        return []
    assert all(line and "\n" not in line and len(line) < 700 for line in said)
    return said


def changed(path: str, value: Any) -> str:
    """The rollout with one value set (``metrics.0.margin``, below spec), as JSON, which is YAML too."""
    tree = copy.deepcopy(TREE)
    at = tree["spec"]
    *parents, last = path.split(".")
    for part in parents:
        at = at[int(part)] if part.isdigit() else at.setdefault(part, {})
    if isinstance(at, list):
        at[int(last)] = value
    else:
        at[last] = value
    return json.dumps(tree)
