"""What may be asked of servers: by a Resource a built-in name, or PromQL with placeholders that tell the arms apart."""

import re
from collections.abc import Mapping, Sequence

# Built-in names, measured at the processes of our own model servers, and their units.
BUILT_IN: Mapping[str, str] = {"memory": "bytes", "cpu": "cores"}
# What a query of PromQL may leave open. With one of the first two it is asked for each arm.
OF_AN_ARM = ("arm", "version")
PLACEHOLDERS = (*OF_AN_ARM, "rollout")
# What the selector of a Service's requests may leave open.
OF_A_SERVICE = ("arm", "service", "namespace", "rollout")
_PLACEHOLDER = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_ESCAPED = str.maketrans({"\\": r"\\", '"': r"\"", "'": r"\'", "`": "", "\n": " "})


def built_in(query: str) -> bool:
    """Whether ``query`` is measured at processes; anything else is PromQL."""
    return query in BUILT_IN


def placeholders(query: str) -> set[str]:
    """What the query leaves open, by name."""
    return set(_PLACEHOLDER.findall(query))


def strangers(query: str, known: Sequence[str] = PLACEHOLDERS) -> list[str]:
    """Placeholders that stand for nothing."""
    return [f"${name}" for name in _PLACEHOLDER.findall(query) if name not in known]


def of_each_arm(query: str) -> bool:
    """Whether the query says something else of either arm; one of PromQL that names neither is the challenger's."""
    return built_in(query) or not placeholders(query).isdisjoint(OF_AN_ARM)


def substituted(query: str, values: Mapping[str, str]) -> str:
    """``query`` with its placeholders replaced, each so that it cannot end the text it stands in."""
    return _PLACEHOLDER.sub(lambda m: values[m[1]].translate(_ESCAPED) if m[1] in values else m[0], query)
