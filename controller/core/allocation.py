"""Allocations: opening epochs, and the route table that a status asks for."""

from typing import Any

from controller.core import places, plans, serving
from controller.core.adjustments import opening_adjustments
from controller.core.fold import Statistics
from controller.metric import Covariate
from controller.spec import RolloutSpec, Segment, UnitSource
from controller.status import Attempt, Epoch, Progress, RolloutStatus
from router.assignment import POINTS, Arm, challenger_share_ppm
from router.table import Attribute, Capture, Limits, RouteTable, Source, Target

NO_EPOCH = 0  # the number of an allocation that is no evidence


def open_step(spec: RolloutSpec, status: RolloutStatus, statistics: Statistics, step: int, now: int) -> RolloutStatus:
    """``status`` in ``step``; the same allocation as the one in force continues its epoch."""
    declared, top = spec.steps[step], spec.control_bp(spec.steps[step].bp)
    mirror = declared.mirror is not None
    old = status.current_epoch
    status = status.model_copy(update={"step": step, "step_elapsed": 0, "progress": Progress.RUNNING})
    same = (
        old is not None
        and old.kind == ("mirror" if mirror else "weight")
        and declared.bp == max(old.weight_bp, old.mirror_bp)
    )
    if same:
        return status
    if old is not None and old.kind == "mirror" and not mirror:
        status = status.model_copy(update={"baselines": plans.refrozen(spec, status, statistics)})
    epoch = Epoch(
        number=len(status.epochs) + 1,
        kind="mirror" if mirror else "weight",
        step=step,
        weight_bp=0 if mirror else declared.bp,
        mirror_bp=declared.bp if mirror else 0,
        control_from_bp=top,
        pi_ppm=0 if mirror else challenger_share_ppm(declared.bp, top),
        means=plans.opening_means(spec, status.baselines, statistics),
        adjustments=opening_adjustments(spec, status.baselines, statistics),
        opened_at=now,
    )
    return status.model_copy(update={"epochs": (*status.epochs, epoch), "epoch": epoch.number})


def open_holdback(spec: RolloutSpec, status: RolloutStatus, statistics: Statistics, now: int) -> RolloutStatus:
    """``status`` with the traffic of a promotion: all but the holdback, which is compared with the first w_max."""
    share = round((spec.after_promotion.holdback if spec.after_promotion else 0) * 100)
    if share == 0:
        return status.model_copy(update={"epoch": -1})
    top = spec.control_bp(POINTS - share)
    epoch = Epoch(
        number=len(status.epochs) + 1,
        kind="holdback",
        step=status.step,
        weight_bp=POINTS - share,
        control_from_bp=POINTS - share,
        counted_bp=top,
        pi_ppm=challenger_share_ppm(top, POINTS - share),
        means=plans.opening_means(spec, status.baselines, statistics),
        adjustments=opening_adjustments(spec, status.baselines, statistics),
        opened_at=now,
    )
    return status.model_copy(update={"epochs": (*status.epochs, epoch), "epoch": epoch.number})


def weight(status: RolloutStatus) -> float:
    """Percent of the units that the version on trial serves, or served when it was promoted. What it still gets counts,
    where that is known, and not what it was asked to get."""
    if status.progress is Progress.PROMOTED:
        return 100.0
    asked = status.table.weight_bp if status.table else 0
    return max(asked, status.observed.sent_bp or 0) / 100


def with_table(spec: RolloutSpec, status: RolloutStatus) -> RolloutStatus:
    """``status`` with the table it asks for, one generation newer where anything in it changed, and the weight in it
    as people write it."""
    status = _tabled(spec, status) if serving.takes_over(status) else followed(status)
    former = status.former if serving.between(status) is not None else None
    return status.model_copy(update={"weight": weight(status), "former": former})


def followed(status: RolloutStatus) -> RolloutStatus:
    """``status`` whose table names its champion where that is served by now. Where it is looked for in vain, it stays
    where it was: the routers know best which of its servers are there."""
    table, upstreams = status.table, status.observed.served_upstreams
    if table is None or not upstreams:
        return status
    champion = table.champion.model_copy(update={"upstreams": upstreams})
    return _renewed(status, table.model_copy(update={"champion": champion}))


def _tabled(spec: RolloutSpec, status: RolloutStatus) -> RolloutStatus:
    """``status`` with its table.

    Without a champion that listens somewhere there is nothing to serve, and the last table stays; but where weight 0 is
    asked for, everybody goes to where the champion was last, and where it is promoted, to the challenger.
    """
    observed, attempt = status.observed, status.attempt
    if attempt is not None and status.progress is Progress.PROMOTED:
        return _promoted(spec, status, attempt)
    champions = observed.champion_upstreams or _left(status)
    if attempt is None or not champions:
        return status
    epoch = status.current_epoch
    live = status.progress in (Progress.RUNNING, Progress.PROMOTING, Progress.HOLDBACK)
    meets = live and bool(observed.challenger_upstreams)
    table = RouteTable(
        generation=status.table.generation if status.table else 0,
        rollout=status.rollout,
        attempt=attempt.number,
        epoch=epoch.number if epoch and meets else NO_EPOCH,
        salt=attempt.salt,
        champion=Target(version=attempt.champion, upstreams=champions, probe=places.probe(spec, attempt, "champion")),
        challenger=Target(
            version=attempt.challenger,
            upstreams=observed.challenger_upstreams,
            probe=places.probe(spec, attempt, "challenger"),
        )
        if meets
        else None,
        **_taken(spec, status, attempt),
        **_shares(epoch, meets),
        **_policy(spec),
    )
    return _renewed(status, table)


