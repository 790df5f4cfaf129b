"""At most one replica may write, whatever their clocks say; and a new one may soon after the old one is gone."""

import threading
from pathlib import Path

import pytest

from controller.edges.cluster.access import Access
from controller.edges.cluster.lease import Leader, NotLeading
from controller.edges.cluster.resources import LEASES
from controller.errors import EdgeError
from tests.kubernetes.control_plane import running
from tests.kubernetes.operating.theatre import until


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def replica(access: Access, namespace: str, name: str, clock: Clock) -> Leader:
    return Leader(access, namespace, "lease", name, seconds=15, write_s=5, clock=clock)


def test_the_first_leads_and_the_second_waits(access: Access, namespace: str) -> None:
    clock = Clock()
    one, two = (replica(access, namespace, name, clock) for name in ("one", "two"))
    one.step()
    two.step()
    assert (one.leads(), two.leads()) == (True, False)
    with pytest.raises(NotLeading, match="two does not hold the lease"):
        two.check()
    spec = access.get(LEASES, namespace, "lease")["spec"]
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"]) == ("one", 15)


def test_a_leader_stops_writing_before_another_may_begin(access: Access, namespace: str) -> None:
    clock = Clock()
    one, two = (replica(access, namespace, name, clock) for name in ("one", "two"))
    one.step()
    two.step()
    began = clock.now
    stopped = None
    while not two.leads():
        clock.now += 0.5
        if stopped is None and not one.leads():
            stopped = clock.now
        two.step()
        assert clock.now < began + 20
    assert stopped is not None
    assert clock.now - stopped >= 5  # a write that began at the last moment has ended
    one.step()
    assert not one.leads()


def test_a_lease_that_is_renewed_does_not_expire_for_the_others(access: Access, namespace: str) -> None:
    clock = Clock()
    one, two = (replica(access, namespace, name, clock) for name in ("one", "two"))
    for _ in range(10):
        one.step()
        two.step()
        assert (one.leads(), two.leads()) == (True, False)
        clock.now += 5


def test_a_replica_whose_wall_clock_is_wrong_is_no_danger(access: Access, namespace: str) -> None:
    """Times in the Lease are for people: what counts is whether it changes."""
    clock = Clock()
    one, two = (replica(access, namespace, name, clock) for name in ("one", "two"))
    one.step()
    found = access.get(LEASES, namespace, "lease")
    found["spec"]["renewTime"] = "2001-01-01T00:00:00.000000Z"
    access.replace(LEASES, found)
    two.step()
    clock.now += 6
    two.step()
    assert not two.leads()


def test_of_two_that_take_an_expired_lease_at_once_one_gets_it(access: Access, namespace: str) -> None:
    clock = Clock()
    replica(access, namespace, "gone", clock).step()
    rivals = [replica(access, namespace, f"r{n}", clock) for n in range(4)]
    for each in rivals:
        each.step()
    clock.now += 15
    threads = [threading.Thread(target=each.step) for each in rivals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(each.leads() for each in rivals) == 1


def test_a_leader_that_ends_gives_the_lease_back(access: Access, namespace: str) -> None:
    told: list[tuple[str, bool]] = []
    ends = {name: threading.Event() for name in ("one", "two")}

    def run(name: str) -> threading.Thread:
        leader = Leader(
            access, namespace, "lease", name, seconds=30, write_s=1, changed=lambda leads: told.append((name, leads))
        )
        thread = threading.Thread(target=leader.run, args=(ends[name],))
        thread.start()
        return thread

    first = run("one")
    until(lambda: told == [("one", True)], "one leads")
    ends["one"].set()
    first.join()
    assert told == [("one", True), ("one", False)]
    second = run("two")
    until(lambda: told[-1] == ("two", True), "two leads, long before 30 s", within=10)
    ends["two"].set()
    second.join()


def test_a_leader_that_slept_through_the_term_of_another_hears_that_it_has_lost_the_lease_meanwhile(
    access: Access, namespace: str
) -> None:
    """What it remembers may have changed since, though it never found itself without the lease."""
    clock, told = Clock(), list[bool]()
    one = Leader(access, namespace, "lease", "one", seconds=15, write_s=5, changed=told.append, clock=clock)
    two = replica(access, namespace, "two", clock)
    one.step()
    two.step()
    clock.now += 16
    two.step()
    assert two.leads()
    found = access.get(LEASES, namespace, "lease")
    access.replace(LEASES, {**found, "spec": {**found["spec"], "holderIdentity": ""}})  # it gives it back
    one.step()
    assert one.leads()
    assert told == [True, False, True]
    clock.now += 5
    one.step()
    assert told == [True, False, True]


def test_a_partitioned_leader_stops_by_itself(access: Access, namespace: str) -> None:
    """It cannot reach the server, so nobody can tell it."""
    clock = Clock()
    cut = False

    class Cut(Access):
        def get(self, *place: object, **more: object) -> dict[str, object]:
            if cut:
                raise EdgeError("cut off")
            return access.get(*place, **more)  # type: ignore[arg-type]

    parted = object.__new__(Cut)
    parted.__dict__.update(access.__dict__)
    one = replica(parted, namespace, "one", clock)
    one.step()
    cut = True
    for _ in range(3):
        clock.now += 3
        one.step()
    assert one.leads()  # 9 s after its last renewal
    clock.now += 1
    assert not one.leads()


def test_a_leader_that_stands_back_leaves_the_lease_to_others_and_takes_it_again_where_there_are_none(
    access: Access, namespace: str
) -> None:
    clock = Clock()
    one, two = (replica(access, namespace, name, clock) for name in ("one", "two"))
    one.step()
    one.stand_back()
    one.step()
    assert not one.leads()
    two.step()  # at once, as it was given back
    assert two.leads()
    assert two.transitions == 1
    two.stand_back()
    two.step()
    clock.now += 7  # seconds: a lease lasts for 15
    two.step()
    assert not two.leads()
    clock.now += 1
    two.step()
    assert (two.leads(), two.transitions) == (True, 1)  # nobody has led meanwhile
    two.stand_back()
    two.step()
    one.step()
    clock.now += 8
    assert (one.leads(), one.transitions) == (True, 2)


def test_whoever_saw_a_newer_lease_knows_that_the_server_was_put_back(assets: Path, tmp_path: Path) -> None:
    clock = Clock()
    with running(assets, tmp_path) as plane:
        access = Access(plane.kubeconfig)
        one, two = (replica(access, "default", name, clock) for name in ("one", "two"))
        one.step()
        with plane.put_back(tmp_path / "backup"):
            for number in range(20):  # others write meanwhile
                access.create(LEASES, {"metadata": {"namespace": "default", "name": f"other-{number}"}})
            clock.now += 5
            one.step()
            two.step()
        with plane.down():
            one.step()  # it is away, and no younger by that
        assert (one.went_back, two.went_back) == (False, False)
        one.step()
        two.step()
        assert (one.went_back, two.went_back) == (True, True)
        access.close()
