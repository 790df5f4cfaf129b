"""The README's table of fields."""

from collections.abc import Iterator

from controller.quantities import DURATION_PATTERN
from controller.schema.rules import Node
from controller.schema.source import json_schema, resolved
from controller.spec import ModelRollout

BEGIN, END = "<!-- fields:begin -->", "<!-- fields:end -->"
_UNSET = object()


def with_table(readme: str) -> str:
    """``readme`` with the table between its marks. ValueError where a mark is missing or stands twice."""
    for mark in (BEGIN, END):
        if readme.count(mark) != 1:
            raise ValueError(f"the mark {mark} has to stand in it once, it is there {readme.count(mark)} times")
    before, rest = readme.split(BEGIN)
    if END not in rest:
        raise ValueError(f"{END} stands before {BEGIN}")
    return f"{before}{BEGIN}\n{table()}{END}{rest.split(END)[1]}"


def table() -> str:
    """Every field under ``spec``, in the order of the models, as a Markdown table."""
    schema = json_schema(ModelRollout)
    lines = ["| field | value | default | meaning |", "|---|---|---|---|"]
    for path, node, required in _fields(schema["properties"]["spec"], schema["$defs"], ""):
        default = "*needed*" if required else _default(node)
        meaning = str(node.get("description", "")).replace("|", "\\|")
        lines.append(f"| `{path}` | {_value(node)} | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def _fields(node: Node, defs: Node, path: str) -> Iterator[tuple[str, Node, bool]]:
    node = _held(node, defs)
    for name, field in node.get("properties", {}).items():
        here, held = f"{path}.{name}" if path else name, _held(field, defs)
        listed = held.get("type") == "array"
        yield here, {**held, **field}, name in node.get("required", ())
        yield from _fields(held["items"] if listed else held, defs, f"{here}[]" if listed else here)


def _held(node: Node, defs: Node) -> Node:
    """The one thing ``node`` may be beside null, without its reference."""
    parts = [part for part in node.get("anyOf", ()) if part.get("type") != "null"]
    if len(parts) == 1:
        return {**resolved(parts[0], defs), **{k: v for k, v in node.items() if k != "anyOf"}}
    return resolved(node, defs)


def _default(node: Node) -> str:
    default = node.get("default", _UNSET)
    if default is _UNSET or isinstance(default, dict | list):
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _value(node: Node) -> str:
    parts = [part for part in node.get("anyOf", ()) if part.get("type") != "null"]
    if len(parts) > 1:
        return _number_or_text(parts)
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    match node.get("type"):
        case "array":
            return f"list, at most {node['maxItems']}"
        case "object":
            return "" if "properties" in node else "mapping"
        case "string":
            return "duration" if node.get("pattern") == DURATION_PATTERN else "text"
        case "number" | "integer":
            return f"{'whole number' if node['type'] == 'integer' else 'number'}{_bounds(node)}"
        case "boolean":
            return "`true`, `false`"
    return str(node.get("type", ""))


def _number_or_text(parts: list[Node]) -> str:
    pattern = next(str(part.get("pattern", "")) for part in parts if part["type"] == "string")
    if "(pp|%)" in pattern:
        return "margin: `0.05pp`, `2%`, number"
    if "(k|M|" in pattern:
        return "number or size: `2Gi`"
    if "(p0?" in pattern:
        return "quantile: `p99.9`, number"
    return "percent: `1%`" if "%" in pattern else "alias or version number"


def _bounds(node: Node) -> str:
    said = [
        f"{words} {node[bound]}"
        for bound, words in (
            ("exclusiveMinimum", "above"),
            ("minimum", "from"),
            ("exclusiveMaximum", "below"),
            ("maximum", "to"),
        )
        if bound in node
    ]
    return f" {' '.join(said)}" if said else ""
