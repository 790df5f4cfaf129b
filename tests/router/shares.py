"""Who meets the challenger, for many users: ``python -m tests.router.shares --users 100000``.

Every user sends one request through real workers at 1, 5 and 25 %. What has to hold: the shares of challenger and
reserved control are what chance allows (six standard errors), each user is where ``router.assignment`` puts them, by
the answer and by the journal, whoever was in stays in when the weight grows, another salt draws independently, and a
restarted worker and a second router say the same. Requests without a user are counted, go to the champion and are no
evidence. Prints the figures as JSON; the exit code is 1 where a claim does not hold.
"""

import argparse
import asyncio
import json
import math
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from router.assignment import assign
from tests.ending import as_by_keyboard
from tests.router.models import ModelProcess
from tests.router.planes import running, table
from tests.router.raw import post

WEIGHTS = (100, 500, 2_500)
CONTROL_FROM = 2_500
_AHEAD = 50
_CONNECTIONS = 4
# So many requests without a user, beside the last table's.
NOBODY = 1_000
NO_BODIES = {"inputs_bp": 0, "answers_bp": 0}


class Placed(NamedTuple):
    """Where a user is: the arm, and whether that is evidence."""

    arm: str
    evidence: bool


async def _ask(port: int, units: Sequence[str | None]) -> list[bool]:
    """Whether the challenger answered, by unit; requests are sent ahead of the answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found: list[bool] = []
    for at in range(0, len(units), _AHEAD):
        part = units[at : at + _AHEAD]
        writer.write(b"".join(post(unit, b"{}") for unit in part))
        for _ in part:
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 "), head
            lower = head.lower()
            length = int(lower[lower.index(b"content-length:") + 15 :].split(b"\r\n", 1)[0])
            found.append(b"challenger" in await reader.readexactly(length))
    writer.close()
    return found


def challenged(port: int, users: int) -> set[int]:
    """The numbers of those users whom the challenger answered."""

    async def all_of_them() -> list[list[bool]]:
        parts = [[f"user-{n}" for n in range(first, users, _CONNECTIONS)] for first in range(_CONNECTIONS)]
        return await asyncio.gather(*(_ask(port, part) for part in parts))

    found = asyncio.run(all_of_them())
    return {first + _CONNECTIONS * k for first, part in enumerate(found) for k, yes in enumerate(part) if yes}


def journaled(directory: Path) -> tuple[dict[int, dict[str | None, list[Placed]]], int]:
    """Where the journals of a worker that has ended put everybody, by generation and unit; and what they dropped."""
    found: dict[int, dict[str | None, list[Placed]]] = defaultdict(lambda: defaultdict(list))
    dropped = 0
    for path in sorted(directory.glob("*.jsonl")):
        with path.open("rb") as lines:
            for line in lines:
                event = orjson.loads(line)
                if event["type"] == "exposure":
                    placed = Placed(event["arm"], event["evidence"])
                    found[event["generation"]][event["unit"]].append(placed)
                elif event["type"] == "mark":
                    dropped = event["dropped"]
    return found, dropped


def shares(directory: Path, users: int) -> dict[str, Any]:
    """Run it; the figures, with ``failures``: what did not hold."""
    limits = {"challenger_timeout_ms": 30_000}
    quick = "tests.router.quick_model"
    with ModelProcess("champion", quick) as champion, ModelProcess("challenger", quick) as challenger:

        def made(generation: int, weight: int, salt: str) -> dict[str, Any]:
            return table(
                generation, champion.address, challenger.address,
                weight_bp=weight, control_from_bp=CONTROL_FROM, salt=salt, limits=limits,
                capture=NO_BODIES,
            )  # fmt: skip

        with running(directory / "a", made(1, WEIGHTS[0], "s/1"), journal_capacity=100_000) as plane:
            met = {WEIGHTS[0]: challenged(plane.port, users)}
            for generation, weight in enumerate(WEIGHTS[1:], 2):
                plane.put(made(generation, weight, "s/1"))
                met[weight] = challenged(plane.port, users)
            nobody = asyncio.run(_ask(plane.port, [None] * NOBODY))
            counted = int(plane.poll()["no_unit_total"])
            plane.put(made(9, WEIGHTS[-1], "s/2"))
            other = challenged(plane.port, users)
            assert plane.drain() == 0
        found, dropped = journaled(directory / "a")
        last = made(10, WEIGHTS[-1], "s/1")
        with running(directory / "a", last) as restarted, running(directory / "b", last) as second:
            again = [challenged(each.port, users) for each in (restarted, second)]
    result = figures(users, met, other, again)
    control, failures = of_journals(users, found, dropped)
    if any(nobody) or counted != NOBODY:
        failures.append(f"of {NOBODY} requests without a user {sum(nobody)} met the challenger, {counted} were counted")
    return result | {"control_z": control, "dropped": dropped, "failures": result["failures"] + failures}


def of_journals(
    users: int, found: Mapping[int, Mapping[str | None, list[Placed]]], dropped: int
) -> tuple[list[float], list[str]]:
    """How far the reserved control's share is from what chance expects, by weight; and what does not hold."""
    z: list[float] = []
    failures: list[str] = []
    missing = wrong = 0
    for generation, weight in enumerate(WEIGHTS, 1):
        placed = found[generation]
        control = 0
        for n in range(users):
            unit = f"user-{n}"
            seen = placed.get(unit, [])
            where = assign("s/1", unit, weight, CONTROL_FROM)
            missing += not seen
            wrong += len(seen) > 1 or any(each != (where.arm, where.evidence) for each in seen)
            control += Placed("champion", True) in seen
        z.append(round(_z(control, users, 1 - CONTROL_FROM / 10_000), 2))
    of_nobody = found[len(WEIGHTS)].get(None, [])
    missing += NOBODY - len(of_nobody)
    if missing > dropped:
        failures.append(f"{missing} requests are in no journal, {dropped} counted as dropped")
    if wrong:
        failures.append(f"{wrong} users are elsewhere, or more than once, in the journals")
    if any(abs(value) > 6 for value in z):
        failures.append(f"shares of the control that chance does not allow: {z}")
    if set(of_nobody) - {Placed("champion", False)}:
        failures.append("requests without a user are evidence, or the challenger's")
    return z, failures


