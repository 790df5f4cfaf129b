"""Model servers from a rollout's pod template: Deployments on a real API server, with Kubernetes' controllers."""

from pathlib import Path

import pytest

from controller import wiring
from controller.edges.cluster import deployments
from controller.edges.cluster.accepted import AcceptedStore
from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.changes import BLIND
from controller.edges.cluster.resources import DEPLOYMENTS, PODS, ROLLOUTS
from controller.edges.cluster.watch import Watched
from controller.errors import NotFound, SpecError
from controller.settings import OperatorSettings
from controller.status import Progress, Reason
from tests.kubernetes.operating.machines import Machines
from tests.kubernetes.operating.real import ShownRegistry
from tests.kubernetes.operating.templated import LINGER_S, Clock, Found, at_work, replicas, scale, workloads
from tests.kubernetes.operating.theatre import STAY, Theatre, until


def test_a_rollout_runs_its_servers_from_the_template_to_the_end(
    theatre: Theatre, machines: Machines, template: Node, found: Found
) -> None:
    theatre.operator(idle_s=0.3)
    theatre.apply(servers={"template": template, "replicas": 2})
    status = theatre.reaches(Progress.RUNNING)
    made, (container,) = found("2"), found("2")["spec"]["template"]["spec"]["containers"]
    assert container["env"] == [{"name": "MODEL_URI", "value": "models:/flights/2"}]
    assert container["readinessProbe"]["httpGet"]["path"] == "/health"
    assert made["metadata"]["ownerReferences"][0]["uid"] == status.uid
    assert made["spec"]["template"]["metadata"]["labels"]["team"] == "flights"
    assert len(status.observed.challenger_upstreams) == 2
    assert {u.rpartition(":")[2] for u in status.observed.challenger_upstreams} == {str(machines.port)}
    status = theatre.reaches(Progress.PROMOTED)
    until(lambda: replicas(found("1")) == 0, "the old champion sleeps")
    until(lambda: not machines.pods("1"), "its pods are gone")
    assert (replicas(found("2")), len(machines.pods("2"))) == (2, 2)
    table = theatre.status().table
    assert table is not None
    assert set(table.champion.upstreams) == machines.upstreams("2")


def test_the_loser_sleeps_after_a_delay_and_is_woken_for_the_next_attempt(
    theatre: Theatre, machines: Machines, template: Node, found: Found, clock: Clock
) -> None:
    clock.held = 1_800_000_000.0
    operator = at_work(theatre, template, idle_s=0.3)
    theatre.ask("abort")
    theatre.reaches(Progress.ROLLED_BACK)
    until(lambda: deployments.annotation(found("2"), deployments.UNWANTED), "it is noted as unwanted")
    clock.held += LINGER_S * 0.9
    theatre.rests(operator)
    assert replicas(found("2")) == 1
    clock.held += LINGER_S
    until(lambda: replicas(found("2")) == 0, "it sleeps")
    assert replicas(found("1")) == 1
    theatre.registry.move("flights", "challenger", "3", "owner")
    theatre.reaches(Progress.RUNNING)
    assert replicas(found("3")) == 1

    def forgotten() -> bool:
        try:
            found("2")
        except NotFound:
            return True
        return False

    until(forgotten, "what the attempt does not know is deleted")


@pytest.mark.parametrize("since", ["soon", "", "9999-12-31T23:59:59", "0001-01-01T00:00:00+23:59"])
def test_whatever_a_deployment_says_of_itself_the_rollout_goes_on(
    theatre: Theatre, machines: Machines, template: Node, found: Found, since: str
) -> None:
    operator = at_work(theatre, template, idle_s=0.3)
    theatre.ask("abort")
    theatre.reaches(Progress.ROLLED_BACK)
    until(lambda: deployments.annotation(found("2"), deployments.UNWANTED), "it is noted as unwanted")
    meta = {"namespace": theatre.namespace, "name": "late-v2", "annotations": {deployments.UNWANTED: since}}
    theatre.access.patch(DEPLOYMENTS, {"metadata": meta})
    theatre.registry.move("flights", "challenger", "3", "owner")
    theatre.reaches(Progress.RUNNING, step=1)
    assert not operator.healthy()
    until(lambda: "late-v2" not in names(theatre), "what nobody wants goes")


