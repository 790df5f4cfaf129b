"""The operator on a real API server: a rollout that is applied goes its way, and everybody can see where it stands."""

import json
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from controller.core.conditions import refused
from controller.edges.cluster.access import Node
from controller.edges.cluster.requests import PREFIX
from controller.edges.cluster.resources import LEASES, ROLLOUTS
from controller.edges.cluster.store import FINALIZER
from controller.operator.operator import Operator, serve
from controller.operator.passes import parted
from controller.status import Observed, Progress, Reason, RolloutStatus
from router.table import RouteTable, Source, Target
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.operating.theatre import STAY, UNREADABLE, Theatre, deep, until


def kstatus(found: Node) -> str:
    """What sigs.k8s.io/cli-utils/pkg/kstatus v0.37.2 makes of a kind that it does not know (status.go, generic.go)."""
    if found["metadata"].get("deletionTimestamp"):
        return "Terminating"
    status = found.get("status", {})
    if "observedGeneration" in status and status["observedGeneration"] != found["metadata"]["generation"]:
        return "InProgress"
    said = {c["type"]: c["status"] for c in status.get("conditions", [])}
    if said.get("Reconciling") == "True":
        return "InProgress"
    if said.get("Stalled") == "True":
        return "Failed"
    return "InProgress" if said.get("Ready", "True") != "True" else "Current"


def test_a_good_challenger_is_promoted_and_everybody_can_see_it(theatre: Theatre, control_plane: ControlPlane) -> None:
    theatre.operator()
    assert kstatus(theatre.apply()) == "InProgress"
    theatre.reaches(Progress.RUNNING)
    found = theatre.object()
    assert (kstatus(found), found["metadata"]["finalizers"]) == ("InProgress", [FINALIZER])
    theatre.reaches(Progress.PROMOTED)
    found = until(lambda: kstatus(theatre.object()) == "Current" and theatre.object(), "kstatus says Current")
    assert theatre.registry.alias("flights", "champion") == "2"
    said = {c["type"]: (c["status"], c["observedGeneration"]) for c in found["status"]["conditions"]}
    assert said["Succeeded"] == ("True", found["metadata"]["generation"])
    wait = [*control_plane.command, "-n", theatre.namespace, "wait", "modelrollout/late", "--timeout=5s"]
    for condition in ("Succeeded", "Ready"):
        subprocess.run([*wait, f"--for=condition={condition}"], check=True, capture_output=True, timeout=20)
    shown = subprocess.run(
        [*control_plane.command, "-n", theatre.namespace, "get", "mro"], check=True, capture_output=True, text=True
    ).stdout
    head, row = (line.split() for line in shown.splitlines())
    wanted = {"WEIGHT": "100", "CHAMPION": "1", "CHALLENGER": "2", "DECISION": "Promote", "REASON": "Proven"}
    assert {name: value for name, value in zip(head, row, strict=True) if name in wanted} == wanted


def test_nothing_is_begun_before_all_rollouts_are_listed(theatre: Theatre) -> None:
    theatre.apply(steps=STAY)
    late = theatre.operator(start=False)
    watch, *others = late._threads
    for thread in others:
        thread.start()
    until(late.leader.leads, "it leads")
    late.queue.add(theatre.key())
    listed = theatre.object()["metadata"]["resourceVersion"]
    assert theatre.rests(late) == listed
    watch.start()
    theatre.reaches(Progress.RUNNING)


def test_a_harmful_challenger_is_rolled_back(theatre: Theatre) -> None:
    theatre.operator()
    theatre.apply(steps=STAY)
    theatre.reaches(Progress.RUNNING, step=1)
    status = theatre.reaches(Progress.ROLLED_BACK, errors=0.6, requests=200)
    assert status.reason in (Reason.SERVICE_HARM, Reason.CHALLENGER_UNAVAILABLE)
    assert theatre.weight() == 0
    assert kstatus(theatre.object()) == "Failed"
    assert theatre.registry.alias("flights", "champion") == "1"


def test_events_tell_each_transition_once(theatre: Theatre) -> None:
    theatre.operator()
    theatre.apply(steps=STAY)
    theatre.reaches(Progress.RUNNING, step=1)
    theatre.ask("promote")
    theatre.reaches(Progress.PROMOTED)
    until(lambda: not theatre.status().notices, "all is told")
    version = theatre.rests(theatre.operators[0])
    told = [e["note"].partition("\n")[0] for e in theatre.events()]
    assert len(told) == len(set(told)) == len(theatre.notifier.sent)
    assert {e["reason"] for e in theatre.events()} >= {"GateMet", "ByHand"}
    assert theatre.rests(theatre.operators[0]) == version
    assert len(theatre.events()) == len(told)


