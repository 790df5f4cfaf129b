"""What the models say to a document, for comparison with what is generated from them."""

import json
from typing import Any

from pydantic import ValidationError

from controller.spec import ModelRollout


def refusals(tree: dict[str, Any]) -> list[str]:
    """What the models say against a document as JSON, without taking one type for another."""
    try:
        ModelRollout.model_validate_json(json.dumps(tree), strict=True)
    except ValidationError as error:
        # A list whose items are all refused counts as empty: no fault of its own.
        return [str(e["msg"]) for e in error.errors() if not (e["type"] == "too_short" and e["input"])]
    return []
