"""People ask from the command line, by their own name on the cluster, for what RBAC lets them ask for."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from controller.cli import group
from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.requests import PREFIX, read
from controller.edges.cluster.resources import ROLLOUTS, Resource
from controller.edges.cluster.store import FINALIZER
from controller.errors import EdgeError
from controller.status import PersonRequest, Progress, Reason
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.operating.conftest import ROOT
from tests.kubernetes.operating.theatre import SPEC, STAY, Theatre, until

ACCOUNTS = Resource("v1", "serviceaccounts", "ServiceAccount")
ROLES = Resource("rbac.authorization.k8s.io/v1", "roles", "Role")
BINDINGS = Resource("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding")
POLICIES = Resource(
    "admissionregistration.k8s.io/v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", namespaced=False
)
POLICY_BINDINGS = Resource(
    "admissionregistration.k8s.io/v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding",
    namespaced=False,
)  # fmt: skip
LAST_APPLIED, HELM_POLICY = "kubectl.kubernetes.io/last-applied-configuration", "helm.sh/resource-policy"
READ = ["get", "list"]
Login = Callable[..., Path]


@pytest.fixture
def login(theatre: Theatre, control_plane: ControlPlane) -> Login:
    """Makes the kubeconfig of a new user who has these verbs on the namespace's rollouts, and rules ``beside``."""

    def made(name: str, *verbs: str, beside: Iterable[Node] = ()) -> Path:
        access, meta = theatre.access, {"namespace": theatre.namespace, "name": name}
        access.create(ACCOUNTS, {"metadata": meta})
        rule = {"apiGroups": ["understudy.dev"], "resources": ["modelrollouts"], "verbs": list(verbs)}
        access.create(ROLES, {"metadata": meta, "rules": [*([rule] if verbs else []), *beside]})
        subject = {"kind": "ServiceAccount", **meta}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
        access.create(BINDINGS, {"metadata": meta, "subjects": [subject], "roleRef": role})
        return control_plane.login(theatre.namespace, name)

    return made


@pytest.fixture
def policy(access: Access, theatre: Theatre) -> Iterator[None]:
    """Who may ask for what, in force for the test's own namespace (others run tests of their own)."""
    made, binding = yaml.safe_load_all((ROOT / "manifests" / "policy.yaml").read_text(encoding="utf-8"))
    name = theatre.namespace
    here = {"matchLabels": {"kubernetes.io/metadata.name": theatre.namespace}}
    access.apply(POLICIES, {**made, "metadata": {"name": name}})
    resources = {"namespaceSelector": here}
    spec = {**binding["spec"], "policyName": name, "matchResources": resources}
    access.apply(POLICY_BINDINGS, {**binding, "metadata": {"name": name}, "spec": spec})
    theatre.apply("probe", model={"name": "probe"})

    tries = itertools.count()

    def in_force() -> bool:
        try:
            ask(access, theatre, f"not a request {next(tries)}", name="probe")
        except EdgeError as error:
            return "a request begins with" in str(error)
        return False

    until(in_force, "the policy is in force")
    yield
    access.delete(POLICY_BINDINGS, None, name)
    access.delete(POLICIES, None, name)


def ask(access: Access, theatre: Theatre, text: str, name: str = "late") -> None:
    meta = {"namespace": theatre.namespace, "name": name, "annotations": {f"{PREFIX}r{abs(hash(text))}": text}}
    access.patch(ROLLOUTS, {"metadata": meta})


def asking(verb: str, theatre: Theatre, account: str) -> str:
    """A request of this account, as the policy takes it."""
    who = f"system:serviceaccount:{theatre.namespace}:{account}"
    return json.dumps({"verb": verb, "who": who, "why": "", "at": 1}, separators=(",", ":"))


def understudy(*arguments: str) -> Result:
    """The command line, in this process: it takes seconds to start one."""
    return CliRunner().invoke(group.understudy, arguments)


def requests(theatre: Theatre) -> list[PersonRequest]:
    return read(theatre.object()["metadata"].get("annotations", {}))[0]


