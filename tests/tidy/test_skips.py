"""A test is skipped for a named reason or not at all."""

import pytest

from tests.skips import NAMED_SKIPS


def _outcome(pytester: pytest.Pytester, code: str) -> dict[str, int]:
    pytester.makeconftest('pytest_plugins = ["tests.skips"]')
    pytester.makepyfile(code)
    return pytester.runpytest_inprocess("-p", "no:cacheprovider").parseoutcomes()


@pytest.mark.parametrize("name", NAMED_SKIPS)
def test_a_skip_with_a_name_from_the_list_is_a_skip(pytester: pytest.Pytester, name: str) -> None:
    code = f'import pytest\ndef test_a(): pytest.skip("{name}: for this and that")\n'
    assert _outcome(pytester, code) == {"skipped": 1}


def test_a_skip_for_any_other_reason_is_a_failure(pytester: pytest.Pytester) -> None:
    assert _outcome(pytester, 'import pytest\ndef test_a(): pytest.skip("flaky today")\n') == {"failed": 1}


def test_a_skip_by_mark_is_held_to_the_list(pytester: pytest.Pytester) -> None:
    code = 'import pytest\n@pytest.mark.skipif(True, reason="no network")\ndef test_a(): ...\n'
    assert _outcome(pytester, code) == {"errors": 1}


def test_a_whole_module_cannot_be_skipped_because_an_import_is_missing(pytester: pytest.Pytester) -> None:
    code = 'import pytest\npytest.importorskip("no_such_module")\ndef test_a(): ...\n'
    assert _outcome(pytester, code) == {"errors": 1}


def test_a_run_that_finds_no_test_is_not_a_success(pytester: pytest.Pytester) -> None:
    assert pytester.runpytest_inprocess("-p", "no:cacheprovider").ret == pytest.ExitCode.NO_TESTS_COLLECTED
