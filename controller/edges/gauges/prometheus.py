"""A Prometheus, asked for one number at a time by its HTTP API (``/api/v1/query``)."""

import math
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import orjson

from controller.edges.exchange import Answer, Call, Exchange
from controller.errors import EdgeError


class Prometheus:
    """Asks the server at ``url``; all queries of a call in parallel, under one deadline."""

    def __init__(self, url: str, deadline_s: float = 2.0) -> None:
        self._url = url.rstrip("/")
        self._exchange = Exchange(deadline_s)

    def ask(self, queries: Sequence[str]) -> list[float | EdgeError | None]:
        """The value of each query now; None where it has none (no series, or NaN). EdgeError where Prometheus cannot
        be had, refuses the query, or answers more than one series."""
        calls = [Call("GET", f"{self._url}/api/v1/query?{urlencode({'query': query})}") for query in queries]
        return [_value(answer) for answer in self._exchange.all(calls)]

    def close(self) -> None:
        self._exchange.close()


def _value(answer: Answer | EdgeError) -> float | EdgeError | None:
    if isinstance(answer, EdgeError):
        return EdgeError(f"Prometheus: {answer}")
    try:
        said = orjson.loads(answer.body)
        if said.get("status") == "error":
            return EdgeError(f"Prometheus refuses the query: {str(said.get('error'))[:200]}")
        return _number(said["data"])
    except (ValueError, TypeError, LookupError, AttributeError):
        return EdgeError(f"what answers is no Prometheus (HTTP status {answer.status})")


def _number(data: dict[str, Any]) -> float | EdgeError | None:
    kind, result = data["resultType"], data["result"]
    if kind == "vector" and not result:
        return None
    if kind == "vector" and len(result) > 1:
        return EdgeError(f"the query has {len(result)} series; one is needed: write sum(…) or max(…) around it")
    if kind not in ("vector", "scalar"):
        return EdgeError(f"the query is a {kind}; an instant vector of one series, or a scalar, is needed")
    value = float((result[0]["value"] if kind == "vector" else result)[1])
    return value if math.isfinite(value) else None
