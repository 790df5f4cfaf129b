"""What the engine costs: ``python -m tests.engine.bench_engine [ticks] [directory]``.

Ten thousand events a second in ticks of five seconds, from four workers' journals and an outcomes journal, with
bodies as they are captured; six metrics, sixteen segments. Prints per tick the events, the processor time and the
share of one core that this is at that rate, and what a tick without new events costs.
"""

import random
import resource
import sys
import tempfile
import time
from pathlib import Path

import orjson

from controller.core.cells import EpochPlan, MetricPlan, StatisticsQuery
from controller.edges.engine import JournalSource
from controller.kinds import Kind
from tests.engine.worlds import SECOND, plan

RATE = 10_000
TICK = 5
UNITS = 500_000
START = 1_700_000_000 * SECOND

METRICS: tuple[MetricPlan, ...] = (
    plan(Kind.ERROR_RATE),
    plan(Kind.LATENCY),
    plan(Kind.PROPORTION, window=1_800 * SECOND, block=60 * SECOND),
    plan(Kind.MEAN, window=60 * SECOND, block=30 * SECOND),
    plan(Kind.ACCURACY, window=60 * SECOND, block=30 * SECOND),
    plan(Kind.LOG_LOSS, window=60 * SECOND, block=30 * SECOND),
)
QUERY = StatisticsQuery(
    "bench",
    1,
    (EpochPlan(1, "weight", 100_000, {m.name: m.scale // 20 for m in METRICS}),),
    METRICS,
    ("carrier",),
    10 * SECOND,
)


def _exposure(rng: random.Random, t: int, i: int) -> dict[str, object]:
    unit = rng.randrange(UNITS)
    challenger = unit % 10 == 0
    return {
        "type": "exposure", "t": t, "request_id": f"{i:032x}", "attempt": 1, "epoch": 1, "generation": 3,
        "unit": f"N{unit}", "arm": "challenger" if challenger else "champion", "evidence": True,
        "assigned_by": "hash", "served_by": "champion", "version": "3", "attempts": 1, "fallback_reason": None,
        "mirror": False, "mirrored": False, "stale": False, "unjudged": False, "usable": i % 200 > 0, "status": 200,
        "answer_status": 200, "latency_us": int(rng.lognormvariate(9, 0.5)),
        "attributes": {"carrier": "ABCDEFGHIJKLMNOP"[i % 16]},
        "inputs": '{"dataframe_split":{"columns":["dep_delay","hour","weekday","origin","dest","carrier","distance"],'
        '"data":[[12,14,3,"JFK","LAX","B6",2475]]}}',
        "answer": f'{{"predictions":[{rng.random():.6f}]}}', "cut": False,
    }  # fmt: skip


def _tick(rng: random.Random, directory: Path, tick: int, seq: dict[str, int]) -> int:
    """Write one tick's lines: nine exposures to one outcome; how many."""
    lines: dict[str, list[bytes]] = {name: [] for name in seq}
    events = RATE * TICK
    for k in range(events):
        t = START + tick * TICK * SECOND + k * (TICK * SECOND // events)
        i = tick * events + k
        if k % 10:
            event, name = _exposure(rng, t, i), f"w{k % 4}"
        else:
            name, of = "outcomes", max(1, i - rng.randrange(200_000))
            kind = ("click", "purchase", "late", "late")[(k // 10) % 4]
            event = {
                "type": "outcome", "t": t, "ingest_t": t, "outcome_id": f"o{i}", "name": kind, "value": 1.0, "row": 0,
                "unit": None if kind == "late" else f"N{rng.randrange(UNITS)}",
                "request_id": f"{of + (of % 10 == 0):032x}" if kind == "late" else None,
            }  # fmt: skip
        seq[name] += 1
        lines[name].append(orjson.dumps({**event, "seq": seq[name]}))
    for name, said in lines.items():
        seq[name] += 1
        t = START + (tick + 1) * TICK * SECOND
        said.append(orjson.dumps({"type": "mark", "seq": seq[name], "t": t, "dropped": 0, "no_unit": 0}))
        with (directory / f"{name}.00000000.jsonl").open("ab") as out:
            out.write(b"\n".join(said) + b"\n")
    return events


def main(ticks: int, directory: Path) -> None:
    """Print one line per tick, then the idle one."""
    rng, seq = random.Random(7), dict.fromkeys(["w0", "w1", "w2", "w3", "outcomes"], 0)
    (directory / "journals").mkdir(parents=True)
    source = JournalSource(directory / "journals", directory / "state.duckdb")
    now, shares = START, []
    for tick in range(ticks):
        events = _tick(rng, directory / "journals", tick, seq)
        now = START + (tick + 1) * TICK * SECOND
        cpu, wall = time.process_time(), time.monotonic()
        said = source.read(QUERY, now)
        cpu, wall = time.process_time() - cpu, time.monotonic() - wall
        shares.append(cpu / TICK)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        size = (directory / "state.duckdb").stat().st_size >> 20
        print(
            f"tick {tick:3d}: {events} events, cpu {cpu:.2f} s ({cpu / TICK:.0%} of a core), wall {wall:.2f} s, "
            f"{events / cpu:.0f} events per cpu second, rss {memory} MB, file {size} MB, losses {sum(said.losses[1:])}"
        )
    idle = []
    for _ in range(20):
        began = time.process_time()
        source.read(QUERY, now)
        idle.append(time.process_time() - began)
    print(f"mean share of a core after the first ten ticks: {sum(shares[10:]) / max(1, len(shares[10:])):.0%}")
    print(f"tick without new events: median {sorted(idle)[10] * 1000:.1f} ms, largest {max(idle) * 1000:.1f} ms")
    source.close()


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    if len(sys.argv) > 2:
        main(count, Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(count, Path(folder))
