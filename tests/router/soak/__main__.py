"""A router under load, faults, mirrors and changing tables for a long time: ``python -m tests.router.soak``.

Two real workers under their supervisor. Clients ask quickly, upload, take streams of events, read slowly, and leave;
the challenger is killed, hangs, lies, drips; tables change twice a second. What has to hold at the end:

* there was enough of all of that in every minute (``claims.LEAST``),
* no request failed; every 2xx answer that a client saw has its exposure in the journals or is a counted drop, and so
  has every mirror; every exposure is one of a request that was sent, and says what its client saw,
* memory and descriptors of workers and supervisor are flat: the median of the last quarter of the time is at most so
  much above that of the second (``claims.FLAT``),
* no worker died, and the router ended in good order.

Prints the figures as JSON, then a line for each claim that does not hold; the exit code is 1 where there is one.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tests.ending import as_by_keyboard
from tests.router.soak.run import soak

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3_600)
    parser.add_argument("--rate", type=float, default=400, help="quick requests a second")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    as_by_keyboard()
    with tempfile.TemporaryDirectory() as folder:
        result = soak(Path(folder), given.seconds, given.rate, given.seed)
    print(json.dumps(result, indent=1))
    for failure in result["failures"]:
        print(f"does not hold: {failure}")
    sys.exit(bool(result["failures"]))