@pytest.mark.usefixtures("policy")
def test_a_verb_is_granted_by_rbac_and_the_name_is_the_users_own(theatre: Theatre, login: Login) -> None:
    theatre.apply()
    place = ("late", "--why", "checked by hand")
    ada = login("ada", *READ, "patch", "approve")
    said = understudy("approve", *place, "--kubeconfig", str(ada))
    assert (said.exit_code, said.stderr) == (0, "")
    (request,) = requests(theatre)
    assert (request.verb, request.why) == ("approve", "checked by hand")
    assert request.who == f"system:serviceaccount:{theatre.namespace}:ada"
    refused = understudy("promote", *place, "--kubeconfig", str(ada))
    assert refused.exit_code == 1
    assert "may not ask for that" in refused.stderr
    assert len(requests(theatre)) == 1


@pytest.mark.usefixtures("policy")
def test_nobody_asks_in_anothers_name_or_edits_by_the_right_to_ask(theatre: Theatre, login: Login) -> None:
    theatre.apply()
    eve = Access(login("eve", *READ, "patch", "approve"))
    who = f"system:serviceaccount:{theatre.namespace}:eve"
    for text in (
        '{"verb":"approve","who":"ada","why":""}',
        '{"who":"ada","verb":"approve"}',
        f'{{"verb":"abort","who":"{who}","why":""}}',
        f'{{"verb":"approve","who":"{who}x","why":""}}',
    ):
        with pytest.raises(EdgeError, match="403"):
            ask(eve, theatre, text)
    ask(eve, theatre, f'{{"verb":"approve","who":"{who}","why":"","who":"ada"}}')
    assert requests(theatre) == []  # a name that stands twice is no request
    place = {"namespace": theatre.namespace, "name": "late"}
    with pytest.raises(EdgeError, match="takes the verb update"):
        eve.patch(ROLLOUTS, {"metadata": place, "spec": {"decision": {"minUnits": 1}}})
    editor = Access(login("editor", *READ, "patch", "update"))
    editor.patch(ROLLOUTS, {"metadata": place, "spec": {"decision": {"minUnits": 1}}})


@pytest.mark.usefixtures("policy")
@pytest.mark.parametrize(
    "meta",
    [
        {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "never-was", "uid": "0-0"}]},
        {"finalizers": ["example.com/for-ever", FINALIZER]},
        {"finalizers": []},
        {"labels": {"team": "eve"}},
    ],
    ids=["an owner that is none", "a finalizer of others", "without ours", "a label"],
)
def test_nobody_deletes_or_keeps_from_it_by_the_right_to_ask(theatre: Theatre, login: Login, meta: Node) -> None:
    """The garbage collector takes what has no owner any more, and a foreign finalizer is waited for."""
    theatre.apply()
    theatre.store().hold(theatre.key())
    before = theatre.object()["metadata"]
    place = {"namespace": theatre.namespace, "name": "late"}
    eve = Access(login("eve", *READ, "patch", "approve"))
    with pytest.raises(EdgeError, match=r"403.*(takes the verb update|the controller is its own)"):
        eve.patch(ROLLOUTS, {"metadata": {**place, **meta}})
    assert theatre.object()["metadata"] == before
    if "ownerReferences" not in meta:
        Access(login("editor", *READ, "patch", "update")).patch(ROLLOUTS, {"metadata": {**place, **meta}})


@pytest.mark.usefixtures("policy")
@pytest.mark.parametrize(
    "annotations",
    [{LAST_APPLIED: '{"spec":{"decision":{"approvePromotion":true}}}'}, {LAST_APPLIED: None}, {HELM_POLICY: "keep"}],
    ids=["changed", "removed", "added"],
)
def test_nobody_edits_what_tools_delete_and_keep_by_by_the_right_to_ask(
    theatre: Theatre, login: Login, annotations: Node
) -> None:
    """Not beside a request of his own either. `kubectl apply` removes what was last applied and is not any more."""
    theatre.apply()
    place = {"namespace": theatre.namespace, "name": "late"}
    theatre.access.patch(ROLLOUTS, {"metadata": {**place, "annotations": {LAST_APPLIED: "{}"}}})
    before = theatre.object()["metadata"]
    eve = Access(login("eve", *READ, "patch", "approve"))
    own = {f"{PREFIX}own": asking("approve", theatre, "eve")}
    for asked in ({}, own):
        with pytest.raises(EdgeError, match=r"403.*takes the verb update"):
            eve.patch(ROLLOUTS, {"metadata": {**place, "annotations": {**annotations, **asked}}})
    assert theatre.object()["metadata"] == before
    eve.patch(ROLLOUTS, {"metadata": {**place, "annotations": own}})
    editor = Access(login("editor", *READ, "patch", "update"))
    editor.patch(ROLLOUTS, {"metadata": {**place, "annotations": annotations}})


