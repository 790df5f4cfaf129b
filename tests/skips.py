"""The only reasons for which a test may be skipped. A skip for any other reason counts as a failure.

Use it as `pytest.skip("needs-root: network namespaces")`: the name, then what for.
"""

from typing import Any

import pytest

NAMED_SKIPS = {
    "needs-root": "does what only the superuser may do",
    "needs-apt": "uses a program that only the distribution's package manager installs",
    "needs-index": "runs a program from a package index where the machine has none (tests/router/programs.py)",
    "needs-helm": "runs Helm, which `make test-chart` builds once",
    "needs-gateway": "has Traefik from the package index, and the Gateway API from the Go module proxy",
    "needs-interpreter": "stops one of our functions between two steps, where it is not compiled",
    "needs-compiler": "builds the wheel, which takes a C compiler and the headers of Python",
    "needs-linux": "uses what only the Linux kernel offers",
}


def named_skip(reason: str) -> str | None:
    """The name at the head of a skip's reason, or None where the list does not have it."""
    name = reason.removeprefix("Skipped: ").split(":", 1)[0].strip()
    return name if name in NAMED_SKIPS else None


def _refuse_unnamed(report: Any) -> None:
    # An expected failure is reported as a skip as well; it is governed by xfail_strict instead.
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    # pytest gives (path, line, reason) for every skip.
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if named_skip(reason) is None:
        report.outcome = "failed"
        report.longrepr = (
            f"{report.nodeid} was skipped with the reason {reason!r}; a skip has to begin with one of "
            f"{', '.join(NAMED_SKIPS)} (tests/skips.py)"
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Any:
    report = yield
    _refuse_unnamed(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Any:
    report = yield
    _refuse_unnamed(report)
    return report
