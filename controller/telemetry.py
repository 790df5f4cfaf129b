"""Every Prometheus metric of the controller.

::

    understudy_ticks_total{result}              passes of the loop: ok, failed (an edge), conflict
    understudy_tick_seconds                     how long a pass took
    understudy_tick_late_seconds                how long after its time the last pass began
    understudy_decisions_total{decision,reason} decisions, as recorded
    understudy_step                             step in force, from 1; 0 before the first
    understudy_weight_percent                   percent of units that the challenger serves
    understudy_progress{progress}               1 for where the rollout stands
    understudy_units{arm}                       units of the epoch in force
    understudy_evidence{metric,segment,bound}   estimate and always-valid interval
    understudy_registry_up, understudy_traffic_up, understudy_confirmed
    understudy_run_log{counter}                 what waits for MLflow's run, and what never reached it

On a cluster besides (what is said of a rollout is forgotten when it is over)::

    understudy_leads                            1 where this replica decides
    understudy_tick_lag_seconds{rollouts}       how long after their time passes began, of those "at work" and "over"
    understudy_queue{keys}                      rollouts that wait for a pass, and those refused for want of room
    understudy_api_calls{verb,kind}             calls to the API server so far
    understudy_lists                            how often all rollouts were listed: at the start, after a lost watch
"""

import re
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from controller.errors import EdgeError
from controller.status import Progress, RolloutStatus

_BOUNDS = ("estimate", "lower", "upper")


class Telemetry:
    """The metrics of one process, each labelled with the rollout it is about."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        of = ("rollout",)
        r = self.registry
        self._ticks = Counter("understudy_ticks", "Passes of the loop.", (*of, "result"), registry=r)
        self._seconds = Histogram(
            "understudy_tick_seconds",
            "How long a pass took.",
            of,
            registry=r,
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
        )
        self._late = Gauge("understudy_tick_late_seconds", "How late the last pass began.", of, registry=r)
        self._decisions = Counter(
            "understudy_decisions", "Decisions, as recorded.", (*of, "decision", "reason"), registry=r
        )
        self._step = Gauge("understudy_step", "Step in force, from 1.", of, registry=r)
        self._weight = Gauge("understudy_weight_percent", "Percent of units the challenger serves.", of, registry=r)
        self._progress = Gauge("understudy_progress", "1 for where it stands.", (*of, "progress"), registry=r)
        self._units = Gauge("understudy_units", "Units of the epoch in force.", (*of, "arm"), registry=r)
        self._evidence = Gauge(
            "understudy_evidence", "Estimate and interval.", (*of, "metric", "segment", "bound"), registry=r
        )
        self._registry_up = Gauge("understudy_registry_up", "Whether MLflow answered.", of, registry=r)
        self._traffic_up = Gauge("understudy_traffic_up", "Whether the routers answered.", of, registry=r)
        self._confirmed = Gauge("understudy_confirmed", "Table generation that every worker serves.", of, registry=r)
        self._run_log = Gauge("understudy_run_log", "Of the queue to MLflow's runs.", ("counter",), registry=r)
        self._leads = Gauge("understudy_leads", "1 where this replica decides.", registry=r)
        self._lag = Histogram(
            "understudy_tick_lag_seconds",
            "How long after their time passes began.",
            ("rollouts",),
            registry=r,
            buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
        )
        self._queue = Gauge("understudy_queue", "Rollouts that wait, and those refused.", ("keys",), registry=r)
        self._calls = Gauge("understudy_api_calls", "Calls to the API server.", ("verb", "kind"), registry=r)
        self._lists = Gauge("understudy_lists", "How often all rollouts were listed.", registry=r)
        self._named: set[str] = set()  # of which rollouts something is said

    def serve(self, host: str, port: int) -> int:
        """Answer scrapes on a thread; the port. EdgeError where it is taken."""
        try:
            server, _ = start_http_server(port, host, registry=self.registry)
        except OSError as error:
            raise EdgeError(f"--metrics-port {port}: {error.strerror}") from error
        return int(server.server_port)

    def ticked(self, rollout: str, result: str, seconds: float, late: float) -> None:
        """A pass of the loop is over."""
        self._named.add(rollout)
        self._ticks.labels(rollout, result).inc()
        self._seconds.labels(rollout).observe(seconds)
        self._late.labels(rollout).set(max(late, 0.0))

    def decided(self, status: RolloutStatus) -> None:
        """A decision was recorded."""
        self._named.add(status.rollout)
        self._decisions.labels(status.rollout, status.decision.value, status.reason.value).inc()

    def shows(self, status: RolloutStatus, metrics: Mapping[str, float]) -> None:
        """Where the rollout stands; ``metrics`` as ``loop.series`` names them."""
        name, epoch, seen = status.rollout, status.current_epoch, status.observed
        self._named.add(name)
        self._step.labels(name).set(status.step + 1)
        promoted = status.progress is Progress.PROMOTED
        self._weight.labels(name).set(epoch.weight_bp / 100 if epoch else 100.0 if promoted else 0.0)
        for progress in Progress:
            self._progress.labels(name, progress.value).set(progress is status.progress)
        self._registry_up.labels(name).set(seen.registry_error is None or seen.model_missing)
        self._traffic_up.labels(name).set(seen.traffic_error is None)
        self._confirmed.labels(name).set(seen.confirmed)
        for key, value in metrics.items():
            self._one(name, key, value)

    def _one(self, rollout: str, key: str, value: float) -> None:
        what, _, part = key.rpartition("/")
        if what == "units":
            self._units.labels(rollout, part).set(value)
        elif part in _BOUNDS:
            metric, _, segment = what.partition(".")
            self._evidence.labels(rollout, metric, segment, part).set(value)

    def forget(self, rollout: str) -> None:
        """Nothing is to be said of ``rollout`` any more."""
        if rollout not in self._named:  # to look for it among all that is said of thousands takes milliseconds
            return
        self._named.discard(rollout)
        for metric in (
            self._ticks, self._seconds, self._late, self._decisions, self._step, self._weight, self._progress,
            self._units, self._evidence, self._registry_up, self._traffic_up, self._confirmed,
        ):  # fmt: skip
            metric.remove_by_labels({"rollout": rollout})

    def lagged(self, over: bool, seconds: float) -> None:
        """A pass began ``seconds`` after its time, over a rollout that is at work, or over already."""
        self._lag.labels("over" if over else "at work").observe(max(seconds, 0.0))

    def operates(
        self, leads: bool, waiting: int, dropped: int, lists: int, calls: Mapping[tuple[str, str], int]
    ) -> None:
        """What the process on a cluster is at."""
        self._leads.set(leads)
        self._queue.labels("waiting").set(waiting)
        self._queue.labels("dropped").set(dropped)
        self._lists.set(lists)
        for (verb, kind), count in calls.items():
            self._calls.labels(verb, kind).set(count)

    def run_log(self, counters: Mapping[str, int]) -> None:
        """Counters of the queue to MLflow."""
        for name, value in counters.items():
            self._run_log.labels(re.sub(r"\W", "_", name)).set(value)
