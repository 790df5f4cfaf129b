"""The state folder: what keeps a run from starting is said, and what is only for information never ends one."""

import json
import socket
from pathlib import Path

import pytest

from controller.embedded.folder import Folder, Refused
from tests.cli.states import understudy


@pytest.mark.parametrize(
    "content", ["", "[]", "null", '{"traffic": null}', '{"traffic": [1]}', '{"traffic": "x"}', "{"]
)
def test_damaged_ports_are_forgotten(tmp_path: Path, content: str) -> None:
    (tmp_path / "ports.json").write_text(content)
    folder = Folder(tmp_path)
    port = folder.port("traffic", "127.0.0.1", 0)
    assert json.loads((tmp_path / "ports.json").read_text()) == {"traffic": port}
    folder.close()


def test_what_cannot_be_noted_is_tried_again_and_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    (tmp_path / "processes.json").mkdir()  # whatever keeps a file from being written
    assert not folder.note("processes.json", "{}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["processes.json", "processes.lock", "run.lock"]
    (tmp_path / "processes.json").rmdir()
    assert folder.note("processes.json", "{}")
    assert (tmp_path / "processes.json").read_text() == "{}"
    folder.close()


@pytest.mark.parametrize(("name", "flag"), [("traffic", "--port"), ("mlflow", "--mlflow-port")])
def test_a_port_on_which_somebody_else_answers_is_refused(tmp_path: Path, name: str, flag: str) -> None:
    folder = Folder(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as theirs:
        port = theirs.getsockname()[1]
        with pytest.raises(Refused, match=f"^{flag} {port}: 127.0.0.1:{port} is in use by another program$"):
            folder.port(name, "127.0.0.1", port)
    assert folder.port(name, "127.0.0.1", port) == port
    assert folder.port(name, "no.such.host.invalid", port) == port  # who listens there says what is wrong with it
    folder.close()


def test_a_name_that_no_file_system_takes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"--state-dir .*: File name too long"):
        Folder(tmp_path / ("n" * 300))
    outcome = understudy("status", "--state-dir", "n" * 300)
    assert outcome.returncode == 2
    assert outcome.stderr.strip().endswith("File name too long")
    assert len(outcome.stderr.splitlines()) == 1
