"""With the values that the chart comes with, Helm installs what the manifests do."""

import copy
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.kubernetes.binaries import ROOT
from tests.kubernetes.chart.conftest import Node, objects
from tests.kubernetes.helm import CHART, Helm

OF_HELM = {"helm.sh/chart", *(f"app.kubernetes.io/{name}" for name in ("instance", "version", "managed-by"))}
KEPT = {"helm.sh/resource-policy": "keep"}
RELEASE = ("template", "understudy", "--namespace=understudy")
Objects = dict[tuple[str, str, str], Node]


def plain(tree: Node) -> Node:
    """Without the labels of Helm, each of which has to be there."""
    bare = copy.deepcopy(tree)
    labels = bare["metadata"].pop("labels")
    assert labels.keys() >= OF_HELM
    rest = {name: value for name, value in labels.items() if name not in OF_HELM}
    if rest:
        bare["metadata"]["labels"] = rest
    return bare


@cache
def rendered(helm: Helm, *more: str, chart: Path = CHART) -> Objects:
    """What Helm makes of the chart, to be read only."""
    return {key: plain(tree) for key, tree in objects(helm(*RELEASE, chart, *more)).items()}


def manifest(name: str) -> Objects:
    return objects((ROOT / "manifests" / name).read_text(encoding="utf-8"))


def without_namespace(found: Objects) -> Objects:
    """Helm keeps its own records in the namespace of a release, which is there before the release."""
    return {key: tree for key, tree in found.items() if key[0] != "Namespace"}


def test_by_default_the_objects_are_those_of_the_manifests_and_the_definition(helm: Helm) -> None:
    crds = manifest("crd.yaml")
    for tree in crds.values():
        tree["metadata"]["annotations"] = KEPT
    found = rendered(helm)
    wanted = without_namespace(manifest("install.yaml")) | crds
    assert found.keys() == wanted.keys()
    for key, tree in wanted.items():
        assert found[key] == tree, key


def test_the_policy_of_requests_is_that_of_the_manifest_where_it_is_asked_for(helm: Helm) -> None:
    added = rendered(helm, "--set=requestPolicy.enabled=true")
    assert {key: tree for key, tree in added.items() if key not in rendered(helm)} == manifest("policy.yaml")


def test_what_is_packaged_renders_the_same(helm: Helm, tmp_path: Path) -> None:
    helm("package", CHART, "--destination", tmp_path)
    (package,) = tmp_path.iterdir()
    assert rendered(helm, chart=package) == rendered(helm)


def test_helm_finds_nothing_to_complain_of(helm: Helm) -> None:
    assert "1 chart(s) linted, 0 chart(s) failed" in helm("lint", "--strict", CHART)


@pytest.mark.parametrize(("value", "gone"), [("crd", "CustomResourceDefinition"), ("networkPolicy", "NetworkPolicy")])
def test_what_is_switched_off_is_left_out_and_nothing_else(helm: Helm, value: str, gone: str) -> None:
    kept = rendered(helm, f"--set={value}.enabled=false")
    assert kept == {key: tree for key, tree in rendered(helm).items() if key[0] != gone}
    assert kept != rendered(helm)


def test_a_release_of_another_name_has_nothing_of_the_first_but_the_definition(helm: Helm) -> None:
    other = objects(helm("template", "prod", CHART, "--namespace=understudy"))
    assert other.keys() & rendered(helm).keys() == {("CustomResourceDefinition", "", "modelrollouts.understudy.dev")}
    pod = other["StatefulSet", "understudy", "prod-understudy-controller"]["spec"]["template"]
    env = {each["name"]: each["value"] for each in pod["spec"]["containers"][0]["env"]}
    names = [
        name
        for rule in other["Role", "understudy", "prod-understudy-controller"]["rules"]
        for name in rule.get("resourceNames", [])
    ]
    assert [env["UNDERSTUDY_LEASE_NAME"], env["UNDERSTUDY_KEY_NAME"]] == names
    assert pod["metadata"]["labels"] == {"app.kubernetes.io/name": "prod-understudy-controller"}


@pytest.mark.parametrize("name", ["a" * 53, "understudy-" + "b" * 42])
def test_the_longest_name_of_a_release_makes_names_that_kubernetes_takes(helm: Helm, name: str) -> None:
    found = objects(helm("template", name, CHART))
    # A pod's name is its StatefulSet's with a number, and the label with its revision has eleven characters more.
    assert max(len(each) for kind, _, each in found if kind != "CustomResourceDefinition") <= 52


def test_for_one_namespace_the_rights_are_the_same_and_bound_to_it(helm: Helm) -> None:
    whole = rendered(helm)["ClusterRole", "", "understudy-controller"]
    found = rendered(helm, "--set=watchNamespace=shop")
    assert not {kind for kind, _, _ in found} & {"ClusterRole", "ClusterRoleBinding"}
    assert found["Role", "shop", "understudy-controller-rollouts"]["rules"] == whole["rules"]
    subject = {"kind": "ServiceAccount", "name": "understudy-controller", "namespace": "understudy"}
    assert found["RoleBinding", "shop", "understudy-controller-rollouts"]["subjects"] == [subject]


def test_the_version_of_the_chart_is_that_of_the_project() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert [chart["version"], chart["appVersion"]] == [project["version"]] * 2
