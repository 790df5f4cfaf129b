"""The JSON Schema that editors check a rollout file with."""

import json

from controller.schema.rules import RULES, Node
from controller.schema.source import json_schema
from controller.spec import ModelRollout

ID = "https://understudy.dev/rollout.schema.json"


def editor_schema() -> Node:
    """JSON Schema (draft 2020-12) of a ``ModelRollout`` as written in YAML."""
    schema = json_schema(ModelRollout)
    for rule in RULES:
        if rule.editor is not None:
            schema["$defs"][rule.on].setdefault("allOf", []).append({"$comment": rule.message, **rule.editor})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": ID, **schema}


def editor_json() -> str:
    """``editor_schema`` as the text of its file."""
    return json.dumps(editor_schema(), indent=2, ensure_ascii=False) + "\n"
