"""What the tests of the ports share: contract suites whose assertions explain themselves, and a tracking server."""

from collections.abc import Iterator

import pytest

from tests.ports.tracking_server import TrackingServer, Wire

pytest.register_assert_rewrite(
    *(f"tests.ports.contracts.{name}" for name in ("notifier", "registry", "store", "traffic"))
)


@pytest.fixture(scope="session")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackingServer]:
    """One server for the session: its start takes a quarter of a minute."""
    server = TrackingServer(tmp_path_factory.mktemp("tracking"))
    yield server
    server.close()


@pytest.fixture
def wire(tracking: TrackingServer) -> Iterator[Wire]:
    """An address of the server that a test may cut."""
    made = Wire(tracking.port)
    yield made
    made.cut()
