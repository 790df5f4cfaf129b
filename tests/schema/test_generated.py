"""The generated files of this checkout are fresh, and a stale one is named with the way to renew it."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from controller import schema
from controller.cli.group import understudy
from controller.errors import SpecError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in (schema.CRD, schema.CHART_CRD, schema.EDITOR, schema.README):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_the_generated_files_of_this_checkout_are_fresh() -> None:
    assert schema.stale(ROOT) == []


@pytest.mark.parametrize("name", [schema.CRD, schema.CHART_CRD, schema.EDITOR, schema.README])
def test_a_stale_file_fails_the_check_and_is_named_with_what_renews_it(checkout: Path, name: str) -> None:
    text = (checkout / name).read_text()
    (checkout / name).write_text(text.replace("whole number", "number").replace("harm", "good"))
    outcome = CliRunner().invoke(understudy, ["schema", "--check", "--directory", str(checkout)])
    assert outcome.exit_code == 1
    assert outcome.output.splitlines() == [f"{name} is stale; `make gen` (understudy schema) writes it anew"]


def test_a_missing_file_is_stale_and_is_written_with_its_folder(checkout: Path) -> None:
    shutil.rmtree(checkout / "manifests")
    assert schema.stale(checkout) == [schema.CRD]
    assert schema.write(checkout) == [schema.CRD]
    assert schema.stale(checkout) == []


def test_what_stands_around_the_table_in_the_readme_is_kept(checkout: Path) -> None:
    readme = checkout / schema.README
    readme.write_text("# Mine\n<!-- fields:begin -->\nearlier\n<!-- fields:end -->\nafter\n")
    schema.write(checkout)
    text = readme.read_text()
    assert text.startswith("# Mine\n<!-- fields:begin -->\n| field |")
    assert text.endswith("|\n<!-- fields:end -->\nafter\n")
    assert "earlier" not in text


@pytest.mark.parametrize("text", ["# None\n", "<!-- fields:begin -->\n", "<!-- fields:end --><!-- fields:begin -->"])
def test_a_readme_without_the_marks_of_the_table_says_so_and_stays(tmp_path: Path, text: str) -> None:
    (tmp_path / schema.README).write_text(text)
    with pytest.raises(SpecError, match="fields:"):
        schema.write(tmp_path)
    assert (tmp_path / schema.README).read_text() == text


def test_a_folder_that_is_no_checkout_is_bad_usage(tmp_path: Path) -> None:
    outcome = CliRunner().invoke(understudy, ["schema", "--directory", str(tmp_path)])
    assert outcome.exit_code == 2
    assert "is no checkout of understudy" in outcome.output
    assert list(tmp_path.iterdir()) == []


def test_the_check_as_json_lists_the_stale_files(checkout: Path) -> None:
    (checkout / schema.CRD).unlink()
    outcome = CliRunner().invoke(understudy, ["schema", "--check", "--directory", str(checkout), "-o", "json"])
    assert json.loads(outcome.output) == {"stale": [schema.CRD]}
    assert outcome.exit_code == 1