def _taken(spec: RolloutSpec, status: RolloutStatus, attempt: Attempt) -> dict[str, Any]:
    """What is taken from each request. An attempt that ends has what it began with: with another unit everybody would
    be drawn anew, and what is measured of them would be of both.
    """
    last = status.table
    ends = status.progress in (Progress.ROLLING_BACK, Progress.PROMOTING, Progress.HOLDBACK)
    if ends and last is not None and last.salt == attempt.salt:
        return {"unit": last.unit, "attributes": last.attributes}
    return {"unit": _unit(spec.unit), "attributes": _attributes(spec)}


def _left(status: RolloutStatus) -> tuple[str, ...]:
    """Where the champion was, in a table that sends users to a challenger although nobody should be sent there, or
    that is to send everybody there.
    """
    table = status.table
    moving = status.progress in (Progress.ROLLING_BACK, Progress.PROMOTING, Progress.HOLDBACK)
    if table is None or table.challenger is None or not moving:
        return ()
    return table.champion.upstreams


def _renewed(status: RolloutStatus, table: RouteTable) -> RolloutStatus:
    """``table`` one generation newer, unless it is the one in force; newer, too, than one that routers hold and our
    store has lost, as they refuse what is older."""
    overtaken = status.observed.overtaken
    if table == status.table and not overtaken:
        return status
    generation = max(table.generation, overtaken) + 1
    return status.model_copy(update={"table": table.model_copy(update={"generation": generation})})


def _promoted(spec: RolloutSpec, status: RolloutStatus, attempt: Attempt) -> RolloutStatus:
    """The rollout is over: the promoted version is the champion now, and nobody is on trial."""
    observed, last = status.observed, status.table
    upstreams = observed.champion_upstreams
    if last is not None and last.challenger is not None:
        # What was observed at this tick is still the old champion's server; the promoted one is where it was. The
        # former is forgotten, lest anybody be sent there because the next look fails.
        upstreams = observed.challenger_upstreams or last.challenger.upstreams
        status = status.model_copy(update={"observed": observed.model_copy(update={"champion_upstreams": ()})})
    if not upstreams:
        return status
    table = RouteTable(
        generation=last.generation if last else 0,
        rollout=status.rollout,
        attempt=attempt.number,
        epoch=NO_EPOCH,
        salt=attempt.salt,
        champion=Target(version=attempt.challenger, upstreams=upstreams),
        unit=_unit(spec.unit),
        attributes=_attributes(spec),
        **_policy(spec),
    )
    return _renewed(status, table)


def servers_wanted(status: RolloutStatus) -> dict[Arm, str | None]:
    """Which version each arm's server has to run; None: none is needed.

    After a promotion the challenger's server stays until every worker sends to the champion's, which runs its version.
    """
    attempt, o, table = status.attempt, status.observed, status.table
    if attempt is None:
        return {}
    if status.progress is Progress.PROMOTED:
        served = table is not None and o.confirmed >= table.generation
        moved = served and table is not None and table.champion.upstreams == o.champion_upstreams
        kept = bool(o.challenger_upstreams) and not moved
        return {"champion": attempt.challenger, "challenger": attempt.challenger if kept else None}
    return {"champion": attempt.champion, "challenger": None if status.progress.terminal else attempt.challenger}


def as_asked(status: RolloutStatus, table: RouteTable) -> bool:
    """Whether ``table`` sends to the challenger what the epoch asks for; not so where one arm has no server."""
    if table.challenger is None:
        return False
    asked = _shares(status.current_epoch, meets=True)
    return all(getattr(table, name) == share for name, share in asked.items())


def _shares(epoch: Epoch | None, meets: bool) -> dict[str, int]:
    if not meets:
        return {"weight_bp": 0, "control_from_bp": POINTS, "mirror_bp": 0}
    if epoch is None:  # promoting without a holdback
        return {"weight_bp": POINTS, "control_from_bp": POINTS, "mirror_bp": 0}
    return {
        "weight_bp": epoch.weight_bp,
        "control_from_bp": epoch.control_from_bp,
        "counted_bp": epoch.counted_bp,
        "mirror_bp": epoch.mirror_bp,
    }


def _policy(spec: RolloutSpec) -> dict[str, object]:
    router = spec.traffic.router
    if router is None:
        return {}
    return {
        "override_header": router.override_header,
        "replay_to_champion": router.replay_to_champion,
        "ttl_s": max(1, router.table_ttl // 1_000_000),
        "limits": Limits(
            replay_bytes=router.replay_bytes,
            judge_bytes=router.judge_bytes,
            capture_bytes=router.capture_bytes,
            challenger_timeout_ms=max(1, router.timeout // 1000),
            champion_timeout_ms=max(1, router.champion_timeout // 1000),
        ),
        "capture": Capture(
            redact=router.capture.redact,
            redact_defaults=router.capture.redact_defaults,
            inputs_bp=round(router.capture.inputs * 100),
            answers_bp=round(router.capture.answers * 100),
            failed=router.capture.failed,
        ),
    }


def _unit(unit: UnitSource) -> Source:
    if unit.request is not None:
        return Source(header="x-request-id")
    return Source(header=unit.header, cookie=unit.cookie, json_pointer=unit.json_pointer)


def _attributes(spec: RolloutSpec) -> tuple[Attribute, ...]:
    """What is taken from every request: the segments' texts, the covariates' numbers."""
    segments = [Attribute(name=s.name, source=_attribute(s)) for s in spec.segments]
    numbers = [Attribute(name=plans.covariate_name(spec, c), source=_attribute(c)) for c in spec.covariates]
    return (*segments, *numbers)


def _attribute(declared: Segment | Covariate) -> Source:
    return Source(feature=declared.feature, header=declared.header, json_pointer=declared.json_pointer)
