"""The API server with our definition on it, and the ways to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.edges.cluster.access import Access
from controller.edges.cluster.resources import ROLLOUTS
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.operating.node import KubeNode
from tests.kubernetes.operating.real import RealTheatre
from tests.kubernetes.operating.theatre import NAMESPACES, Theatre, until
from tests.router.models import Model

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def kubeconfig(control_plane: ControlPlane) -> Path:
    """The administrator's."""
    return control_plane.kubeconfig


@pytest.fixture(scope="session")
def access(crd: str, kubeconfig: Path) -> Iterator[Access]:
    """To a server that knows ModelRollouts."""
    made = Access(kubeconfig)
    until(lambda: made.list(ROLLOUTS, None) is not None, f"{crd} are served")
    yield made
    made.close()


@pytest.fixture
def theatre(access: Access, kubeconfig: Path, namespace: str, tmp_path: Path) -> Iterator[Theatre]:
    """A namespace with a world behind it; every operator that a test starts ends with it."""
    made = Theatre(access, kubeconfig, namespace, tmp_path)
    yield made
    made.close()


@pytest.fixture
def restricted(access: Access, namespace: str) -> str:
    """A namespace that takes only pods of the strictest standard."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    access.patch(NAMESPACES, {"metadata": {"name": namespace, "labels": labels}})
    return namespace


@pytest.fixture
def node(controllers: ControlPlane, kubeconfig: Path, restricted: str, tmp_path: Path) -> Iterator[KubeNode]:
    made = KubeNode(kubeconfig, restricted, tmp_path / "node")
    yield made
    made.close()


@pytest.fixture
def real(access: Access, kubeconfig: Path, node: KubeNode, namespace: str, tmp_path: Path) -> Iterator[RealTheatre]:
    made = RealTheatre(access, kubeconfig, namespace, tmp_path)
    yield made
    made.close()


@pytest.fixture
def models() -> Iterator[tuple[Model, Model]]:
    with Model("champion") as champion, Model("challenger") as challenger:
        yield champion, challenger
