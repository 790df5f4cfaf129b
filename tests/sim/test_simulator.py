"""The simulator keeps the rules within a few runs, repeats itself exactly, and can tell a rule from its breach."""

import pytest

from tests.sim.campaign import Settings, campaign
from tests.sim.faults import Fault
from tests.sim.guards import GUARDS, Guard, without
from tests.sim.run import FAULTS, play

NONE: frozenset[Fault] = frozenset()
RUNS = 25
GUARD_RUNS = 120


def test_a_run_follows_from_its_seed_alone() -> None:
    assert play(7) == play(7)
    assert play(7) != play(8)


def test_rollouts_with_faults_keep_every_rule_and_come_to_their_end() -> None:
    summary = campaign(Settings(first=0, seeds=RUNS), quiet=True)
    assert [v.text for v in summary.violations] == []
    assert summary.runs == RUNS
    assert len(summary.fired) > len(FAULTS) / 2


def test_without_faults_an_equal_or_better_challenger_is_usually_promoted() -> None:
    results = [play(seed, NONE, truth) for truth in ("same", "better") for seed in range(10)]
    assert [r.text for r in results if r.rule] == []
    assert sum(r.end == "Promoted" for r in results) >= 8


@pytest.mark.parametrize("truth", ["dead", "no-clicks"])
def test_a_challenger_that_answers_or_earns_nothing_is_never_promoted_on_evidence(truth: str) -> None:
    results = [play(seed, FAULTS, truth) for seed in range(300, 310)]
    assert [r.text for r in results if r.rule] == []
    promoted = [r.seed for r in results if r.end == "Promoted" and r.reason != "ByHand"]
    assert truth != "dead" or promoted == []


@pytest.mark.parametrize("guard", GUARDS, ids=lambda g: g.name)
def test_a_loop_without_one_of_its_guards_is_caught(guard: Guard) -> None:
    with without(guard):
        caught = next((r for r in (play(seed, guard.shown_by) for seed in range(GUARD_RUNS)) if r.rule), None)
    assert caught is not None, f"nobody misses {guard.name}: {guard.what}"
    with_it = play(caught.seed, guard.shown_by)
    assert with_it.text == ""


def test_a_violation_says_how_to_see_it_again() -> None:
    guard = GUARDS[0]
    settings = Settings(first=0, seeds=20, guard=guard.name)
    found = campaign(settings, stop_at=1, quiet=True).violations[0]
    assert settings.command(found.seed) == f"python -m tests.sim --seed {found.seed} --without {guard.name}"
    with without(guard):
        assert play(found.seed).text == found.text


def test_restricted_faults_are_part_of_the_command() -> None:
    settings = Settings(first=0, seeds=1, faults=frozenset({Fault.CRASH, Fault.DROP}))
    assert settings.command(3) == "python -m tests.sim --seed 3 --faults crash,drop"
