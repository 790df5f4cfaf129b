"""What an edit of the spec does to an attempt that is under way."""

import pytest

from controller.core.evolve import evolve, plan_digest
from controller.core.fold import EMPTY
from controller.sections import Model
from controller.spec import RolloutSpec
from controller.status import Progress, Reason, RolloutStatus
from tests.decide.rollouts import fresh, ready, rollout


def tick(status: RolloutStatus, spec: RolloutSpec, **observed: object) -> RolloutStatus:
    seen = status.observed.model_copy(update={"requests": (), **observed})
    return evolve(spec, status.model_copy(update={"observed": seen}), EMPTY, status.clock + 60_000_000).status


@pytest.mark.parametrize(
    "asking",
    [
        {"decision": {"approvePromotion": True}},
        {"steps": [{"weight": 10, "hold": "10m"}, {"weight": 50, "hold": "10m", "approve": True}]},
    ],
)
def test_an_approval_that_is_not_asked_for_any_more_starts_the_attempt_again(asking: dict[str, object]) -> None:
    status = tick(tick(fresh(), rollout(**asking).spec), rollout().spec)
    assert (status.progress, status.reason) == (Progress.ROLLING_BACK, Reason.SUPERSEDED)
    for _ in range(3):
        status = tick(status, rollout().spec)
    assert (status.progress, status.attempts, status.step) == (Progress.RUNNING, 2, 0)


def test_an_approval_that_is_asked_for_in_the_middle_is_asked_for_and_cannot_be_taken_back() -> None:
    plain, asking = rollout().spec, rollout(decision={"approvePromotion": True}).spec
    begun = tick(fresh(), plain)
    status = tick(begun, asking)
    assert (status.progress, status.attempts) == (Progress.RUNNING, 1)
    assert tick(status, asking).progress is Progress.RUNNING
    assert tick(status, plain).reason is Reason.SUPERSEDED


TEMPLATE = {"spec": {"containers": [{"name": "model", "image": "model:1"}]}}
BUILT = {"template": {"spec": {"containers": [{"name": "model", "image": "model:2"}]}}}
UPSTREAMS = ("champion_upstreams", "challenger_upstreams", "champion_ready", "challenger_ready")
ADOPTED = {"champion": {"service": "a"}, "challenger": {"service": "b"}}


@pytest.mark.parametrize("servers", [BUILT, {"template": TEMPLATE, "probe": {"path": "/ready"}}, ADOPTED])
def test_other_servers_start_the_attempt_again(servers: dict[str, object]) -> None:
    """Two builds are no one challenger."""
    status = tick(fresh(), rollout(servers={"template": TEMPLATE}).spec)
    edited = served_by(servers)
    status = tick(status, edited)
    assert (status.progress, status.reason) == (Progress.ROLLING_BACK, Reason.SUPERSEDED)
    there = ready()
    seen = {name: getattr(there, name) for name in UPSTREAMS}
    for _ in range(4):
        status = tick(status, edited, **seen)
    assert (status.progress, status.attempts, status.past) == (Progress.RUNNING, 2, ("2",))


def test_another_number_of_pods_starts_nothing_again() -> None:
    status = tick(fresh(), rollout(servers={"template": TEMPLATE}).spec)
    status = tick(status, rollout(servers={"template": TEMPLATE, "replicas": 3}).spec)
    assert (status.progress, status.attempts) == (Progress.RUNNING, 1)


def test_nobody_stays_with_the_challenger_where_the_champion_is_not_found_any_more() -> None:
    """The declared Services do not exist: the champion is served where it was."""
    status = tick(fresh(), rollout(servers={"template": TEMPLATE}).spec)
    assert status.table is not None
    before = status.table
    gone = {"champion_upstreams": (), "challenger_upstreams": (), "champion_ready": False, "challenger_ready": False}
    for _ in range(4):
        status = tick(status, served_by(ADOPTED), **gone)
    assert (before.weight_bp, status.table.weight_bp, status.table.challenger) == (1000, 0, None)
    assert status.table.champion.upstreams == before.champion.upstreams
    assert (status.progress, status.reason) == (Progress.PENDING, Reason.SERVERS_NOT_READY)


def test_what_an_attempt_is_held_to_is_the_same_in_the_next_release() -> None:
    """Where this changes, an upgrade of the controller starts every attempt again: say so in the CHANGELOG."""
    rich = rollout(
        segments=[{"name": "place", "header": "X-Place"}],
        servers={"template": TEMPLATE},
        decision={"approvePromotion": True},
    )
    assert plan_digest(rich.spec) == "a029b5010da2c58b"
    assert plan_digest(rollout().spec) == "86ee395dbbd4d5ab"


class LaterModel(Model):
    """As a later release may have it."""

    region: str | None = None
    shards: int = 1


class LaterSpec(RolloutSpec):
    """Likewise."""

    model: LaterModel


def test_a_later_release_with_more_to_declare_starts_nothing_again() -> None:
    spec = rollout().spec
    tree = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert plan_digest(LaterSpec.model_validate(tree)) == plan_digest(spec)
    tree["model"]["shards"] = 2
    assert plan_digest(LaterSpec.model_validate(tree)) != plan_digest(spec)


def test_an_attempt_of_a_release_that_counted_defaults_goes_on() -> None:
    status = tick(fresh(), rollout().spec)
    old = status.model_copy(update={"plan": "f9fba595245a5787"})
    after = tick(old, rollout().spec)
    assert (after.progress, after.attempts, after.plan) == (Progress.RUNNING, 1, plan_digest(rollout().spec))


def served_by(servers: dict[str, object]) -> RolloutSpec:
    return rollout(servers=servers).spec
