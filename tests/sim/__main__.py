"""``python -m tests.sim``: simulated rollouts with faults.

Exit code 0: nothing was violated, and every kind of fault happened often enough. 1: otherwise. 2: bad usage.
"""

import argparse
import logging
import sys
from collections import Counter

from tests.sim.campaign import LEAST_RUNS, LEAST_SHARE, Settings, Summary, campaign, cores
from tests.sim.faults import Fault
from tests.sim.guards import BY_NAME, GUARDS, without
from tests.sim.plan import TRUTHS
from tests.sim.run import FAULTS, Run
from tests.sim.safety import Violation
from tests.sim.world import START


def main() -> int:
    """Read the arguments and run."""
    args = _arguments()
    faults = _faults(args.faults)
    if args.guards:
        return _guards(args.first, args.seeds, args.jobs)
    if args.seed is not None:
        return _one(args.seed, faults, args.truth, args.without)
    settings = Settings(args.first, args.seeds, faults, args.without, args.jobs, args.truth)
    summary = campaign(settings)
    _report(summary)
    rare = summary.rare() if faults == FAULTS and summary.runs >= LEAST_RUNS else []
    if rare:
        print(f"happened in fewer than {LEAST_SHARE:.0%} of the runs: {', '.join(rare)}")
    return 1 if summary.violations or rare else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description="Simulated rollouts with faults.")
    parser.add_argument("--seeds", type=int, default=200, help="how many runs")
    parser.add_argument("--first", type=int, default=0, help="seed of the first run")
    parser.add_argument("--seed", type=int, help="one run, told tick by tick")
    parser.add_argument("--faults", help=f"only these, with commas: {', '.join(Fault)}; none: no faults at all")
    parser.add_argument("--truth", choices=list(TRUTHS), help="how the challenger really behaves; any if not named")
    parser.add_argument("--without", choices=sorted(BY_NAME), help="take this guard out of the loop")
    parser.add_argument("--guards", action="store_true", help="take out each guard in turn; each must be missed")
    parser.add_argument("--jobs", type=int, default=cores(), help="processes")
    return parser.parse_args()


def _faults(text: str | None) -> frozenset[Fault]:
    if text is None:
        return FAULTS
    names = [name for name in text.split(",") if name and name != "none"]
    unknown = sorted(set(names) - set(Fault))
    if unknown:
        sys.stderr.write(f"--faults: {', '.join(unknown)} is unknown; known are {', '.join(Fault)}\n")
        raise SystemExit(2)
    return frozenset(Fault(name) for name in names)


def _report(summary: Summary) -> None:
    print(f"{summary.runs} rollouts, {summary.ticks} ticks, {summary.virtual_s / 3600:.1f} simulated hours")
    shares = ", ".join(f"{f} {summary.fired[str(f)] / max(summary.runs, 1):.0%}" for f in Fault)
    print(f"runs in which a fault happened: {shares}")
    for truth in sorted({t for t, _ in summary.ends}):
        ends: Counter[str] = Counter()
        for (name, end), count in summary.ends.items():
            ends[end] += count if name == truth else 0
        print(f"  {truth}: " + ", ".join(f"{e} {n}" for e, n in ends.most_common() if n))
    print(f"violated: {len(summary.violations)}")
    print(f"{summary.per_minute:.0f} runs a minute and core; {summary.wall_s:.0f} s")


def _guards(first: int, seeds: int, jobs: int) -> int:
    """Each guard is taken out until a checker misses it."""
    missed = []
    for guard in GUARDS:
        summary = campaign(Settings(first, seeds, guard.shown_by, guard.name, jobs, guard.truth), stop_at=1, quiet=True)
        if summary.violations:
            found = min(summary.violations, key=lambda r: r.seed)
            print(f"{guard.name}: caught by {found.rule} at seed {found.seed}, {summary.runs} runs: {found.text}")
        else:
            missed.append(guard.name)
            print(f"{guard.name}: not missed in {summary.runs} runs")
        sys.stdout.flush()
    return 1 if missed else 0


def _one(seed: int, faults: frozenset[Fault], truth: str | None, guard: str | None) -> int:
    if guard is not None:
        with without(BY_NAME[guard]):
            return _one(seed, faults, truth, None)
    logging.basicConfig(level=logging.WARNING, format="          %(message)s", stream=sys.stdout)
    run = Run(seed, faults, truth)
    world = run.world
    print(f"truth {world.truth.name}, faults {', '.join(sorted(world.faults.kinds)) or 'none'}")
    print(world.rollout.spec.model_dump_json(by_alias=True, exclude_defaults=True))
    said = ""
    before = Counter(world.faults.fired)

    def tell() -> None:
        nonlocal said, before
        status, happened = world.status, world.faults.fired - before
        line = f"{status.progress} step {status.step + 1} {status.decision} {status.reason}: {status.message}"
        if line != said or happened:
            faults_text = ", ".join(f"{f} {n}" for f, n in sorted(happened.items()))
            weights = sorted(set(world.traffic.weights()))
            print(f"{(world.true - START) / 1e6:7.1f} s  {line}; weights {weights}  {faults_text}")
        said, before = line, Counter(world.faults.fired)

    try:
        run.play(tell)
    except Violation as violation:
        print(f"VIOLATED {violation}")
        return 1
    print(f"ended {world.status.progress}, {run.ticks} ticks")
    return 0


if __name__ == "__main__":
    sys.exit(main())
