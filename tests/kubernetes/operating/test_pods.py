"""The servers that routers send to, as the pods of a rollout come and go, on a real API server."""

import pytest

from controller.edges.cluster import deployments, pods
from controller.edges.cluster.access import Node
from controller.edges.cluster.questions import AT_ONCE
from controller.edges.cluster.resources import PODS
from controller.operator.operator import Operator
from controller.status import Progress
from tests.bench_router.processes import free_port
from tests.kubernetes.operating.machines import Machines
from tests.kubernetes.operating.templated import at_work, scale
from tests.kubernetes.operating.theatre import STAY, Theatre, until


def crowd(theatre: Theatre, template: Node, size: int) -> Operator:
    """The operator of a rollout that stays at 50 % with ``size`` servers in each arm, all of which are known."""
    operator = theatre.operator(idle_s=0.3)
    theatre.apply(steps=STAY, servers={"template": template, "replicas": size})
    theatre.reaches(Progress.RUNNING, step=1, within=60.0)
    until(lambda: served(theatre) == (size, size), "the routers have all of them")
    return operator


def served(theatre: Theatre) -> tuple[int, int]:
    """To how many servers the routers send, by arm."""
    table = theatre.scene("late").traffic.routers[0].workers[0].table
    assert table is not None
    return len(table.champion.upstreams), len(table.challenger.upstreams) if table.challenger else 0


def test_a_controller_that_takes_over_or_looks_again_takes_no_server_away(
    theatre: Theatre, machines: Machines, template: Node
) -> None:
    """It has asked none of them, and asks a dozen at a time."""
    size = AT_ONCE + 2
    crowd(theatre, template, size).stop()
    before = theatre.status()
    operator = theatre.operator(idle_s=0.3)
    asked = {name: server.asked for name, server in machines.servers.items()}
    until(lambda: all(s.asked > asked[name] for name, s in machines.servers.items()), "all are asked again")
    assert theatre.status().table == before.table
    theatre.ask("promote")
    theatre.reaches(Progress.PROMOTED, within=60.0)
    theatre.rests(operator)
    table = theatre.status().table
    assert served(theatre) == (size, 0)
    operator.stop()
    operator = theatre.operator(idle_s=0.3)
    asked = {name: server.asked for name, server in machines.servers.items()}
    until(lambda: any(s.asked > asked[name] for name, s in machines.servers.items()), "it is looked at again")
    theatre.rests(operator)
    assert theatre.status().table == table


@pytest.mark.parametrize("refused", [False, True])
def test_pods_stay_at_their_own_port_when_the_template_has_another(
    theatre: Theatre, machines: Machines, template: Node, refused: bool
) -> None:
    """Those of the old template serve until others are ready; of a template that is refused there are none."""
    at_work(theatre, template, step=1)
    before = machines.upstreams("1")
    machines.broken |= {"1", "2"}  # what is started from now on
    (container,) = template["spec"]["containers"]
    container["ports"] = [{"containerPort": free_port()}]
    if refused:
        container["imagePullPolicy"] = "Sometimes"
    theatre.apply(steps=STAY, servers={"template": template})
    told = "imagePullPolicy" if refused else "pods of another template"
    status = until(
        lambda: (s := theatre.status()).attempts == 2 and told in s.observed.servers_message and s, "it is told"
    )
    assert status.progress is Progress.PENDING
    assert status.table is not None
    assert set(status.table.champion.upstreams) == before


def test_a_pod_that_only_wears_the_labels_is_sent_nothing(theatre: Theatre, machines: Machines, template: Node) -> None:
    """A copy for debugging, or somebody's own: it is none of the Deployment's."""
    at_work(theatre, template, step=1)
    meta = {"namespace": theatre.namespace, "name": "late-copy", "labels": deployments.labels("late", "1")}
    theatre.access.create(PODS, {"metadata": meta, "spec": template["spec"]})
    until(lambda: machines.servers.get("late-copy"), "it runs")
    until(lambda: len(machines.upstreams("1")) == 2 and all(map(pods.ready, machines.pods("1"))), "it is ready")
    scale(theatre, "1", 2)
    upstreams = until(
        lambda: len(found := theatre.status().observed.champion_upstreams) >= 2 and found,
        "another of its own is sent to",
    )
    copy = theatre.access.get(PODS, theatre.namespace, "late-copy")["status"]["podIP"]
    assert f"{copy}:{machines.port}" not in upstreams


@pytest.mark.parametrize("ended", [Progress.PROMOTED, Progress.ROLLED_BACK])
def test_a_rollout_at_rest_follows_the_pods_of_the_version_that_serves(
    theatre: Theatre, machines: Machines, template: Node, ended: Progress
) -> None:
    """Their watch wakes it: the next look by itself would come after minutes."""
    operator = at_work(theatre, template, idle_s=600.0)
    theatre.ask("promote" if ended is Progress.PROMOTED else "abort")
    theatre.reaches(ended)
    theatre.rests(operator)
    version = "2" if ended is Progress.PROMOTED else "1"

    def followed() -> bool:
        table = theatre.scene("late").traffic.routers[0].workers[0].table
        return table is not None and set(table.champion.upstreams) == machines.upstreams(version)

    until(followed, "the routers send to its pods")
    (pod,) = machines.pods(version)
    theatre.access.delete(PODS, theatre.namespace, pod["metadata"]["name"])
    until(lambda: [p["metadata"]["uid"] for p in machines.pods(version)] != [pod["metadata"]["uid"]], "another comes")
    until(followed, "they send to it")
    scale(theatre, version, 3)
    until(lambda: len(machines.upstreams(version)) == 3 and followed(), "they send to all that there are")
    scale(theatre, version, 2)
    until(lambda: len(machines.pods(version)) == 2 and followed(), "and to none that is gone")
