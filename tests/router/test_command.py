"""The command ``router``: every setting is a flag and an environment variable, and bad use says what to do."""

import asyncio
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import uvloop
from pydantic import ValidationError

from router.settings import RouterSettings, environment_name
from router.telemetry import METRICS
from router.worker import loop_factory
from router.worker_config import WorkerConfig


def _run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "router", "--journal-dir", str(folder / "journal"), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])} | environment,
    )


def test_help_names_every_setting_with_its_variable_and_never_asks_for_the_token(tmp_path: Path) -> None:
    said = re.sub(r"\s+", " ", _run(tmp_path, "--help").stdout)
    for name in RouterSettings.model_fields.keys() - {"token"}:
        assert f"--{name.replace('_', '-')} " in said, name
        assert environment_name(name) in said, name
    assert "--token " not in said


def test_every_setting_has_a_meaning() -> None:
    assert [name for name, field in RouterSettings.model_fields.items() if not field.description] == []


def test_the_page_about_traffic_names_every_metric_and_options_as_they_are() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "traffic.md").read_text()
    rows = {cells[1]: cells[2] for line in page.splitlines() if len(cells := re.split(r" *\| *", line)) > 3}
    assert {f"`{name}`" for name in METRICS} <= rows.keys()
    defaults = {f"--{name.replace('_', '-')}": field.default for name, field in RouterSettings.model_fields.items()}
    assert set(re.findall(r"--[a-z][a-z-]+", page)) <= defaults.keys() | {"--help"}
    limits = {row.strip("`"): said for row, said in rows.items() if row.startswith("`--")}
    assert len(limits) > 15
    assert limits == {option: str(defaults[option]) for option in limits}


def test_the_page_about_the_architecture_has_the_rule_of_retries_as_it_is() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "architecture.md").read_text()
    said = re.findall(r"idle for ([0-9.]+) s\s+\(`--upstream-fresh-s`\)", page)
    assert [float(figure) for figure in said] == [RouterSettings().upstream_fresh_s]


def test_what_a_worker_can_be_told_is_a_setting_with_the_same_default() -> None:
    ours = RouterSettings().worker_config("w0", 8080)
    assert ours == WorkerConfig(
        router="router", worker="w0", host="127.0.0.1", port=8080, journal_dir=ours.journal_dir, drain_s=ours.drain_s
    )
    missing = WorkerConfig.model_fields.keys() - RouterSettings.model_fields.keys()
    assert missing == {"router", "worker", "backlog"}


def test_settings_reach_the_worker() -> None:
    config = RouterSettings(name="r", max_connections=7, journal_flush_ms=3, drain_s=9).worker_config("w1", 1)
    assert (config.router, config.worker, config.port) == ("r", "w1", 1)
    assert (config.max_connections, config.journal_flush_ms, config.drain_s) == (7, 3, 9)


def test_a_loop_that_nobody_knows_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    done = _run(tmp_path, "--loop", "twisted")
    assert done.returncode == 2
    assert "--loop" in done.stderr
    assert "'auto', 'asyncio' or 'uvloop'" in done.stderr


def test_a_loop_that_is_not_installed_is_refused_with_the_way_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    with pytest.raises(ValidationError, match="uvloop is not installed: pip install uvloop, or choose auto or asyncio"):
        RouterSettings(loop="uvloop").worker_config("w0", 8080)
    assert RouterSettings().worker_config("w0", 8080).loop == "auto"
    assert loop_factory("auto") is asyncio.SelectorEventLoop


def test_uvloop_is_the_loop_where_nothing_is_said_and_it_is_installed() -> None:
    assert loop_factory(WorkerConfig.model_fields["loop"].default) is uvloop.new_event_loop
    assert loop_factory("asyncio") is asyncio.SelectorEventLoop