def test_the_same_spec_again_and_labels_change_nothing(theatre: Theatre) -> None:
    theatre.operator()
    theatre.apply(steps=STAY)
    theatre.reaches(Progress.RUNNING, step=1)
    theatre.ask("pause")
    before = until(lambda: theatre.status() if theatre.status().paused else None, "it is paused")
    for number in range(5):
        found = theatre.apply(labels={"build": str(number)}, steps=STAY)
    assert found["metadata"]["generation"] == 1
    assert found["metadata"]["finalizers"] == [FINALIZER]
    clock = before.clock
    after = until(lambda: theatre.status() if theatre.status().clock > clock + 500_000 else None, "time goes on")
    assert (after.sequence, after.attempt, after.table) == (before.sequence, before.attempt, before.table)


def test_what_a_person_asks_for_is_done_and_recorded_by_name(theatre: Theatre) -> None:
    theatre.operator()
    theatre.apply(steps=STAY)
    theatre.reaches(Progress.RUNNING)
    theatre.ask("abort")
    status = theatre.reaches(Progress.ROLLED_BACK)
    assert status.reason is Reason.ABORTED
    assert "by ada to see" in status.message


def test_requests_that_cannot_be_read_stop_nothing(theatre: Theatre) -> None:
    theatre.operator()
    theatre.apply(steps=STAY)
    theatre.reaches(Progress.RUNNING, step=1)
    annotations = {f"{PREFIX}r{number}": text for number, text in enumerate(UNREADABLE)}
    meta = {"namespace": theatre.namespace, "name": "late", "annotations": annotations}
    theatre.access.patch(ROLLOUTS, {"metadata": meta})
    theatre.ask("abort")  # whoever reads this has read those
    status = theatre.reaches(Progress.ROLLED_BACK)
    assert (status.reason, status.paused) == (Reason.ABORTED, False)
    theatre.access.delete(ROLLOUTS, theatre.namespace, "late")
    until(theatre.gone, "it is gone")


def test_no_request_of_a_person_keeps_a_deletion_from_being_obeyed(theatre: Theatre) -> None:
    """Whatever its id is: each is obeyed once, and a deletion stands for a request too."""
    theatre.operator()
    theatre.apply(steps=STAY)
    theatre.reaches(Progress.RUNNING, step=1)
    text = '{"verb":"resume","who":"ada","why":"","at":1}'
    meta = {"namespace": theatre.namespace, "name": "late", "annotations": {f"{PREFIX}deletion": text}}
    theatre.access.patch(ROLLOUTS, {"metadata": meta})
    until(lambda: "deletion" in theatre.status().handled, "it is handled")
    theatre.access.delete(ROLLOUTS, theatre.namespace, "late")
    until(theatre.gone, "it is gone")
    assert theatre.weight() == 0


def test_a_pass_that_fails_by_a_defect_is_told_and_tried_again(theatre: Theatre) -> None:
    operator = theatre.operator()
    theatre.apply(steps=STAY)
    theatre.reaches(Progress.RUNNING, step=1)
    theatre.registry.defect = OverflowError("no such number")

    def stalled() -> dict[str, str]:
        said = {c.type: c for c in theatre.status().conditions}
        return {"status": said["Stalled"].status, "reason": said["Stalled"].reason, "message": said["Stalled"].message}

    told = until(lambda: (s := stalled())["status"] == "True" and s, "it says that it does not go on")
    assert told["reason"] == "TickFailed"
    assert "OverflowError: no such number" in told["message"]
    until(lambda: "TickFailed" in {e["reason"] for e in theatre.events()}, "an Event tells it")
    assert kstatus(theatre.object()) == "Failed"
    assert theatre.status().progress is Progress.RUNNING
    assert operator.healthy() == ""
    theatre.registry.defect = None
    until(lambda: stalled()["status"] == "False", "it goes on")
    status = theatre.reaches(Progress.ROLLED_BACK, errors=0.6, requests=200)
    assert status.reason in (Reason.SERVICE_HARM, Reason.CHALLENGER_UNAVAILABLE)


def test_two_rollouts_of_one_model_are_refused_until_one_is_gone(theatre: Theatre) -> None:
    theatre.operator()
    theatre.apply("first", steps=STAY)
    theatre.reaches(Progress.RUNNING, "first")
    theatre.apply("second", steps=STAY)
    status = until(lambda: theatre.status("second") if theatre.status("second").conditions else None, "it is refused")
    said = {c.type: c for c in status.conditions}
    assert (said["Stalled"].status, said["Stalled"].reason) == ("True", "ModelTaken")
    assert f"{theatre.namespace}/first" in said["Stalled"].message
    assert kstatus(theatre.object("second")) == "Failed"
    until(lambda: theatre.events("second"), "an Event tells it")
    theatre.access.delete(ROLLOUTS, theatre.namespace, "first")
    until(lambda: theatre.gone("first"), "the first is gone")
    theatre.registry.move("flights", "challenger", "2", "owner")  # which the end of the first has taken away
    theatre.reaches(Progress.RUNNING, "second")
    assert kstatus(theatre.object("second")) == "InProgress"