def names(theatre: Theatre) -> set[str]:
    """Of all Deployments."""
    return {each["metadata"]["name"] for each in theatre.access.list(DEPLOYMENTS, theatre.namespace).items}


def test_one_look_tells_of_both_arms(theatre: Theatre, machines: Machines, template: Node) -> None:
    """A tick lists Deployments and pods once, however often it needs them, unless it has changed them meanwhile."""
    calls = at_work(theatre, template, step=1).calls

    def asked() -> tuple[int, int, int]:
        kinds = (("list", "Deployment"), ("list", "Pod"), ("replace", "ModelRollout"))
        deployments, pods, ticks = (calls[each] for each in kinds)
        return deployments, pods, ticks

    before = asked()
    until(lambda: asked()[2] >= before[2] + 20, "twenty ticks")
    listed, pods, ticks = (now - then for now, then in zip(asked(), before, strict=True))
    assert listed <= 1.5 * ticks
    assert pods <= 1.5 * ticks


def test_who_scales_a_deployment_is_not_fought(
    theatre: Theatre, machines: Machines, template: Node, found: Found
) -> None:
    at_work(theatre, template)
    scale(theatre, "1", 3)
    until(lambda: len(theatre.status().observed.champion_upstreams) == 3, "all of its pods are sent requests")
    template["metadata"]["labels"]["team"] = "trains"
    theatre.apply(steps=STAY, servers={"template": template})
    until(lambda: found("1")["spec"]["template"]["metadata"]["labels"]["team"] == "trains", "it is applied")
    until(lambda: theatre.status().attempts == 2, "other servers are another attempt")
    theatre.reaches(Progress.RUNNING)
    assert (replicas(found("1")), replicas(found("2"))) == (3, 1)
    theatre.ask("promote")
    theatre.reaches(Progress.PROMOTED)
    assert replicas(found("2")) == 3  # all traffic comes to it


def test_another_image_in_the_middle_is_another_attempt_that_begins_without_pods_of_the_old(
    theatre: Theatre, machines: Machines, template: Node
) -> None:
    at_work(theatre, template, step=1)
    template["spec"]["containers"][0]["image"] = "another"
    theatre.apply(steps=STAY, servers={"template": template})
    status = until(lambda: (s := theatre.status()).attempts == 2 and s.progress is Progress.RUNNING and s, "it begins")
    assert status.past == ("2",)
    for version, served in (("1", status.observed.champion_upstreams), ("2", status.observed.challenger_upstreams)):
        images = {p["status"].get("podIP"): p["spec"]["containers"][0]["image"] for p in machines.pods(version)}
        assert {images[upstream.rpartition(":")[0]] for upstream in served} == {"another"}
    theatre.apply(steps=STAY, servers={"champion": {"service": "a"}, "challenger": {"service": "b"}})
    until(lambda: theatre.weight() == 0, "Services that do not exist are sent nobody")
    status = until(lambda: (s := theatre.status()).reason is Reason.SERVERS_NOT_READY and s, "it waits for them")
    assert status.table is not None
    assert set(status.table.champion.upstreams) == machines.upstreams("1")


def test_all_traffic_comes_to_a_challenger_that_has_as_many_pods_as_the_champion(
    theatre: Theatre, machines: Machines, template: Node, found: Found
) -> None:
    at_work(theatre, template, step=1)
    scale(theatre, "1", 3)
    until(lambda: len(theatre.status().observed.champion_upstreams) == 3, "the champion has three")
    machines.broken.add("2")  # what is started from now on
    theatre.ask("promote")
    until(lambda: "1 of 3 pods of version 2" in theatre.status().observed.servers_message, "it waits for pods")
    status = theatre.status()
    assert (status.progress, status.promoted_traffic, theatre.weight()) == (Progress.PROMOTING, False, 5000)
    assert theatre.registry.alias("flights", "champion") == "1"
    machines.broken.clear()
    theatre.reaches(Progress.PROMOTED)
    assert len(machines.pods("2")) == 3
    assert theatre.registry.alias("flights", "champion") == "2"


