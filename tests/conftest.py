"""What holds for every test: named skips, seeded examples, and no influence from the developer's shell."""

import os

from hypothesis import settings

pytest_plugins = ["tests.skips"]

# Every run tries the same examples, and a slow machine is not a failed claim.
settings.register_profile("understudy", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("understudy")

KEPT = "UNDERSTUDY_ROUTER_LOOP"  # tests.router.planes
for name in [name for name in os.environ if name.startswith(("UNDERSTUDY_", "MLFLOW_")) and name != KEPT]:
    del os.environ[name]
# Tests talk to nobody but themselves; the processes that they start inherit this.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "true"
