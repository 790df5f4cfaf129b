"""Whatever the world shows and people ask: what ``evolve`` never does, and what each of its steps leaves behind."""

from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.cells import Block, EpochCounts, Losses, MetricPlan, ScoreCell
from controller.core.evolve import Transition, evolve
from controller.core.fold import EMPTY, Fold, Statistics, fold
from controller.core.pairs import PairFold
from controller.core.plans import query
from controller.core.record import canonical
from controller.core.replay import differs
from controller.spec import RolloutSpec
from controller.status import PersonRequest, Progress, RolloutStatus, Verb
from tests.decide.rollouts import fresh, ready, rollout
from tests.evidence.drawn import once

SECOND = 1_000_000
START = 10**6 * SECOND
METRICS = [
    {
        "name": "ctr",
        "kind": "Proportion",
        "outcome": "click",
        "window": "1s",
        "margin": "5%",
        "baseline": {"mean": 0.05},
    },
    {"name": "errors", "kind": "ErrorRate", "margin": "0.5pp", "baseline": {"mean": 0.001}},
]
STEPS: list[dict[str, Any]] = [{"mirror": 10, "hold": "5s"}, {"weight": 10, "hold": "5s"}, {"weight": 50, "hold": "5s"}]
QUICK = {"tick": "5s", "block": "5s", "minUnits": 100, "maxDuration": "10m", "mismatchFor": "20s", "grace": "0s"}


def plan(**more: Any) -> RolloutSpec:
    return rollout(**{"metrics": METRICS, "steps": STEPS, "decision": QUICK, **more}).spec


SPECS = {
    "usual": plan(),
    "held": plan(afterPromotion={"holdback": 5, "hold": "10s"}),
    "approved": plan(steps=[{**s, "approve": True} for s in STEPS], decision={**QUICK, "approvePromotion": True}),
    "numbers": plan(model={"champion": "1", "challenger": "2"}),
    "same": plan(allowSameVersion=True),
}
MOODS = ("nothing", "quiet", "proven", "proven", "proven", "harmful", "lost", "stale", "fallbacks")

versions = st.sampled_from(["1", "2", "3", None])
worlds = st.fixed_dictionaries(
    {},
    optional={
        "champion_alias": versions,
        "challenger_alias": versions,
        "registry_error": st.sampled_from([None, "down"]),
        "confirmed": st.sampled_from([-1, 0, 1, 10**6]),
        "challenger_ready": st.booleans(),
        "challenger_upstreams": st.sampled_from([(), ("b:1",)]),
        "champion_upstreams": st.sampled_from([(), ("a:1",)]),
        "breaker_open": st.booleans(),
        "breaker_open_ms": st.sampled_from([0, 100, 59_999, 60_000]),
    },
)
verbs = st.sampled_from(["approve", "pause", "resume", "abort", "promote"])
ticks = st.tuples(
    st.one_of(st.just({}), worlds),
    st.one_of(st.none(), st.none(), st.none(), verbs),
    st.sampled_from(MOODS),
    st.sampled_from([5, 5, 5, 6, 60, -30, 0]),
    st.booleans(),  # whether announced alias moves have happened
)


def _block(of: MetricPlan, epoch: int, bad: bool) -> Block:
    n, k = 2_000_000, 1000 if bad else 100_000
    if of.family == "failures":
        return Block(of.name, "", epoch, epoch, *once(167_000, (n, 10), (n, 300_000 if bad else 10)))
    y, mean = 1_000_000, 50_000
    cells = []
    for share, hits in ((-167_000, 100_000), (833_000, k)):
        clustered = share * share * (hits * (y - mean) ** 2 + (n - hits) * mean**2)
        cells.append(ScoreCell(n, n, hits * y, hits * y * y, hits * y, n, hits, clustered))
    return Block(of.name, "", epoch, epoch, *cells)


def statistics(spec: RolloutSpec, status: RolloutStatus, mood: str, now: int) -> Statistics:
    """What an engine could say in this mood of the world."""
    if mood == "nothing":
        return EMPTY
    counts = {}
    for epoch in status.epochs:
        b = 5000 if mood != "lost" else 2000
        a = round(5000 * (10**6 - epoch.pi_ppm) / max(epoch.pi_ppm, 1)) if epoch.pi_ppm else 5000
        counts[epoch.number] = EpochCounts(epoch.number, a, b, a, b, b if mood == "fallbacks" else 0, a, b)
    folds: dict[tuple[str, str], Fold] = {}
    weighted = [e.number for e in status.epochs if e.kind != "mirror"]
    if mood in ("proven", "harmful", "fallbacks", "lost") and weighted:
        asked = query("late", spec, status)
        for of in asked.metrics:
            if of.frozen:
                state = None
                for number in weighted:
                    state = fold(of, asked.epochs[number - 1], state, _block(of, number, mood == "harmful"))
                folds[(of.name, "")] = cast(Fold, state)
    mirrored: dict[tuple[str, str], PairFold] = {}
    if mood in ("proven", "harmful") and len(weighted) < len(status.epochs):
        mirrored[("errors", "")] = PairFold(epoch=1, units=1000, better=3, worse=2, last_block=1, last_epoch=1)
    watermark = now - (10**9 if mood == "stale" else 0)
    return Statistics(folds, mirrored, {}, counts, Losses(10**6), watermark)