def test_a_challenger_that_could_not_be_scaled_yet_is_not_ready_for_all_traffic(
    theatre: Theatre, machines: Machines, template: Node, found: Found, clock: Clock
) -> None:
    operator = at_work(theatre, template)
    operator.stop()
    scale(theatre, "1", 3)
    stored = theatre.store().load(theatre.key())
    stored = stored._replace(status=stored.status.model_copy(update={"progress": Progress.PROMOTING}))
    now = workloads(theatre.access, lambda: stored, theatre.key(), clock, lambda: None)
    seen = now.observe("challenger")
    assert (len(seen.upstreams), seen.ready) == (1, False)
    assert "1 of 1 pods of version 2 are ready; more come" in seen.message
    now.ensure("challenger", "2")
    assert replicas(found("2")) == 3
    now.close()


def test_a_rollback_gives_the_champion_as_many_pods_as_the_challenger_has(
    theatre: Theatre, machines: Machines, template: Node, found: Found
) -> None:
    at_work(theatre, template, step=1)
    scale(theatre, "2", 3)
    until(lambda: len(theatre.status().observed.challenger_upstreams) == 3, "the challenger has three")
    theatre.ask("abort")
    theatre.reaches(Progress.ROLLED_BACK)
    assert (replicas(found("1")), theatre.weight()) == (3, 0)


def test_a_rollback_comes_to_its_end_where_the_champions_pods_are_killed_in_the_middle(
    theatre: Theatre, machines: Machines, template: Node, found: Found
) -> None:
    at_work(theatre, template, step=1)
    machines.broken.add("1")  # what is started from now on
    killed = {pod["metadata"]["name"] for pod in machines.pods("1")}
    for name in killed:
        theatre.access.delete(PODS, theatre.namespace, name)
    theatre.ask("abort")
    until(lambda: theatre.status().reason is Reason.ABORTED, "it is obeyed")
    until(
        lambda: machines.pods("1") and not killed & {p["metadata"]["name"] for p in machines.pods("1")}, "others come"
    )
    machines.broken.clear()
    theatre.reaches(Progress.ROLLED_BACK)

    def served() -> bool:
        table = theatre.status().table
        return table is not None and set(table.champion.upstreams) == machines.upstreams("1")

    until(served, "the champion is where its pods are")
    assert theatre.weight() == 0
    assert theatre.registry.alias("flights", "champion") == "1"


def test_a_challenger_that_somebody_ends_is_sent_nothing_until_it_is_back(
    theatre: Theatre, machines: Machines, template: Node, found: Found
) -> None:
    at_work(theatre, template, step=1)
    scale(theatre, "2", 0)
    until(lambda: theatre.weight() == 0, "it is sent nothing")
    told = "0 of 0 pods of version 2 are ready"
    status = until(lambda: told in (s := theatre.status()).observed.servers_message and s, "it is told")
    assert (status.progress, replicas(found("2"))) == (Progress.RUNNING, 0)
    scale(theatre, "2", 1)
    until(lambda: theatre.weight() == 5000, "it is back")


def test_what_somebody_changes_in_a_deployment_is_changed_back(
    theatre: Theatre, machines: Machines, template: Node, found: Found
) -> None:
    operator = at_work(theatre, template)
    operator.stop()
    meta = {"namespace": theatre.namespace, "name": "late-v2"}
    other = {"spec": {"containers": [{"name": "model", "image": "other"}]}}
    Access(theatre.kubeconfig, manager="people").apply(DEPLOYMENTS, {"metadata": meta, "spec": {"template": other}})

    def image() -> str:
        (container,) = found("2")["spec"]["template"]["spec"]["containers"]
        return str(container["image"])

    assert image() == "other"
    theatre.operator()
    until(lambda: image() == "understudy-serve", "it is changed back")


def test_a_challenger_that_cannot_start_gives_its_pods_reason(
    theatre: Theatre, machines: Machines, template: Node
) -> None:
    machines.broken.add("2")
    theatre.operator()
    theatre.apply(servers={"template": template})
    status = until(lambda: "ImagePull" in theatre.status().message and theatre.status(), "the reason is told")
    assert (status.progress, status.reason) == (Progress.PENDING, Reason.SERVERS_NOT_READY)
    assert "0 of 1 pods of version 2 are ready" in status.message
    assert 'container model: ImagePullBackOff: Back-off pulling image "none"' in status.message


