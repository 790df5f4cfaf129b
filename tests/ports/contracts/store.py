"""What every RolloutStore promises. A subclass gives the fixture ``store``: an empty one.

Beside the port's methods the suite needs ``put(rollout) -> generation``, ``records(key)`` and ``delete(key)``.
"""

from typing import Any

import pytest

from controller.errors import Conflict, EdgeError, NotFound
from controller.status import Frozen, Notice, RolloutStatus
from tests.ports.contracts.rollouts import advanced, attempt, record, request, rollout


class StoreContract:
    def test_an_empty_store_has_no_rollouts(self, store: Any) -> None:
        assert store.keys() == []
        for use in (store.load, store.records, store.delete):
            with pytest.raises(NotFound, match="flight-delay"):
                use("flight-delay")

    def test_a_rollout_is_read_as_it_was_declared(self, store: Any) -> None:
        declared = rollout(labels={"team": "delays"})
        assert store.put(declared) == 1
        stored = store.load("flight-delay")
        assert (stored.rollout, stored.generation, stored.requests) == (declared, 1, ())
        assert stored.status == RolloutStatus(uid=stored.status.uid)
        assert store.keys() == ["flight-delay"]
        assert store.records("flight-delay") == []

    def test_each_rollout_has_a_uid_of_its_own(self, store: Any) -> None:
        for name in ("b", "a", "c"):
            store.put(rollout(name))
        assert store.keys() == ["a", "b", "c"]
        assert len({store.load(name).status.uid for name in "abc"}) == 3

    def test_the_generation_grows_with_the_spec_and_with_nothing_else(self, store: Any) -> None:
        assert store.put(rollout()) == 1
        assert store.put(rollout()) == 1
        assert store.put(rollout(labels={"team": "a"})) == 1
        assert store.load("flight-delay").rollout.metadata.labels == {"team": "a"}
        changed = rollout(decision={"minUnits": 7})
        assert store.put(changed) == 2
        assert store.put(changed) == 2
        assert (store.load("flight-delay").rollout, store.load("flight-delay").generation) == (changed, 2)

    def test_a_changed_spec_keeps_status_uid_and_requests_and_makes_a_version_old(self, store: Any) -> None:
        store.put(rollout())
        store.submit("flight-delay", request("r1"))
        before = store.load("flight-delay")
        store.put(rollout(decision={"minUnits": 7}))
        after = store.load("flight-delay")
        assert (after.status, after.requests) == (before.status, before.requests)
        with pytest.raises(Conflict):
            store.commit("flight-delay", advanced(before.status, 1), before.version, None)

    def test_a_commit_is_read_back_whole(self, store: Any) -> None:
        store.put(rollout())
        stored = store.load("flight-delay")
        status = advanced(
            stored.status,
            1,
            attempt=attempt(),
            baselines={"errors": Frozen(source="Mirror", mean=0.1 + 0.2, edges=(2**60, 2**62))},
            notices=(Notice(key="u/1/1", title="5 %", text="weiter → «5 %»\n<&>"),),
            message="\x00 and \U0001f600",
        )
        version = store.commit("flight-delay", status, stored.version, record(status.uid, 1))
        again = store.load("flight-delay")
        assert (again.status, again.version) == (status, version)
        assert store.records("flight-delay") == [record(status.uid, 1)]

    def test_of_two_commits_on_one_version_the_second_is_a_conflict_and_leaves_nothing(self, store: Any) -> None:
        store.put(rollout())
        stored = store.load("flight-delay")
        first, second = advanced(stored.status, 1), advanced(stored.status, 2)
        store.commit("flight-delay", first, stored.version, None)
        with pytest.raises(Conflict):
            store.commit("flight-delay", second, stored.version, record(stored.status.uid, 2))
        assert store.load("flight-delay").status == first
        assert store.records("flight-delay") == []

    def test_a_commit_to_a_rollout_that_is_gone_or_declared_anew_writes_nothing(self, store: Any) -> None:
        store.put(rollout())
        stored = store.load("flight-delay")
        status = advanced(stored.status, 1)
        store.delete("flight-delay")
        with pytest.raises(NotFound):
            store.commit("flight-delay", status, stored.version, record(status.uid, 1))
        store.put(rollout())
        anew = store.load("flight-delay")
        assert anew.status.uid != status.uid
        with pytest.raises(Conflict):
            store.commit("flight-delay", status, anew.version, record(status.uid, 1))
        assert store.load("flight-delay") == anew

    def test_a_record_written_twice_is_there_once_and_never_changes(self, store: Any) -> None:
        store.put(rollout())
        stored = store.load("flight-delay")
        uid, first = stored.status.uid, advanced(stored.status, 1)
        version = store.commit("flight-delay", first, stored.version, record(uid, 1))
        version = store.commit("flight-delay", first, version, record(uid, 1))
        other = first.model_copy(update={"message": "another"})
        with pytest.raises(EdgeError):
            store.commit("flight-delay", other, version, record(uid, 1, message="another"))
        assert store.records("flight-delay") == [record(uid, 1)]
        assert store.load("flight-delay").status == first

    def test_records_come_in_the_order_of_generation_and_sequence(self, store: Any) -> None:
        store.put(rollout())
        stored = store.load("flight-delay")
        uid, version = stored.status.uid, stored.version
        order = [(1, 9), (1, 10), (2, 11)]
        for generation, sequence in order:
            status = advanced(stored.status, sequence)
            version = store.commit("flight-delay", status, version, record(uid, sequence, generation))
        assert [(r.generation, r.sequence) for r in store.records("flight-delay")] == order

    def test_requests_come_oldest_first_and_the_same_id_changes_nothing(self, store: Any) -> None:
        store.put(rollout())
        for identity in ("r2", "r1", "r3"):
            store.submit("flight-delay", request(identity))
        store.submit("flight-delay", request("r1", "abort"))
        assert store.load("flight-delay").requests == tuple(request(i) for i in ("r2", "r1", "r3"))

    def test_a_handled_request_does_not_come_back_by_submitting_it_again(self, store: Any) -> None:
        store.put(rollout())
        for identity in ("r1", "r2"):
            store.submit("flight-delay", request(identity))
        stored = store.load("flight-delay")
        store.commit("flight-delay", advanced(stored.status, 1, handled=("r1",)), stored.version, None)
        store.submit("flight-delay", request("r1"))
        open_requests = [
            r for r in store.load("flight-delay").requests if r.id not in store.load("flight-delay").status.handled
        ]
        assert open_requests == [request("r2")]

    def test_a_request_to_an_unknown_rollout_is_refused(self, store: Any) -> None:
        with pytest.raises(NotFound, match="nobody"):
            store.submit("nobody", request("r1"))

    def test_a_deleted_rollout_leaves_nothing_to_the_next_of_its_name(self, store: Any) -> None:
        store.put(rollout())
        store.put(rollout("other"))
        stored = store.load("flight-delay")
        store.submit("flight-delay", request("r1"))
        status = advanced(stored.status, 1)
        store.commit("flight-delay", status, stored.version, record(status.uid, 1))
        store.delete("flight-delay")
        assert store.keys() == ["other"]
        assert store.put(rollout()) == 1
        assert store.load("flight-delay").requests == ()
        assert store.records("flight-delay") == []
