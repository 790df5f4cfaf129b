"""Releases on a real API server: what an upgrade and an uninstall do to the definition and to people's rollouts."""

import copy
import json
import re
import shutil
import uuid
from pathlib import Path

import pytest
from kubernetes import client

from controller.schema.chart import chart_template
from controller.schema.crd import crd as definition
from tests.embedded.machine import wait_for
from tests.kubernetes.chart.conftest import Node, objects
from tests.kubernetes.control_plane import CALL_WITHIN_S, ControlPlane
from tests.kubernetes.helm import CHART, Helm, Refused
from tests.kubernetes.rollouts import Rollouts
from tests.kubernetes.test_crd import STATUS
from tests.schema.mutations import PLAIN

NAME = "modelrollouts.understudy.dev"
EVERYTHING = "--set=requestPolicy.enabled=true"
OLD_SPEC = {key: value for key, value in PLAIN["spec"].items() if key != "onRollback"}
OLD_STATUS = {key: value for key, value in STATUS.items() if key != "observed"}


def earlier() -> Node:
    """The definition as an earlier release may have had it: with fewer fields."""
    tree = copy.deepcopy(definition())
    schema = tree["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    del schema["spec"]["properties"]["onRollback"], schema["status"]["properties"]["observed"]
    return tree


@pytest.fixture
def old_chart(tmp_path: Path) -> Path:
    """The chart of an earlier release, with its definition."""
    made = Path(shutil.copytree(CHART, tmp_path / "understudy"))
    (made / "templates" / "crd.yaml").write_text(chart_template(earlier()), encoding="utf-8")
    text = (made / "Chart.yaml").read_text(encoding="utf-8")
    (made / "Chart.yaml").write_text(re.sub("(?m)^version: .*", "version: 0.0.1", text), encoding="utf-8")
    return made


class Clean:
    """A cluster on which nothing of ours is left from another test."""

    def __init__(self, helm: Helm, plane: ControlPlane) -> None:
        self.helm, self.plane = helm, plane
        self.api = plane.api()
        self._crds = client.ApiextensionsV1Api(self.api)
        for each in json.loads(helm("list", "--all-namespaces", "--all", "--output=json")):
            helm("uninstall", each["name"], f"--namespace={each['namespace']}")
        if self.definition() is not None:
            self._crds.delete_custom_resource_definition(NAME, _request_timeout=CALL_WITHIN_S)
            wait_for("the definition is gone", lambda: self.definition() is None, 30)
        self.home, self.shop = self.namespace("understudy"), self.namespace("shop")

    def namespace(self, name: str) -> str:
        """A new one, which takes only pods of the strictest standard."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        meta = client.V1ObjectMeta(name=f"{name}-{uuid.uuid4().hex[:8]}", labels=labels)
        core = client.CoreV1Api(self.api)
        core.create_namespace(client.V1Namespace(metadata=meta), _request_timeout=CALL_WITHIN_S)
        return str(meta.name)

    def definition(self) -> client.V1CustomResourceDefinition | None:
        try:
            return self._crds.read_custom_resource_definition(NAME, _request_timeout=CALL_WITHIN_S)
        except client.ApiException as error:
            if error.status == 404:
                return None
            raise

    def install(self, chart: Path = CHART, *more: str) -> None:
        self.helm("install", "understudy", chart, f"--namespace={self.home}", *more)

    def upgrade(self, *more: str) -> None:
        self.helm("upgrade", "understudy", CHART, f"--namespace={self.home}", *more)

    def uninstall(self) -> str:
        return self.helm("uninstall", "understudy", f"--namespace={self.home}")

    def takes(self, spec: Node) -> bool:
        """Whether the definition that is in force knows all the fields of ``spec``."""
        try:
            Rollouts(self.api, self.shop).create({"metadata": {"name": "probe"}, "spec": spec}, dry_run="All")
        except client.ApiException:
            return False
        return True

    def rollout(self, spec: Node = PLAIN["spec"], status: Node = STATUS) -> Node:
        """One that somebody has applied and that is at work."""
        wait_for("rollouts are served", lambda: self.takes(spec), 60)
        made = Rollouts(self.api, self.shop).create({"metadata": {"name": "late"}, "spec": spec})
        return Rollouts(self.api, self.shop).replace_status(made | {"status": status})

    def stored(self) -> Node:
        """The rollout; the definition is there and not about to go, which would take its objects with it later."""
        definition = self.definition()
        assert definition is not None
        assert definition.metadata.deletion_timestamp is None
        return Rollouts(self.api, self.shop).get("late")

    def may(self, home: str, verb: str, what: str, namespace: str) -> bool:
        """Whether the account of the release in ``home`` may; ``what`` is GROUP/RESOURCE/NAME."""
        group, resource, name = what.split("/")
        asked = client.V1ResourceAttributes(group=group, resource=resource, name=name, namespace=namespace, verb=verb)
        account = f"system:serviceaccount:{home}:understudy-controller"
        review = client.V1SubjectAccessReview(
            spec=client.V1SubjectAccessReviewSpec(resource_attributes=asked, user=account)
        )
        answer = client.AuthorizationV1Api(self.api).create_subject_access_review(
            review, _request_timeout=CALL_WITHIN_S
        )
        return bool(answer.status.allowed)

    def left(self) -> list[str]:
        """Of what the chart installs, what is there, but for the definition."""
        values = ["--set=crd.enabled=false", EVERYTHING]
        found = objects(self.helm("template", "understudy", CHART, f"--namespace={self.home}", *values))
        names = [f"{kind}/{name}" for kind, _, name in found]
        said = self.plane.kubectl("get", "--ignore-not-found", "-o=name", f"--namespace={self.home}", *names)
        return said.splitlines()


@pytest.fixture
def clean(installing: Helm, cluster: ControlPlane) -> Clean:
    return Clean(installing, cluster)


def test_an_upgrade_upgrades_the_definition_and_rollouts_stay_as_they_are(clean: Clean, old_chart: Path) -> None:
    clean.install(old_chart)
    before = clean.rollout(OLD_SPEC, OLD_STATUS)
    assert not clean.takes(PLAIN["spec"])
    clean.upgrade()
    wait_for("the new definition", lambda: clean.takes(PLAIN["spec"]), 30)
    assert clean.stored() == before
    kept = Rollouts(clean.api, clean.shop).replace_status(clean.stored() | {"status": STATUS})
    assert (kept["spec"], kept["status"]) == (OLD_SPEC, STATUS)


def test_a_definition_that_was_applied_by_hand_is_refused_with_a_word_and_taken_over_when_asked(clean: Clean) -> None:
    clean.plane.define(earlier())
    before = clean.rollout(OLD_SPEC, OLD_STATUS)
    with pytest.raises(Refused, match=f'"{NAME}".* exists and cannot be imported into the current release'):
        clean.install()
    clean.install(CHART, "--take-ownership")
    wait_for("the new definition", lambda: clean.takes(PLAIN["spec"]), 30)
    assert clean.stored() == before


def test_an_uninstall_leaves_the_definition_and_all_rollouts_and_nothing_else(clean: Clean) -> None:
    clean.install(CHART, EVERYTHING)
    before = clean.rollout()
    assert len(clean.left()) == 11
    assert f"[CustomResourceDefinition] {NAME}" in clean.uninstall()
    assert clean.stored() == before
    assert clean.left() == []


def test_what_was_uninstalled_can_be_installed_again(clean: Clean) -> None:
    clean.install()
    before = clean.rollout()
    clean.uninstall()
    clean.install()
    assert clean.stored() == before


def test_an_upgrade_that_leaves_the_definition_out_does_not_delete_it(clean: Clean) -> None:
    clean.install()
    before = clean.rollout()
    clean.upgrade("--set=crd.enabled=false")
    assert clean.stored() == before


def test_volumes_of_another_size_take_a_new_statefulset_which_an_upgrade_makes(clean: Clean) -> None:
    clean.install()
    larger = "--set=state.size=20Gi"
    with pytest.raises(Refused, match="updates to statefulset spec for fields other than"):
        clean.upgrade(larger)
    # People say --cascade=orphan, to keep the pods. Here there are none, nor Kubernetes' controller that would do it.
    clean.plane.kubectl("delete", "statefulset", "understudy-controller", "-n", clean.home)
    clean.upgrade(larger)
    size = "jsonpath={.spec.volumeClaimTemplates[0].spec.resources.requests.storage}"
    assert clean.plane.kubectl("get", "statefulset", "understudy-controller", "-n", clean.home, "-o", size) == "20Gi"


def test_a_controller_of_one_namespace_may_do_nothing_in_another_and_stands_beside_the_first(clean: Clean) -> None:
    clean.install()
    home = clean.namespace("team")
    only = ["--set=crd.enabled=false", f"--set=watchNamespace={clean.shop}"]
    clean.helm("install", "understudy", CHART, f"--namespace={home}", *only)
    assert clean.may(home, "patch", "understudy.dev/modelrollouts/", clean.shop)
    assert clean.may(home, "watch", "apps/deployments/", clean.shop)
    for verb, what, namespace in (
        ("patch", "understudy.dev/modelrollouts/", clean.home),
        ("create", "apps/deployments/", clean.home),
        ("list", "/pods/", "default"),
        ("create", "/secrets/", "default"),
        ("get", "/secrets/understudy-key", clean.home),
        ("get", "/secrets/", clean.shop),
        ("get", "/secrets/understudy-key", clean.shop),
    ):
        assert not clean.may(home, verb, what, namespace), (verb, what, namespace)


def test_of_the_secrets_of_others_the_controller_reads_those_that_are_named_and_only_them(clean: Clean) -> None:
    clean.install(CHART, f'--set-json=slackSecrets=[{{"namespace":"{clean.shop}","name":"slack"}}]')
    assert clean.may(clean.home, "get", "/secrets/slack", clean.shop)
    for verb, what, namespace in (
        ("get", "/secrets/another", clean.shop),
        ("list", "/secrets/", clean.shop),
        ("update", "/secrets/slack", clean.shop),
        ("get", "/secrets/slack", clean.home),
        ("get", "/secrets/slack", "default"),
    ):
        assert not clean.may(clean.home, verb, what, namespace), (verb, what, namespace)


def test_the_pods_meet_the_strictest_standard(clean: Clean) -> None:
    """The namespace takes no other; a dry run asks all that a real one does."""
    clean.install()
    found = objects(clean.helm("get", "manifest", "understudy", f"--namespace={clean.home}"))
    template = found["StatefulSet", clean.home, "understudy-controller"]["spec"]["template"]
    spec = template["spec"] | {"volumes": [*template["spec"]["volumes"], {"name": "state", "emptyDir": {}}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", "namespace": clean.home}, "spec": spec}
    assert "created" in clean.plane.kubectl("create", "--dry-run=server", "-f", "-", given=pod)
    loose = copy.deepcopy(pod)
    del loose["spec"]["securityContext"]
    with pytest.raises(AssertionError, match='violates PodSecurity "restricted'):
        clean.plane.kubectl("create", "--dry-run=server", "-f", "-", given=loose)


def test_what_people_are_told_after_an_install_names_their_release(clean: Clean) -> None:
    clean.install()
    said = clean.helm("get", "notes", "understudy", f"--namespace={clean.home}")
    assert f"kubectl -n {clean.home} rollout status statefulset/understudy-controller" in said
    assert "MLflow is asked at http://mlflow.mlflow:5000." in said
    assert "requestPolicy.enabled=true" in said
