"""Helm, and API servers of which nobody else's tests know: the chart's definition is that of the whole cluster."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kubernetes.control_plane import ControlPlane, running
from tests.kubernetes.helm import Helm

Node = dict[str, Any]
# The same in C, where it is built: the definition takes half a second otherwise.
FAST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@pytest.fixture(scope="session")
def helm(helm_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Without a cluster."""
    return Helm(helm_program, tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="module")
def cluster(helm_program: Path, assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A server on which nothing is installed yet."""
    with running(assets, tmp_path_factory.mktemp("cluster")) as plane:
        yield plane


@pytest.fixture(scope="module")
def installing(helm_program: Path, cluster: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Helm of that cluster's administrator."""
    return Helm(helm_program, tmp_path_factory.mktemp("installing"), cluster.kubeconfig)


def objects(text: str) -> dict[tuple[str, str, str], Node]:
    """Those of a stream of YAML, by kind, namespace and name."""
    trees = [tree for tree in yaml.load_all(text, FAST) if tree]
    named = {(tree["kind"], tree["metadata"].get("namespace", ""), tree["metadata"]["name"]): tree for tree in trees}
    assert len(named) == len(trees)
    return named
