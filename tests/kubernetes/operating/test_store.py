"""ClusterStore on a real API server: the contract of every store, and what only a cluster has."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.core.record import Record
from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.records import RecordLog
from controller.edges.cluster.requests import PREFIX, read
from controller.edges.cluster.resources import ROLLOUTS
from controller.edges.cluster.store import ClusterStore
from controller.edges.cluster.watch import Watched
from controller.errors import Conflict, EdgeError, SpecError
from controller.ports import Stored
from controller.schema.crd import crd as definition
from controller.spec import ModelRollout
from controller.status import PersonRequest, Progress, RolloutStatus
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.operating.theatre import SPEC, STAY, UNREADABLE, Theatre, until
from tests.ports.contracts.rollouts import advanced, attempt, record, request
from tests.ports.contracts.store import StoreContract


class ByName:
    """A ClusterStore as the contract wants one: keys without the namespace, and rollouts declared through the API."""

    def __init__(self, access: Access, namespace: str, folder: Path) -> None:
        self._access, self._namespace = access, namespace
        self.store = ClusterStore(access, Watched(access, namespace), folder)

    def keys(self) -> list[str]:
        return [key.removeprefix(f"{self._namespace}/") for key in list(self.store.keys())]

    def load(self, key: str) -> Stored:
        stored = self.store.load(f"{self._namespace}/{key}")
        plain = stored.rollout.metadata.model_copy(update={"namespace": None})
        return stored._replace(rollout=stored.rollout.model_copy(update={"metadata": plain}))

    def commit(self, key: str, status: RolloutStatus, version: str, made: Record | None) -> str:
        return self.store.commit(f"{self._namespace}/{key}", status, version, made)

    def submit(self, key: str, asked: PersonRequest) -> None:
        self.store.submit(f"{self._namespace}/{key}", asked)

    def records(self, key: str) -> list[Record]:
        return self.store.records(f"{self._namespace}/{key}")

    def put(self, rollout: ModelRollout) -> int:
        tree = json.loads(rollout.model_dump_json(by_alias=True, exclude_unset=True))
        tree["metadata"] |= {"namespace": self._namespace}
        return int(self._access.apply(ROLLOUTS, tree)["metadata"]["generation"])

    def delete(self, key: str) -> None:
        self._access.delete(ROLLOUTS, self._namespace, key)


class TestContract(StoreContract):
    @pytest.fixture
    def store(self, access: Access, namespace: str, tmp_path: Path) -> Iterator[Any]:
        return ByName(access, namespace, tmp_path)


def test_a_full_status_reads_back_whole(theatre: Theatre) -> None:
    theatre.operator()
    theatre.apply(steps=STAY)
    status = theatre.reaches(Progress.RUNNING, step=1)
    assert status.table is not None
    assert status.conditions
    assert len(status.epochs) == 2
    # What the server keeps is what was sent: nothing was pruned. One reading, for the operator goes on beside this.
    kept = theatre.object()["status"]
    read = RolloutStatus.model_validate_json(json.dumps(kept))
    assert kept == json.loads(read.model_dump_json(by_alias=True))
    assert read == RolloutStatus.model_validate_json(read.model_dump_json(by_alias=True))


def test_a_request_is_an_annotation_that_goes_once_it_is_handled(theatre: Theatre) -> None:
    theatre.apply()
    store, key = theatre.store(), theatre.key()
    store.submit(key, request("r1"))
    assert f"{PREFIX}r1" in theatre.object()["metadata"]["annotations"]
    stored = store.load(key)
    assert stored.requests == (request("r1"),)
    assert stored.rollout.metadata.annotations == {}
    version = store.commit(key, advanced(stored.status, 1, handled=("r1",)), stored.version, None)
    assert f"{PREFIX}r1" not in theatre.object()["metadata"].get("annotations", {})
    store.commit(key, advanced(stored.status, 2, handled=("r1",)), version, None)


def test_an_annotation_that_is_no_request_is_none(theatre: Theatre, access: Access) -> None:
    theatre.apply()
    texts = ("approve", '{"verb":"dance"}', '{"verb":"pause","who":"ada","who":"eve"}', "[1]", *UNREADABLE)
    annotations = {f"{PREFIX}r{number}": text for number, text in enumerate(texts)}
    access.patch(ROLLOUTS, {"metadata": {"namespace": theatre.namespace, "name": "late", "annotations": annotations}})
    assert theatre.store().load(theatre.key()).requests == ()
    assert read(annotations)[1].keys() == annotations.keys()


def test_the_status_of_another_object_is_not_taken_over(theatre: Theatre, access: Access) -> None:
    """As a backup restores it: the object is new, its status tells of the old one."""
    theatre.apply()
    store, key = theatre.store(), theatre.key()
    stored = store.load(key)
    copied = advanced(stored.status, 7, attempt=attempt()).model_copy(update={"uid": "another"})
    found = theatre.object()
    access.replace(ROLLOUTS, {**found, "status": json.loads(copied.model_dump_json(by_alias=True))}, "status")
    assert store.load(key).status == RolloutStatus(uid=found["metadata"]["uid"])


NEWER: Node = {"learned": {"type": "string"}}  # a field that no release knows yet
NEW: Node = {"learned": "by a newer release"}


@pytest.fixture
def newer(access: Access, theatre: Theatre, control_plane: ControlPlane) -> Iterator[Callable[[Node], None]]:
    """Writes the late rollout's status with more in it, as a newer release with its own definition does."""
    tree = copy.deepcopy(definition())
    (version,) = tree["spec"]["versions"]
    status = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    status |= {**NEWER, "reason": {"type": "string"}}
    status["observed"]["properties"] |= NEWER
    control_plane.define(tree)

    def put(more: Node) -> None:
        def written() -> bool:
            found = theatre.object()
            held = {**found["status"], **more, "observed": {**found["status"]["observed"], **NEW}}
            kept = access.replace(ROLLOUTS, {**found, "status": held}, "status")["status"]
            return "learned" in kept and "learned" in kept["observed"]

        until(written, "the server keeps what the newer release wrote")

    yield put
    theatre.close()
    control_plane.define(definition())


