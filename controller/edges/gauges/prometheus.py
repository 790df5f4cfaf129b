"""A Prometheus, asked by its HTTP API (``/api/v1/query``): for one number a query, or for counters as scraped."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode

import orjson

from controller.edges.exchange import Answer, Call, Exchange
from controller.errors import EdgeError

SCRAPED_S = 90  # how long ago the last scrape of a counter may be
ANSWER_BYTES = 8 << 20
OF_QUERY = "bad_data"  # the type of errors that come of the query's text alone
TYPES = ("timeout", "canceled", "execution", "internal", "unavailable", "not_found")  # of the others
_Read = TypeVar("_Read")


class Point(NamedTuple):
    """A counter as it was scraped last: its labels, when that was (µs), and its value."""

    labels: Mapping[str, str]
    t: int
    value: float


class Prometheus:
    """Asks the server at ``url``; all queries of a call in parallel, under one deadline."""

    def __init__(self, url: str, deadline_s: float = 2.0) -> None:
        self._url = url.rstrip("/")
        self._exchange = Exchange(deadline_s, answer_limit=ANSWER_BYTES)

    def ask(self, queries: Sequence[str]) -> list[float | EdgeError | None]:
        """The value of each query now; None where it has none (no series, or NaN). EdgeError where Prometheus cannot
        be had, refuses the query, or answers more than one series."""
        return [_read(answer, _number) for answer in self._answers(queries)]

    def scraped(self, selectors: Sequence[str]) -> list[list[Point] | EdgeError]:
        """The last point of each series of each selector, as it was scraped, if that was lately. EdgeError as ``ask``
        has it, but without what Prometheus says of series; it refuses everything that is no plain selector."""
        queries = [f"{selector}\n[{SCRAPED_S}s]" for selector in selectors]  # on a line that no comment hides
        return [_read(answer, _points, series=False) for answer in self._answers(queries)]

    def _answers(self, queries: Sequence[str]) -> list[Answer | EdgeError]:
        return self._exchange.all(
            [Call("GET", f"{self._url}/api/v1/query?{urlencode({'query': query})}") for query in queries]
        )

    def close(self) -> None:
        self._exchange.close()


def _read(
    answer: Answer | EdgeError, read: Callable[[dict[str, Any]], _Read], *, series: bool = True
) -> _Read | EdgeError:
    """``series``: errors may tell of series, which are whoever's."""
    if isinstance(answer, EdgeError):
        return EdgeError(f"Prometheus: {answer}")
    try:
        said = orjson.loads(answer.body)
        if said.get("status") == "error":
            kind = said.get("errorType")
            if not series and kind != OF_QUERY:
                return EdgeError(f"Prometheus cannot answer{f' ({kind})' if kind in TYPES else ''}")
            return EdgeError(f"Prometheus refuses the query: {str(said.get('error'))[:200]}")
        return read(said["data"])
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


def _points(data: dict[str, Any]) -> list[Point] | EdgeError:
    if data["resultType"] != "matrix":
        return EdgeError(f"the selector is a {data['resultType']}; series of counters are needed")
    last = [(each["metric"], each["values"][-1]) for each in data["result"]]
    return [Point(labels, round(float(t) * 1e6), float(value)) for labels, (t, value) in last]
