"""A real API server for the tests: one for each test process, and a namespace for each test."""

import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml
from kubernetes import client

from controller.schema import CRD
from tests.kubernetes import binaries, gateways, helm
from tests.kubernetes.control_plane import CALL_WITHIN_S, ControlPlane, running

T = TypeVar("T")
FOUND = pytest.StashKey[Path | binaries.Unavailable]()
DEFINITIONS = pytest.StashKey[list[dict[str, Any]] | binaries.Unavailable]()
TRAEFIK = pytest.StashKey[Path | binaries.Unavailable]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Have the programs before the first test, whose time is limited; who waits is told for what."""
    wanted = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    if session.config.option.collectonly or "assets" not in wanted:
        return
    said = session.config.pluginmanager.get_plugin("terminalreporter")

    def say(text: str) -> None:
        if said is not None:
            said.write_line(f"Kubernetes for the tests: {text}")

    def had(make: Callable[[binaries.Say], T]) -> T | binaries.Unavailable:
        try:
            return make(say)
        except binaries.Unavailable as error:
            return error

    session.config.stash[FOUND] = had(binaries.programs)
    if "routes" in wanted:
        session.config.stash[DEFINITIONS] = had(gateways.definitions)
    if "traefik" in wanted:
        session.config.stash[TRAEFIK] = had(gateways.traefik)


@pytest.fixture(scope="session")
def assets(request: pytest.FixtureRequest) -> Path:
    """The folder of the control plane's programs."""
    found = request.config.stash[FOUND]
    if isinstance(found, binaries.Unavailable):
        pytest.fail(str(found), pytrace=False)
    return found


@pytest.fixture(scope="session")
def control_plane(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """etcd and kube-apiserver, empty."""
    with running(assets, tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane


@pytest.fixture(scope="session")
def controllers(control_plane: ControlPlane) -> ControlPlane:
    """The same with Kubernetes' own controllers."""
    control_plane.run_controllers()
    return control_plane


@pytest.fixture(scope="session")
def api(control_plane: ControlPlane) -> Iterator[client.ApiClient]:
    """The administrator's client."""
    with control_plane.api() as made:
        yield made


@pytest.fixture(scope="session")
def crd(control_plane: ControlPlane) -> str:
    """The name of our definition, applied as people apply it, and established."""
    tree = yaml.safe_load((binaries.ROOT / CRD).read_text(encoding="utf-8"))
    control_plane.define(tree)
    return str(tree["metadata"]["name"])


@pytest.fixture(scope="session")
def routes(request: pytest.FixtureRequest, control_plane: ControlPlane) -> None:
    """The server knows HTTPRoutes and what goes with them."""
    found = request.config.stash[DEFINITIONS]
    if isinstance(found, binaries.Unavailable):
        pytest.skip(f"needs-gateway: the definitions of the Gateway API: {found}")
    for tree in found:
        control_plane.define(tree)


@pytest.fixture(scope="session")
def traefik(
    request: pytest.FixtureRequest, control_plane: ControlPlane, routes: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[gateways.Traefik]:
    """Traefik, which serves the Gateways of this server."""
    found = request.config.stash[TRAEFIK]
    if isinstance(found, binaries.Unavailable):
        pytest.skip(f"needs-gateway: Traefik: {found}")
    with gateways.serving(found, control_plane, tmp_path_factory.mktemp("traefik")) as made:
        yield made


@pytest.fixture
def namespace(api: client.ApiClient, request: pytest.FixtureRequest) -> str:
    """A namespace of the test's own. It is not deleted: the whole server is."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:40].strip("-")
    name = f"{words}-{uuid.uuid4().hex[:8]}"
    body = client.V1Namespace(metadata=client.V1ObjectMeta(name=name))
    client.CoreV1Api(api).create_namespace(body, _request_timeout=CALL_WITHIN_S)
    return name


@pytest.fixture(scope="session")
def helm_program() -> Path:
    """Helm, where it is: it is not built for a test."""
    try:
        found = helm.found()
    except binaries.Unavailable as error:
        pytest.fail(str(error), pytrace=False)
    if found is None:
        pytest.skip("needs-helm: `make test-chart` builds it once")
    return found
