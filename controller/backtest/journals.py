"""The journals of an embedded run, decided once more."""

from pathlib import Path

from controller.backtest.allocations import recorded
from controller.backtest.player import Feed, Past, Player, Progressed
from controller.backtest.result import Result
from controller.core.plans import covariate_name
from controller.edges.engine import ExposureRow, OutcomeRow, SampleRow, tailer
from controller.edges.engine.rows import Pointer, exposure_row, outcome_row, sample_row
from controller.errors import EdgeError, SpecError
from controller.kinds import KINDS, SCORED
from controller.spec import ModelRollout
from controller.status import RolloutStatus


class _Read:
    """All rows of an attempt in a directory of journals, and what is missing."""

    def __init__(self, rollout: ModelRollout, attempt: int) -> None:
        spec = rollout.spec
        labels = any(KINDS[m.kind].family in SCORED for m in spec.metrics)
        self._pointer = Pointer(spec.prediction.json_pointer) if labels else None
        self._segments = [s.name for s in spec.segments]
        self._covariates = [covariate_name(spec, c) for c in spec.covariates]
        self._attempt = attempt
        self.exposures: list[ExposureRow] = []
        self.outcomes: list[OutcomeRow] = []
        self.samples: list[SampleRow] = []
        self.lost = 0
        self.no_unit = 0

    def journal(self, directory: Path, name: str, numbers: list[int]) -> None:
        """Every line of one journal."""
        place = tailer.Place()
        segments, pointer, covariates = self._segments, self._pointer, self._covariates
        origin = tailer.origin(name)
        while True:
            lines, place = tailer.read(directory, name, numbers, place)
            if not lines:
                return
            found = tailer.understand(lines, place)
            place = found.place
            self.lost += found.lost
            self.no_unit += found.no_unit
            rows = (exposure_row(e, segments, pointer, covariates, origin) for e in found.exposures)
            self.exposures += [row for row in rows if row.attempt <= self._attempt]
            self.outcomes += [outcome_row(e) for e in found.outcomes]
            self.samples += [sample_row(e) for e in found.samples]


def replay_journals(
    rollout: ModelRollout,
    status: RolloutStatus,
    journals: Path,
    *,
    tick: int | None = None,
    stop_at_decision: bool = False,
    progressed: Progressed | None = None,
) -> Result:
    """Decide again what the newest attempt of an embedded run decided.

    ``status`` gives the epochs with their centring means and the frozen baselines, ``journals`` is the directory of
    the router's journals, ``tick`` (µs) the time between two looks, by default the rollout's own. What people asked,
    the breaker and aliases are not in a journal and take no part. Where the run left its mirror, the baselines that
    were frozen then are in force from the start, so the mirror's own pairs are no evidence here; they are where the
    run ended in the mirror.

    Raises SpecError where nothing was compared, EdgeError where a journal cannot be read.
    """
    if status.attempt is None:
        raise SpecError(f"{rollout.metadata.name}: no attempt has begun, there is nothing to replay")
    read = _Read(rollout, status.attempt.number)
    try:
        for name, numbers in tailer.files(journals).items():
            read.journal(journals, name, numbers)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise EdgeError(f"{journals}: a journal cannot be read: {error}") from error
    known = {e.number for e in status.epochs}
    counted = [r.t for r in read.exposures if r.attempt == status.attempt.number and r.epoch in known]
    if not counted:
        raise SpecError(f"{journals}: holds no exposure of attempt {status.attempt.number}")
    read.exposures.sort(key=lambda row: row.t)
    read.outcomes.sort(key=lambda row: row.ingest_t)
    read.samples.sort(key=lambda row: row.t)
    past = Past(
        rollout.metadata.name,
        status.attempt.number,
        recorded(rollout.spec, status, max(counted)),
        Feed(read.exposures, lambda row: row.t),
        Feed(read.outcomes, lambda row: row.ingest_t),
        Feed(read.samples, lambda row: row.t),
        dict(status.baselines),
        read.lost,
        read.no_unit,
    )
    return Player(rollout.spec, past, tick or rollout.spec.decision.tick, progressed).play(stop_at_decision)
