"""The simulator keeps the rules within a few runs, repeats itself exactly, and can tell a rule from its breach."""

import logging
from collections.abc import Iterator

import pytest

from tests.sim.campaign import Settings, campaign
from tests.sim.faults import Fault
from tests.sim.guards import GUARDS, Guard, without
from tests.sim.run import FAULTS, play

NONE: frozenset[Fault] = frozenset()
RUNS = 25
GUARD_RUNS = 120


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The loop warns of every failed call, and here most calls fail sooner or later."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_a_run_follows_from_its_seed_alone() -> None:
    assert play(7) == play(7)
    assert play(7) != play(8)


def test_rollouts_with_faults_keep_every_rule_and_come_to_their_end() -> None:
    summary = campaign(Settings(first=0, seeds=RUNS), quiet=True)
    assert [v.text for v in summary.violations] == []
    assert summary.runs == RUNS
    assert len(summary.fired) > len(FAULTS) / 2


def test_without_faults_an_equal_or_better_challenger_is_usually_promoted() -> None:
    results = [play(seed, NONE, truth) for truth in ("same", "better") for seed in range(7)]
    assert [r.text for r in results if r.rule] == []
    assert sum(r.end == "Promoted" for r in results) >= 5


def test_a_dead_challenger_behind_perfect_fallback_is_never_promoted_on_evidence() -> None:
    results = [play(seed, FAULTS, "dead") for seed in range(300, 315)]
    assert [r.text for r in results if r.rule] == []
    assert [r.seed for r in results if r.end == "Promoted" and r.reason != "ByHand"] == []
    assert sum(r.end == "RolledBack" for r in results) >= 10


@pytest.mark.parametrize("guard", GUARDS, ids=lambda g: g.name)
def test_a_loop_without_one_of_its_guards_is_caught(guard: Guard) -> None:
    for seed in range(guard.first, guard.first + GUARD_RUNS):
        with without(guard):
            caught = play(seed, guard.shown_by, guard.truth).rule
        if caught and not play(seed, guard.shown_by, guard.truth).rule:
            return
    pytest.fail(f"nobody misses {guard.name}: {guard.what}")


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
