"""What a worker counts, under the names that /metrics shows them by."""

from router.events import FallbackReason


class Findings:
    """What the journal's thread finds out about the champion's answers, which nobody looked at before."""

    __slots__ = ("unjudged", "unusable")

    def __init__(self) -> None:
        self.unjudged = 0
        self.unusable = 0


class Counters:
    """Numbers that only grow, since the worker started; attributes, so that counting costs next to nothing."""

    __slots__ = (
        "answers",
        "client_errors",
        "connections",
        "fallbacks",
        "latency_s",
        "minted",
        "mirror_dropped",
        "mirrored",
        "no_unit",
        "overload",
        "repeated_ids",
        "requests",
        "retries",
        "stale",
        "tables",
        "unheld",
        "unjudged",
        "unusable",
    )

    def __init__(self) -> None:
        self.requests = {"champion": 0, "challenger": 0}
        self.latency_s = {"champion": 0.0, "challenger": 0.0}
        self.unusable = {"champion": 0, "challenger": 0}
        self.fallbacks = dict.fromkeys(map(str, FallbackReason), 0)
        self.answers = [0] * 6
        self.no_unit = 0
        self.minted = 0
        self.mirrored = 0
        self.mirror_dropped = 0
        self.overload = 0
        self.repeated_ids = 0
        self.client_errors = 0
        self.connections = 0
        self.retries = 0
        self.stale = 0
        self.tables = 0
        self.unheld = 0
        self.unjudged = 0

    def named(self, findings: Findings) -> dict[str, float]:
        """Every number by its name, labels in braces as Prometheus writes them, those of the findings added."""
        found: dict[str, float] = {}
        for arm in ("champion", "challenger"):
            found[f'requests_total{{arm="{arm}"}}'] = self.requests[arm]
            found[f'unusable_total{{arm="{arm}"}}'] = self.unusable[arm]
            found[f'latency_seconds_total{{arm="{arm}"}}'] = self.latency_s[arm]
        for reason, number in self.fallbacks.items():
            found[f'fallbacks_total{{reason="{reason}"}}'] = number
        for first, number in enumerate(self.answers):
            if first:
                found[f'answers_total{{status="{first}xx"}}'] = number
        for name in (
            "no_unit", "minted", "mirrored", "mirror_dropped", "overload", "client_errors", "connections",
            "repeated_ids", "retries", "stale", "tables", "unheld", "unjudged",
        ):  # fmt: skip
            found[f"{name}_total"] = getattr(self, name)
        found['unusable_total{arm="champion"}'] += findings.unusable
        found["unjudged_total"] += findings.unjudged
        return found
