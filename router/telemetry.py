"""Every Prometheus metric of the router in one table, and how what the workers count becomes one page.

A worker reports numbers under names of this table, labels in braces (``requests_total{arm="champion"}``); on
the page they are summed over the workers and have the prefix ``understudy_router_``.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

PREFIX = "understudy_router_"

Kind = Literal["counter", "gauge"]


class Meaning(NamedTuple):
    """What a metric is: a number that only grows, or one that comes and goes; and what it counts."""

    kind: Kind
    says: str


METRICS: dict[str, Meaning] = {
    # Told by the workers.
    "requests_total": Meaning("counter", "Requests by the arm that they were assigned to."),
    "unusable_total": Meaning("counter", "Requests whose assigned arm gave no usable answer in the challenger's time."),
    "latency_seconds_total": Meaning("counter", "Seconds of first attempts, by assigned arm."),
    "fallbacks_total": Meaning("counter", "Requests of the challenger that the champion answered, by reason."),
    "answers_total": Meaning("counter", "Answers to clients by class of status."),
    "no_unit_total": Meaning("counter", "Requests without a unit: served by the champion, never evidence."),
    "minted_total": Meaning("counter", "Cookies minted for clients that had none."),
    "mirrored_total": Meaning("counter", "Requests that the challenger answered unseen as well."),
    "mirror_dropped_total": Meaning("counter", "Mirrors not sent: too many in flight, or no connection free."),
    "overload_total": Meaning("counter", "Requests turned away because the router was full or had no route table."),
    "client_errors_total": Meaning("counter", "Requests refused for what they were."),
    "connections_total": Meaning("counter", "Connections of clients."),
    "repeated_ids_total": Meaning("counter", "Requests whose X-Request-Id another one had: a new one in the journal."),
    "retries_total": Meaning("counter", "Requests sent to the same arm once more, by another connection or address."),
    "stale_total": Meaning("counter", "Requests served by a table whose controller was not heard of for too long."),
    "tables_total": Meaning("counter", "Route tables taken into use by workers."),
    "unjudged_total": Meaning("counter", "Answers that passed through without being judged."),
    "unheld_total": Meaning("counter", "Answers that were not held until they were judged, for want of room."),
    "servers_not_ready": Meaning("gauge", "Model servers that a worker found not ready, summed over workers."),
    "client_connections": Meaning("gauge", "Connections of clients that are open."),
    "upstream_connections": Meaning("gauge", "Connections to model servers, those being opened included."),
    "mirrors_in_flight": Meaning("gauge", "Mirrored requests that the challenger has not answered yet."),
    "held_bytes": Meaning(
        "gauge", "Bytes of request bodies that are held, and of requests sent ahead; small ones are not counted."
    ),
    "held_answer_bytes": Meaning("gauge", "Bytes of answers held until judged, or not read by their clients."),
    "breaker_opened_total": Meaning("counter", "Times that a breaker opened; from 0 with every attempt."),
    "redacted_fields_total": Meaning("counter", "Fields of captured bodies that were replaced."),
    "withheld_bodies_total": Meaning("counter", "Captured bodies that were left out for what they may hold."),
    "unread_bodies_total": Meaning("counter", "Those of these that were left out unread: too long, or no time."),
    # Told by the workers and by the outcomes API, whose journals are alike.
    "journal_events_total": Meaning("counter", "Lines written to journals."),
    "journal_bytes_total": Meaning("counter", "Bytes written to journals."),
    "journal_dropped_total": Meaning("counter", "Events lost before the journal: queue full, disk, or worker killed."),
    "journal_errors_total": Meaning("counter", "Batches that the disk refused, and rotations that failed."),
    "journal_sync_seconds_total": Meaning("counter", "Seconds spent writing to disk."),
    "journal_queued": Meaning("gauge", "Events that wait for the disk."),
    # The supervisor's own.
    "workers": Meaning("gauge", "Living workers, draining ones included."),
    "workers_unconfirmed": Meaning("gauge", "Living workers that do not serve the newest table yet."),
    "worker_restarts_total": Meaning("counter", "Workers that died and were replaced."),
    "table_generation": Meaning("gauge", "Generation of the route table held; -1 without one."),
    "table_persisted": Meaning("gauge", "1 where the table held is on disk."),
    "controller_heard_timestamp_seconds": Meaning("gauge", "When the controller was last heard of; 0 for never."),
    "breaker_open": Meaning("gauge", "Workers whose breaker keeps requests from the challenger."),
    "breaker_open_seconds": Meaning("gauge", "Longest time that a worker's breaker was open in this attempt."),
    "outcomes_total": Meaning("counter", "Outcomes by what became of them: written, duplicate, conflict, refused."),
    "outcome_requests_total": Meaning("counter", "Requests with outcomes, by HTTP status of the answer."),
}

_NAMED = re.compile(r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>.*)\})?")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="([^"\\\n]*)"(?:,|$)')


class Sample(NamedTuple):
    """One number of a metric."""

    name: str
    labels: dict[str, str]
    value: float


def is_counter(named: str) -> bool:
    """Whether the metric of a name with or without labels only grows, so that a dead worker's share is kept."""
    meaning = METRICS.get(named.partition("{")[0])
    return meaning is not None and meaning.kind == "counter"


def sample(named: str, value: float) -> Sample:
    """Read a name with labels in braces. Raises ValueError for one that is no such name, or not in the table."""
    read = _NAMED.fullmatch(named)
    if read is None or read["name"] not in METRICS:
        raise ValueError(f"no metric of the router: {named!r}")
    labels = read["labels"] or ""
    pairs = _LABEL.findall(labels)
    if sum(len(name) + len(text) + 4 for name, text in pairs) not in (len(labels), len(labels) + 1):
        raise ValueError(f"labels that cannot be read: {named!r}")
    return Sample(read["name"], dict(pairs), value)


class _Page(Collector):
    """Samples as prometheus_client collects them."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = list(samples)

    def collect(self) -> Iterable[Metric]:
        for name, meaning in METRICS.items():
            family = Metric(PREFIX + name.removesuffix("_total"), meaning.says, meaning.kind)
            for found in self._samples:
                if found.name == name:
                    family.add_sample(PREFIX + name, found.labels, found.value)
            if family.samples:
                yield family


def page(numbers: Mapping[str, float]) -> bytes:
    """The text that Prometheus scrapes, of numbers by name; names that the table does not have are left out."""
    samples = []
    for named, value in sorted(numbers.items()):
        try:
            samples.append(sample(named, value))
        except ValueError:
            continue
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Page(samples))
    return generate_latest(registry)
