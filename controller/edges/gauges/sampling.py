"""A source of statistics that measures the servers' gauges before it reads."""

from collections.abc import Mapping
from typing import Any, Protocol

from controller import gauge
from controller.core.cells import MetricPlan, StatisticsQuery
from controller.core.fold import Statistics
from controller.edges.gauges.journal import SampleJournal
from controller.edges.gauges.processes import ProcessGauges
from controller.edges.gauges.prometheus import Prometheus
from controller.edges.servers import LocalServers
from controller.errors import EdgeError
from controller.ports import StatisticsSource
from router.assignment import Arm

LARGEST = 1e15  # a gauge beyond that is none
SLOTS = 4  # samples in a window
ARMS: tuple[Arm, Arm] = ("champion", "challenger")


class Closable(StatisticsSource, Protocol):
    """A source that holds files."""

    def close(self) -> None: ...


class SampledSource:
    """Implements ``StatisticsSource`` around ``source``, which reads ``journal`` among others.

    A gauge that cannot be measured costs its own samples and nothing else; ``Statistics.troubles`` says why.
    """

    def __init__(
        self, source: Closable, journal: SampleJournal, servers: LocalServers, prometheus: Prometheus | None
    ) -> None:
        self._source, self._journal, self._servers, self._prometheus = source, journal, servers, prometheus
        self._processes = ProcessGauges(servers)
        self._slots: dict[str, int] = {}
        self._troubles: dict[str, str] = {}

    def read(self, query: StatisticsQuery, now: int) -> Statistics:
        """As the port says, of what was measured up to now as well."""
        plans = [plan for plan in query.metrics if plan.family == "resource"]
        if plans and query.epochs:
            try:
                self._journal.append(self._samples(query, plans, now), now)
            except EdgeError as error:
                self._troubles = {plan.name: str(error) for plan in plans}
        return self._source.read(query, now)._replace(troubles=dict(self._troubles))

    def close(self) -> None:
        """Let go of files and connections."""
        self._journal.close()
        if self._prometheus is not None:
            self._prometheus.close()
        self._source.close()

    def _samples(self, query: StatisticsQuery, plans: list[MetricPlan], now: int) -> list[dict[str, Any]]:
        """What is measured of the plans whose next sample is due."""
        due = [plan for plan in plans if self._slots.get(plan.name) != self._slot(plan, now)]
        self._slots.update({plan.name: self._slot(plan, now) for plan in due})
        for plan in due:
            self._troubles.pop(plan.name, None)
        values = self._measured(due) | self._asked(query, [p for p in due if not gauge.built_in(p.query or "")])
        epoch = max(e.number for e in query.epochs)
        said = []
        for (name, arm), value in values.items():
            if isinstance(value, EdgeError):
                self._troubles[name] = f"{arm}: {value}"
            elif value is not None:
                said.append({
                    "attempt": query.attempt, "epoch": epoch, "metric": name, "arm": arm, "value": value,
                })  # fmt: skip
        return said

    @staticmethod
    def _slot(plan: MetricPlan, now: int) -> int:
        return now * SLOTS // plan.block

    def _measured(self, plans: list[MetricPlan]) -> dict[tuple[str, str], int | EdgeError | None]:
        """The gauges of our own processes."""
        found: dict[tuple[str, str], int | EdgeError | None] = {}
        for plan in plans:
            for arm in ARMS if gauge.built_in(plan.query or "") else ():
                try:
                    found[plan.name, arm] = self._processes.measure(plan.name, plan.query or "", arm)
                except EdgeError as error:
                    found[plan.name, arm] = error
        return found

    def _asked(self, query: StatisticsQuery, plans: list[MetricPlan]) -> dict[tuple[str, str], int | EdgeError | None]:
        """What Prometheus says; a query that names no arm is the challenger's."""
        if not plans:
            return {}
        if self._prometheus is None:
            return {(plan.name, "challenger"): EdgeError("no Prometheus is known: --prometheus-url") for plan in plans}
        versions = self._servers.wanted()
        wanted = [(plan, arm) for plan in plans for arm in (ARMS if gauge.of_each_arm(plan.query or "") else ARMS[1:])]
        queries = [gauge.substituted(p.query or "", _values(query, arm, versions)) for p, arm in wanted]
        answers = self._prometheus.ask(queries)
        return {
            (plan.name, arm): _thousandths(plan, answer) for (plan, arm), answer in zip(wanted, answers, strict=True)
        }


def _values(query: StatisticsQuery, arm: Arm, versions: Mapping[str, str]) -> dict[str, str]:
    return {"arm": arm, "version": versions.get(arm, ""), "rollout": query.rollout}


def _thousandths(plan: MetricPlan, answer: float | EdgeError | None) -> int | EdgeError | None:
    if answer is None:
        return EdgeError("the query has no value now")
    if isinstance(answer, EdgeError):
        return answer
    if abs(answer) > LARGEST:
        return EdgeError(f"{answer:g} is no value of a gauge; it is at most {LARGEST:g}")
    return round(answer * plan.scale)
