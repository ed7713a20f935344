"""The event store on PostgreSQL."""

from chain.postgres.leases import PostgresLeases
from chain.postgres.locks import PostgresLocks
from chain.postgres.store import PostgresStore

__all__ = ["PostgresLeases", "PostgresLocks", "PostgresStore"]
