"""Rollout documents that are right, and small changes that may or may not make them wrong."""

import copy
import random
from typing import Any

Tree = dict[str, Any]

PLAIN: Tree = {
    "apiVersion": "understudy.dev/v1alpha1",
    "kind": "ModelRollout",
    "metadata": {"name": "late", "labels": {"team": "a"}},
    "spec": {
        "model": {"name": "flight-delay", "champion": 3, "challenger": "challenger"},
        "unit": {"header": "x-unit-id"},
        "segments": [{"name": "carrier", "feature": "carrier", "protected": True}],
        "prediction": {"json": "/predictions/0", "positive": 1, "threshold": 0.5},
        "servers": {"champion": {"service": "a", "external": True}, "challenger": {"service": "b"}},
        "traffic": {"router": {"timeout": "500ms", "judgeBytes": 4096}},
        "steps": [{"mirror": 100, "hold": "10m"}, {"weight": 1}, {"weight": 25.5, "hold": "1h30m", "approve": True}],
        "metrics": [
            {"name": "errors", "kind": "ErrorRate", "margin": "0.05pp"},
            {"name": "latency", "kind": "Latency", "role": "Observe", "quantile": 0.9},
            {
                "name": "ctr",
                "kind": "Proportion",
                "outcome": "click",
                "window": "30m",
                "margin": 0.01,
                "role": "Success",
            },
            {"name": "gmv", "kind": "Mean", "outcome": "buy", "window": "7d", "margin": "5%", "cap": "p99.9"},
            {"name": "memory", "kind": "Resource", "query": "memory", "limit": "2Gi"},
        ],
        "decision": {"mode": "Superior", "minUnits": 10, "tick": "1s", "block": "10s", "maxFallback": "1%"},
        "afterPromotion": {"holdback": 5, "watch": {"alerts": [{"metric": "ctr", "below": "4%", "for": "1h"}]}},
        "onRollback": {"remedy": "Suggest"},
        "notify": {"slack": {"secretRef": {"name": "slack", "key": "url"}}},
    },
}
SMALL: Tree = {
    "metadata": {"name": "a"},
    "spec": {
        "model": {"name": "m"},
        "unit": {"cookie": "uid"},
        "steps": [{"weight": 50}],
        "metrics": [{"name": "late", "kind": "Brier", "outcome": "late", "window": "1d", "margin": 0.01}],
    },
}
VALUES: list[Any] = [
    None, True, False, 0, 1, 5, -1, 0.5, 0.123, 96, 101, 70_000, "", "x", "x/y", "5", "2%", "0.05pp", "0%", "p99",
    "10m", "1h30m", "2Gi", "http://a:1", "Superior", "Success", "Signal", "Proportion", "Latency", "Increase",
    "RollBack", "challenger", "03", "v3", "1500pp", "100%", "-1%", "p0", "p100", "p0.5", "a\r\nb", "a\x00", "a b",
    "/a~2", "predictions/0", "http://a:99999", "http://", 500, 1e30, 1e-20, 0.00001, "3651d", 2**40, [], {}, [1],
    {"a": 1}, "a" * 64,
]  # fmt: skip
FIELDS: list[tuple[str, Any]] = [
    ("unknown", 1), ("header", "h"), ("cookie", "c"), ("json", "/a"), ("feature", "f"), ("service", "s"),
    ("url", "http://b:2"), ("external", True), ("mirror", 50), ("weight", 5), ("weight", 0.005), ("goal", "Increase"),
    ("cap", "100"), ("quantile", 0.5), ("covariate", {"feature": "age"}), ("query", "q"), ("limit", 5),
    ("margin", "0pp"), ("margin", "0.0%"), ("margin", 1), ("harmMargin", "0%"), ("harmMargin", -0.5),
    ("role", "Observe"),
    ("numerator", "a"), ("denominator", "b"), ("window", "1d"), ("outcome", "o"),
    ("gatewayAPI", {"httpRoute": "r", "requests": 'c{a="$arm"}'}), ("request", True), ("unit", {"request": True}),
    ("router", {}), ("allowSameVersion", True), ("holdback", 80), ("approvePromotion", True), ("grace", "5s"),
    ("tick", "1ms"), ("block", "10ms"), ("baseline", {"mean": 0.1, "latencies": [1, 2, 3, 4, 5]}),
    ("hold", None), ("hold", "20d"), ("minAge", "20d"), ("window", "20d"), ("tableTtl", "0s"), ("timeout", "0s"),
    ("timeout", "40s"), ("championTimeout", "1ms"),
    ("overrideHeader", "X-Unit-Id"), ("service", "b"), ("cap", 500), ("mode", "Superior"), ("role", "Success"),
    ("margin", "1pp"), ("margin", "150%"), ("uid", "u"), ("namespace", "n"), ("model", "m"), ("minUnits", 10**10),
]  # fmt: skip


def _places(node: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a tree."""
    pairs = list(node.items()) if isinstance(node, dict) else list(enumerate(node)) if isinstance(node, list) else []
    return [place for key, value in pairs for place in ((node, key), *_places(value))]


def mutated(seed: int) -> Tree:
    """A right document with one to three small changes."""
    rng = random.Random(seed)
    tree = copy.deepcopy(rng.choice([PLAIN, PLAIN, SMALL]))
    for _ in range(rng.choice([1, 1, 2, 3])):
        places = _places(tree)
        if not places:
            break
        container, key = rng.choice(places)
        change = rng.randrange(5)
        if change == 0:
            container[key] = rng.choice(VALUES)
        elif change == 1:
            del container[key]
        elif change == 2 and isinstance(container, list):
            container.insert(rng.randrange(len(container) + 1), copy.deepcopy(container[key]))
        else:
            objects = [c[k] for c, k in _places(tree) if isinstance(c[k], dict)]
            name, value = rng.choice(FIELDS)
            if objects:
                rng.choice(objects)[name] = copy.deepcopy(value)
    return tree