@pytest.mark.parametrize(("flag", "other"), [("--port", "--control-port"), ("--control-port", "--port")])
def test_a_port_in_use_is_named_with_its_flag(tmp_path: Path, flag: str, other: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = _run(tmp_path, flag, str(port), other, "0")
    assert done.returncode == 2
    assert f"{flag} {port}: 127.0.0.1:{port} is in use by another program" in done.stderr


def test_a_port_that_another_router_shares_is_in_use_too(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        done = _run(tmp_path, "--port", str(taken.getsockname()[1]), "--control-port", "0")
    assert done.returncode == 2
    assert "is in use by another program" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--workers", "0"], "--workers: Input should be greater than or equal to 1"),
        (["--workers", "two"], "'two' is not a valid integer"),
        (["--port", "70000"], "--port: Input should be less than or equal to 65535"),
        (["--drain-s", "-1"], "--drain-s: "),
        (["--name", "a/b"], "--name: "),
        (["--log-level", "loud"], "--log-level: "),
        (["--silence-s", "2.9"], "--silence-s: Input should be greater than or equal to 3"),
        (["--max-connections", "0"], "--max-connections: "),
        (["--connect-s", "0"], "--connect-s: "),
        (["--idle-s", "inf"], "--idle-s: Input should be less than or equal to 31622400"),
        (["--total-s", "nan"], "--total-s: Input should be less than or equal to 31622400"),
        (["--min-body-rate", "inf"], "--min-body-rate: Input should be a finite number"),
        (["--champion-queue", "inf"], "'inf' is not a valid integer"),
        (["--host", "no.such.host.invalid"], "--host no.such.host.invalid: "),
        (["--host", "192.0.2.1"], "--host 192.0.2.1: "),
        (["--table", "absent.json"], "--table absent.json: No such file"),
        (["--token-file", "absent"], "--token-file absent: "),
        (["--wrokers", "2"], "No such option"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(tmp_path: Path, arguments: list[str], says: str) -> None:
    done = _run(tmp_path, "--control-port", "0", "--port", "0", *arguments)
    assert done.returncode == 2
    assert says in re.sub(r"\s+", " ", done.stderr)
    assert "Traceback" not in done.stderr


def test_a_wrong_environment_variable_is_refused_as_its_flag_is(tmp_path: Path) -> None:
    for variable, value, flag in (("WORKERS", "0", "--workers"), ("UPSTREAM_FRESH_S", "inf", "--upstream-fresh-s")):
        done = _run(tmp_path, "--port", "0", "--control-port", "0", **{f"UNDERSTUDY_ROUTER_{variable}": value})
        assert done.returncode == 2
        assert f"{flag}: " in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_no_number_of_a_setting_is_endless_or_none(value: float) -> None:
    """JSON, by which workers are told, has no such numbers."""
    numbers = [name for name, field in RouterSettings.model_fields.items() if field.annotation is float]
    assert len(numbers) > 10
    for name in numbers:
        with pytest.raises(ValidationError) as refused:
            RouterSettings.model_validate({name: value}).worker_config("w0", 8080)
        assert [fault["loc"] for fault in refused.value.errors()] == [(name,)]


def test_a_token_that_is_too_short_is_refused_without_being_shown(tmp_path: Path) -> None:
    done = _run(tmp_path, UNDERSTUDY_ROUTER_TOKEN="secret7")
    assert done.returncode == 2
    assert "UNDERSTUDY_ROUTER_TOKEN: " in done.stderr
    assert "secret7" not in done.stderr


def test_a_table_to_begin_with_that_is_none_is_refused_and_its_field_named(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('{"generation": 1}')
    done = _run(tmp_path, "--table", "t.json", "--port", "0", "--control-port", "0")
    assert done.returncode == 2
    assert "--table t.json: " in done.stderr
    assert "Field required" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--ready-file", "afile/ready"], "--ready-file afile/ready: Not a directory"),
        (["--ready-file", "/proc/x/y"], "--ready-file /proc/x/y: No such file or directory"),
        (["--ready-file", "/proc/y"], "--ready-file /proc/y: No such file or directory"),
        (["--ready-file", "folder"], "--ready-file folder: Is a directory"),
        (["--journal-dir", "afile"], "--journal-dir afile: is a file; name a folder"),
        (["--journal-dir", "afile", "--table-file", "t.json"], "--journal-dir afile: is a file; name a folder"),
        (["--journal-dir", "afile/journal"], "--journal-dir afile/journal: Not a directory"),
        (["--journal-dir", "/proc/x"], "--journal-dir /proc/x: No such file or directory"),
        (["--journal-dir", "folder"], "--journal-dir folder: table.json: Is a directory"),
        (["--table-file", "afile/t.json"], "--table-file afile/t.json: Not a directory"),
    ],
)
def test_a_path_that_cannot_be_used_is_named_before_a_worker_starts(
    tmp_path: Path, arguments: list[str], says: str
) -> None:
    (tmp_path / "afile").touch()
    (tmp_path / "folder" / "table.json").mkdir(parents=True)
    done = _run(tmp_path, "--port", "0", "--control-port", "0", *arguments)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"Error: {says}"
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*/router-w*"))


def test_two_routers_cannot_share_a_journal(tmp_path: Path) -> None:
    from router.journal import Writer

    other = Writer(tmp_path / "journal", "router-outcomes")
    done = _run(tmp_path, "--port", "0", "--control-port", "0")
    other.close()
    assert done.returncode == 2
    assert "has another writer" in done.stderr


@pytest.mark.parametrize(
    ("descriptors", "clients"), [(1 << 20, 4_096), (256, 64), (4_096, 1_984), (64, 1), (10_000, 4_096)]
)
def test_no_more_clients_are_taken_in_than_a_process_has_descriptors_for(descriptors: int, clients: int) -> None:
    config = RouterSettings(name="r").worker_config("w1", 1)
    assert config.within(descriptors).max_connections == clients
