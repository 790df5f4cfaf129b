"""What the controller remembers goes through the API server whole."""

import pytest
from kubernetes import client

from controller.status import RolloutStatus
from tests.kubernetes.filled import filled
from tests.kubernetes.rollouts import Rollouts, Tree, refused
from tests.schema.mutations import PLAIN, SMALL

FULL: RolloutStatus = filled(RolloutStatus)


def written(status: RolloutStatus) -> Tree:
    return status.model_dump(mode="json", by_alias=True)


@pytest.fixture
def rollouts(crd: str, api: client.ApiClient, namespace: str) -> Rollouts:
    return Rollouts(api, namespace)


def test_the_full_status_differs_from_an_empty_one_in_every_field() -> None:
    empty = RolloutStatus(uid="")
    assert [n for n in RolloutStatus.model_fields if getattr(FULL, n) == getattr(empty, n)] == []


@pytest.mark.parametrize("status", [FULL, RolloutStatus(uid="u")], ids=["full", "empty"])
def test_a_status_reads_back_as_it_was_written(rollouts: Rollouts, status: RolloutStatus) -> None:
    made = rollouts.create(PLAIN)
    rollouts.replace_status(made | {"status": written(status)})
    stored = rollouts.get("late")
    assert stored["status"] == written(status)
    assert RolloutStatus.model_validate(stored["status"]) == status


def test_the_largest_times_and_the_smallest_shares_keep_their_digits(rollouts: Rollouts) -> None:
    baseline = FULL.baselines["one"].model_copy(update={"mean": 0.1 + 0.2, "tau": 5e-324, "p_hist": 1 - 2**-53})
    status = FULL.model_copy(update={"clock": 2**63 - 1, "baselines": {"one": baseline}})
    made = rollouts.create(SMALL)
    rollouts.replace_status(made | {"status": written(status)})
    assert RolloutStatus.model_validate(rollouts.get("a")["status"]) == status


def test_a_status_field_that_the_definition_does_not_have_is_refused_and_not_dropped(rollouts: Rollouts) -> None:
    made = rollouts.create(SMALL)
    with refused(400) as said:
        rollouts.replace_status(made | {"status": written(FULL) | {"mood": "good"}})
    assert 'unknown field "status.mood"' in said[0]


def test_the_spec_is_not_written_with_the_status_nor_the_status_with_the_spec(rollouts: Rollouts) -> None:
    made = rollouts.create(SMALL | {"status": written(FULL)})
    assert made["status"] == {"uid": "", "observedGeneration": -1}
    kept = rollouts.replace_status(made | {"status": written(FULL), "spec": PLAIN["spec"]})
    assert kept["spec"] == SMALL["spec"]
    assert kept["metadata"]["generation"] == made["metadata"]["generation"]
    changed = kept["spec"] | {"allowSameVersion": True}
    stored = rollouts.replace(kept | {"spec": changed, "status": written(RolloutStatus(uid="other"))})
    assert stored["status"] == written(FULL)
    assert (stored["spec"], stored["metadata"]["generation"]) == (changed, made["metadata"]["generation"] + 1)
