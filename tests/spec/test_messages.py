"""What is said about a fault names its path and what is allowed, in words of ours and one line each."""

from typing import Any

import pytest

from controller.kinds import KINDS
from controller.specfile import parse, unsupported
from tests.schema.mutations import mutated
from tests.spec.documents import TEXT, changed, refusals

LIBRARY = ("Input should", "valid ", "function-", "Value error", "pydantic", "is not allowed here")
SUPPORTED = ", ".join(kind for kind, rule in KINDS.items() if rule.supported)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("decision.minUnit", 5, "spec.decision.minUnit: unknown field; did you mean minUnits? known here: mode, promo"),
        ("decision.min_units", 5, "spec.decision.min_units: unknown field; did you mean minUnits?"),
        ("traffic", {"gateway_api": {}}, "spec.traffic.gateway_api: unknown field; did you mean gatewayAPI? known her"),
        ("colour", "red", "spec.colour: unknown field; known here: model, unit, segments, prediction, servers"),
        ("steps.1.wieght", 5, "spec.steps[1].wieght: unknown field; did you mean weight? known here: mirror, weight,"),
        ("metrics.0.kind", "Errorrate", "spec.metrics[0].kind (errors): 'Errorrate' is unknown; did you mean ErrorRat"),
        ("metrics.0", {"name": "auc", "kind": "Drift"}, "spec.metrics[0].kind (auc): Drift is not supported yet; sup"),
        ("metrics.0.goal", "Decrease", "spec.metrics[0].goal (errors): kind ErrorRate does not take it, whose good di"),
        ("metrics.0", {"name": "ctr2", "kind": "Proportion", "margin": "2%", "window": "1h"},
         "spec.metrics[0].outcome (ctr2): is missing; kind Proportion needs outcome, window"),
        ("metrics.0", {"name": "e", "kind": "ErrorRate"}, "spec.metrics[0].margin (e): is missing; a Guardrail needs"),
        ("metrics.0", {"name": "e"}, "spec.metrics[0].kind (e): is missing; one of Proportion, Mean, Ratio"),
        ("metrics.0", 5, "spec.metrics[0]: a mapping is needed, got 5"),
        ("metrics", [], "spec.metrics: must not be empty"),
        ("metrics", {}, "spec.metrics: a list is needed, got a mapping"),
        ("steps.1.weight", 99, "spec.steps[1].weight: 99 is out of range; allowed is a number above 0 and at most 95"),
        ("steps.1.approve", "yes", "spec.steps[1].approve: true or false is needed, got 'yes'"),
        ("steps.1.hold", None, "spec.steps[1].hold: nothing is not a duration; write a number with ms, s, m, h, d or"),
        ("model.name", 7, "spec.model.name: a text is needed, got 7; write it in quotes: '7'"),
        ("decision.mode", "superior", "spec.decision.mode: 'superior' is unknown; did you mean Superior? allowed: Non"),
        ("unit", {}, "spec.unit: exactly one of header, cookie, json, request is needed, got none"),
        ("unit", {"header": "a", "json": "/a"}, "spec.unit: exactly one of header, cookie, json, request is needed, "),
        ("unit", None, "spec.unit: a mapping is needed, got nothing"),
        ("traffic.router.capture.redact", ["pnr", "***"],
         "spec.traffic.router.capture.redact[1]: '***' has no letter or digit and would hide nothing; allowed is"),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_its_path_and_what_is_allowed(path: str, value: Any, said: str) -> None:
    found = refusals(changed(path, value))
    assert len(found) == 1, found
    assert found[0].startswith(said)


def test_what_a_kind_takes_is_never_an_empty_list() -> None:
    (said,) = refusals(changed("metrics.0.goal", "Decrease"))
    assert said.endswith("is always Decrease; it takes name, kind, role, margin, harmMargin, baseline")


def test_a_kind_that_is_not_there_yet_is_said_first_and_its_other_faults_not_at_all() -> None:
    text = TEXT.replace("{name: ctr, kind: Proportion, outcome: click,", "{name: auc, kind: Drift, cap: 5,")
    found = refusals(text.replace("minUnits: 2000", "minUnits: none"))
    assert found[0].startswith("spec.metrics[1].kind (auc): Drift is not supported yet; supported: ")
    assert [line.split(":")[0] for line in found[1:]] == ["spec.decision.minUnits"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("kind: ModelRollout", "kind: Deployment", "kind: is 'Deployment', expected is ModelRollout"),
        ("understudy.dev/v1alpha1", "apps/v1", "apiVersion: is 'apps/v1', expected is understudy.dev/v1alpha1"),
    ],
)
def test_a_document_of_another_kind_is_told_what_is_expected_and_nothing_else(old: str, new: str, said: str) -> None:
    assert refusals(TEXT.replace(old, new)) == [said]


def test_a_field_of_the_spec_that_stands_in_the_metadata_is_told_where_it_belongs() -> None:
    (said,) = refusals(TEXT.replace("{name: ranking}", "{name: ranking, prediction: {}}", 1))
    assert said.startswith("metadata.prediction: unknown field; it belongs under spec; known here: name, namespace")


def test_what_the_api_server_writes_into_the_metadata_is_passed_over() -> None:
    text = TEXT.replace("{name: ranking}", "{name: ranking, uid: u, generation: 3, managedFields: [{}]}", 1)
    assert parse(text) == parse(TEXT)


def test_what_is_not_there_yet_has_the_same_path_wherever_it_is_found() -> None:
    text = TEXT.replace("  decision:", "    - {name: inputs, kind: Drift, role: Observe}\n  decision:")
    (said,) = unsupported(parse(text).spec)
    assert said.startswith("spec.metrics[2].kind (inputs): Drift is not supported yet; supported: Proportion, ")


def test_no_message_is_in_the_words_of_the_library() -> None:
    seen = 0
    for seed in range(800):
        for line in refusals(
            str(mutated(seed)).replace("None", "null").replace("True", "true").replace("False", "false")
        ):
            seen += 1
            assert not any(
                word in line for word in ("Input should", "valid ", "function-", "Value error", "pydantic")
            ), line
            assert line.startswith(("spec", "metadata", "kind", "apiVersion", "a.yaml")), line
    assert seen > 500
