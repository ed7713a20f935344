"""The event store on PostgreSQL."""

from chain.postgres.locks import PostgresLocks
from chain.postgres.store import PostgresStore

__all__ = ["PostgresLocks", "PostgresStore"]
