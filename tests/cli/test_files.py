"""`init` writes a file that `validate` accepts, and `validate` names every fault of every file."""

from pathlib import Path

import pytest

from controller.cli.init import EXAMPLE
from tests.cli.states import answer, understudy


def test_what_init_writes_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "rollout.yaml"
    wrote = understudy("init", str(path))
    assert (wrote.returncode, path.read_text()) == (0, EXAMPLE)
    checked = understudy("validate", str(path))
    assert (checked.returncode, checked.stdout) == (0, f"{path}: valid\n")


def test_init_overwrites_nothing_unless_it_is_told_to(tmp_path: Path) -> None:
    path = tmp_path / "rollout.yaml"
    path.write_text("mine")
    refused = understudy("init", str(path))
    assert refused.returncode == 2
    assert "is there already" in refused.stderr
    assert path.read_text() == "mine"
    assert understudy("init", "--force", str(path)).returncode == 0
    assert path.read_text() == EXAMPLE


def test_init_into_a_folder_that_is_not_there_is_an_error_and_no_trace(tmp_path: Path) -> None:
    outcome = understudy("init", str(tmp_path / "no" / "rollout.yaml"))
    assert outcome.returncode == 2
    assert "No such file or directory" in outcome.stderr
    assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "minUnits: 2000",
            "minUnit: 2000",
            "spec.decision.minUnit: unknown field; did you mean minUnits? known here: mode, ",
        ),
        ("window: 30m", "window: 30", "spec.metrics[1].window (clicks): 30 is not a duration"),
        (
            "weight: 50,",
            "weight: 99,",
            "spec.steps[4].weight: 99 is out of range; allowed is a number above 0 and at most 95",
        ),
        ("weight: 5,", "weight: 30,", "spec.steps: weights must not decrease, got [1.0, 30.0, 25.0, 50.0]"),
        ("margin: 2%", "margin: two", "spec.metrics[1].margin (clicks): 'two' is not a margin"),
        (
            "kind: Accuracy",
            "kind: Drift",
            "spec.metrics[2].kind (accuracy): Drift is not supported yet; supported: Proportion",
        ),
        ("challenger: challenger", "challenger: champion", "spec.model.challenger: is 'champion' like the champion"),
    ],
)
def test_validate_names_the_path_and_what_is_allowed(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "rollout.yaml"
    assert EXAMPLE.count(old) == 1
    path.write_text(EXAMPLE.replace(old, new))
    outcome = understudy("validate", str(path))
    assert outcome.returncode == 1
    assert outcome.stdout.splitlines()[0] == f"{path}: 1 problem"
    assert outcome.stdout.splitlines()[1].startswith(f"  {said}")


def test_validate_names_the_faults_of_every_file(tmp_path: Path) -> None:
    good, bad, gone = tmp_path / "good.yaml", tmp_path / "bad.yaml", tmp_path / "gone.yaml"
    good.write_text(EXAMPLE)
    bad.write_text(EXAMPLE.replace("minUnits: 2000", "minUnits: none, tick: soon"))
    assert understudy("validate", str(good), str(bad)).returncode == 1
    outcome = understudy("validate", str(good), str(bad), str(gone), "--output", "json")
    assert outcome.returncode == 2
    files = answer(outcome)["files"]
    assert [(f["file"], f["valid"]) for f in files] == [(str(good), True), (str(bad), False), (str(gone), False)]
    assert len(files[1]["problems"]) == 2
    assert files[2]["problems"] == [f"{gone}: No such file or directory"]


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\x01", b"{", b"- 1\n", b"", b"a: b: c"])
def test_validate_of_what_is_no_rollout_is_a_line_and_no_trace(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rollout.yaml"
    path.write_bytes(content)
    outcome = understudy("validate", str(path))
    assert outcome.returncode == 1
    assert outcome.stderr == ""
    assert len(outcome.stdout.splitlines()) == 2
