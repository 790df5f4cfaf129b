"""The pods of the version that serves are followed, whatever becomes of the next attempt."""

import pytest

from controller.edges.cluster import deployments
from controller.edges.cluster.access import Node
from controller.edges.cluster.deployments import Version
from controller.edges.cluster.resources import DEPLOYMENTS, PODS, ROLLOUTS
from controller.status import Progress, Reason, RolloutStatus
from tests.kubernetes.operating.machines import Machines
from tests.kubernetes.operating.templated import Found
from tests.kubernetes.operating.theatre import SPEC, STAY, Theatre, until

DRIFT = {"name": "d", "kind": "Drift", "role": "Observe"}


def serving(theatre: Theatre) -> tuple[str, set[str]]:
    """Version and addresses of the champion, as the routers have it."""
    table = theatre.scene("late").traffic.routers[0].workers[0].table
    return (table.champion.version, set(table.champion.upstreams)) if table is not None else ("", set())


def promoted(theatre: Theatre, machines: Machines, template: Node) -> RolloutStatus:
    """Version 2, in a pod of its own."""
    theatre.apply(servers={"template": template})
    status = theatre.reaches(Progress.PROMOTED)
    until(lambda: serving(theatre) == ("2", machines.upstreams("2")), "the promoted version serves")
    return status


def drained(theatre: Theatre, machines: Machines) -> None:
    """The pod of version 2 goes, and the routers send to the one that comes in its place."""
    before = machines.upstreams("2")
    (pod,) = machines.pods("2")
    theatre.access.delete(PODS, theatre.namespace, pod["metadata"]["name"])
    until(
        lambda: len(new := machines.upstreams("2")) == 1 and new != before and "None" not in str(new), "another comes"
    )
    until(lambda: serving(theatre) == ("2", machines.upstreams("2")), "the routers follow", within=15)


@pytest.mark.parametrize("reason", [Reason.NO_SIGNATURE, Reason.MODEL_MISSING])
def test_while_the_next_attempt_cannot_begin(
    theatre: Theatre, machines: Machines, template: Node, reason: Reason
) -> None:
    theatre.operator(idle_s=0.3)
    promoted(theatre, machines, template)
    if reason is Reason.NO_SIGNATURE:
        theatre.registry.register("flights", ("4",), signed=False)
        theatre.registry.move("flights", "challenger", "4", "owner")
    else:
        theatre.apply(model={"name": "flihgts"}, servers={"template": template})
    until(lambda: theatre.status().reason is reason, "it is told")
    drained(theatre, machines)
    assert theatre.status().reason is reason


def test_until_the_champion_of_another_model_is_ready(
    theatre: Theatre, machines: Machines, template: Node, found: Found
) -> None:
    """Its versions have the same numbers, and Deployments of their own."""
    theatre.model("trains")
    theatre.operator(idle_s=0.3)
    promoted(theatre, machines, template)
    one, two = (deployments.new_mark(Version("trains", number), "12") for number in "12")
    machines.broken.add(one)
    theatre.apply(model={"name": "trains"}, steps=STAY, servers={"template": template})
    until(lambda: machines.pods(one) and machines.pods(two), "both versions of the other model are started")
    drained(theatre, machines)
    (container,) = found("2")["spec"]["template"]["spec"]["containers"]
    assert container["env"] == [{"name": "MODEL_URI", "value": "models:/flights/2"}]
    machines.broken.clear()
    theatre.reaches(Progress.RUNNING, step=1)
    until(lambda: serving(theatre) == ("1", machines.upstreams(one)), "the other model serves")
    (container,) = found(two)["spec"]["template"]["spec"]["containers"]
    assert container["env"] == [{"name": "MODEL_URI", "value": "models:/trains/2"}]
    until(lambda: names(theatre) == {f"late-v{one}", f"late-v{two}"}, "what nobody wants goes")


@pytest.mark.parametrize("reason", [Reason.INVALID_SPEC, Reason.MODEL_TAKEN, Reason.MODEL_NOT_ALLOWED])
def test_while_what_is_declared_is_refused(
    theatre: Theatre, machines: Machines, template: Node, reason: Reason
) -> None:
    """By the replica that read what was accepted, and by one that never did."""
    rules = [f"{theatre.namespace}={name}" for name in ("flights", "trains")]
    operator = theatre.operator(idle_s=0.3, allow_models=rules)
    before = promoted(theatre, machines, template)
    edit: Node = {"servers": {"template": template}, "metrics": [*SPEC["metrics"], DRIFT]}
    if reason is not Reason.INVALID_SPEC:
        edit = {"servers": {"template": template}, "model": {"name": "others"}}
    if reason is Reason.MODEL_TAKEN:
        theatre.model("trains")
        theatre.apply("other", model={"name": "trains"}, steps=STAY)
        until(lambda: theatre.status("other").attempt, "another rollout releases it")
        edit["model"] = {"name": "trains"}
    theatre.apply(**edit)
    until(lambda: stalled(theatre) == reason, "it is told")
    drained(theatre, machines)
    assert operator.stop()
    theatre.operator(idle_s=0.3, allow_models=rules)
    drained(theatre, machines)
    theatre.rests(theatre.operators[-1])
    status = theatre.status()
    assert stalled(theatre) == reason
    assert (status.progress, status.sequence, status.attempt) == (Progress.PROMOTED, before.sequence, before.attempt)
    theatre.access.delete(ROLLOUTS, theatre.namespace, "late")
    until(theatre.gone, "it may be deleted")


def stalled(theatre: Theatre) -> str:
    """Why the rollout does not go on."""
    held = {c.type: c for c in theatre.status().conditions}["Stalled"]
    return held.reason if held.status == "True" else ""


def names(theatre: Theatre) -> set[str]:
    """Of all Deployments."""
    return {each["metadata"]["name"] for each in theatre.access.list(DEPLOYMENTS, theatre.namespace).items}
