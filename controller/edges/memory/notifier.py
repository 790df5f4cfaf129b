"""Messages in memory."""

from controller.status import Notice


class MemoryNotifier:
    """``Notifier`` that keeps what it was given: ``sent`` by key, a repeat beside its first."""

    def __init__(self) -> None:
        self.sent: dict[str, list[Notice]] = {}

    def send(self, notice: Notice) -> None:
        """Deliver ``notice``."""
        self.sent.setdefault(notice.key, []).append(notice)
