"""The event store in memory, for simulations and tests."""

from chain.memory.leases import MemoryLeases
from chain.memory.locks import MemoryLocks
from chain.memory.store import MemoryStore

__all__ = ["MemoryLeases", "MemoryLocks", "MemoryStore"]
