"""Programs of other people that a test runs, where they are installed."""

import shutil

import pytest


def program(name: str, *otherwise: str) -> str:
    """Where it is, under its usual name or another name or path; skips the test where it is not."""
    found = next(filter(None, map(shutil.which, (name, *otherwise))), None)
    if found is None:
        pytest.skip(f"needs-apt: {name}")
    return found
