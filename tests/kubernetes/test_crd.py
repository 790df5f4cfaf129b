"""The generated definition on a real API server: what it shows, and that an upgrade keeps what is stored."""

import contextlib
import copy
from collections.abc import Iterator

import pytest
from kubernetes import client

from controller.schema.crd import crd as definition
from controller.status import RolloutStatus
from tests.embedded.machine import wait_for
from tests.kubernetes.control_plane import CALL_WITHIN_S, ControlPlane
from tests.kubernetes.filled import filled
from tests.kubernetes.rollouts import Rollouts, Tree, refused
from tests.schema.mutations import PLAIN

STATUS = filled(RolloutStatus).model_dump(mode="json", by_alias=True)


def test_the_definition_is_established_without_a_complaint(api: client.ApiClient, crd: str) -> None:
    stored = client.ApiextensionsV1Api(api).read_custom_resource_definition(crd, _request_timeout=CALL_WITHIN_S)
    said = {each.type: each.status for each in stored.status.conditions}
    assert said == {"NamesAccepted": "True", "Established": "True"}  # NonStructuralSchema would stand here


def test_people_see_step_weight_versions_decision_and_reason(
    control_plane: ControlPlane, api: client.ApiClient, crd: str, namespace: str
) -> None:
    rollouts = Rollouts(api, namespace)
    made = rollouts.create(PLAIN)
    status = STATUS | {"step": 2, "decision": "Hold", "reason": "NotProven", "message": "more units"}
    status |= {"weight": 25.5, "attempt": STATUS["attempt"] | {"champion": "3", "challenger": "7"}}
    said = {"reason": "NotProven", "message": "", "observedGeneration": 1, "lastTransitionTime": ""}
    status["conditions"] = [{"type": "Stalled", "status": "False", **said}]
    made = rollouts.replace_status(made | {"status": status})
    head, row = control_plane.kubectl("get", "mro", "-n", namespace).splitlines()
    assert head.split() == ["NAME", "STEP", "WEIGHT", "CHAMPION", "CHALLENGER", "DECISION", "REASON", "STALLED", "AGE"]
    assert row.split()[:-1] == ["late", "2", "25.5", "3", "7", "Hold", "NotProven", "False"]
    rollouts.replace_status(made | {"status": status | {"weight": 50.0}})
    head, row = control_plane.kubectl("get", "mro", "-n", namespace, "-o", "wide").splitlines()
    assert head.split()[-1] == "MESSAGE"
    assert row.split()[2] == "50"
    assert row.endswith("more units")


def test_fields_are_explained_by_kubectl(control_plane: ControlPlane, crd: str) -> None:
    def said() -> str:
        with contextlib.suppress(AssertionError):  # the schema is published a little after the definition
            return " ".join(control_plane.kubectl("explain", "modelrollouts.spec.metrics.margin").split())
        return ""

    assert "how much worse is still not worse: 0.05pp, 2%, 0.01" in wait_for("an explanation", said, 30)


def test_a_rollout_is_applied_again_without_a_change(
    control_plane: ControlPlane, api: client.ApiClient, crd: str, namespace: str
) -> None:
    body = {"apiVersion": PLAIN["apiVersion"], "kind": "ModelRollout"} | PLAIN
    apply = ["apply", "--server-side", "-n", namespace, "-f", "-"]
    for _ in range(2):  # the second writes down the status that the first was given by default
        control_plane.kubectl(*apply, given=body)
    before = Rollouts(api, namespace).get("late")
    control_plane.kubectl(*apply, given=body)
    assert before["metadata"]["generation"] == 1
    assert Rollouts(api, namespace).get("late")["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


@pytest.fixture
def earlier(api: client.ApiClient) -> Iterator[Tree]:
    """The definition in a group of its own, as an earlier release may have had it: fewer fields, wider rules."""
    group = "upgrade.understudy.dev"
    tree = copy.deepcopy(definition())
    tree["metadata"]["name"], tree["spec"]["group"] = f"modelrollouts.{group}", group
    schema = tree["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    del schema["spec"]["properties"]["onRollback"], schema["status"]["properties"]["observed"]
    schema["spec"]["properties"]["steps"]["maxItems"] = 64
    yield tree
    client.ApiextensionsV1Api(api).delete_custom_resource_definition(
        tree["metadata"]["name"], _request_timeout=CALL_WITHIN_S
    )


def test_after_an_upgrade_stored_rollouts_are_read_judged_and_changed_as_before(
    control_plane: ControlPlane, api: client.ApiClient, earlier: Tree, namespace: str
) -> None:
    name, group = earlier["metadata"]["name"], earlier["spec"]["group"]
    control_plane.define(earlier)
    rollouts = Rollouts(api, namespace, group)
    spec = {k: v for k, v in PLAIN["spec"].items() if k != "onRollback"}
    long = spec | {"steps": [{"weight": 1 + n} for n in range(40)]}
    old_status = {k: v for k, v in STATUS.items() if k != "observed"}
    for called, plan in (("late", spec), ("long", long)):
        made = rollouts.create({"metadata": {"name": called}, "spec": plan})
        rollouts.replace_status(made | {"status": old_status})
    later = copy.deepcopy(definition())
    later["metadata"]["name"], later["spec"]["group"] = name, group
    control_plane.define(later)
    probe = {"metadata": {"name": "probe"}, "spec": PLAIN["spec"]}

    def in_force() -> bool:
        with contextlib.suppress(client.ApiException):
            return bool(rollouts.create(probe, dry_run="All"))
        return False

    wait_for("the new definition", in_force, 30)
    for called, plan in (("late", spec), ("long", long)):
        stored = rollouts.get(called)
        assert (stored["spec"], stored["status"]) == (plan, old_status)
        kept = rollouts.replace_status(stored | {"status": STATUS})
        assert kept["status"] == STATUS
    # What a new rule would refuse stays as it was until it is touched.
    labelled = rollouts.get("long")
    labelled["metadata"]["labels"] = {"team": "a"}
    labelled = rollouts.replace(labelled)
    with refused(422) as said:
        rollouts.replace(labelled | {"spec": long | {"steps": [{"weight": 2 + n} for n in range(40)]}})
    assert "spec.steps: Too many: 40: must have at most 32 items" in said[0]
