"""The CRD is a structural schema within the API server's rules, and says what the models say."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from controller.kinds import KINDS
from controller.schema.crd import crd, crd_yaml, structural
from controller.schema.rules import RULES
from controller.spec import ModelRollout
from controller.status import RolloutStatus

ANY, EITHER, CEL = "x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string", "x-kubernetes-validations"
KNOWN = {
    "type", "description", "properties", "required", "items", "additionalProperties", "enum", "pattern", "format",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "minItems", "maxItems",
    "maxProperties", "nullable", "allOf", "not", ANY, EITHER, CEL,
    "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
}  # fmt: skip
# What may not stand inside allOf, anyOf, not: there a schema only restricts.
STRUCTURE = {"type", "description", "default", "additionalProperties", "nullable"}
VERSION = crd()["spec"]["versions"][0]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]


def nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema of a tree, without those inside logical operators."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from nodes(node[key], f"{path}[]")


def logic(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The schemas inside the logical operators of a schema."""
    for key in ("allOf", "anyOf", "oneOf", "not"):
        inner = node.get(key, [])
        for part in inner if isinstance(inner, list) else [inner]:
            yield part
            yield from logic(part)
    for child in node.get("properties", {}).values():
        yield from logic(child)


def test_every_schema_has_a_type_or_says_that_it_takes_several() -> None:
    untyped = [p for p, n in nodes(SCHEMA) if "type" not in n and ANY not in n and EITHER not in n]
    assert untyped == []


def test_the_server_meets_no_keyword_that_it_does_not_know() -> None:
    strange = {(p, key) for p, n in nodes(SCHEMA) for key in n if key not in KNOWN}
    assert {key for _, key in strange} == {"default"}


def test_only_the_status_has_a_default_and_says_that_nobody_has_looked() -> None:
    """A new default of the spec must not rewrite stored objects. kstatus takes an object without a status for done."""
    assert {p: n["default"] for p, n in nodes(SCHEMA) if "default" in n} == {
        ".status": {"uid": "", "observedGeneration": -1}
    }


def test_no_schema_has_both_properties_and_additional_ones() -> None:
    assert [p for p, n in nodes(SCHEMA) if "properties" in n and "additionalProperties" in n] == []


def test_bounds_are_exclusive_by_a_truth_value() -> None:
    found = [n for _, n in nodes(SCHEMA) for k in ("exclusiveMinimum", "exclusiveMaximum") if k in n]
    assert found
    assert all(n.get("exclusiveMinimum", True) is True and n.get("exclusiveMaximum", True) is True for n in found)


def test_inside_logic_a_schema_only_restricts_fields_that_are_declared_outside() -> None:
    inside = [part for _, n in nodes(SCHEMA) for part in logic({k: n[k] for k in ("allOf", "not") if k in n})]
    assert inside
    assert [part for part in inside if STRUCTURE & part.keys()] == []


def test_every_list_and_text_of_the_plan_has_a_bound_so_that_rules_have_a_known_cost() -> None:
    plan = SCHEMA["properties"]["spec"]
    lists = [p for p, n in nodes(plan) if n.get("type") == "array" and "maxItems" not in n]
    unbounded = [
        p for p, n in nodes(plan)
        if n.get("type") == "string" and not {"maxLength", "enum"} & n.keys() and not _is_bounded(n)
    ]  # fmt: skip
    assert (lists, unbounded) == ([], [])


def _is_bounded(node: dict[str, Any]) -> bool:
    return "{1,2}" in node.get("pattern", "")  # a cap; no rule reads it


def test_every_rule_names_fields_that_have_a_type() -> None:
    # CEL does not see a field without one, and the server refuses the whole definition.
    seen = 0
    for path, node in nodes(SCHEMA):
        for rule in node.get(CEL, ()):
            seen += 1
            for name, field in node["properties"].items():
                if f"self.{name})" in rule["rule"] or f"self.{name} " in rule["rule"]:
                    assert "type" in field or EITHER in field, f"{path}: {rule['rule']}"
    assert seen >= sum(r.cel is not None for r in RULES)


def test_every_kind_of_metric_is_named_by_the_rules_of_the_metric() -> None:
    metric = SCHEMA["properties"]["spec"]["properties"]["metrics"]["items"]
    said = " ".join(rule["rule"] for rule in metric[CEL])
    assert all(f"'{kind}'" in said for kind in KINDS)


def test_a_margin_may_be_a_number_or_a_text_and_a_version_a_whole_number_or_a_text() -> None:
    plan = SCHEMA["properties"]["spec"]["properties"]
    margin, champion = plan["metrics"]["items"]["properties"]["margin"], plan["model"]["properties"]["champion"]
    assert margin[ANY] is True
    assert "type" not in margin
    assert champion[EITHER] is True


def test_a_choice_that_a_structural_schema_cannot_express_is_refused_when_it_is_generated() -> None:
    with pytest.raises(ValueError, match="cannot say"):
        structural({"anyOf": [{"type": "object"}, {"type": "string"}]}, {})


def test_the_fields_are_those_of_the_models() -> None:
    plan, kept = SCHEMA["properties"]["spec"], SCHEMA["properties"]["status"]
    spec = ModelRollout.model_fields["spec"].annotation
    assert spec is not None
    assert set(plan["properties"]) == {f.alias for f in spec.model_fields.values()}
    assert set(kept["properties"]) == {f.alias for f in RolloutStatus.model_fields.values()}


def test_people_see_step_weight_versions_decision_and_reason_and_more_where_they_ask_for_it() -> None:
    columns = VERSION["additionalPrinterColumns"]
    assert [c["name"] for c in columns if not c.get("priority")] == [
        "Step", "Weight", "Champion", "Challenger", "Decision", "Reason", "Stalled", "Age",
    ]  # fmt: skip
    assert [c["name"] for c in columns if c.get("priority")] == ["Message"]
    for column in columns:
        node = SCHEMA
        if column["name"] == "Age":
            continue  # of every object
        # Of a list, here and only of conditions, one item is picked.
        for part in re.sub(r"\[\?\([^)]*\)\]", ".*", column["jsonPath"]).split(".")[1:]:
            node = node["items"] if part == "*" else node["properties"][part]
        assert node["type"] == column["type"]


def test_the_file_is_the_definition_and_uses_no_anchors() -> None:
    assert yaml.safe_load(crd_yaml()) == crd()
    assert "&id" not in crd_yaml()
