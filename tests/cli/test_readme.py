"""What the README tells a stranger to type and to write is what there is."""

import re
from pathlib import Path

from controller.cli.group import COMMANDS
from controller.specfile import parse, unsupported

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_rollout_in_the_readme_is_valid_and_supported() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert unsupported(parse(text).spec) == []


def test_the_readme_names_every_command_and_no_other() -> None:
    table = README.split("## Commands")[1].split("Exit code")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    said = {words.split()[0] for cell in cells for words in re.findall(r"`([^`]+)`", cell)}
    assert said == set(COMMANDS)


def test_the_targets_of_make_in_the_readme_exist() -> None:
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z-]+)", README)) <= known