@pytest.mark.usefixtures("policy")
def test_a_request_is_taken_away_by_the_controller_and_by_nobody_else_who_may_ask(
    theatre: Theatre, login: Login
) -> None:
    theatre.apply()
    place, stop = {"namespace": theatre.namespace, "name": "late"}, f"{PREFIX}stop"
    ada = Access(login("ada", *READ, "patch", "abort"))
    text = asking("abort", theatre, "ada")
    ada.patch(ROLLOUTS, {"metadata": {**place, "annotations": {stop: text}}})
    eve = Access(login("eve", *READ, "patch", "approve"))
    for instead in (None, asking("approve", theatre, "eve")):
        with pytest.raises(EdgeError, match=r"403.*stays as it was written"):
            eve.patch(ROLLOUTS, {"metadata": {**place, "annotations": {stop: instead}}})
    assert theatre.object()["metadata"]["annotations"] == {stop: text}
    status = {"apiGroups": ["understudy.dev"], "resources": ["modelrollouts/status"], "verbs": ["update"]}
    controller = Access(login("operator", *READ, "patch", beside=[status]))
    controller.patch(ROLLOUTS, {"metadata": {**place, "annotations": {stop: None}}})
    assert requests(theatre) == []


@pytest.mark.usefixtures("policy")
def test_who_may_ask_asks_once_at_a_time_and_leaves_room_for_others(theatre: Theatre, login: Login) -> None:
    """All annotations of an object share 256 KiB, and what is no request is taken away by nobody but an editor."""
    theatre.apply()
    place = {"namespace": theatre.namespace, "name": "late"}
    eve = Access(login("eve", *READ, "patch", "approve"))

    def ask_all(*texts: str) -> None:
        names = (f"{PREFIX}{abs(hash(text))}-{number}" for number, text in enumerate(texts))
        eve.patch(ROLLOUTS, {"metadata": {**place, "annotations": dict(zip(names, texts, strict=True))}})

    text = asking("approve", theatre, "eve")
    with pytest.raises(EdgeError, match=r"403.*one request at a time"):
        ask_all(text, text)
    with pytest.raises(EdgeError, match=r"403.*at most 2000 characters"):
        ask_all(text + "x" * 2000)
    for number in range(10):
        ask_all(f"{text} no request {number}")
    with pytest.raises(EdgeError, match=r"403.*ten requests of .*:eve are there already"):
        ask_all(text)
    ada = Access(login("ada", *READ, "patch", "abort"))
    ask(ada, theatre, asking("abort", theatre, "ada"))
    assert [request.verb for request in requests(theatre)] == ["abort"]


@pytest.fixture
def crowded(theatre: Theatre) -> list[str]:
    """The names of as many requests as the API server takes of one object, each the shortest that there is."""
    theatre.apply()
    many = {f"{PREFIX}{number}": "" for number in range(9000)}
    meta = {"namespace": theatre.namespace, "name": "late", "annotations": many}
    theatre.access.patch(ROLLOUTS, {"metadata": meta})
    return list(many)


@pytest.mark.usefixtures("crowded", "policy")
def test_a_rollout_full_of_requests_is_asked_more_of_and_emptied(
    crowded: list[str], theatre: Theatre, login: Login
) -> None:
    """What the policy may cost for one object is limited by the API server, which refuses what costs more."""
    place = {"namespace": theatre.namespace, "name": "late"}
    eve = Access(login("eve", *READ, "patch", "approve"))
    more = {f"{PREFIX}more": asking("approve", theatre, "eve")}
    eve.patch(ROLLOUTS, {"metadata": {**place, "annotations": more}})
    status = {"apiGroups": ["understudy.dev"], "resources": ["modelrollouts/status"], "verbs": ["update"]}
    controller = Access(login("operator", *READ, "patch", beside=[status]))
    controller.patch(ROLLOUTS, {"metadata": {**place, "annotations": dict.fromkeys(crowded)}})
    assert [request.id for request in requests(theatre)] == ["more"]


