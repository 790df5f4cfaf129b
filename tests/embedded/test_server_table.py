"""What the controller wants and what the parent runs meet in one table."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.edges.servers import LocalServers, ServerRow, upstream_of
from controller.errors import EdgeError
from controller.spec import Server, Servers


@pytest.fixture
def table(tmp_path: Path) -> Iterator[LocalServers]:
    made = LocalServers(tmp_path / "servers.sqlite")
    yield made
    made.close()


def test_an_arm_that_wants_nothing_has_no_version_and_is_not_ready(table: LocalServers) -> None:
    assert table.observe("champion") == (None, (), False, "")
    table.ensure("champion", "1")
    table.ensure("champion", None)
    assert table.observe("champion") == (None, (), False, "")
    assert table.wanted() == {}


def test_a_wanted_version_is_not_ready_before_its_server_says_so(table: LocalServers) -> None:
    table.ensure("challenger", "2")
    seen = table.observe("challenger")
    assert (seen.version, seen.upstreams, seen.ready) == ("2", (), False)
    assert "version 2" in seen.message


def test_two_arms_may_share_one_server(table: LocalServers) -> None:
    table.put(ServerRow("2", "127.0.0.1:9000", False, True))
    for arm in ("champion", "challenger"):
        table.ensure(arm, "2")
        assert table.observe(arm) == ("2", ("127.0.0.1:9000",), True, "")


def test_a_server_that_is_started_again_keeps_its_upstream(table: LocalServers) -> None:
    table.ensure("champion", "1")
    table.put(ServerRow("1", "127.0.0.1:9000", False, False, "is started again"))
    assert table.observe("champion") == ("1", ("127.0.0.1:9000",), False, "is started again")


def test_another_process_sees_what_was_wanted_and_told(table: LocalServers, tmp_path: Path) -> None:
    other = LocalServers(tmp_path / "servers.sqlite")
    table.ensure("champion", "1")
    assert other.wanted() == {"champion": "1"}
    other.put(ServerRow("1", "127.0.0.1:9000", False, True))
    assert table.observe("champion").ready
    other.close()


def test_a_start_asks_every_server_again_and_forgets_adopted_ones_that_are_declared_no_more(
    table: LocalServers,
) -> None:
    table.declare(Servers(champion=Server(url="http://127.0.0.1:1"), challenger=Server(url="http://127.0.0.1:2")))
    for version, port, adopted in (("1", 1, True), ("2", 2, True), ("3", 3, False)):
        table.put(ServerRow(version, f"127.0.0.1:{port}", adopted, True))
    table.declare(Servers(challenger=Server(url="http://127.0.0.1:2")))
    assert {version: row.ready for version, row in table.rows().items()} == {"2": False, "3": False}
    assert table.declared() == {"challenger": "http://127.0.0.1:2"}


def test_a_file_that_is_no_database_is_an_edge_error(tmp_path: Path) -> None:
    path = tmp_path / "servers.sqlite"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(EdgeError, match="servers"):
        LocalServers(path)


@pytest.mark.parametrize(
    ("url", "upstream"),
    [("http://127.0.0.1:5001", "127.0.0.1:5001"), ("http://a.example/", "a.example:80"), ("http://[::1]:9", "[::1]:9")],
)
def test_an_address_becomes_an_upstream(url: str, upstream: str) -> None:
    assert upstream_of(url) == upstream
