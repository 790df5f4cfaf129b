"""What the demo tells people to type at its end works as it is printed."""

import shlex
import subprocess
import sys
from pathlib import Path

from controller.demo.commands import how_to_read
from controller.embedded.tracking import tracking_command


def test_the_command_that_shows_the_evidence_exists_and_names_the_store_and_the_artefacts_of_the_demo(
    tmp_path: Path,
) -> None:
    words = shlex.split(how_to_read(tmp_path / "with space"))
    served = tracking_command("127.0.0.1", 0, tmp_path / "with space")
    for flag in ("--backend-store-uri", "--artifacts-destination"):
        assert words[words.index(flag) + 1] == served[served.index(flag) + 1]
    helped = subprocess.run([*words[:2], "--help"], capture_output=True, text=True, timeout=120, check=True)
    assert all(flag in helped.stdout for flag in words if flag.startswith("--"))


def test_in_a_fresh_clone_the_command_is_that_of_its_own_environment(tmp_path: Path) -> None:
    assert how_to_read(tmp_path).startswith(("/", ".venv/bin/mlflow ui "))
    assert Path(shlex.split(how_to_read(tmp_path))[0]).resolve() == Path(sys.executable).with_name("mlflow").resolve()