@pytest.mark.usefixtures("policy")
def test_the_controllers_own_account_takes_its_finalizer_and_gives_it_back(theatre: Theatre, login: Login) -> None:
    """It may patch and not update, too, and writes the status."""
    manifest = yaml.safe_load_all((ROOT / "manifests" / "install.yaml").read_text(encoding="utf-8"))
    (role,) = [each for each in manifest if each["kind"] == "ClusterRole"]
    leases = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]}
    theatre.operating = login("controller", beside=[*role["rules"], leases])
    theatre.operator()
    theatre.apply(steps=STAY)
    theatre.reaches(Progress.RUNNING, step=1)
    assert theatre.object()["metadata"]["finalizers"] == [FINALIZER]
    ada = Access(login("ada", *READ, "patch", "pause"))
    ask(ada, theatre, f'{{"verb":"pause","who":"system:serviceaccount:{theatre.namespace}:ada","why":""}}')
    until(lambda: theatre.status().paused and not requests(theatre), "it is obeyed, and the annotation is gone")
    theatre.access.delete(ROLLOUTS, theatre.namespace, "late")
    until(theatre.gone, "it is gone")


def test_kubectl_understudy_is_the_same_command(
    theatre: Theatre, control_plane: ControlPlane, kubeconfig: Path
) -> None:
    theatre.apply()
    kubectl = control_plane.command[0]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [kubectl, "understudy", *arguments, "--kubeconfig", str(kubeconfig), "-n", theatre.namespace]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "PATH": path}
        )

    said = run("pause", "--why", "incident")
    assert (said.returncode, said.stderr) == (0, "")
    (request,) = requests(theatre)
    assert (request.verb, request.who, request.why) == ("pause", "admin", "incident")
    shown = run("status", "late", "--output", "json")
    assert json.loads(shown.stdout)["rollout"] == "late"


def test_who_asks_on_a_cluster_cannot_be_chosen(theatre: Theatre, kubeconfig: Path) -> None:
    theatre.apply()
    place = ("--kubeconfig", str(kubeconfig), "-n", theatre.namespace)
    said = understudy("abort", "late", "--who", "eve", *place)
    assert (said.exit_code, said.stderr.partition(":")[2].partition(":")[0]) == (2, " --who")
    said = understudy("abort", "other", *place)
    assert said.stderr == "error: ROLLOUT: there is no rollout 'other'; there is: late\n"
    said = understudy("abort", "late", "--why", "x" * 3000, *place)
    assert (said.exit_code, requests(theatre)) == (2, [])


def test_who_edits_an_approval_away_approves_nothing_by_it(theatre: Theatre) -> None:
    """What was measured while it was asked for is not promoted: the attempt starts again."""
    theatre.operator()
    theatre.apply(decision={**SPEC["decision"], "approvePromotion": True})

    def waits() -> bool:
        theatre.scene("late").live()
        return theatre.status().reason is Reason.AWAITING_APPROVAL

    until(waits, "it waits for an approval")
    theatre.apply(steps=SPEC["steps"])
    status = theatre.reaches(Progress.RUNNING, step=0)
    assert (status.attempts, status.past) == (2, ("2",))
    assert theatre.registry.alias("flights", "champion") == "1"
    until(lambda: "Superseded" in {e["reason"] for e in theatre.events()}, "it is told")


def test_a_request_after_the_end_is_told_to_have_no_effect(theatre: Theatre) -> None:
    """It may have been written just before the end, or by hand; the command refuses it."""
    operator = theatre.operator()
    theatre.apply()
    theatre.reaches(Progress.PROMOTED)
    theatre.rests(operator)
    theatre.ask("abort")
    until(lambda: "NoEffect" in {e["reason"] for e in theatre.events()}, "an Event tells it")
    (event,) = [e for e in theatre.events() if e["reason"] == "NoEffect"]
    assert event["type"] == "Warning"
    assert event["note"].endswith("abort had no effect\nabort by ada to see: the rollout is over (Promoted)")
    until(lambda: not requests(theatre), "the request is taken away")
    theatre.rests(operator)
    theatre.access.delete(ROLLOUTS, theatre.namespace, "late")
    until(theatre.gone, "it is gone")
    assert len([e for e in theatre.events() if e["reason"] == "NoEffect"]) == 1