def test_who_goes_back_to_an_older_controller_is_watched_by_it(theatre: Theatre, newer: Callable[[Node], None]) -> None:
    one = theatre.operator()
    theatre.apply(steps=STAY)
    before = theatre.reaches(Progress.RUNNING, step=1)
    until(lambda: theatre.weight() == 5000, "the weight of the step is served")
    assert one.stop()
    newer(NEW)
    theatre.operator()
    status = theatre.reaches(Progress.ROLLED_BACK, errors=0.6, requests=200)
    assert (status.attempt, status.attempts, theatre.weight()) == (before.attempt, 1, 0)
    theatre.access.delete(ROLLOUTS, theatre.namespace, "late")
    until(theatre.gone, "it is gone")


def test_a_status_that_cannot_be_read_keeps_nobody_from_deleting(
    theatre: Theatre, newer: Callable[[Node], None]
) -> None:
    one = theatre.operator()
    theatre.apply(steps=STAY)
    theatre.reaches(Progress.RUNNING, step=1)
    assert one.stop()
    newer({**NEW, "reason": "NobodyKnewOfThis"})
    theatre.operator()
    with pytest.raises(EdgeError, match="was it written by another release"):
        theatre.store().load(theatre.key())
    theatre.access.delete(ROLLOUTS, theatre.namespace, "late")
    until(theatre.gone, "it is gone", within=60)


def test_an_ended_rollout_is_not_written_for_the_time_alone(theatre: Theatre) -> None:
    theatre.apply()
    store, key = theatre.store(), theatre.key()
    stored = store.load(key)
    ended = advanced(stored.status, 1, progress=Progress.PROMOTED, end="Promoted", attempt=attempt())
    version = store.commit(key, ended, stored.version, None)
    assert store.commit(key, ended.model_copy(update={"clock": ended.clock + 5}), version, None) == version
    assert store.commit(key, ended.model_copy(update={"paused": True}), version, None) != version