def test_a_spec_that_cannot_be_understood_says_so_and_is_looked_at_again(theatre: Theatre) -> None:
    theatre.operator()
    theatre.apply(decision={"tick": "10m", "block": "1m"})
    status = until(lambda: theatre.status() if theatre.status().conditions else None, "it is refused")
    assert (status.reason, kstatus(theatre.object())) == (Reason.INVALID_SPEC, "Failed")
    assert "spec.decision.block" in status.message
    theatre.apply(steps=STAY)
    theatre.reaches(Progress.RUNNING)


@pytest.mark.parametrize("levels", [300, 1100])
def test_a_spec_that_is_nested_too_deeply_is_refused_and_costs_nobody_else(
    theatre: Theatre, control_plane: ControlPlane, levels: int
) -> None:
    operator = theatre.operator()
    theatre.apply(steps=STAY)
    theatre.reaches(Progress.RUNNING, step=1)
    deep(theatre, control_plane, levels, "abyss")
    status = until(lambda: (s := theatre.status("abyss")).conditions and s, "it is refused")
    assert status.reason is Reason.INVALID_SPEC
    assert status.message == "spec.servers: is nested more than 100 levels deep; write it flatter"
    theatre.apply("next", model={"name": "other"}, decision={"tick": "10m", "block": "1m"})
    until(lambda: theatre.status("next").conditions, "who comes after it is heard of")
    theatre.ask("abort")
    theatre.reaches(Progress.ROLLED_BACK)
    theatre.access.delete(ROLLOUTS, theatre.namespace, "abyss")
    until(lambda: theatre.gone("abyss"), "it is gone")
    assert operator.healthy() == ""


def test_a_refused_or_ended_rollout_may_be_deleted(theatre: Theatre) -> None:
    theatre.operator()
    theatre.apply("wrong", model={"name": "other"}, decision={"tick": "10m", "block": "1m"})
    until(lambda: theatre.status("wrong").conditions, "it is refused")
    theatre.apply("done", steps=STAY)
    theatre.reaches(Progress.RUNNING, "done")
    theatre.ask("abort", "done")
    theatre.reaches(Progress.ROLLED_BACK, "done")
    for name in ("wrong", "done"):
        theatre.access.delete(ROLLOUTS, theatre.namespace, name)
        until(lambda n=name: theatre.gone(n), f"{name} is gone")


def test_a_live_attempt_that_cannot_go_on_keeps_its_decision() -> None:
    live = RolloutStatus(uid="u", progress=Progress.ROLLING_BACK, reason=Reason.SERVICE_HARM, message="harm")
    status = refused(live, Reason.INVALID_SPEC, "spec.steps: wrong")
    assert (status.reason, status.message) == (Reason.SERVICE_HARM, "harm")
    assert {c.type: c.status for c in status.conditions} == {"Ready": "False", "Stalled": "True"}


def test_one_namespace_or_all_of_them(theatre: Theatre) -> None:
    """Each leads for itself, by leases of their own names."""
    other = theatre.operator(lease="other", namespace="default")
    until(other.watched.synced.is_set, "it has listed")
    theatre.model(theatre.namespace)  # whoever else has rollouts on this server
    theatre.apply(model={"name": theatre.namespace}, steps=STAY)
    assert other.watched.keys() == []
    theatre.operator(namespaced=False)
    theatre.reaches(Progress.RUNNING)
    assert other.store.keys() == []


def test_while_the_registry_is_away_nobody_with_weight_is_left_behind(theatre: Theatre) -> None:
    """Deletion in the middle: the champion serves everybody, then the object goes, whatever MLflow does."""
    theatre.operator()
    theatre.apply(steps=STAY)
    theatre.reaches(Progress.RUNNING, step=1)
    until(lambda: theatre.weight() == 5000, "the weight of the step is served")
    theatre.registry.away = True
    theatre.access.delete(ROLLOUTS, theatre.namespace, "late")
    until(theatre.gone, "it is gone", within=60)
    assert theatre.weight() == 0
    assert theatre.registry.alias("flights", "champion") == "1"


