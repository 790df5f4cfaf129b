"""Weights that change all the time under load: ``python -m tests.router.table_changes --changes 1000``.

Two real workers under their supervisor, whose weight goes from nobody to everybody and back. What has to hold: no
request fails, each is served by the arm of the table that it was routed by, and none that was sent after every worker
had confirmed a table is routed by an older one; at least half of the tables met a request. Prints how long it took from
handing a table over to the last confirmation; the exit code is 1 where a claim does not hold.
"""

import argparse
import bisect
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.ending import as_by_keyboard
from tests.router.journals import until
from tests.router.load import Load
from tests.router.models import ModelProcess
from tests.router.planes import table
from tests.router.raw import post
from tests.router.routers import started


def exposures(directory: Path) -> list[dict[str, Any]]:
    """All exposures on disk, in no order."""
    found = []
    for path in directory.glob("*.jsonl"):
        text = path.read_bytes()
        found += [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines() if b'"exposure"' in line]
    return found


def change(directory: Path, changes: int, connections: int = 8) -> dict[str, Any]:
    """So many changes, one after the other was confirmed; the figures, with ``failures``: what did not hold."""
    sent: list[float] = []

    def request(number: int) -> bytes:
        sent.append(time.monotonic())
        return post(f"u{number}", b"{}", f"X-Request-Id: c{number}")

    with (
        ModelProcess("champion") as champion,
        ModelProcess("challenger") as challenger,
        started(directory, "real", workers=2) as router,
    ):
        first = table(1, champion.address, challenger.address)
        assert router.put(first).status_code == 200
        load = Load(int(router.ready["port"]), request, connections)
        load.start()
        until(lambda: len(load.got) > 100, "the load's beginning")
        took, confirmed = [], []
        for generation in range(2, changes + 2):
            began = time.monotonic()
            answer = router.put(first | {"generation": generation, "weight_bp": 10_000 * (generation % 2)})
            assert {worker["generation"] for worker in answer.json()["workers"]} == {generation}, answer.text
            confirmed.append(time.monotonic())
            took.append(confirmed[-1] - began)
        load.stop()
        ended = router.end()
    return figures(load, exposures(directory / "journal"), sent, confirmed, took, ended)


def figures(
    load: Load, found: list[dict[str, Any]], sent: list[float], confirmed: list[float], took: list[float], ended: int
) -> dict[str, Any]:
    late = sum(
        event["generation"] < 1 + bisect.bisect_left(confirmed, sent[int(event["request_id"][1:])]) for event in found
    )
    wrong = sum(
        event["arm"] != ("champion", "challenger")[event["generation"] % 2]
        for event in found
        if event["generation"] > 1
    )
    wrong += sum(event["served_by"] != event["arm"] for event in found)
    answered = {event["request_id"]: event["served_by"] for event in found}
    lied = sum(got.status == 200 and answered.get(f"c{got.number}") not in (None, got.arm()) for got in load.got)
    met = len({event["generation"] for event in found})
    failed = len(load.failed) + sum(got.status != 200 for got in load.got)
    took = sorted(took)
    failures = {
        "requests that failed": failed,
        "the router's exit code": ended,
        "requests routed by a table older than the one confirmed before": late,
        "requests served by another arm than their table's": wrong,
        "requests whose exposure names another arm than their answer": lied,
        "requests without an exposure": len(load.got) - len(answered),
        "requests with more than one": len(found) - len(answered),
        "tables that no request met, beyond half of them": max(0, len(took) // 2 - met),
    }
    return {
        "changes": len(took), "requests": len(load.got),
        "generations_met": met,
        "accept_to_confirm_ms": {
            "p50": round(took[len(took) // 2] * 1e3, 2), "p99": round(took[int(len(took) * 0.99)] * 1e3, 2),
            "max": round(took[-1] * 1e3, 2),
        },
        "failures": {what: number for what, number in failures.items() if number},
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=1_000)
    given = parser.parse_args()
    as_by_keyboard()
    with tempfile.TemporaryDirectory() as folder:
        result = change(Path(folder), given.changes)
    print(json.dumps(result, indent=1))
    sys.exit(bool(result["failures"]))
