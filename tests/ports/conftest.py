"""What the tests of the ports share: contract suites whose assertions explain themselves, and a tracking server."""

import pytest

pytest.register_assert_rewrite(
    *(f"tests.ports.contracts.{name}" for name in ("notifier", "registry", "store", "traffic"))
)
