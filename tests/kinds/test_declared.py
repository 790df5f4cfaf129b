"""What may be declared of each kind: the right fields are accepted, wrong ones refused by name."""

import pytest

from controller.kinds import KINDS, Kind
from controller.specfile import parse, unsupported
from tests.spec.documents import refusals

LABEL = "outcome: late, window: 1h, margin: 1pp"
RIGHT = {
    Kind.PRECISION: LABEL,
    Kind.RECALL: LABEL,
    Kind.F1: LABEL,
    Kind.AUC: "outcome: late, window: 1h, margin: 0.01",
    Kind.ABSOLUTE_ERROR: "outcome: late, window: 1h, margin: 5%, cap: p99",
    Kind.SQUARED_ERROR: "outcome: late, window: 1h, margin: 5%",
    Kind.RATIO: "numerator: buy, denominator: requests, window: 1h, margin: 5%, cap: p99.9, goal: Decrease",
    Kind.ACTIVE_UNITS: "window: 1d, margin: 1pp",
    Kind.DISAGREEMENT: "margin: 2pp",
    Kind.LATENCY: "limit: 250, quantile: 0.95",
    Kind.RESOURCE: "query: memory, limit: 2Gi, margin: 10%, window: 30s",
    Kind.THROUGHPUT: "margin: 2%",
}


def document(metric: str, steps: str = "{mirror: 100}, {weight: 50}") -> str:
    return f"""
apiVersion: understudy.dev/v1alpha1
kind: ModelRollout
metadata: {{name: late}}
spec:
  model: {{name: flight-delay}}
  unit: {{header: x-unit-id}}
  steps: [{steps}]
  metrics: [{{name: errors, kind: ErrorRate, margin: 1pp}}, {{name: m, {metric}}}]
"""


@pytest.mark.parametrize("kind", RIGHT)
def test_a_kind_with_its_fields_is_accepted(kind: Kind) -> None:
    spec = parse(document(f"kind: {kind}, {RIGHT[kind]}")).spec
    assert unsupported(spec) == []
    assert KINDS[kind].supported


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("kind: Precision, outcome: late, margin: 1pp", "window (m): is missing; kind Precision needs"),
        (f"kind: F1, {LABEL}, cap: p99", "cap (m): kind F1 does not take it"),
        ("kind: SquaredError, window: 1h, margin: 5%", "outcome (m): is missing; kind SquaredError needs"),
        ("kind: Ratio, numerator: buy, window: 1h, margin: 5%", "denominator (m): is missing; kind Ratio needs"),
        (
            "kind: Ratio, numerator: a, denominator: a, window: 1h, margin: 5%",
            "denominator (m): a is the numerator too",
        ),
        ("kind: ActiveUnits, margin: 1pp", "window (m): is missing; kind ActiveUnits needs"),
        ("kind: ActiveUnits, window: 1d, outcome: x, margin: 1pp", "outcome (m): kind ActiveUnits does not take it"),
        ("kind: Resource, limit: 2Gi", "query (m): is missing; kind Resource needs"),
        ("kind: Resource, query: memory", "margin (m): is missing; a Guardrail needs one"),
        ("kind: Resource, query: memory, limit: 0", "limit (m): 0 must be above 0"),
        ("kind: Resource, query: cpu, margin: 10%", "margin (m): cpu grows with the traffic that an arm gets"),
        (
            "kind: Resource, query: up, margin: 10%",
            "margin (m): the query says the same of both arms; $arm or $version",
        ),
        (
            "kind: Resource, query: 'x{p=\"$pod\"}', limit: 1",
            "query (m): $pod stands for nothing; allowed are $arm, $ver",
        ),
        ("kind: Resource, query: memory, limit: 1, role: Success", "role (m): a Resource is never proven better"),
        (
            "kind: Resource, query: memory, limit: 1, harmMargin: 1%",
            "harmMargin (m): without a margin the arms are not",
        ),
        ("kind: Resource, query: memory, limit: 1, window: 2h", "window (m): of a Resource it is from 1s to 1h"),
        ("kind: Proportion, outcome: click, window: 0s, margin: 5%", "window (m): must be above 0s"),
        ("kind: Latency, limit: 2Gi", "limit (m): 2Gi is a size; of a Latency it is a number of milliseconds"),
        ("kind: Throughput, margin: 0.02", "margin (m): 0.02 of Throughput must be relative, such as 2%"),
        ("kind: Throughput, limit: 5, margin: 2%", "limit (m): kind Throughput does not take it"),
        ("kind: Disagreement, margin: 2%", "margin (m): 2% of Disagreement must be absolute, such as 1pp or 0.01"),
        (
            "kind: Disagreement, role: Success, margin: 2pp",
            "role (m): Disagreement is only seen in a mirror and cannot",
        ),
        ("kind: Auc, outcome: late, window: 1h, margin: 5%", "margin (m): 5% of Auc must be absolute"),
        ("kind: Recall, outcome: late, window: 1h", "margin (m): is missing; a Guardrail needs one"),
    ],
)
def test_a_wrong_field_is_named(metric: str, said: str) -> None:
    (found,) = refusals(document(metric))
    assert found.startswith(f"spec.metrics[1].{said}")


def test_a_disagreement_needs_a_mirror_and_company() -> None:
    metric = "kind: Disagreement, margin: 2pp"
    (found,) = refusals(document(metric, "{weight: 50}"))
    assert found == "spec.metrics[1].kind (m): Disagreement is only seen in a mirror, and steps has none"
    (found,) = refusals(document(metric).replace("{name: errors, kind: ErrorRate, margin: 1pp}, ", ""))
    assert found.startswith("spec.metrics: at least one Guardrail or Success that is not only seen in a mirror")


def test_limits_alone_prove_nothing_so_a_rollout_needs_a_comparison_as_well() -> None:
    text = document("kind: Resource, query: memory, limit: 2Gi").replace(
        "{name: errors, kind: ErrorRate, margin: 1pp}, ", ""
    )
    assert refusals(text)[0].startswith("spec.metrics: at least one Guardrail or Success with a margin is needed")


def test_the_processes_of_an_adopted_server_are_not_ours_to_measure() -> None:
    for servers, metric, refused in (
        ("challenger: {url: 'http://b:1'}", "query: memory, limit: 2Gi", "challenger"),
        ("champion: {url: 'http://a:1'}", "query: memory, limit: 2Gi", None),
        ("champion: {url: 'http://a:1'}", "query: memory, margin: 10%", "champion"),
        ("challenger: {url: 'http://b:1'}", "query: 'max(rss{v=\"$version\"})', limit: 2Gi", None),
    ):
        text = document(f"kind: Resource, {metric}").replace("  unit:", f"  servers: {{{servers}}}\n  unit:")
        said = refusals(text)
        assert bool(said) is (refused is not None)
        assert refused is None or f"measured at our own servers, and servers.{refused} is adopted" in said[0]
