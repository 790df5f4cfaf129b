"""An edit that the API server takes and the controller refuses: nobody stays at a weight that is not watched."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from controller.edges.cluster.access import Node
from controller.edges.cluster.resources import ROLLOUTS
from controller.operator.operator import Operator
from controller.spec import RolloutSpec
from controller.status import Condition, Progress, Reason, RolloutStatus
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.operating.theatre import SPEC, STAY, Theatre, until
from tests.kubernetes.operating.wired import SERVED, WiredTheatre

MEMORY = {"name": "memory", "kind": "Resource", "query": "memory", "limit": "1Gi"}
DEEP: Node = {}
for _ in range(150):
    DEEP = {"a": DEEP}
SERVING = {"containers": [{"name": "model", "image": "i"}]}
REFUSED = {
    "afterPromotion.watch": {"afterPromotion": {"watch": {"alerts": []}}},
    "decision.tick": {"decision": {**SPEC["decision"], "tick": "10ms"}},
    "metrics[1].kind (memory)": {"metrics": [*SPEC["metrics"], MEMORY]},
    "servers": {"servers": {"template": DEEP}},
    "servers.template.spec.initContainers": {"servers": {"template": {"spec": {**SERVING, "initContainers": [None]}}}},
}


def stalled(status: RolloutStatus) -> Condition | None:
    """The condition, where it says that the declared spec is refused."""
    held = {c.type: c for c in status.conditions}.get("Stalled")
    return held if held and (held.status, held.reason) == ("True", "InvalidSpec") else None


def shown(control_plane: ControlPlane, theatre: Theatre) -> dict[str, str]:
    """What `kubectl get mro` tells of it, by column."""
    command = [*control_plane.command, "-n", theatre.namespace, "get", "mro", "late"]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    head, line = (row.split() for row in said.splitlines())
    return dict(zip(head, line, strict=True))


def at_half(theatre: Theatre, **settings: Any) -> Operator:
    """The operator of a rollout whose challenger has half of the users."""
    operator = theatre.operator(**settings)
    theatre.apply(steps=STAY, servers=SERVED)
    theatre.reaches(Progress.RUNNING, step=1)
    until(lambda: theatre.weight() == 5000, "the weight of the step is served")
    return operator


def edited(theatre: Theatre, edit: Node) -> RolloutStatus:
    """The status, once it tells that ``edit`` is refused."""
    theatre.apply(**{"steps": STAY, "servers": SERVED, **edit})
    return until(lambda: (s := theatre.status()) and stalled(s) and s, "the edit is refused")


def rolls_back(theatre: Theatre) -> None:
    """Harm is found and acted on."""
    status = theatre.reaches(Progress.ROLLED_BACK, errors=0.6, requests=200)
    assert status.reason in (Reason.SERVICE_HARM, Reason.CHALLENGER_UNAVAILABLE)
    assert (theatre.weight(), status.attempts) == (0, 1)


@pytest.mark.parametrize("field", REFUSED)
def test_a_live_attempt_goes_on_under_the_spec_that_was_accepted_last(
    wired: WiredTheatre, control_plane: ControlPlane, field: str
) -> None:
    at_half(wired)
    status = edited(wired, REFUSED[field])
    held = stalled(status)
    assert held is not None
    assert f"spec.{field}" in held.message
    assert (status.progress, status.generation, held.observed_generation) == (Progress.RUNNING, 2, 2)
    after = until(lambda: (s := wired.status()).clock > status.clock + 1_000_000 and s, "it is ticked")
    assert (stalled(after), wired.weight()) == (held, 5000)  # since when it says has not changed
    until(lambda: "InvalidSpec" in {e["reason"] for e in wired.events()}, "an Event tells it")
    assert shown(control_plane, wired)["STALLED"] == "True"
    rolls_back(wired)


def test_an_edit_that_breaks_the_check_itself_is_refused_as_well(theatre: Theatre) -> None:
    """What no check is ready for must not cost the passes that watch the attempt."""
    operator = at_half(theatre)

    def breaks(_name: str, spec: RolloutSpec) -> list[str]:
        return [] if spec.decision.min_units == SPEC["decision"]["minUnits"] else ["x"[1]]

    operator.store.faults = breaks
    held = stalled(edited(theatre, {"decision": {**SPEC["decision"], "minUnits": 7}}))
    assert held is not None
    assert held.message.startswith("spec: cannot be looked at: IndexError")
    rolls_back(theatre)


def test_an_edit_that_is_mended_goes_on_where_it_was(theatre: Theatre) -> None:
    at_half(theatre)
    before = edited(theatre, REFUSED["decision.tick"])
    theatre.apply(steps=STAY, servers=SERVED, decision={**SPEC["decision"], "minUnits": 7})
    status = until(lambda: (s := theatre.status()).generation == 3 and s, "it is accepted")
    assert stalled(status) is None
    assert (status.attempts, status.step, status.epoch) == (1, 1, before.epoch)


@pytest.mark.parametrize("again", [False, True])
def test_one_that_is_deleted_while_its_spec_is_refused_gives_everybody_back(theatre: Theatre, again: bool) -> None:
    """Also by a controller that has just begun and never saw another spec."""
    operator = at_half(theatre)
    edited(theatre, REFUSED["afterPromotion.watch"])
    if again:
        assert operator.stop()
        theatre.operator()
    theatre.access.delete(ROLLOUTS, theatre.namespace, "late")
    until(theatre.gone, "it is gone")
    assert theatre.weight() == 0


def test_a_controller_that_starts_again_knows_the_accepted_spec_by_its_records(
    theatre: Theatre, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    assert at_half(theatre, state_dir=state).stop()
    theatre.apply(steps=STAY, servers=SERVED, **REFUSED["afterPromotion.watch"])
    theatre.operator(state_dir=state)
    status = until(lambda: (s := theatre.status()) and stalled(s) and s, "the edit is refused")
    assert (status.progress, status.step, theatre.weight()) == (Progress.RUNNING, 1, 5000)
    rolls_back(theatre)


def test_another_replica_ends_the_attempt_and_begins_again_once_the_spec_is_mended(theatre: Theatre) -> None:
    assert at_half(theatre).stop()
    theatre.apply(steps=STAY, servers=SERVED, **REFUSED["afterPromotion.watch"])
    theatre.operator()
    status = theatre.reaches(Progress.ROLLED_BACK)
    assert (status.reason, theatre.weight()) == (Reason.SUPERSEDED, 0)
    aliases = [theatre.registry.alias("flights", name) for name in ("champion", "challenger")]
    assert aliases == ["1", "2"]
    until(lambda: stalled(theatre.status()), "it tells what is wrong")
    theatre.apply(steps=STAY, servers=SERVED)
    status = theatre.reaches(Progress.RUNNING, step=1)
    assert (status.attempts, stalled(status)) == (2, None)


def test_a_replica_that_leads_again_goes_by_no_spec_that_another_one_replaced(theatre: Theatre) -> None:
    """It remembers one that was accepted, and a record of the decision in force, which was made under it."""
    one = at_half(theatre)
    theatre.lines[one].set()
    two = theatre.operator()
    until(two.leader.leads, "another one leads")
    theatre.apply(steps=STAY, servers=SERVED, decision={**SPEC["decision"], "minUnits": 7})
    until(lambda: theatre.status().generation == 2, "it has accepted another spec")
    before = edited(theatre, REFUSED["afterPromotion.watch"])
    assert before.progress is Progress.RUNNING
    theatre.lines[one].clear()
    assert two.stop()
    assert theatre.reaches(Progress.ROLLED_BACK).reason is Reason.SUPERSEDED
    assert one.leader.leads()


def test_a_replica_that_leads_again_and_nobody_did_meanwhile_goes_on(theatre: Theatre) -> None:
    """The API server was away, say."""
    one = at_half(theatre)
    theatre.lines[one].set()
    until(lambda: not one.leader.leads(), "it leads no more")
    theatre.lines[one].clear()
    before = edited(theatre, REFUSED["afterPromotion.watch"])
    until(lambda: theatre.status().clock > before.clock + 500_000, "it is ticked")
    assert (theatre.status().progress, theatre.weight()) == (Progress.RUNNING, 5000)


@pytest.mark.parametrize("progress", [Progress.PROMOTING, Progress.HOLDBACK])
def test_a_promotion_that_another_replica_finds_is_taken_back_before_it_is_made_and_kept_after(
    theatre: Theatre, progress: Progress
) -> None:
    first = theatre.operator()
    kept = {"afterPromotion": {"holdback": 5, "hold": "1h"}}
    theatre.apply(servers=SERVED, **kept)
    theatre.reaches(Progress.RUNNING)
    theatre.registry.away = progress is Progress.PROMOTING  # the aliases cannot be moved
    theatre.reaches(progress)
    assert first.stop()
    theatre.apply(servers=SERVED, afterPromotion={**kept["afterPromotion"], "watch": {"alerts": []}})
    theatre.operator()
    if progress is Progress.PROMOTING:
        theatre.reaches(Progress.ROLLING_BACK)
        theatre.registry.away = False
        theatre.reaches(Progress.ROLLED_BACK)
        assert (theatre.weight(), theatre.registry.alias("flights", "champion")) == (0, "1")
    else:
        theatre.reaches(Progress.PROMOTED)
        assert theatre.registry.alias("flights", "champion") == "2"
