"""Every command that reads a rollout answers a file it cannot use with lines and an exit code, never with a trace."""

from pathlib import Path

import pytest

from tests.cli.states import understudy
from tests.spec.documents import TEXT

COMMANDS = {
    "validate": ["validate", "FILE"],
    "plan": ["plan", "FILE"],
    "run": ["run", "FILE", "--state-dir", "STATE"],
    "backtest": ["backtest", "FILE", "--exposures", "FILE", "--outcomes", "FILE"],
}


def said(command: str, file: Path, state: Path) -> tuple[int, str]:
    """Exit code and all that was written."""
    words = [{"FILE": str(file), "STATE": str(state)}.get(word, word) for word in COMMANDS[command]]
    outcome = understudy(*words, HOME=str(state.parent))
    text = outcome.stdout + outcome.stderr
    assert "Traceback" not in text
    return outcome.returncode, text


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_that_is_not_there_and_a_folder_have_the_same_exit_code_everywhere(command: str, tmp_path: Path) -> None:
    gone = tmp_path / "gone.yaml"
    code, text = said(command, gone, tmp_path / "state")
    assert (code, f"{gone}: No such file or directory" in text) == (2, True), text
    code, text = said(command, tmp_path, tmp_path / "state")
    assert (code, f"{tmp_path}: Is a directory" in text) == (2, True), text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_fault_of_a_file_is_said_by_every_command(command: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(TEXT.replace("minUnits: 2000", "minUnits: 2013-99-99, block: 2d, tick: 5s, tick: 6s"))
    code, text = said(command, file, tmp_path / "state")
    assert code == (1 if command == "validate" else 2)
    assert "spec.decision.tick: stands twice, in line 11 and in line 11" in text
    file.write_text(TEXT.replace("minUnits: 2000", f"minUnits: {'9' * 60}").replace("margin: 2%", "margin: 200%"))
    code, text = said(command, file, tmp_path / "state")
    assert "spec.decision.minUnits: 9999" in text
    assert "spec.metrics[1].margin (ctr): 200% would allow anything" in text
    assert not (tmp_path / "state").exists()


def test_a_state_folder_that_is_a_file_is_told_so(tmp_path: Path) -> None:
    file, state = tmp_path / "a.yaml", tmp_path / "state"
    file.write_text(TEXT)
    state.write_text("mine")
    outcome = understudy("run", str(file), "--state-dir", str(state), HOME=str(tmp_path))
    assert (outcome.returncode, outcome.stderr) == (2, f"error: --state-dir {state}: is a file; name a folder\n")
    assert state.read_text() == "mine"
    for command in (["status"], ["pause"], ["explain"]):
        outcome = understudy(*command, "--state-dir", str(state))
        assert outcome.returncode == 2
        assert "is a file" in outcome.stderr
