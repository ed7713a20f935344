"""The event store in memory, for simulations and tests."""

from chain.memory.store import MemoryStore

__all__ = ["MemoryStore"]