def test_a_pod_that_is_ready_and_fails_the_example_is_sent_nothing(
    theatre: Theatre, machines: Machines, template: Node
) -> None:
    machines.failing.add("2")
    theatre.operator()
    theatre.apply(servers={"template": template})
    until(lambda: "/health: status 503" in theatre.status().message, "the reason is told")
    assert theatre.status().progress is Progress.PENDING
    for server in machines.servers.values():
        server.fails = False
    theatre.reaches(Progress.RUNNING)


def test_a_template_that_ignores_the_version_is_found_out(theatre: Theatre, machines: Machines, template: Node) -> None:
    at_work(theatre, template)
    for server in machines.servers.values():
        server.version = "1"
    theatre.registry.move("flights", "challenger", "3", "owner")
    machines.failing.add("3")
    until(lambda: machines.pods("3"), "the third is started")
    until(lambda: "/health" in theatre.status().message, "it is asked")
    for pod in machines.pods("3"):
        server = machines.servers[pod["metadata"]["name"]]
        server.version, server.fails = "1", False
    until(lambda: "serves version 1, wanted is 3" in theatre.status().message, "it is told")


def test_a_deployment_of_somebody_else_is_not_taken(theatre: Theatre, machines: Machines, template: Node) -> None:
    labels = {"app": "theirs"}
    spec = {"selector": {"matchLabels": labels}, "template": {**template, "metadata": {"labels": labels}}}
    meta = {"namespace": theatre.namespace, "name": "late-v2"}
    theirs = theatre.access.create(DEPLOYMENTS, {"metadata": meta, "spec": spec})
    theatre.operator()
    theatre.apply(servers={"template": template})
    until(lambda: "/late-v2 is none of this rollout's" in theatre.status().message, "it is told")
    now = theatre.access.get(DEPLOYMENTS, theatre.namespace, "late-v2")
    assert now["metadata"]["generation"] == theirs["metadata"]["generation"]


def test_what_the_api_server_says_against_a_template_is_told(
    theatre: Theatre, machines: Machines, template: Node
) -> None:
    template["spec"]["containers"][0]["imagePullPolicy"] = "Sometimes"
    theatre.operator()
    theatre.apply(servers={"template": template})
    until(lambda: "imagePullPolicy" in theatre.status().message, "it is told")


def test_deployments_go_with_the_rollout(theatre: Theatre, machines: Machines, template: Node, found: Found) -> None:
    theatre.operator()
    theatre.apply(steps=STAY, servers={"template": template})
    serving = theatre.reaches(Progress.RUNNING, step=1).observed.champion_upstreams
    until(lambda: theatre.weight() == 5000, "the weight of the step is served")
    theatre.access.delete(ROLLOUTS, theatre.namespace, "late")
    until(theatre.gone, "it is gone")
    table = theatre.scene("late").traffic.routers[0].workers[0].table
    assert table is not None
    assert (table.weight_bp, table.champion.version, table.champion.upstreams) == (0, "1", serving)
    until(lambda: not theatre.access.list(DEPLOYMENTS, theatre.namespace).items, "so are its Deployments")


@pytest.mark.parametrize(
    ("servers", "said"),
    [
        ({}, "spec.servers.champion: a server is needed: a service, or a template for both"),
        ({"template": {"spec": {}}}, "spec.servers.template.spec.containers: a list of containers is needed"),
        (
            {"champion": {"service": "late"}, "challenger": {"service": "b"}},
            "spec.servers.champion.service: late is the Service of this rollout's own routers",
        ),
        (
            {"champion": {"service": "a"}, "challenger": {"service": "late-router"}},
            "spec.servers.challenger.service: late-router is the Service of this rollout's own routers",
        ),
        (
            {"champion": {"service": "a", "external": True}, "challenger": {"service": "b"}},
            "spec.servers.champion.external: is not supported on a cluster yet",
        ),
    ],
)
def test_servers_that_nobody_could_run_are_refused(theatre: Theatre, tmp_path: Path, servers: Node, said: str) -> None:
    settings = OperatorSettings(router_image="router", state_dir=tmp_path)
    store = AcceptedStore(theatre.access, Watched(theatre.access, theatre.namespace), tmp_path)
    make = wiring.build_cluster(settings, theatre.access, store, BLIND, ShownRegistry(), "tests")  # type: ignore[arg-type]
    theatre.apply(servers=servers)
    with pytest.raises(SpecError) as refused:
        make(theatre.key())
    assert said in str(refused.value)
