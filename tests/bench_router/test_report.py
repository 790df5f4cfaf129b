"""The benchmark's figures are medians of what was measured, and null where nothing was."""

import json
from pathlib import Path
from typing import Any

from tests.bench_router.__main__ import PEERS, Bench, Cores
from tests.bench_router.report import FEATURES, added_p50_ratio, two_workers, write
from tests.bench_router.steps import measured

RATES = {"direct": 40_000, "nginx": 20_000, "haproxy": 19_000, "understudy": 9_000, "understudy+capture": 8_000}
P50 = {"direct": 2.0, "nginx": 2.2, "understudy+capture": 2.5}


def row(upstream: str, peer: str, connections: int, turn: int, **fields: Any) -> dict[str, Any]:
    plain = {"requests": 1, "per_s": None, "p50_ms": None, "p99_ms": None, "errors": 0, "cpu_us": None, "rss_mb": None}
    plain["idle"] = None
    return {"upstream": upstream, "peer": peer, "connections": connections, "round": turn, **plain, **fields}


def test_ratios_are_of_medians_and_a_missing_peer_is_null(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Cores("0", "1", "0,1"), 3, 1)
    for turn, slow in enumerate((1.0, 1.0, 0.01)):
        bench.rows += [row("fixed", name, 16, turn, per_s=rate * slow) for name, rate in RATES.items()]
        bench.rows += [row("mlflow", name, 1, turn, p50_ms=p50 / slow) for name, p50 in P50.items()]
        for upstream in ("workers", FEATURES):
            bench.rows.append(row(upstream, "1 workers", 64, turn, per_s=10_000 * slow, cpu_us=50.0))
            bench.rows.append(row(upstream, "2 workers", 64, turn, per_s=15_000 * slow, cpu_us=55.0))
    write(bench, list(PEERS), tmp_path, [])
    assert json.loads((tmp_path / "bench-router.json").read_text()) == {
        "ratio_to_nginx": {
            "direct": 2.0, "haproxy": 0.95, "envoy": None, "envoy+capture": None, "aiohttp": None,
            "fastapi+httpx": None, "understudy": 0.45, "understudy+capture": 0.4,
            "understudy+capture on asyncio": None, "understudy+capture interpreted": None,
        },
        "added_p50_ratio_to_nginx": 2.5,
        "two_workers_throughput_ratio": 1.5,
        "two_workers_cpu_ratio": 1.1,
        "two_workers_throughput_ratio_features": 1.5,
        "two_workers_cpu_ratio_features": 1.1,
    }  # fmt: skip
    assert "| fixed | understudy+capture | 16 | 8,000 | 0.40 |" in (tmp_path / "bench-router.md").read_text()
    assert (tmp_path / "bench-router.png").stat().st_size > 1_000
    assert len(json.loads((tmp_path / "bench-router-rows.json").read_text())) == len(bench.rows)


def test_what_is_added_and_what_two_workers_do_is_compared_within_a_round(tmp_path: Path) -> None:
    """The machine gets slower from round to round, by more than anything that is compared."""
    bench = Bench(tmp_path, Cores("0", "1", "0,1"), 3, 1)
    for turn in range(3):
        added = {"direct": 0.0, "nginx": 0.1, "understudy+capture": 0.3}
        bench.rows += [row("mlflow", name, 1, turn, p50_ms=2.0 + 3 * turn + more) for name, more in added.items()]
        # What was measured of one alone is compared with nothing.
        bench.rows.append(row("mlflow", "nginx", 1, 3 + turn, p50_ms=100.0))
        for number in (1, 2):
            bench.rows.append(row("workers", f"{number} workers", 64, turn, per_s=number * 1_000.0 / (1 + turn)))
    assert added_p50_ratio(bench) == 3.0
    assert two_workers(bench, "workers", "per_s") == 2.0


def test_every_step_of_a_request_can_be_measured_by_itself(tmp_path: Path) -> None:
    found = measured(tmp_path)
    assert min(found.values()) > 0
    assert found["read one that is like the one before"] < found["read a request's head in full"]
