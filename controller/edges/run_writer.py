"""Writes the MLflow run of one attempt, so that writing anything twice changes nothing."""

import logging
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from controller.core.record import Record
from controller.edges import run_page
from controller.edges.run_page import RunKey
from controller.edges.tracking import REFUSED, Refused, translated
from controller.errors import EdgeError, NotFound
from controller.spec import ModelRollout
from controller.status import RolloutStatus

_log = logging.getLogger("understudy.mlflow")
_BATCH = 800  # metrics in one request; MLflow takes 1,000 entities of all kinds
_TRIES = 5
_REOPENED = 3
DECISION_LOG = "decision_log.jsonl"
PLAN = "plan.yaml"


class Tick(NamedTuple):
    """The metrics of one tick; ``at_ms`` milliseconds since the epoch."""

    step: int
    at_ms: int
    metrics: dict[str, float]


class Page(NamedTuple):
    """What a run is to show: the newest rollout and status, the ticks and records not shown yet."""

    rollout: ModelRollout
    status: RolloutStatus
    latest: dict[str, float]
    ticks: Sequence[Tick]
    records: Sequence[Record]


class RunWriter:
    """One run, found by its tags or made.

    A piece that MLflow refuses is left out with a warning and counted (``refused``). A piece that fails five times
    while MLflow answers otherwise counts as refused, too; while MLflow is away, nothing is given up.
    """

    def __init__(self, client: MlflowClient, uri: str, key: RunKey, log_limit: int = 64 << 20) -> None:
        """``log_limit``: characters of the decision log, beyond which its oldest lines go."""
        self._client, self._uri, self._key, self._log_limit = client, uri, key, log_limit
        self._tries: Counter[str] = Counter()
        self._reopened = 0
        self.refused = 0
        self._forget()

    def _forget(self) -> None:
        self.run_id: str | None = None
        self._model_id: str | None = None
        self._tags: dict[str, str] = {}
        self._plan: ModelRollout | None = None
        self._lines: dict[str, str] | None = None
        self._version_tags: dict[str, str] = {}
        self._ended = False

    def write(self, page: Page) -> None:
        """Show all of ``page``. EdgeError: some of it is not shown yet; call again with the same."""
        if self.run_id is None:
            with translated(self._uri):
                self.run_id = self._open(page)
        run = self.run_id
        self._batches(run, page)
        self._decisions(run, page.records)
        self._declare(run, page.rollout)
        self._tag_version(run, page)
        self._end(run, page.status)

    def _piece(self, what: str, act: Callable[[], object]) -> bool:
        """Do one piece; False where it is given up."""
        try:
            with translated(self._uri):
                act()
        except (Refused, NotFound) as error:
            self._reopen_if_lost()
            self._give_up(what, error)
            return False
        except EdgeError as error:
            self._tries[what] += 1
            if self._tries[what] < _TRIES or not self._answers():
                raise
            self._give_up(what, error)
            return False
        self._tries.pop(what, None)
        return True

    def _give_up(self, what: str, error: EdgeError) -> None:
        self._tries.pop(what, None)
        self.refused += 1
        _log.warning("could not %s of %s/%d: %s", what, self._key.uid, self._key.attempt, error)

    def _answers(self) -> bool:
        try:
            with translated(self._uri):
                self._client.search_experiments(max_results=1)
        except EdgeError:
            return False
        return True

    def _reopen_if_lost(self) -> None:
        """Where somebody deleted the run: raise, so that the next attempt makes another, a few times."""
        if self.run_id is None or self._reopened >= _REOPENED:
            return
        lost = False
        try:
            with translated(self._uri):
                lost = self._client.get_run(self.run_id).info.lifecycle_stage != "active"
        except NotFound:
            lost = True
        if lost:
            self._reopened += 1
            self._forget()
            raise EdgeError("the run was deleted; another one is made")

    def _open(self, page: Page) -> str:
        name = run_page.experiment(page.rollout)
        found = self._client.get_experiment_by_name(name)
        if found is not None and found.lifecycle_stage != "active":
            raise Refused(f"experiment {name!r} is deleted in MLflow; restore it to see the rollout there")
        experiment = found.experiment_id if found is not None else self._client.create_experiment(name)
        query = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in self._key.tags.items())
        runs = self._client.search_runs([experiment], query, max_results=1, order_by=["attributes.start_time ASC"])
        if runs:
            run = runs[0]
        else:
            label = run_page.run_name(page.rollout, page.status)
            run = self._client.create_run(experiment, run_name=label, tags=self._key.tags)
        self._ended = run.info.status not in ("RUNNING", "SCHEDULED")
        self._model_id = self._logged_model(page)
        have = run.data.params
        missing = {k: v for k, v in run_page.params(page.rollout, page.status).items() if k not in have}
        self._client.log_batch(run.info.run_id, params=[Param(k, v) for k, v in missing.items()])
        return str(run.info.run_id)

    def _logged_model(self, page: Page) -> str | None:
        """The challenger's own page in MLflow, which gets the metrics as well. None where it has none."""
        if page.status.attempt is None:
            return None
        try:
            with translated(self._uri):
                version = self._client.get_model_version(page.rollout.spec.model.name, page.status.attempt.challenger)
        except (NotFound, Refused):
            return None
        _, _, identity = str(version.source).rpartition("models:/")
        return identity if identity.startswith("m-") else None

    def _batches(self, run: str, page: Page) -> None:
        tags = run_page.tags(page.rollout, page.status, page.latest)
        changed = [RunTag(k, v) for k, v in tags.items() if self._tags.get(k) != v]
        rows = [
            Metric(run_page.metric_name(name), value, tick.at_ms, tick.step, model_id=self._model_id)
            for tick in page.ticks
            for name, value in tick.metrics.items()
            if math.isfinite(value)
        ]
        for start in range(0, max(len(rows), 1), _BATCH):
            part, told = rows[start : start + _BATCH], changed if start == 0 else []
            if part or told:
                self._piece("write metrics and tags", lambda m=part, t=told: self._batch(run, m, t))  # type: ignore[misc]
        self._tags = tags

    def _batch(self, run: str, metrics: list[Metric], tags: list[RunTag]) -> None:
        try:
            self._client.log_batch(run, metrics=metrics, tags=tags)
        except MlflowException as error:
            if self._model_id is None or not metrics or error.error_code not in REFUSED:
                raise
            # The model's own page is gone, perhaps; the run's own series matter more.
            self._model_id = None
            plain = [Metric(m.key, m.value, m.timestamp, m.step) for m in metrics]
            self._client.log_batch(run, metrics=plain, tags=tags)

    def _decisions(self, run: str, records: Sequence[Record]) -> None:
        if records:
            self._piece("write the decision log", lambda: self._add_lines(run, records))

    def _add_lines(self, run: str, records: Sequence[Record]) -> None:
        if self._lines is None:
            self._lines = self._written_lines(run)
        fresh = {r.key: run_page.record_line(r) for r in records if r.key not in self._lines}
        if not fresh:
            return
        # A replica that leads again shows what it had decided before another one did.
        lines = dict(sorted((self._lines | fresh).items(), key=lambda line: run_page.order(line[0])))
        while sum(map(len, lines.values())) > self._log_limit and len(lines) > 1:
            del lines[next(iter(lines))]
        self._client.log_text(run, "".join(lines.values()), DECISION_LOG)
        self._lines = lines

    def _written_lines(self, run: str) -> dict[str, str]:
        """The lines that an earlier process wrote, by key."""
        if DECISION_LOG not in [found.path for found in self._client.list_artifacts(run)]:
            return {}
        with tempfile.TemporaryDirectory() as folder:
            text = Path(self._client.download_artifacts(run, DECISION_LOG, folder)).read_text(encoding="utf-8")
        parsed = [run_page.parse_line(line) for line in text.split("\n")]
        return {r.key: run_page.record_line(r) for r in parsed if r is not None}

    def _declare(self, run: str, rollout: ModelRollout) -> None:
        if rollout != self._plan:
            plan = run_page.plan_yaml(rollout)
            self._piece("write the plan", lambda: self._client.log_text(run, plan, PLAN))
            self._plan = rollout

    def _tag_version(self, run: str, page: Page) -> None:
        attempt = page.status.attempt
        wanted = run_page.version_tags(page.status, run)
        changed = {k: v for k, v in wanted.items() if self._version_tags.get(k) != v}
        if attempt is None or not changed:
            return
        model = page.rollout.spec.model.name

        def tag() -> None:
            for name, value in changed.items():
                self._client.set_model_version_tag(model, attempt.challenger, name, value)

        self._piece(f"tag version {attempt.challenger}", tag)
        self._version_tags = wanted

    def _end(self, run: str, status: RolloutStatus) -> None:
        wanted = run_page.end(status)
        if wanted is not None and not self._ended:
            self._piece("end the run", lambda: self._client.set_terminated(run, status=wanted))
            self._ended = True
