"""The table, the plot and the files of a benchmark."""

import json
import operator
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.bench_router.__main__ import Bench

BASE = "nginx"
# The workers' part with requests of a hundred features.
FEATURES = "workers, 100 features"
OURS = "understudy+capture"


def ratio(one: float | None, other: float | None, digits: int = 3) -> float | None:
    """One by the other; None where one of them was not measured."""
    return None if one is None or not other else round(one / other, digits)


def added_p50_ratio(bench: "Bench") -> float | None:
    """What our router with capture adds to the median before MLflow's server by what nginx adds, each the median of the
    rounds' differences from no proxy at all.
    """
    theirs, ours = (bench.paired("mlflow", name, "direct", 1, "p50_ms", operator.sub) for name in (BASE, OURS))
    return None if theirs is None or theirs <= 0 else ratio(ours, theirs)


def two_workers(bench: "Bench", upstream: str, field: str) -> float | None:
    """Two workers by one, the median of the rounds' ratios."""
    found = bench.paired(upstream, "2 workers", "1 workers", 64, field, operator.truediv)
    return None if found is None else round(found, 3)


def summary(bench: "Bench", peers: list[str]) -> dict[str, Any]:
    """The figures that a release is held to: requests a second at 16 connections by nginx's; what our router with
    capture adds to the median before MLflow's server by what nginx adds; two workers by one.
    """
    base = bench.median("fixed", BASE, 16, "per_s")
    return {
        "ratio_to_nginx": {
            name: ratio(bench.median("fixed", name, 16, "per_s"), base) for name in peers if name != BASE
        },
        "added_p50_ratio_to_nginx": added_p50_ratio(bench),
        "two_workers_throughput_ratio": two_workers(bench, "workers", "per_s"),
        "two_workers_cpu_ratio": two_workers(bench, "workers", "cpu_us"),
        "two_workers_throughput_ratio_features": two_workers(bench, FEATURES, "per_s"),
        "two_workers_cpu_ratio_features": two_workers(bench, FEATURES, "cpu_us"),
    }


def _cell(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def table(bench: "Bench") -> str:
    """All medians as Markdown."""
    lines = [
        "| upstream | peer | connections | requests/s | of nginx | p50 ms | p99 ms | CPU µs/request | errors |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    seen = dict.fromkeys((row["upstream"], row["connections"], row["peer"]) for row in bench.rows)
    for upstream, connections, peer in sorted(seen, key=lambda key: (key[0] != "fixed", key[0], key[1])):
        per_s, p50, p99, cpu = (
            bench.median(upstream, peer, connections, field) for field in ("per_s", "p50_ms", "p99_ms", "cpu_us")
        )
        of_base = ratio(per_s, bench.median(upstream, BASE, connections, "per_s"), 2)
        errors = sum(
            row["errors"]
            for row in bench.rows
            if (row["upstream"], row["peer"], row["connections"]) == (upstream, peer, connections)
        )
        lines.append(
            f"| {upstream} | {peer} | {connections} | {_cell(per_s, ',.0f')} | {_cell(of_base, '.2f')} "
            f"| {_cell(p50, '.3f')} | {_cell(p99, '.2f')} | {_cell(cpu, '.1f')} | {errors} |"
        )
    return "\n".join(lines)


def plot(bench: "Bench", peers: list[str], path: Path) -> None:
    """Requests a second at 16 connections, every round a point, the median a bar."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    shown = [name for name in peers if name != "direct" and bench.median("fixed", name, 16, "per_s") is not None]
    figure, axes = plt.subplots(figsize=(8, 0.45 * len(shown) + 1.2), layout="constrained")
    for place, name in enumerate(reversed(shown)):
        rounds = [r["per_s"] for r in bench.rows if (r["upstream"], r["peer"], r["connections"]) == ("fixed", name, 16)]
        ours = name.startswith("understudy")
        axes.barh(place, bench.median("fixed", name, 16, "per_s") or 0, color="#2b6cb0" if ours else "#b8c2cc")
        axes.plot(rounds, [place] * len(rounds), "|", color="black", markersize=8)
    axes.set_yticks(range(len(shown)), reversed(shown))
    axes.set_xlabel("requests a second on one core, 16 connections")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def write(bench: "Bench", peers: list[str], output: Path, said: list[str]) -> None:
    """Everything into a folder, and to the terminal the table, the figures, and what is ``said`` of them."""
    output.mkdir(parents=True, exist_ok=True)
    found = summary(bench, peers)
    heading = (
        f"{platform.system()} {platform.release()}, {os.cpu_count()} cores, Python {platform.python_version()}; "
        f"medians of {bench.rounds} rounds of {bench.seconds:g} s, or more that are shorter"
    )
    text = f"{heading}\n\n{table(bench)}\n\n" + "".join(f"* {line}\n" for line in said)
    (output / "bench-router.md").write_text(text)
    (output / "bench-router-rows.json").write_text(json.dumps(bench.rows, indent=1))
    (output / "bench-router.json").write_text(json.dumps(found, indent=1) + "\n")
    plot(bench, peers, output / "bench-router.png")
    print(json.dumps(found, indent=1))
    print(text)
