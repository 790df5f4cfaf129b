"""What a leader does in the world it does only while it leads: one that slept in its midst does no more."""

import contextlib
import itertools
import threading
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.changes import Views
from controller.edges.cluster.lease import Leader, NotLeading
from controller.edges.cluster.owned import Owner
from controller.edges.cluster.resources import DEPLOYMENTS, ROUTES, SECRETS, Resource
from controller.edges.cluster.store import ClusterStore
from controller.edges.cluster.workloads import ClusterWorkloads
from controller.edges.registry import MlflowRegistry
from controller.operator.operator import Operator
from controller.ports import Workloads
from controller.status import Progress, Reason
from router.assignment import Arm
from tests.kubernetes.operating.theatre import LEASE_S, STAY, Theatre, until
from tests.kubernetes.operating.wired import SERVED, WiredTheatre
from tests.ports.tracking_server import TrackingServer, register_pair

WRITES = ("create", "apply", "patch", "replace", "delete")


class Sleeping(ClusterWorkloads):
    """Whoever is about to run a server may be stopped until a test lets it go on."""

    shut = False

    def __init__(self, access: Access, store: ClusterStore, key: str) -> None:
        namespace, _, name = key.partition("/")
        owner = Owner(namespace, name, store.load(key).status.uid)
        super().__init__(access, owner, lambda: store.load(key), 600.0)
        self.waiting, self.go_on = threading.Event(), threading.Event()

    def ensure(self, arm: Arm, version: str | None) -> None:
        if self.shut:
            self.shut = False
            self.waiting.set()
            assert self.go_on.wait(60)
        super().ensure(arm, version)


class SleepingRegistry(MlflowRegistry):
    """Whoever is the first to point an alias somewhere is stopped until a test lets it go on."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.waiting, self.go_on = threading.Event(), threading.Event()

    def set_alias(self, model: str, alias: str, version: str) -> None:
        if not self.waiting.is_set():
            self.waiting.set()
            assert self.go_on.wait(60)
        super().set_alias(model, alias, version)

    def all_aliases(self) -> dict[str, dict[str, str]]:
        return self.aliases()


def served(image: str) -> Node:
    return {"template": {"spec": {"containers": [{"name": "model", "image": image}]}}}


def images(theatre: Theatre) -> list[str]:
    """Of all Deployments of the rollout."""
    found = theatre.access.list(DEPLOYMENTS, theatre.namespace).items
    return [each["spec"]["template"]["spec"]["containers"][0]["image"] for each in found]


def written(operator: Operator) -> int:
    """How often it has written a Deployment."""
    return sum(operator.calls[verb, "Deployment"] for verb in WRITES)


def test_a_leader_that_slept_between_its_commit_and_its_acts_leaves_the_servers_to_the_next(theatre: Theatre) -> None:
    """Its commit was good; meanwhile another leads, and another template is declared."""
    made: list[Sleeping] = []

    def workloads(access: Access, store: ClusterStore, key: str, _: Views) -> Workloads:
        made.append(Sleeping(access, store, key))
        return made[-1]

    theatre.workloads = workloads
    one = theatre.operator(ticks=1)
    theatre.apply(steps=STAY, servers=served("first"))
    until(lambda: images(theatre) == ["first", "first"], "both are made")
    made[0].shut = True
    assert made[0].waiting.wait(10)
    theatre.lines[one].set()  # it sleeps: its lease is not renewed
    two = theatre.operator()
    until(two.leader.leads, "the other leads", within=4 * LEASE_S)
    theatre.apply(steps=STAY, servers=served("second"))
    until(lambda: images(theatre) == ["second", "second"], "the other has applied the template")
    before = written(one)
    theatre.lines[one].clear()
    made[0].go_on.set()
    until(lambda: one.queue.idle(5), "its pass is over")
    assert not one.leader.leads()
    assert (written(one), images(theatre)) == (before, ["second", "second"])
    assert theatre.status().reason is Reason.SERVERS_NOT_READY


@pytest.mark.timeout(180)
def test_a_leader_that_slept_before_it_moved_an_alias_does_not_promote_what_the_next_rolls_back(
    wired: WiredTheatre, server: TrackingServer
) -> None:
    mlflow = MlflowClient(server.uri, registry_uri=server.uri)
    flights = register_pair(mlflow, "flights")
    registry = SleepingRegistry(server.uri)
    wired.registry = registry  # type: ignore[assignment]
    one = wired.operator(ticks=1)
    wired.apply(model={"name": flights}, servers=SERVED)
    until(lambda: (wired.scene("late").live(), registry.waiting.is_set())[1], "it is about to promote", 60)
    wired.lines[one].set()  # it sleeps: its lease is not renewed
    wired.ask("abort")
    two = wired.operator()
    until(two.leader.leads, "the other leads", within=4 * LEASE_S)
    wired.reaches(Progress.ROLLED_BACK)
    wired.lines[one].clear()
    registry.go_on.set()
    until(lambda: one.queue.idle(5), "its pass is over")
    assert not one.leader.leads()
    assert mlflow.get_registered_model(flights).aliases == {"champion": "1"}
    registry.close()


def test_a_leader_that_can_record_no_decision_leaves_it_to_a_replica_that_can(theatre: Theatre, tmp_path: Path) -> None:
    one = theatre.operator(state_dir=tmp_path / "one")
    theatre.apply(steps=STAY)
    theatre.reaches(Progress.RUNNING, step=1)
    two = theatre.operator()
    _refuse_records(tmp_path / "one" / "records")
    status = theatre.reaches(Progress.ROLLED_BACK, errors=1.0)
    assert status.reason is Reason.SERVICE_HARM
    assert (one.leader.leads(), two.leader.leads()) == (False, True)


def _refuse_records(folder: Path) -> None:
    """A file in its place: no record can be written, as on a disk that is full. Who writes one meanwhile makes the
    folder anew."""
    (file := folder.with_name("file")).touch()
    for turn in itertools.count():
        folder.rename(folder.with_name(f"records-{turn}"))
        with contextlib.suppress(FileExistsError):
            folder.hardlink_to(file)
            return


@pytest.mark.parametrize("resource", [SECRETS, DEPLOYMENTS, ROUTES], ids=lambda r: r.kind)
def test_no_object_of_any_kind_is_written_by_who_does_not_lead(
    access: Access, namespace: str, resource: Resource
) -> None:
    """By no verb: it is refused here, before the server hears of it."""
    leader = Leader(access, namespace, "lease", "one")
    guarded = access.guarded(leader.check)
    body: Node = {"metadata": {"namespace": namespace, "name": "made"}}
    before = access.calls.copy()
    for write in (
        lambda: guarded.create(resource, body),
        lambda: guarded.apply(resource, body),
        lambda: guarded.patch(resource, body),
        lambda: guarded.replace(resource, body),
        lambda: guarded.delete(resource, namespace, "made"),
    ):
        with pytest.raises(NotLeading):
            write()
    assert not [key for key in access.calls - before if key[1] == resource.kind]
