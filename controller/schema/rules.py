"""Rules across fields, declared once: as CEL for the API server and as JSON Schema for editors.

``controller.spec`` checks the same in Python and is what decides; these refuse a wrong file earlier, where it is
written. What neither language can say (durations compared that may be days, names that differ in JSON Schema) is left
to Python.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

from pydantic.alias_generators import to_camel

from controller.kinds import ABSOLUTE, KINDS, OPTIONAL, SHARES, Kind
from controller.metric import Role

Node = dict[str, Any]

# Fields without a type in the CRD (a number or a text): CEL does not see them.
UNTYPED = ("margin", "harm_margin", "limit", "cap")
JUDGING = [Role.SUCCESS.value, Role.GUARDRAIL.value]
NEVER_BETTER = [k.value for k, rule in KINDS.items() if rule.family in ("failures", "latency")]
REPORTING = [Role.SIGNAL.value, Role.OBSERVE.value]


class Rule(NamedTuple):
    """A rule on the model ``on``. ``cel`` for the CRD or, where CEL cannot see the fields, ``structural`` (schema
    validations without types); ``editor`` is plain JSON Schema."""

    on: str
    message: str
    cel: str | None = None
    structural: Node | None = None
    editor: Node | None = None


def given(field: str) -> Node:
    """JSON Schema: ``field`` is there and not null."""
    return {"required": [field], "properties": {field: {"not": {"type": "null"}}}}


def _exactly_one(on: str, *fields: str) -> Rule:
    found = ", ".join(f"has(self.{f})" for f in fields)
    return Rule(
        on,
        f"exactly one of {', '.join(fields)} is needed",
        cel=f"[{found}].filter(x, x).size() == 1",
        editor={"oneOf": [given(f) for f in fields]},
    )


def _kinds() -> list[Rule]:
    """What each kind of metric needs and does not take; kinds with the same fields share a rule."""
    alike: dict[tuple[frozenset[str], frozenset[str]], list[Kind]] = {}
    for kind, rule in KINDS.items():
        alike.setdefault((rule.needs, rule.takes), []).append(kind)
    return [rule for (needs, takes), kinds in alike.items() for rule in _of_kinds(kinds, needs, takes)]


def _if_kind(names: list[str], then: Node) -> Node:
    return {"if": {"properties": {"kind": {"enum": names}}, "required": ["kind"]}, "then": then}


def _of_kinds(kinds: list[Kind], needs: frozenset[str], takes: frozenset[str]) -> list[Rule]:
    names = [k.value for k in kinds]
    listed = ", ".join(f"'{n}'" for n in names)
    needed = [to_camel(f) for f in OPTIONAL if f in needs]
    strange = [f for f in OPTIONAL if f not in needs | takes]
    said, cel = ", ".join(names), [f"has(self.{f})" for f in needed]
    cel += [f"!has(self.{to_camel(f)})" for f in strange if f not in UNTYPED]
    wanted = [given(f) for f in needed]
    refused = [given(to_camel(f)) for f in strange]
    then: Node = {"allOf": wanted} if wanted else {}
    if refused:
        then["not"] = {"anyOf": refused}
    takes_text = ", ".join(to_camel(f) for f in OPTIONAL if f in needs | takes) or "none of the optional fields"
    return [
        Rule(
            "Metric",
            f"kind {said} takes {takes_text}" + (f" and needs {', '.join(needed)}" if needed else ""),
            cel=f"!(self.kind in [{listed}]) || ({' && '.join(cel)})",
            editor=_if_kind(names, then),
        )
    ]


def _only(field: str) -> Rule:
    takers = [k.value for k, rule in KINDS.items() if field in rule.needs | rule.takes]
    return Rule(
        "Metric",
        f"only kind {', '.join(takers)} takes {field}",
        structural={"anyOf": [{"not": {"required": [field]}}, {"properties": {"kind": {"enum": takers}}}]},
    )


def _where(kinds: Collection[Kind], message: str, then: Node, plain: Node | None = None) -> Rule:
    """A metric of one of ``kinds`` is as ``then`` says; ``plain`` where the API server writes it differently.

    Of two schemas that fail alike the server tells what is wrong with the first, which should be the field.
    """
    names, others = (sorted(k.value for k in KINDS if (k in kinds) is wanted) for wanted in (True, False))
    return Rule(
        "Metric",
        message,
        structural={"anyOf": [plain or then, {"properties": {"kind": {"enum": others}}}]},
        editor=_if_kind(names, then),
    )


def _margins(kinds: Collection[Kind], message: str, text: str, below: int | None = None) -> Rule:
    """A margin of ``kinds`` matches ``text`` if it is a text, and is less than ``below`` if it is a number."""

    def fields(number: Node) -> Node:
        return {"properties": {f: {"pattern": f"^({text})$", **number} for f in ("margin", "harmMargin")}}

    if below is None:
        return _where(kinds, message, fields({}))
    return _where(
        kinds, message, fields({"exclusiveMaximum": below}), fields({"maximum": below, "exclusiveMaximum": True})
    )


_NUMBER, _BELOW_1, _BELOW_100 = r"[0-9]+(\.[0-9]+)?", r"0+(\.[0-9]+)?", r"0*[0-9]{1,2}(\.[0-9]+)?"
_SHARES = sorted(k.value for k in SHARES)
_ABSOLUTE = [k for k, rule in KINDS.items() if rule.family in ABSOLUTE]
_OF_KINDS = (
    _margins(SHARES, "a margin of a share is below 1, which is 100pp", f"{_BELOW_1}|{_BELOW_100}(pp|%)", below=1),
    _margins(
        KINDS.keys() - SHARES,
        "a relative margin is below 100%, and only shares take pp",
        f"{_NUMBER}|{_BELOW_100}%",
    ),
    _margins(_ABSOLUTE, f"a margin of {', '.join(_ABSOLUTE)} is absolute", f"{_BELOW_1}|{_BELOW_100}pp"),
    _margins([Kind.THROUGHPUT], "a margin of Throughput is relative", f"{_BELOW_100}%", below=0),
    _where(
        [Kind.LATENCY],
        "a limit of a Latency is a number of milliseconds",
        {"properties": {"limit": {"pattern": f"^{_NUMBER}$"}}},
    ),
    _where(
        [k for k, rule in KINDS.items() if rule.family in ("latency", "resource")],
        "a harmMargin needs a margin where a limit would do without",
        {"anyOf": [given("margin"), {"not": given("harmMargin")}]},
        {"anyOf": [{"required": ["margin"]}, {"not": {"required": ["harmMargin"]}}]},
    ),
    Rule(
        "Metric",
        "a Resource is never proven better and cannot be a Success",
        cel="self.kind != 'Resource' || !has(self.role) || self.role != 'Success'",
        editor=_if_kind([Kind.RESOURCE.value], {"properties": {"role": {"not": {"const": "Success"}}}}),
    ),
    Rule(
        "Metric",
        "the mean of a share is from 0 to 1",
        cel=f"!(self.kind in {_SHARES}) || !has(self.baseline) || !has(self.baseline.mean) || "
        "(self.baseline.mean >= 0.0 && self.baseline.mean <= 1.0)",
        editor=_if_kind(_SHARES, {"properties": {"baseline": {"properties": {"mean": {"minimum": 0, "maximum": 1}}}}}),
    ),
)


_MARGIN_NEEDED = Rule(
    "Metric",
    "a Success or Guardrail needs a margin",
    structural={
        "anyOf": [
            {"required": ["margin"]},
            {"required": ["limit"]},
            {"required": ["role"], "properties": {"role": {"enum": REPORTING}}},
        ]
    },
    editor={
        "anyOf": [
            given("margin"),
            given("limit"),
            {"required": ["role"], "properties": {"role": {"enum": REPORTING}}},
        ]
    },
)
_OF_PAIRS = [k.value for k, rule in KINDS.items() if rule.family == "pair"]
_PAIRS = ", ".join(f"'{k}'" for k in _OF_PAIRS)
_METRIC = (
    Rule(
        "Metric",
        "numerator and denominator must differ",
        cel="!has(self.numerator) || !has(self.denominator) || self.numerator != self.denominator",
    ),
    Rule(
        "Metric",
        f"{', '.join(_OF_PAIRS)} is only seen in a mirror and cannot be a Success",
        cel=f"!(self.kind in [{_PAIRS}]) || !has(self.role) || self.role != 'Success'",
    ),
)
_STEP = (
    _exactly_one("Step", "mirror", "weight"),
    Rule(
        "Step",
        "0.01 is the smallest difference in weight",
        cel="[has(self.weight) ? self.weight : 0.0, has(self.mirror) ? self.mirror : 0.0].all(p, "
        "p * 100.0 - double(int(p * 100.0 + 0.5)) < 0.000001 && double(int(p * 100.0 + 0.5)) - p * 100.0 < 0.000001 && "
        "(p == 0.0 || p > 0.005))",
    ),
)
_NOT_SUPERIOR = "!has(self.decision) || !has(self.decision.mode) || self.decision.mode != 'Superior'"
_IN_SUPERIOR = {
    "required": ["decision"],
    "properties": {"decision": {"required": ["mode"], "properties": {"mode": {"const": "Superior"}}}},
}
_WEIGHTS = "self.steps.filter(s, has(s.weight))"
_PLAN = (
    Rule(
        "RolloutSpec",
        "at least one step needs a weight; a mirror alone cannot promote",
        cel="self.steps.exists(s, has(s.weight))",
        editor={"properties": {"steps": {"contains": given("weight")}}},
    ),
    Rule("RolloutSpec", "weights must not decrease", cel=f"{_WEIGHTS}.map(s, s.weight).isSorted()"),
    Rule(
        "RolloutSpec",
        "mirror steps come before every weight",
        cel="self.steps.map(s, has(s.weight) ? 1 : 0).isSorted()",
    ),
    Rule(
        "RolloutSpec",
        "at least one metric that weights show must be a Guardrail or Success",
        cel=f"self.metrics.exists(m, !(m.kind in [{_PAIRS}]) && (!has(m.role) || m.role in ['Success', 'Guardrail']))",
        editor={"properties": {"metrics": {"contains": {"properties": {"role": {"enum": JUDGING}}}}}},
    ),
    Rule(
        "RolloutSpec",
        f"{', '.join(_OF_PAIRS)} is only seen in a mirror, and steps has none",
        cel=f"self.metrics.all(m, !(m.kind in [{_PAIRS}])) || self.steps.exists(s, has(s.mirror))",
    ),
    Rule(
        "RolloutSpec",
        "mode Superior needs a metric with role Success",
        cel=f"{_NOT_SUPERIOR} || self.metrics.exists(m, has(m.role) && m.role == 'Success')",
        editor={
            "if": _IN_SUPERIOR,
            "then": {
                "properties": {
                    "metrics": {"contains": {"required": ["role"], "properties": {"role": {"const": "Success"}}}}
                }
            },
        },
    ),
    Rule(
        "RolloutSpec",
        f"in mode Superior a Success is of no kind that is never proven better: {', '.join(NEVER_BETTER)}",
        cel=f"{_NOT_SUPERIOR} || "
        f"self.metrics.all(m, !has(m.role) || m.role != 'Success' || !(m.kind in {NEVER_BETTER}))",
        editor={
            "if": _IN_SUPERIOR,
            "then": {
                "properties": {
                    "metrics": {
                        "items": {
                            "not": {
                                "required": ["role", "kind"],
                                "properties": {"role": {"const": "Success"}, "kind": {"enum": NEVER_BETTER}},
                            }
                        }
                    }
                }
            },
        },
    ),
    Rule(
        "RolloutSpec",
        "champion and challenger are the same; allowSameVersion: true makes it an A/A run",
        cel="(has(self.allowSameVersion) && self.allowSameVersion) || "
        "(has(self.model.champion) ? string(self.model.champion) : 'champion') != "
        "(has(self.model.challenger) ? string(self.model.challenger) : 'challenger')",
    ),
    Rule(
        "RolloutSpec",
        "only a champion may be external",
        cel="!has(self.servers) || !has(self.servers.challenger) || !has(self.servers.challenger.external) || "
        "!self.servers.challenger.external",
        editor={
            "properties": {
                "servers": {"properties": {"challenger": {"properties": {"external": {"not": {"const": True}}}}}}
            }
        },
    ),
    Rule(
        "RolloutSpec",
        "afterPromotion.holdback must fit into the reserved control, which is 100 less the largest weight",
        cel="!has(self.afterPromotion) || self.steps.all(s, !has(s.weight) || s.weight + "
        "(has(self.afterPromotion.holdback) ? self.afterPromotion.holdback : 5.0) <= 100.0)",
    ),
)
# On updates alone: what the loop of a rollout, and whatever splits its traffic now, were made for.
_HAS_ROUTE = "has({0}.traffic) && has({0}.traffic.gatewayAPI)"
_WAS, _IS = (_HAS_ROUTE.format(each) for each in ("oldSelf", "self"))
TRANSITIONS: tuple[Rule, ...] = (
    Rule(
        "RolloutSpec",
        "who splits the traffic, a router or which HTTPRoute, cannot be changed: delete the rollout and make another",
        cel=f"({_WAS}) == ({_IS}) && "
        f"(!({_IS}) || self.traffic.gatewayAPI.httpRoute == oldSelf.traffic.gatewayAPI.httpRoute)",
    ),
)
# CEL reads the units of Go, which has neither days nor weeks: what is written in them is left to Python.
_DEADLINES = "(has(self.timeout) ? self.timeout : '1s')", "(has(self.championTimeout) ? self.championTimeout : '30s')"
# For the API server alone: on one machine these are allowed.
ON_A_CLUSTER: tuple[Rule, ...] = (
    Rule(
        "Server",
        "url is for one machine; on a cluster allowed are service, of the rollout's namespace, and servers.template",
        cel="!has(self.url)",
    ),
)
RULES: tuple[Rule, ...] = (
    _exactly_one("UnitSource", "header", "cookie", "json", "request"),
    _exactly_one("Segment", "feature", "header", "json"),
    _exactly_one("Covariate", "feature", "header", "json"),
    _exactly_one("Server", "service", "url"),
    Rule(
        "Servers",
        "replicas and probe are about the servers of template",
        cel="has(self.template) || !(has(self.replicas) || has(self.probe))",
        editor={"anyOf": [given("template"), {"not": {"anyOf": [given("replicas"), given("probe")]}}]},
    ),
    Rule(
        "Servers",
        "template is for both servers: it excludes champion and challenger",
        cel="!(has(self.template) && (has(self.champion) || has(self.challenger)))",
        editor={"not": {"allOf": [given("template"), {"anyOf": [given("champion"), given("challenger")]}]}},
    ),
    Rule(
        "Traffic",
        "router and gatewayAPI exclude each other",
        cel="!(has(self.router) && has(self.gatewayAPI))",
        editor={"not": {"allOf": [given("router"), given("gatewayAPI")]}},
    ),
    Rule(
        "RouterTraffic",
        "championTimeout has to be at least timeout; their defaults are 30s and 1s",
        cel=f"[{', '.join(_DEADLINES)}].exists(t, t.contains('d') || t.contains('w')) || "
        f"duration({_DEADLINES[0]}) <= duration({_DEADLINES[1]})",
    ),
    *_STEP,
    *_kinds(),
    _only("limit"),
    _only("cap"),
    *_OF_KINDS,
    _MARGIN_NEEDED,
    *_METRIC,
    *_PLAN,
)
# Lists whose items differ by name: the API server then refuses a name that stands twice.
NAMED_LISTS = (("RolloutSpec", "metrics"), ("RolloutSpec", "segments"))
