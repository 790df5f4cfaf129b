"""The JSON Schema that pydantic makes of the declared models, with what pydantic leaves out put right."""

import copy
from typing import Any

from pydantic import BaseModel

from controller.quantities import DURATION_PATTERN, LARGEST, SMALLEST, WRITTEN, format_duration
from controller.sections import LARGEST_VERSION, VERSION_PATTERN
from controller.spec import SERVERS_OWN

Node = dict[str, Any]

_POSITIVE = r"([0-9]*[1-9][0-9]*(\.[0-9]+)?|[0-9]+\.[0-9]*[1-9][0-9]*)"
_VERSION: Node = {
    "anyOf": [
        {"type": "integer", "minimum": 1, "maximum": LARGEST_VERSION},
        {"type": "string", "minLength": 1, "maxLength": 255, "pattern": VERSION_PATTERN},
    ]
}
_MARGIN: Node = {
    "anyOf": [
        {"type": "number", "minimum": SMALLEST, "maximum": LARGEST},
        {"type": "string", "pattern": f"^{_POSITIVE}(pp|%)?$", "maxLength": WRITTEN},
        {"type": "null"},
    ]
}
_HARM_MARGIN: Node = {
    "anyOf": [
        {"type": "number", "minimum": 0, "maximum": LARGEST},
        {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(pp|%)?$", "maxLength": WRITTEN},
        {"type": "null"},
    ]
}
_LIMIT: Node = {
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0, "maximum": LARGEST},
        {"type": "string", "pattern": f"^{_POSITIVE}(k|M|G|T|Ki|Mi|Gi|Ti)?$", "maxLength": WRITTEN},
        {"type": "null"},
    ]
}
# What validators say in Python only. (model, field): replaces what pydantic knows of the value.
OVERRIDES: dict[tuple[str, str], Node] = {
    ("Model", "champion"): _VERSION,
    ("Model", "challenger"): _VERSION,
    ("Metric", "margin"): _MARGIN,
    ("Metric", "harmMargin"): _HARM_MARGIN,
    ("Metric", "limit"): _LIMIT,
}
_KEPT = ("description", "default")


def json_schema(model: type[BaseModel]) -> Node:
    """The schema of ``model`` as people write it (aliases), with ``$defs``."""
    schema = model.model_json_schema(by_alias=True)
    for (name, field), value in OVERRIDES.items():
        properties = schema.get("$defs", {}).get(name, {}).get("properties")
        if properties is not None:
            kept = {k: v for k, v in properties[field].items() if k in _KEPT}
            properties[field] = {**copy.deepcopy(value), **kept}
    metadata = schema.get("$defs", {}).get("Metadata")
    if metadata is not None:
        metadata["properties"] |= {name: {} for name in SERVERS_OWN}
    tidied: Node = _tidied(schema)
    return tidied


def _tidied(node: Any) -> Any:
    """Without titles; defaults and descriptions as people would write them."""
    if isinstance(node, list):
        return [_tidied(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {k: _tidied(v) for k, v in node.items() if k != "title" or not isinstance(v, str)}
    if isinstance(made.get("description"), str):
        text = made["description"].replace("microseconds; written as", "a duration such as")
        made["description"] = text.replace("``", "`").replace("\n", " ").strip()
    if made.get("default") is None and "default" in made:
        del made["default"]
    default = made.get("default")
    if isinstance(default, int) and not isinstance(default, bool) and made.get("pattern") == DURATION_PATTERN:
        made["default"] = format_duration(default)
    if isinstance(default, float) and _is_percent(made):
        made["default"] = f"{default * 100:.12g}%"
    return made


def _is_percent(node: Node) -> bool:
    return any(str(part.get("pattern", "")).endswith("%?$") for part in node.get("anyOf", ()))


def resolved(node: Node, defs: Node) -> Node:
    """``node`` with its ``$ref`` replaced by what it names; what stands beside the reference wins."""
    if "$ref" not in node:
        return node
    beside = {k: v for k, v in node.items() if k != "$ref"}
    return {**defs[node["$ref"].rsplit("/", 1)[1]], **beside}


def reference(node: Node) -> str | None:
    """The model that ``node``, or its one alternative beside null, refers to."""
    parts = [node, *node.get("anyOf", ())]
    return next((part["$ref"].rsplit("/", 1)[1] for part in parts if "$ref" in part), None)