def world_of(
    status: RolloutStatus, changed: dict[str, Any], verb: str | None, number: int, moved: bool
) -> RolloutStatus:
    """What the loop would have read before this tick."""
    seen: dict[str, Any] = {"breaker_open": False, "requests": status.observed.requests, **changed}
    if moved:
        for move in status.alias_moves:
            seen["champion_alias" if move.alias == "champion" else "challenger_alias"] = move.version
    if verb is not None:
        seen["requests"] = (*seen["requests"], PersonRequest(id=str(number), verb=verb))
    return status.model_copy(update={"observed": status.observed.model_copy(update=seen)})


def weight(status: RolloutStatus) -> int:
    return status.table.weight_bp if status.table is not None and status.table.challenger is not None else 0


def allowed(status: RolloutStatus) -> int:
    """The most that the challenger may get."""
    epoch = status.current_epoch
    if status.progress is Progress.RUNNING:
        return epoch.weight_bp if epoch else 0
    return 10_000 if status.progress in (Progress.PROMOTING, Progress.HOLDBACK) else 0


def check(before: RolloutStatus, move: Transition) -> None:
    after = move.status
    assert after.sequence - before.sequence == (move.record is not None)
    assert after.clock >= before.clock
    assert after.attempts >= before.attempts
    assert RolloutStatus.model_validate_json(after.model_dump_json(by_alias=True)) == after
    if before.table is not None:
        assert after.table is not None
        assert after.table.generation - before.table.generation == (after.table != before.table)
    if after.attempt is not None:
        assert (after.table is None) or after.table.rollout == "late"
        _check_steps(before, after)
    if before.progress.terminal and not after.progress.terminal:
        assert after.attempts > before.attempts or after.attempt is None
    _check_aliases(after)


def _check_steps(before: RolloutStatus, after: RolloutStatus) -> None:
    same = before.attempt is not None and after.attempt is not None and before.attempt.number == after.attempt.number
    # Without a champion's address there is nothing to serve, and the last table stays; unless nobody is to be sent to
    # the challenger any more, which needs no address but the last one.
    if after.observed.champion_upstreams:
        assert weight(after) <= allowed(after)
    elif same:
        assert weight(after) == weight(before) or weight(after) == allowed(after) == 0
    if not same:
        return
    assert before.attempt == after.attempt
    assert after.step - before.step in (0, 1)
    rises = allowed(after) > allowed(before)
    if after.step > before.step or (rises and before.progress is not Progress.PENDING):
        assert after.decision is Verb.ADVANCE or after.progress in (Progress.PROMOTING, Progress.HOLDBACK)
    if after.progress is Progress.PROMOTING:
        assert after.decision is Verb.PROMOTE
    if before.progress is Progress.ROLLING_BACK:
        assert after.progress in (Progress.ROLLING_BACK, Progress.ROLLED_BACK)


def _check_aliases(after: RolloutStatus) -> None:
    if after.attempt is None:
        assert not after.alias_moves
        return
    up = [m for m in after.alias_moves if m.version == after.attempt.challenger != after.attempt.champion]
    if up:
        assert after.promoted_traffic
        assert after.progress in (Progress.PROMOTING, Progress.HOLDBACK, Progress.PROMOTED)


@settings(deadline=None, max_examples=80)
@given(st.sampled_from(sorted(SPECS)), st.lists(ticks, min_size=1, max_size=25), st.data())
def test_no_world_and_no_request_leads_where_nothing_was_decided(
    name: str, script: list[tuple[dict[str, Any], str | None, str, int, bool]], data: st.DataObject
) -> None:
    spec, now = SPECS[name], START
    status = fresh(observed=ready(challenger_alias="1" if name == "same" else "2"))
    for number, (changed, verb, mood, gone, moved) in enumerate(script):
        now += gone * SECOND
        before = world_of(status, changed, verb, number, moved)
        known = statistics(spec, before, mood, now)
        move = evolve(spec, before, known, now)
        check(before, move)
        assert canonical(evolve(spec, before, known, now).status) == canonical(move.status)
        if move.record is not None:
            assert differs(move.record) is None
        status = move.status


def test_the_moods_of_the_world_reach_every_end() -> None:
    ends = set()
    for name, mood in (("usual", "proven"), ("usual", "harmful"), ("same", "proven"), ("held", "proven")):
        spec, now = SPECS[name], START
        status = fresh(observed=ready(challenger_alias="1" if name == "same" else "2"))
        for number in range(40):
            now += 5 * SECOND
            before = world_of(status, {}, None, number, moved=True)
            status = evolve(spec, before, statistics(spec, before, mood, now), now).status
            ends |= {status.progress}
    assert {Progress.PROMOTED, Progress.ROLLED_BACK, Progress.HELD, Progress.HOLDBACK} <= ends
