"""From what was measured to figures, a table, and whether the promises hold."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench_controller.audit import Asked
from tests.bench_controller.places import ACTIVE, IDLE

MOST_MB = 1e9 / 2**20
MOST_LAG_S = 5.0
ALIASES = "registered-models/alias"
PAGES = "registered-models/search"


class Measured(NamedTuple):
    """Everything of one run. Times in seconds; ``seconds``: how long was measured, ``steady``: before harm."""

    idle: int
    active: int
    routers: int
    tick: float
    block: float
    seconds: float
    start_s: float
    peak_mb: float
    rss_mb: Sequence[float]
    cpu_s: float
    passes: float
    threads: int
    descriptors: int
    lag_buckets: Mapping[float, float]
    lags: Sequence[float]
    calls: Counter[Asked]
    mlflow: Counter[str]
    router_calls: Mapping[str, int]
    harm_to_zero: Sequence[float | None]
    machine_cpu: Mapping[str, float]
    log_warnings: int


def quantile(values: Sequence[float], share: float) -> float | None:
    """The least of ``values`` that is at or above ``share`` of them; None of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def bucket(buckets: Mapping[float, float], share: float) -> float | None:
    """The bound below which ``share`` of a histogram lies; None without a value."""
    total = max(buckets.values(), default=0.0)
    return next((bound for bound in sorted(buckets) if buckets[bound] >= share * total), None) if total else None


def figures(m: Measured) -> dict[str, Any]:
    """What is written down."""
    minutes = m.seconds / 60
    by_kind = {kind: sum(n for (k, _, _), n in m.calls.items() if k == kind) for kind in (ACTIVE, IDLE, "")}
    zero = [each for each in m.harm_to_zero if each is not None]
    ticks = m.calls[ACTIVE, "update", "modelrollouts/status"]  # those that were made; with too many fewer than are due
    return {
        "idle": m.idle,
        "active": m.active,
        "routers_of_an_active_one": m.routers,
        "tick_s": m.tick,
        "block_s": m.block,
        "measured_s": round(m.seconds, 1),
        "start_s": round(m.start_s, 1),
        "peak_mb": round(m.peak_mb, 1),
        "steady_mb": round(quantile(m.rss_mb, 0.5) or 0.0, 1),
        "cpu_cores": round(m.cpu_s / m.seconds, 3),
        "ticks_made_of_those_due": round(ticks * m.tick / m.seconds / m.active, 3) if m.active else None,
        "cpu_ms_per_active_tick": round(1000 * m.cpu_s / ticks, 1) if ticks else None,
        "passes_per_s": round(m.passes / m.seconds, 2),
        "threads": m.threads,
        "descriptors": m.descriptors,
        "lag_p50_s_at_most": bucket(m.lag_buckets, 0.5),
        "lag_p99_s_at_most": bucket(m.lag_buckets, 0.99),
        "status_lag_p50_s": _rounded(quantile(m.lags, 0.5)),
        "status_lag_p99_s": _rounded(quantile(m.lags, 0.99)),
        "status_lag_max_s": _rounded(max(m.lags, default=None)),
        "api_calls_per_active_per_minute": round(by_kind[ACTIVE] / m.active / minutes, 2) if m.active else None,
        "api_calls_per_idle_per_minute": round(by_kind[IDLE] / m.idle / minutes, 3) if m.idle else None,
        "api_calls_of_the_process_per_minute": round(by_kind[""] / minutes, 1),
        "api_calls_per_minute": {" ".join(filter(None, k)): round(n / minutes, 1) for k, n in m.calls.most_common()},
        "mlflow_requests_per_minute": {k: round(n / minutes, 1) for k, n in m.mlflow.most_common(20)},
        "router_requests_per_minute": {k: round(n / minutes, 1) for k, n in m.router_calls.items()},
        "harmed": len(m.harm_to_zero),
        "harm_to_weight_0_p50_s": _rounded(quantile(zero, 0.5)),
        "harm_to_weight_0_max_s": _rounded(max(zero, default=None)),
        "never_at_weight_0": len(m.harm_to_zero) - len(zero),
        "cores_of_other_processes": {name: round(s / m.seconds, 3) for name, s in m.machine_cpu.items()},
        "warnings_in_the_log": m.log_warnings,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def promises(found: Mapping[str, Any], m: Measured) -> dict[str, bool]:
    """What is promised, and whether it holds."""
    lag, seen = found["lag_p99_s_at_most"], found["status_lag_p99_s"]
    aliases = sum(n for what, n in m.mlflow.items() if what.endswith(ALIASES) and what.startswith("GET"))
    # Two references a tick. A rollback ticks faster than the others, for ten seconds at most.
    allowed = 2 * (m.active * (m.seconds / m.tick + 1) + len(m.harm_to_zero) * 40)
    harm = {f"harm ends at weight 0 ({found['never_at_weight_0']} do not)": found["never_at_weight_0"] == 0}
    return {
        f"memory under 1 GB ({found['peak_mb']} MiB)": m.peak_mb < MOST_MB,
        f"p99 of tick lag under {MOST_LAG_S:g} s (histogram: at most {lag} s)": lag is not None and lag <= MOST_LAG_S,
        f"p99 of tick lag under {MOST_LAG_S:g} s (statuses: {seen} s)": seen is not None and seen < MOST_LAG_S,
        f"aliases are polled for active rollouts only ({aliases} requests)": aliases <= allowed,
        **(harm if m.harm_to_zero else {}),
    }


def table(found: Mapping[str, Any], held: Mapping[str, bool]) -> str:
    """For people."""
    lines = ["| figure | value |", "|---|---|"]
    for name, value in found.items():
        if isinstance(value, Mapping):
            lines += [f"| {name}: {each} | {number} |" for each, number in value.items()]
        else:
            lines.append(f"| {name} | {'–' if value is None else value} |")
    return "\n".join([*lines, "", *(f"{'holds' if ok else 'DOES NOT HOLD'}: {what}" for what, ok in held.items())])


def write(m: Measured, output: Path) -> bool:
    """The table to the terminal, the figures into a file; whether all promises hold."""
    found = figures(m)
    held = promises(found, m)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({**found, "promises": held}, indent=1) + "\n")
    print(table(found, held))
    return all(held.values())
