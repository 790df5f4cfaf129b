"""The ports in memory keep the same promises as those that talk to the world."""

from collections.abc import Callable

import pytest

from controller.edges.memory import MemoryNotifier, MemoryStore
from tests.ports.contracts.notifier import NotifierContract
from tests.ports.contracts.store import StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()


class TestMemoryNotifier(NotifierContract):
    @pytest.fixture
    def notifier(self) -> MemoryNotifier:
        return MemoryNotifier()

    @pytest.fixture
    def received(self, notifier: MemoryNotifier) -> Callable[[], list[str]]:
        return lambda: [f"{n.title}\n{n.text}" for sent in notifier.sent.values() for n in sent]
