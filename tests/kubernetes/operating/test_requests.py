"""Annotations that people ask by, and those that are no requests: many of them on one object."""

import json
import logging
from typing import Any

import pytest

from controller.edges.cluster.access import Access
from controller.edges.cluster.requests import OPEN, PREFIX, read, told
from controller.edges.cluster.resources import ROLLOUTS
from controller.status import Progress
from tests.kubernetes.operating.theatre import STAY, Theatre, until


def annotate(access: Access, theatre: Theatre, annotations: dict[str, str | None]) -> None:
    meta = {"namespace": theatre.namespace, "name": "late", "annotations": annotations}
    access.patch(ROLLOUTS, {"metadata": meta})


def asked(verb: str, at: int, **more: Any) -> str:
    return json.dumps({"verb": verb, "who": "ada", "why": "", "at": at, **more})


def test_annotations_that_are_no_requests_are_told_once_in_one_line(
    theatre: Theatre, access: Access, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "understudy.operator")

    def lines() -> list[str]:
        return [r.getMessage() for r in caplog.records if "is no request" in r.getMessage()]

    def passes(count: int) -> None:
        for _ in range(count):
            clock = theatre.status().clock
            until(lambda before=clock: theatre.status().clock > before, "another pass")

    theatre.operator()
    theatre.apply(steps=STAY)
    theatre.reaches(Progress.RUNNING, step=1)
    annotate(access, theatre, {f"{PREFIX}{number:03}": "" for number in range(3 * OPEN)})
    until(lines, "it is told")
    passes(3)
    (line,) = lines()
    assert line.endswith(f"and {3 * OPEN - 3} more")
    assert len(line) < 1_000
    annotate(access, theatre, {f"{PREFIX}000": "[1]"})
    until(lambda: len(lines()) == 2, "what is new is told")
    theatre.ask("abort")  # and nobody is kept from asking
    theatre.reaches(Progress.ROLLED_BACK)
    assert len(lines()) == 2


def test_of_many_requests_the_oldest_are_read_and_every_abort() -> None:
    annotations = {f"{PREFIX}{number:03}": asked("pause", 1_000 - number) for number in range(2 * OPEN)}
    annotations |= {f"{PREFIX}abort-{at}": asked("abort", at) for at in (5_000, 6_000)}
    requests, wrong = read(annotations)
    assert wrong == {}
    assert [r.at for r in requests] == [*range(1_001 - 2 * OPEN, 1_001 - OPEN), 5_000, 6_000]


def test_what_is_told_of_one_is_a_short_line() -> None:
    _, wrong = read({f"{PREFIX}a": json.dumps({"verb": "pause", "x\nforged: line " + "x" * 1_500: 1})})
    text = told(wrong)
    assert "\n" not in text
    assert len(text) < 400
    assert told({}) == ""
