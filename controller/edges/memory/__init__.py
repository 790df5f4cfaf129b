"""Every port in memory: for tests, the simulator and backtests. Nothing here reads a clock or the network."""

from controller.edges.memory.notifier import MemoryNotifier
from controller.edges.memory.registry import MemoryRegistry
from controller.edges.memory.servers import MemoryWorkloads
from controller.edges.memory.source import MemorySource
from controller.edges.memory.store import MemoryStore
from controller.edges.memory.traffic import MemoryTraffic

__all__ = ["MemoryNotifier", "MemoryRegistry", "MemorySource", "MemoryStore", "MemoryTraffic", "MemoryWorkloads"]
