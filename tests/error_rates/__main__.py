"""``python -m tests.error_rates [--runs N] [--jobs N]``: the error rates of the whole rule, measured."""

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from controller.status import Progress, Reason
from tests.error_rates import classical, jobs, journalled, peers, returning, single
from tests.error_rates.report import Median, Row, text, write
from tests.error_rates.world import Ending, Truth
from tests.sim.campaign import unhurried_collection

HARMS = (
    Truth("CTR −5 %", {"ctr": 0.95}),
    Truth("CVR −7 %", {"cvr": 0.93}),
    Truth("errors +.05 pp", {"errors": 1.5}),
    Truth("slow +.25 pp", {"slow": 1.25}),
)
OURS = "understudy"
HARM = (Reason.SERVICE_HARM, Reason.OUTCOME_HARM, Reason.SEGMENT_HARM)


class Campaign:
    """Runs scenarios over all cores and says how far it is."""

    def __init__(self, runs: int, harmful: int, journalled: int, jobs: int, seed: int) -> None:
        self.runs, self.harmful, self.journalled, self.seed = runs, harmful, journalled, seed
        self.pool = multiprocessing.get_context("spawn").Pool(jobs, initializer=unhurried_collection)

    def over(self, name: str, act: Callable[[Any], Any], given: Iterable[Any], count: int) -> list[Any]:
        """``act`` of everything given, in order."""
        started, done = time.monotonic(), []
        for result in self.pool.imap(act, given, chunksize=8):
            done.append(result)
            if len(done) % max(1, count // 10) == 0:
                print(f"{name}: {len(done)}/{count}, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        return done

    def seeds(self, scenario: int, runs: int | None = None) -> range:
        """Seeds of one scenario; no two scenarios share any."""
        return range(self.seed + scenario * 10**7, self.seed + scenario * 10**7 + (runs or self.runs))

    def rollouts(self, scenario: int, truth: Truth, runs: int) -> list[Ending]:
        """Whole rollouts under ``truth``."""
        return self.over(truth.name, jobs.rollout, [(s, truth) for s in self.seeds(scenario, runs)], runs)


def _honest(campaign: Campaign) -> list[Row]:
    endings = campaign.rollouts(1, Truth("A/A"), campaign.runs)
    n = len(endings)
    return [
        Row("A/A", "rolled back", OURS, sum(e.rolled_back for e in endings), n, 0.02),
        Row("A/A", "promoted", OURS, sum(e.promoted for e in endings), n, 0.98, at_most=False),
        Row("A/A", "rolled back", "naive z", sum(peers.naive_z(e.drawn) == "RollBack" for e in endings), n),
        Row("A/A", "rolled back", "threshold", sum(peers.threshold(e.drawn) == "RollBack" for e in endings), n),
    ]


def _harmful(campaign: Campaign) -> list[Row]:
    rows = []
    for number, truth in enumerate(HARMS, start=2):
        endings = campaign.rollouts(number, truth, campaign.harmful)
        n, promoted = len(endings), sum(e.promoted for e in endings)
        rows += [
            Row(f"{truth.name} (at the margin)", "promoted", OURS, promoted, n, 0.02),
            Row(truth.name, "promoted", "naive z", sum(peers.naive_z(e.drawn) == "Promote" for e in endings), n),
            Row(truth.name, "promoted", "threshold", sum(peers.threshold(e.drawn) == "Promote" for e in endings), n),
        ]
    return rows


def _losing(campaign: Campaign) -> list[Row]:
    endings = campaign.rollouts(6, Truth("3 % of challenger units lost", lost=0.03), campaign.harmful)
    n, name = len(endings), "3 % of challenger units lost"
    mismatch = sum(e.rolled_back and e.reason is Reason.SAMPLE_RATIO_MISMATCH for e in endings)
    return [
        Row(name, "ended as SampleRatioMismatch", OURS, mismatch, n, 0.99, at_most=False),
        Row(name, "promoted", OURS, sum(e.promoted for e in endings), n, 0.005),
        Row(name, "advanced at or after the tick that shows it", OURS, sum(e.advanced for e in endings), n, 0.0),
    ]


def _special(campaign: Campaign) -> list[Row]:
    back = campaign.over("returning users", returning.play, campaign.seeds(7), campaign.runs)
    wrong = sum(p is Progress.ROLLING_BACK for p in back)
    alarms = campaign.over("GMV at 1 %", single.gmv_false_alarm, campaign.seeds(8), campaign.runs)
    return [
        Row("returning users, icc .9, 8 steps, A/A", "rolled back", OURS, wrong, len(back), 0.02),
        Row("GMV at 1 % weight, A/A", "false alarm", OURS, sum(alarms), len(alarms), 0.01),
    ]


def _classical(campaign: Campaign) -> list[Row]:
    name, runs = "one metric, equal arms", 20_000
    return [
        Row(name, f"rejected for harm at {looks} looks", "O'Brien-Fleming bounds for 5",
            classical.rejections(looks, runs, campaign.seed), runs)
        for looks in (classical.PLANNED, 120)
    ]  # fmt: skip


def _journalled(campaign: Campaign) -> list[Row]:
    name = "A/A through journals and engine"
    given = [(seed, journalled.Rates()) for seed in campaign.seeds(11, campaign.journalled)]
    found = campaign.over(name, jobs.journalled_rollout, given, len(given))
    ticks = sum(r.ticks for r in found)
    harm = sum(r.reason in HARM for r in found)
    return [
        Row(name, "rolled back for harm", OURS, harm, len(found), 0.02),
        Row(name, "promoted", OURS, sum(r.progress is Progress.PROMOTING for r in found), len(found)),
        Row(name, "ticks that differ between the two engines", OURS, sum(r.different for r in found), ticks, 0.0),
    ]


def _detection(campaign: Campaign) -> list[Median]:
    said = []
    for number, weight, errors, slow in ((9, 1.0, 185, 180), (10, 5.0, 220, 180)):
        given = [(s, weight) for s in campaign.seeds(number)]
        for name, act, claim in (
            ("errors .1 → 2 %", jobs.errors_found, errors),
            ("latency +30 %", jobs.slowness_found, slow),
        ):
            found = campaign.over(f"{name} at {weight:g} %", act, given, len(given))
            said.append(
                Median(name, weight, float(np.median(found)), float(np.quantile(found, 0.9)), len(found), claim)
            )
    return said


def main() -> int:
    """All scenarios; exit code 1 where a promise does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3000, help="replications of each scenario")
    parser.add_argument("--harm-runs", type=int, default=1000, help="replications of each harmful truth")
    parser.add_argument("--journalled", type=int, default=200, help="replications through journals and engine")
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count(), help="processes")
    parser.add_argument("--seed", type=int, default=0, help="first seed")
    parser.add_argument("--out", type=Path, default=Path("build"), help="folder for the table, the plot and the JSON")
    asked = parser.parse_args()
    campaign = Campaign(asked.runs, asked.harm_runs, asked.journalled, asked.jobs, asked.seed)
    medians = _detection(campaign)
    rows: list[Row] = []
    for part in (_classical, _honest, _harmful, _losing, _special, _journalled):
        rows += part(campaign)
        write(asked.out, rows, medians)  # an hour's work is not lost with its last part
    print(text(rows, medians))
    return 0 if all(r.holds for r in rows) and all(m.holds for m in medians) else 1


if __name__ == "__main__":
    sys.exit(main())
