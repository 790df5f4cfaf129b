"""One node for all tests, with an MLflow on it; Helm's release is each test's own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from controller.edges.cluster.access import Access
from tests.cluster import images, node
from tests.cluster.holder import FOLDER, WHY_NOT
from tests.cluster.images import Image
from tests.cluster.shop import HOME, MLFLOW, SHOP, deploy_mlflow, namespace, objects
from tests.embedded.machine import wait_for
from tests.kubernetes import binaries, helm
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.helm import CHART, Helm

VOLUMES = 16


@pytest.fixture(scope="session")
def folder() -> Path:
    """The node's."""
    if WHY_NOT in os.environ:
        pytest.skip(os.environ[WHY_NOT])
    if FOLDER not in os.environ:
        pytest.skip("needs-root: `make test-cluster` runs these tests in the namespaces of a node")
    return Path(os.environ[FOLDER])


@pytest.fixture(scope="session")
def made(folder: Path) -> dict[str, Image]:
    """The images by their names."""
    return {each.reference.rpartition("/")[2].partition(":")[0]: each for each in images.images(print)}


@pytest.fixture(scope="session")
def cluster(folder: Path, made: dict[str, Image]) -> Iterator[ControlPlane]:
    """A control plane with a node, MLflow in it and room for volumes."""
    with node.running(binaries.programs(print, node=True), folder, list(made.values())) as plane:
        node.volumes(plane, folder, VOLUMES)
        for name in (HOME, SHOP):
            namespace(plane, name)
        deploy_mlflow(plane, made["understudy-serve"])
        yield plane


@pytest.fixture
def release(cluster: ControlPlane, made: dict[str, Image], tmp_path: Path) -> Iterator[Helm]:
    """Helm, and what the chart installs. A test may uninstall it."""
    command = Helm(helm.program(print), tmp_path / "helm", cluster.kubeconfig)
    repository, _, tag = made["understudy-controller"].reference.rpartition(":")
    values = {
        "image": {"repository": repository, "tag": tag},
        "settings": {
            "trackingUri": MLFLOW,
            "routerImage": made["understudy-router"].reference,
            "lingerS": 5,
            "idleS": 2,
        },
        "requestPolicy": {"enabled": True},
    }
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    command("install", "understudy", CHART, f"--namespace={HOME}", f"--values={tmp_path / 'values.yaml'}")
    cluster.kubectl("-n", HOME, "rollout", "status", "statefulset/understudy-controller", "--timeout=55s")
    yield command
    if command("list", f"--namespace={HOME}", "--short").split():
        command("uninstall", "understudy", f"--namespace={HOME}")
        wait_for("its pods are gone", lambda: not cluster.kubectl("-n", HOME, "get", "pods", "-o", "name"), 60)


@pytest.fixture
def before(cluster: ControlPlane) -> set[str]:
    """All that was there before Helm came."""
    return objects(cluster)


@pytest.fixture
def mlflow(cluster: ControlPlane) -> MlflowClient:
    return MlflowClient(MLFLOW)


@pytest.fixture
def access(cluster: ControlPlane) -> Access:
    return Access(cluster.kubeconfig)