def _z(number: int, users: int, share: float) -> float:
    return (number - users * share) / math.sqrt(users * share * (1 - share))


def figures(users: int, met: dict[int, set[int]], other: set[int], again: list[set[int]]) -> dict[str, Any]:
    z = {weight: round(_z(len(found), users, weight / 10_000), 2) for weight, found in met.items()}
    largest = met[WEIGHTS[-1]]
    both = _z(len(largest & other), users, (WEIGHTS[-1] / 10_000) ** 2)
    wrong = sum(
        (n in found) != (assign("s/1", f"user-{n}", weight, CONTROL_FROM).arm == "challenger")
        for weight, found in met.items()
        for n in range(users)
    )
    failures = []
    if wrong:
        failures.append(f"{wrong} users are not where router.assignment puts them")
    if any(abs(value) > 6 for value in (*z.values(), both)):
        failures.append(f"shares that chance does not allow: {z}, both salts {both:.2f}")
    if not met[WEIGHTS[0]] <= met[WEIGHTS[1]] <= met[WEIGHTS[2]]:
        failures.append("a wider weight lost users it had")
    if any(found != largest for found in again):
        failures.append("after a restart, or on a second router, other users meet the challenger")
    return {
        "users": users, "challenger": {f"{w / 100:g} %": len(found) for w, found in met.items()}, "z": z,
        "both_salts": len(largest & other), "both_salts_z": round(both, 2), "failures": failures,
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=100_000)
    given = parser.parse_args()
    as_by_keyboard()
    with tempfile.TemporaryDirectory() as folder:
        result = shares(Path(folder), given.users)
    print(json.dumps(result, indent=1))
    sys.exit(bool(result["failures"]))
