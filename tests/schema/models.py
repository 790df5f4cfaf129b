"""What the models say to a document, for comparison with what is generated from them."""

import json
from typing import Any

from pydantic import ValidationError

from controller.spec import ModelRollout

# What neither the API server nor an editor is told: lengths of time compared, what stands within a text, and some that
# only come together.
PYTHON_ALONE = (
    "is out of range; allowed is a duration",
    "of a Resource it is from 1s to 1h",
    "must be above 0s",
    "must not be shorter than decision.tick",
    "is longer than every step's hold",
    "more than decision.maxDuration",
    "is longer than decision.maxDuration",
    "must be shorter than decision.maxDuration",
    "must be longer than decision.tick",
    "is as large as LogLoss can be",
    "five numbers above 0 that never fall are needed",
    "is no alias, MLflow keeps it for itself",
    "is no version number",
    "has no host and port that can be",
    "each version needs its own",
    "is unit.header too",
    "stands for nothing; allowed are",
    "cpu grows with the traffic that an arm gets",
    "the query says the same of both arms",
    "the selector says the same of both arms",
    "traffic.gatewayAPI",
)


def refusals(tree: dict[str, Any]) -> list[str]:
    """What the models say against a document as JSON, without taking one type for another."""
    try:
        ModelRollout.model_validate_json(json.dumps(tree), strict=True)
    except ValidationError as error:
        # A list whose items are all refused counts as empty: no fault of its own.
        return [str(e["msg"]) for e in error.errors() if not (e["type"] == "too_short" and e["input"])]
    return []