@pytest.mark.parametrize(
    ("progress", "seconds", "registry", "gone"),
    [
        (Progress.RUNNING, 0, None, False),
        (Progress.PROMOTING, 0, "away", False),
        (Progress.ROLLING_BACK, 3, None, False),  # the alias can still be moved back
        (Progress.ROLLING_BACK, 3, "away", False),  # not confirmed, and routers have some seconds left
        (Progress.ROLLING_BACK, 10, "away", True),  # the routers are gone
        (Progress.ROLLING_BACK, 10, None, False),
        (Progress.ROLLED_BACK, 0, None, True),
        (Progress.HOLDBACK, 0, None, True),
        (Progress.PROMOTED, 0, None, True),
    ],
)
def test_when_a_deleted_rollout_may_go(progress: Progress, seconds: int, registry: str | None, gone: bool) -> None:
    champion = Target(version="1", upstreams=("a:80",))
    table = RouteTable(generation=3, rollout="r", salt="s", champion=champion, unit=Source(header="x-unit"))
    status = RolloutStatus(
        uid="u", progress=progress, table=table, rolled_at=10**9, clock=10**9 + seconds * 1_000_000,
        observed=Observed(registry_error=registry, confirmed=-1),
    )  # fmt: skip
    assert parted(status) is gone
    assert parted(status, refused=True) is (gone or (progress is Progress.ROLLING_BACK and seconds >= 10))


def test_those_at_work_come_before_those_that_are_over(theatre: Theatre) -> None:
    """When leading begins, however many there are and in whatever order they are heard of."""
    operator = theatre.operator(start=False)
    theatre.operators.remove(operator)  # it never runs
    for name in ("a", "b", "c"):
        theatre.apply(name, model={"name": name})
        meta = theatre.object(name)["metadata"]
        status = RolloutStatus(uid=meta["uid"], rollout=theatre.key(name), progress=Progress.PROMOTED, end="Promoted")
        where = {k: meta[k] for k in ("namespace", "name", "resourceVersion")}
        body = {"metadata": where, "status": status.model_dump(mode="json", by_alias=True)}
        operator.watched.put(theatre.access.replace(ROLLOUTS, body, "status"))
    operator.watched.put(theatre.apply("late"))
    operator.leader.step()
    assert operator.leader.leads()
    names = [theatre.key(name) for name in ("late", "a", "b", "c")]
    assert taken_in_turn(operator, 4) == names
    # And later, though they were due before: thousands of a namespace would keep the few of it that are at work.
    for n, name in enumerate(names):
        operator.queue.add(name, -float(n))
    assert taken_in_turn(operator, 4) == [names[0], *reversed(names[1:])]


def taken_in_turn(operator: Operator, many: int) -> list[str]:
    keys = []
    for _ in range(many):
        taken = operator.queue.take(10)
        assert taken is not None
        operator.queue.give_back(taken.key, None)
        keys.append(taken.key)
    return keys


def test_a_rollout_that_is_over_asks_the_registry_nothing_by_itself(theatre: Theatre) -> None:
    """One query for all models tells it that its aliases name what they did, and when they do not any more."""
    operator = theatre.operator()
    theatre.apply()
    theatre.reaches(Progress.PROMOTED)
    theatre.rests(operator)
    asked = theatre.registry.asked
    theatre.rests(operator)
    assert theatre.registry.asked == asked
    theatre.registry.move("flights", "challenger", "3", "owner")
    theatre.reaches(Progress.RUNNING)
    assert theatre.registry.asked > asked


@pytest.fixture
def health(theatre: Theatre) -> Iterator[str]:
    server = serve(theatre.operator(), "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_health_readiness_and_metrics(theatre: Theatre, health: str) -> None:
    def page(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(health + path, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    until(lambda: page("/readyz")[0] == 200, "ready")
    assert page("/healthz") == (200, "ok\n")
    assert page("/none")[0] == 404
    theatre.apply(steps=STAY)
    theatre.reaches(Progress.RUNNING)
    shown = re.compile(rf'understudy_weight_percent{{rollout="{theatre.key()}"}} (5|50)\.0')
    text = until(lambda: (text := page("/metrics")[1]) and shown.search(text) and text, "its weight is shown")
    assert "understudy_leads 1.0" in text
    assert 'understudy_api_calls{kind="ModelRollout",verb="replace"}' in text
    theatre.ask("abort")
    theatre.reaches(Progress.ROLLED_BACK)
    until(lambda: theatre.key() not in page("/metrics")[1], "nothing is told of a rollout that is over")


def test_the_end_is_graceful(theatre: Theatre) -> None:
    """The pass under way is finished, and the next replica need not wait for the lease to run out."""
    one = theatre.operator(lease_s=30, call_s=5)
    theatre.apply(steps=STAY)
    theatre.reaches(Progress.RUNNING)
    two = theatre.operator(lease_s=30, call_s=5)
    assert one.stop()
    until(two.leader.leads, "the other leads", within=10)
    assert json.dumps(theatre.access.get(LEASES, theatre.namespace, "one")["spec"]).count("replica-") == 1
    theatre.reaches(Progress.RUNNING, step=1)
