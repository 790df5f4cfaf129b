"""Slack on a cluster: its Secret may be missing, wrong or renewed, and the rollout is watched all the same."""

import base64
from collections.abc import Iterator

import pytest

from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.resources import SECRETS
from controller.status import Progress, Reason
from tests.kubernetes.operating.theatre import NAMESPACES, STAY, until
from tests.kubernetes.operating.wired import SERVED, WiredTheatre
from tests.ports.test_notifier import Webhook

NOTIFY = {"slack": {"secretRef": {"name": "slack", "key": "url"}}}


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    made = Webhook()
    yield made
    made.close()


def secret(access: Access, namespace: str, url: str, key: str = "url") -> None:
    data = {key: base64.b64encode(url.encode()).decode()}
    access.apply(SECRETS, {"metadata": {"namespace": namespace, "name": "slack"}, "data": data})


def at_half(theatre: WiredTheatre, **spec: Node) -> None:
    theatre.apply(steps=STAY, servers=SERVED, **spec)
    theatre.reaches(Progress.RUNNING, step=1)
    until(lambda: theatre.weight() == 5000, "the weight of the step is served")


def unsent(theatre: WiredTheatre) -> str:
    """What Events say of Slack."""
    return " ".join(e["note"] for e in theatre.events() if e["reason"] == "SlackUnavailable")


def test_a_live_rollout_whose_secret_is_gone_is_watched_by_the_next_controller_too(
    wired: WiredTheatre, webhook: Webhook
) -> None:
    secret(wired.access, wired.namespace, webhook.url)
    operator = wired.operator()
    at_half(wired, notify=NOTIFY)
    until(lambda: len(webhook.accepted) == 2, "Slack is told of both steps")
    assert operator.stop()
    wired.access.delete(SECRETS, wired.namespace, "slack")
    wired.operator(idle_s=1)
    status = wired.reaches(Progress.ROLLED_BACK, errors=0.6, requests=200)
    assert status.reason in (Reason.SERVICE_HARM, Reason.CHALLENGER_UNAVAILABLE)
    assert wired.weight() == 0
    until(lambda: f"the Secret slack in {wired.namespace} does not exist" in unsent(wired), "an Event tells it")
    reasons = {"ServiceHarm", "ChallengerUnavailable"}
    until(lambda: reasons & {e["reason"] for e in wired.events()}, "Events tell the rest")
    assert len(wired.status().notices) == 2
    secret(wired.access, wired.namespace, webhook.url)
    until(lambda: not wired.status().notices and len(webhook.accepted) == 4, "what waited is sent")


@pytest.fixture
def old() -> Iterator[Webhook]:
    made = Webhook()
    yield made
    made.close()


def test_a_renewed_secret_is_read_when_the_old_address_fails(
    wired: WiredTheatre, webhook: Webhook, old: Webhook
) -> None:
    secret(wired.access, wired.namespace, old.url)
    wired.operator()
    at_half(wired, notify=NOTIFY)
    until(lambda: len(old.accepted) == 2, "the old address is told")
    for _ in range(20):
        old.answers.put((404, {}, b"no_service"))
    secret(wired.access, wired.namespace, webhook.url)
    wired.ask("pause")
    until(lambda: any("paused" in text for text in webhook.accepted), "the new address is told")
    assert (len(old.accepted), unsent(wired)) == (2, "")


@pytest.mark.parametrize(
    ("url", "key", "said"),
    [("https://a", "other", "has no key url"), ("xoxb-token", "url", "must hold the webhook's address")],
)
def test_a_secret_without_an_address_is_told_and_begins_nothing_later(
    wired: WiredTheatre, url: str, key: str, said: str
) -> None:
    secret(wired.access, wired.namespace, url, key)
    wired.operator()
    at_half(wired, notify=NOTIFY)
    until(lambda: said in unsent(wired), "an Event tells it")
    assert "xoxb" not in unsent(wired)


def test_slack_that_is_declared_in_the_middle_is_told_of_what_comes_then(wired: WiredTheatre, webhook: Webhook) -> None:
    secret(wired.access, wired.namespace, webhook.url)
    wired.operator()
    at_half(wired)
    until(lambda: not wired.status().notices, "the steps are told")
    at_half(wired, notify=NOTIFY)
    until(lambda: wired.status().generation == 2, "it is seen")
    wired.ask("pause")
    until(lambda: len(webhook.accepted) == 1 and "paused" in webhook.accepted[0], "Slack is told")


def test_a_secret_of_another_namespace_is_looked_for_in_the_own(wired: WiredTheatre, webhook: Webhook) -> None:
    other = f"other-{wired.namespace[-8:]}"
    wired.access.create(NAMESPACES, {"metadata": {"name": other}})
    secret(wired.access, other, webhook.url)
    wired.operator()
    at_half(wired, notify=NOTIFY)
    until(lambda: f"the Secret slack in {wired.namespace} does not exist" in unsent(wired), "an Event tells it")
    assert webhook.accepted == []