def test_a_refused_commit_leaves_no_record_and_the_next_one_stands(theatre: Theatre, tmp_path: Path) -> None:
    theatre.apply()
    one, two, key = theatre.store(), theatre.store(), theatre.key()
    stored = one.load(key)
    uid = stored.status.uid
    cached = Watched(theatre.access, theatre.namespace)
    version = cached.put(theatre.object()).state
    cached.synced.set()
    two.commit(key, advanced(stored.status, 1), stored.version, None)
    stale = ClusterStore(theatre.access, cached, tmp_path / "stale")
    # The label of somebody else makes no difference.
    theatre.apply(labels={"team": "a"})
    with pytest.raises(Conflict):
        stale.commit(key, advanced(stored.status, 1), version, record(uid, 1, message="never was"))
    fresh = stale.load(key)
    stale.commit(key, advanced(fresh.status, 2), fresh.version, record(uid, 2))
    assert stale.records(key) == [record(uid, 2)]


class Lost(Exception):
    """The process ends here."""


def killed() -> None:
    raise Lost


def test_a_record_whose_commit_a_kill_forestalled_is_none_where_another_replica_decided_instead(
    theatre: Theatre, tmp_path: Path
) -> None:
    theatre.apply()
    disk, key = tmp_path / "one", theatre.key()
    watched = Watched(theatre.access, theatre.namespace)
    stored = theatre.store().load(key)
    uid = stored.status.uid
    one = ClusterStore(theatre.access.guarded(killed), watched, disk)
    with pytest.raises(Lost):
        one.commit(key, advanced(stored.status, 1), stored.version, record(uid, 1, message="never was"))
    two = theatre.store()
    version = two.commit(key, advanced(stored.status, 1), stored.version, record(uid, 1))
    again = ClusterStore(theatre.access, watched, disk)
    assert again.records(key) == []
    two.commit(key, advanced(two.load(key).status, 2), version, record(uid, 2))
    later = again.load(key)
    again.commit(key, advanced(later.status, 3), later.version, record(uid, 3))
    assert again.records(key) == [record(uid, 3)]


def decided(number: int) -> RolloutStatus:
    """What is committed after the decision of ``record``."""
    return RolloutStatus(uid="u", sequence=number, decided_at=record("u", number).now)


def test_a_record_beyond_the_committed_status_is_none(tmp_path: Path) -> None:
    log = RecordLog(tmp_path)
    for number in (1, 2):
        log.append(record("u", number), decided(number - 1))
    with (tmp_path / "u.jsonl").open("ab") as file:
        file.write(b'{"uid": "u", "seq')  # torn by a crash
    assert log.read("u", decided(1)) == [record("u", 1)]
    log.append(record("u", 3), decided(2))
    assert log.read("u", decided(3)) == [record("u", n) for n in (1, 2, 3)]


def test_a_record_of_whose_commit_nobody_heard_counts_as_the_status_says(tmp_path: Path) -> None:
    log = RecordLog(tmp_path)
    log.append(record("u", 1, message="of a leader that was killed"), decided(0))
    assert log.read("u", decided(1)) != []
    assert log.read("u", decided(1).model_copy(update={"decided_at": 7})) == []
    assert log.read("u", decided(2)) == []
    log.append(record("u", 3), decided(2))
    log.settle(record("u", 3))
    assert log.read("u", decided(9)) == [record("u", 3)]


def test_a_spec_that_only_python_refuses_is_a_spec_error_with_its_path(theatre: Theatre) -> None:
    theatre.apply(decision={"tick": "10m", "block": "1m"})
    with pytest.raises(SpecError, match=r"spec\.decision\.block.*shorter than decision\.tick"):
        theatre.store().load(theatre.key())


def test_a_field_that_the_definition_does_not_have_is_an_error(theatre: Theatre, access: Access) -> None:
    body = {"metadata": {"namespace": theatre.namespace, "name": "late"}, "spec": {**SPEC, "stepz": []}}
    with pytest.raises(EdgeError, match="stepz"):
        access.apply(ROLLOUTS, body)
