"""What every Notifier promises. A subclass gives ``notifier`` and ``received``: a callable that returns the texts that
people have seen of it so far, oldest first."""

from collections.abc import Callable

import pytest

from controller.ports import Notifier
from controller.status import Notice


def notice(number: int = 1, **changes: str) -> Notice:
    fields = {
        "key": f"u/1/{number}",
        "title": f"flight-delay: 5 % → 25 % ({number})",
        "text": "errors +0.01 pp [−0.02, 0.03]; run http://mlflow.example/#/experiments/1/runs/abc",
    }
    return Notice.model_validate(fields | changes)


class NotifierContract:
    def test_title_text_and_link_reach_people(self, notifier: Notifier, received: Callable[[], list[str]]) -> None:
        notifier.send(notice())
        (seen,) = received()
        for part in (notice().title, notice().text, "http://mlflow.example/#/experiments/1/runs/abc"):
            assert part in seen

    def test_notices_come_in_the_order_they_were_sent(
        self, notifier: Notifier, received: Callable[[], list[str]]
    ) -> None:
        for number in range(5):
            notifier.send(notice(number))
        assert [f"({number})" in seen for number, seen in enumerate(received())] == [True] * 5

    @pytest.mark.parametrize("level", ["info", "warning", "error"])
    def test_every_level_is_delivered(self, notifier: Notifier, received: Callable[[], list[str]], level: str) -> None:
        notifier.send(notice(level=level))
        assert len(received()) == 1
