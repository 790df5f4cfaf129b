"""The API server with our definition on it, and the ways to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.resources import DEPLOYMENTS, ROLLOUTS
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.operating.machines import Machines
from tests.kubernetes.operating.node import KubeNode
from tests.kubernetes.operating.real import RealTheatre, serving
from tests.kubernetes.operating.templated import Clock, Found, of_store
from tests.kubernetes.operating.theatre import NAMESPACES, Theatre, until
from tests.kubernetes.operating.wired import WiredTheatre
from tests.ports.tracking_server import TrackingServer
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
def tenant(access: Access, kubeconfig: Path, namespace: str, tmp_path: Path) -> Iterator[RealTheatre]:
    """Without a node: nothing of it runs."""
    made = RealTheatre(access, kubeconfig, namespace, tmp_path)
    yield made
    made.close()


@pytest.fixture
def real(node: KubeNode, tenant: RealTheatre) -> RealTheatre:
    """With a node, which outlasts it."""
    return tenant


@pytest.fixture
def wired(access: Access, kubeconfig: Path, namespace: str, tmp_path: Path) -> Iterator[WiredTheatre]:
    made = WiredTheatre(access, kubeconfig, namespace, tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackingServer]:
    """An MLflow."""
    made = TrackingServer(tmp_path_factory.mktemp("tracking"))
    yield made
    made.close()


@pytest.fixture
def models(access: Access, namespace: str) -> Iterator[tuple[Model, Model]]:
    """Those that ``real.declared`` is about."""
    with serving(access, namespace) as made:
        yield made


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def machines(theatre: Theatre, controllers: ControlPlane, clock: Clock) -> Iterator[Machines]:
    """Where the theatre's rollouts run their pods."""
    made = Machines(theatre.access, theatre.namespace)

    theatre.workloads = of_store(clock)
    yield made
    theatre.close()
    made.close()


@pytest.fixture
def template(machines: Machines) -> Node:
    container = {"name": "model", "image": "understudy-serve", "args": ["serve", "$(MODEL_URI)"],
                 "ports": [{"containerPort": machines.port}]}  # fmt: skip
    return {"metadata": {"labels": {"team": "flights"}}, "spec": {"containers": [container]}}


@pytest.fixture
def found(theatre: Theatre) -> Found:
    """The Deployment of a version."""
    return lambda version: theatre.access.get(DEPLOYMENTS, theatre.namespace, f"late-v{version}")
